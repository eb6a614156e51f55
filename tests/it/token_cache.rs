//! The token cache changes the cost of an answer and never the answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use clerk_authz::{
    authz::{
        Instance as Configured, InstanceSerial, Instances, Question, TokenCache, Verdict, Verifier,
    },
    credential::Credential,
    emulator::{Emulator, TokenSpec, World},
    explain::Steps,
    identity::Timestamp,
    keys::{Clock, FetchError, JwksSource, Keyring, Lookup, RefreshSettings},
};
use futures_util::FutureExt;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, Reason, assert_denied, loopback};

#[tokio::test]
async fn a_cached_token_is_judged_anew_each_time() {
    let fixture = Fixture::start().await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    assert!(fixture.verify(&token).await.is_ok());
    assert!(fixture.verify(&token).await.is_ok());
    let request = clerk_authz::door::grpc::proto::VerifySessionRequest {
        authorized_parties: vec!["https://other.example".into()],
        ..crate::support::about(&token)
    };
    assert_denied(
        fixture.ask(request).await,
        Reason::AuthorizedPartyMismatch,
        "narrowed",
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_cached_token_dies_with_its_key() {
    let fixture = Fixture::start_with(&[
        ("CLERK_AUTHZ_KEYS_REFRESH", "1s"),
        ("CLERK_AUTHZ_KEYS_COOLDOWN", "1s"),
    ])
    .await;
    let mut spec = TokenSpec::session("user_alice");
    spec.lifetime_seconds = Some(600);
    let token = fixture.mint(&spec);
    assert!(fixture.verify(&token).await.is_ok());

    fixture.instance().rotate_key(true, false).expect("rotated");

    crate::support::eventually("the removed key dies under traffic", async || {
        fixture.verify(&token).await.is_err()
    })
    .await;
    assert_denied(
        fixture.verify(&token).await,
        Reason::KeyUnknown,
        "removed key",
    );
    fixture.stop().await;
}

#[tokio::test]
async fn size_0_switches_the_cache_off() {
    let fixture = Fixture::start_with(&[("CLERK_AUTHZ_CACHE_BYTES", "0")]).await;
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    for _ in 0..3 {
        assert!(fixture.verify(&token).await.is_ok());
    }
    let text = fixture.metrics().await;
    assert!(text.contains("clerk_authz_signatures_total{} 3"), "{text}");
    fixture.stop().await;
}

#[tokio::test]
async fn the_cache_is_bounded_in_bytes() {
    let fixture = Fixture::start_with(&[("CLERK_AUTHZ_CACHE_BYTES", "64KiB")]).await;
    for _ in 0..300 {
        let token = fixture.mint(&TokenSpec::session("user_alice").in_organization("acme"));
        assert!(fixture.verify(&token).await.is_ok());
    }
    let stats = fixture.service.verifier().stats().cache;
    assert!(stats.bytes <= 64 * 1024, "{stats:?}");
    assert!(stats.entries > 10 && stats.entries < 200, "{stats:?}");
    assert!(stats.evictions > 50, "{stats:?}");
    fixture.stop().await;
}

/// The emulator's current document, without HTTP.
struct Document(Arc<std::sync::Mutex<Vec<u8>>>);

impl JwksSource for Document {
    fn fetch(
        &self,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + '_>> {
        let document = self.0.lock().expect("not poisoned").clone();
        Box::pin(async move {
            if document.is_empty() {
                Err(FetchError::Status(503))
            } else {
                Ok(document)
            }
        })
    }
}

/// What happens, one after the other.
#[derive(Clone, Debug)]
enum Event {
    Ask { token: usize, party: bool },
    Pass { seconds: i64 },
    Keys { first: bool, second: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..8_usize, any::<bool>()).prop_map(|(token, party)| Event::Ask { token, party }),
        2 => (-3..40_i64).prop_map(|seconds| Event::Pass { seconds }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(first, second)| Event::Keys { first, second }),
    ]
}

struct Prepared {
    tokens: Vec<String>,
    documents: [Vec<u8>; 2],
    issuer: String,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// Tokens of two keys with different lives, and the documents of both keys.
fn world() -> &'static Prepared {
    static WORLD: std::sync::LazyLock<Prepared> = std::sync::LazyLock::new(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let clock: clerk_authz::emulator::Clock =
                Arc::new(|| Timestamp::from_unix_seconds(1_800_000_000));
            let clerk = Emulator::start(World::default_world(), loopback(), clock)
                .await
                .expect("starts");
            let instance = &clerk.instances()[0];
            let mint = |lifetime: i64, later: i64| {
                let mut spec = TokenSpec::session("user_alice").in_organization("acme");
                spec.lifetime_seconds = Some(lifetime);
                spec.issued_in_seconds = later;
                instance.mint(&spec).expect("a token")
            };
            let document = async || {
                let (_, body) =
                    crate::support::get(instance.addr(), "/.well-known/jwks.json").await;
                body.into_bytes()
            };
            let mut tokens: Vec<String> = [60, 600, 30].map(|life| mint(life, 0)).to_vec();
            tokens.push(mint(60, 30));
            let first = document().await;
            instance.rotate_key(true, false).expect("rotated");
            tokens.extend([60, 600].map(|life| mint(life, 0)));
            let second = document().await;
            let mut forged = TokenSpec::session("user_alice");
            forged.forged = true;
            tokens.push(instance.mint(&forged).expect("a token"));
            tokens.push("junk".to_owned());
            let issuer = instance.issuer().as_str().to_owned();
            clerk.stop().await;
            Prepared {
                tokens,
                documents: [first, second],
                issuer,
            }
        })
    });
    &WORLD
}

/// The answers to a sequence of events, with a cache of this size.
async fn answers(events: &[Event], cache_bytes: u64) -> Vec<String> {
    let world = world();
    let seconds = Arc::new(AtomicI64::new(1_800_000_000));
    let clock: Clock = {
        let seconds = Arc::clone(&seconds);
        Arc::new(move || Timestamp::from_unix_seconds(seconds.load(Ordering::SeqCst)))
    };
    let document = Arc::new(std::sync::Mutex::new(world.documents[0].clone()));
    let refresh = RefreshSettings {
        refresh: Duration::from_secs(10),
        // Nothing is left to chance: the runs are compared.
        jitter: 0.0,
        ..RefreshSettings::default()
    };
    let source = Arc::new(Document(Arc::clone(&document)));
    let keyring = Arc::new(Keyring::refreshed(
        source,
        refresh,
        None,
        Arc::clone(&clock),
    ));
    let stop = CancellationToken::new();
    let owner = tokio::spawn(Arc::clone(&keyring).run(stop.clone()));
    let instance = Configured {
        serial: InstanceSerial::next(),
        name: "default".parse().expect("a name"),
        issuer: world.issuer.parse().expect("an issuer"),
        publishable_key: None,
        authorized_parties: Vec::new(),
        audiences: Vec::new(),
        keyring: Arc::clone(&keyring),
        directory: None,
        user_directory: None,
        sign_ins: None,
        providers: Vec::new(),
        revocations: None,
        has_webhooks: false,
    };
    let verifier = Verifier::new(
        Instances::new(vec![Arc::new(instance)]).expect("one"),
        TokenCache::new(cache_bytes),
        Duration::from_secs(5),
    );
    let mut answers = Vec::new();
    for event in events {
        match event {
            Event::Ask { token, party } => {
                let parties = [if *party {
                    "http://localhost:3000"
                } else {
                    "https://x.example"
                }
                .to_owned()];
                let question = Question {
                    credential: Credential::Token(&world.tokens[*token]),
                    authorized_parties: &parties,
                    audiences: &[],
                    ..Question::about("")
                };
                let answer = verifier
                    .verify_session(&question, clock(), &mut Steps::off())
                    .await;
                answers.push(match answer {
                    Ok(Verdict::Accepted(verified)) => format!("{:?}", verified.session),
                    Ok(Verdict::Machine(verified)) => format!("{:?}", verified.machine),
                    Ok(Verdict::Denied(reason)) => reason.name().to_owned(),
                    Err(cannot_tell) => cannot_tell.reason().name().to_owned(),
                });
            }
            Event::Pass { seconds: by } => {
                seconds.fetch_add(*by, Ordering::SeqCst);
                let by = Duration::from_secs(u64::try_from(*by).unwrap_or(0));
                tokio::time::sleep(by).await;
            }
            Event::Keys { first, second } => {
                *document.lock().expect("not poisoned") = match (first, second) {
                    (true, true) | (false, true) => world.documents[1].clone(),
                    (true, false) => world.documents[0].clone(),
                    (false, false) => Vec::new(),
                };
            }
        }
    }
    stop.cancel();
    owner.await.expect("ended");
    // Settle: a look-up with a key that is known waits for nothing.
    let _: Option<Lookup> = keyring.find(None, clock()).now_or_never();
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Advisories 7 and 13: the same requests, times and keys have the same answers, whether tokens
    /// are remembered or not.
    #[test]
    fn cache_on_and_off_give_the_same_answers(events in prop::collection::vec(event(), 1..60)) {
        world();
        let with = runtime().block_on(answers(&events, 1 << 20));
        let small = runtime().block_on(answers(&events, 3_000));
        let without = runtime().block_on(answers(&events, 0));
        prop_assert_eq!(&with, &without);
        prop_assert_eq!(&small, &without);
    }
}
