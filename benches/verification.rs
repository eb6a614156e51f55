//! What the parts cost: time and allocations. `make bench`; nothing here is a test.

use std::{
    hint::black_box,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use clerk_authz::{
    authz::{Instance, InstanceSerial, Instances, Question, TokenCache, Verdict, Verifier},
    emulator::{Emulator, TokenSpec, World},
    explain::Steps,
    identity::Timestamp,
    keys::{Keyring, VerifyingKey},
    policy::{Host, Path, Policy},
    token,
    upstream_assertion::{
        AssertionKey, AssertionKeyStore, AssertionSettings, Assertions, Claims, Generation,
        KeepingKeys,
    },
};
use divan::{AllocProfiler, Bencher};
use futures_util::FutureExt;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

struct Prepared {
    /// The first is asked about alone.
    tokens: Vec<String>,
    now: Timestamp,
    pem: String,
    issuer: String,
}

/// A good token of an organization's member, as Clerk makes it, and what verifies it.
fn prepared() -> &'static Prepared {
    static PREPARED: std::sync::LazyLock<Prepared> = std::sync::LazyLock::new(|| {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let addr = ([127, 0, 0, 1], 0).into();
            let clerk = Emulator::start(World::default_world(), addr, Arc::new(move || now))
                .await
                .expect("starts");
            let instance = &clerk.instances()[0];
            let spec = TokenSpec::session("user_alice").in_organization("acme");
            let prepared = Prepared {
                tokens: (0..2_000)
                    .map(|_| instance.mint(&spec).expect("a token"))
                    .collect(),
                now,
                pem: instance.public_key_pem(),
                issuer: instance.issuer().as_str().to_owned(),
            };
            clerk.stop().await;
            prepared
        })
    });
    &PREPARED
}

fn token() -> &'static str {
    &prepared().tokens[0]
}

fn verifier(cache_bytes: u64) -> Verifier {
    let key = VerifyingKey::from_pem(&prepared().pem).expect("a key");
    let instance = Instance {
        serial: InstanceSerial::next(),
        name: "default".parse().expect("a name"),
        issuer: prepared().issuer.parse().expect("an issuer"),
        publishable_key: None,
        authorized_parties: vec!["http://localhost:3000".into()],
        audiences: Vec::new(),
        keyring: Arc::new(Keyring::pinned(key)),
        directory: None,
        user_directory: None,
        sign_ins: None,
        providers: Vec::new(),
        revocations: None,
        has_webhooks: false,
    };
    Verifier::new(
        Instances::new(vec![Arc::new(instance)]).expect("one"),
        TokenCache::new(cache_bytes),
        Duration::from_secs(5),
    )
}

fn ask(verifier: &Verifier) {
    ask_about(verifier, token());
}

fn ask_about(verifier: &Verifier, token: &str) {
    let question = Question::about(token);
    let mut steps = Steps::off();
    let answer = verifier
        .verify_session(&question, prepared().now, &mut steps)
        .now_or_never();
    assert!(matches!(black_box(answer), Some(Ok(Verdict::Accepted(_)))));
}

/// One RSA-2048 signature with a key that is parsed: the floor of a new token.
#[divan::bench]
fn signature_with_a_parsed_key(bencher: Bencher<'_, '_>) {
    let key = VerifyingKey::from_pem(&prepared().pem).expect("a key");
    let text = token();
    let token = token::parse(text, &mut Steps::off()).expect("well-formed");
    bencher.bench_local(|| {
        let parts = token.signature_parts(text);
        assert!(key.verify(black_box(parts.signing_input), parts.signature));
    });
}

/// The same by jsonwebtoken's own verifier, which takes the key apart at each call.
#[divan::bench]
fn signature_by_jsonwebtoken(bencher: Bencher<'_, '_>) {
    let der = VerifyingKeyDer::of(&prepared().pem);
    let key = jsonwebtoken::DecodingKey::from_rsa_der(&der.0);
    let (message, signature) = token().rsplit_once('.').expect("a signature");
    bencher.bench_local(|| {
        let algorithm = jsonwebtoken::Algorithm::RS256;
        let good = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, algorithm);
        assert!(black_box(good).expect("it can be told"));
    });
}

struct VerifyingKeyDer(Vec<u8>);

impl VerifyingKeyDer {
    fn of(pem: &str) -> Self {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Self(STANDARD.decode(body).expect("base64"))
    }
}

/// Form, header, claims: everything of a new token but the signature.
#[divan::bench]
fn parse_and_read_claims(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| {
        let token = token::parse(black_box(token()), &mut Steps::off()).expect("good");
        black_box(token.into_claimed(&mut Steps::off()).expect("good"))
    });
}

#[divan::bench]
fn verify_a_new_token(bencher: Bencher<'_, '_>) {
    let verifier = verifier(0);
    bencher.bench_local(|| ask(&verifier));
}

/// Tokens that differ, all remembered: what the cache adds to a new token.
#[divan::bench(args = [0, 64 << 20], sample_count = 10, sample_size = 1)]
fn verify_2000_new_tokens(bencher: Bencher<'_, '_>, cache_bytes: u64) {
    let tokens = &prepared().tokens;
    bencher
        .counter(divan::counter::ItemsCount::new(tokens.len()))
        .with_inputs(|| verifier(cache_bytes))
        .bench_local_refs(|verifier| {
            for token in tokens {
                ask_about(verifier, token);
            }
        });
}

#[divan::bench]
fn verify_a_cached_token(bencher: Bencher<'_, '_>) {
    let verifier = verifier(1 << 20);
    ask(&verifier);
    bencher.bench_local(|| ask(&verifier));
}

/// What each request behind a proxy pays: a usual path, one with a letter of another script, a long
/// one, one of two readings, and one that is refused.
#[divan::bench(args = [
    "/orgs/org_2abcdefghijklmnop/invoices/inv_2024?page=2&sort=due",
    "/files/%C3%9Cbersicht%202024.pdf",
    "/api/v1/organizations/org_2abcdefghijklmnop/projects/prj_2abcdefghijklmnop/environments/production/deployments/latest",
    "/files/a%2Fb",
    "/public/..;/admin",
])]
fn parse_a_path(bencher: Bencher<'_, '_>, target: &str) {
    bencher.bench_local(|| match Path::parse(black_box(target).as_bytes()) {
        Ok(path) => path.segments().map(str::len).sum(),
        Err(refused) => refused.text().len(),
    });
}

#[divan::bench(args = ["api.example.com", "API.Example.com:443", "[2001:db8::1]:8080"])]
fn parse_a_host(bencher: Bencher<'_, '_>, authority: &str) {
    bencher.bench_local(|| {
        Host::parse(black_box(authority).as_bytes()).map(|host| host.as_str().len())
    });
}

/// The last of so many routes: the cost goes with the length of the path.
#[divan::bench(args = [10, 10_000])]
fn find_a_route(bencher: Bencher<'_, '_>, routes: usize) {
    let text: String = (0..routes)
        .map(|n| {
            format!(
                "  - {{name: r{n}, path: '/api/v1/r{n}/{{id}}/items/**', methods: [GET, POST], \
                 access: {{permission: 'org:r{n}:read'}}}}\n"
            )
        })
        .collect();
    let policy = Policy::parse(&format!("version: 1\nroutes:\n{text}")).expect("a policy");
    let wanted = format!("r{}", routes - 1);
    let path = ["api", "v1", &wanted, "7", "items", "8"];
    bencher.bench_local(|| {
        let route = policy.route(Some("api.example.com"), black_box("GET"), black_box(&path));
        assert_eq!(route.map(|route| &*route.name), Some(&*wanted));
    });
}

/// Keys of upstream assertions in memory: the first of them, and no other.
#[derive(Debug, Default)]
struct KeptKeys(Mutex<Vec<AssertionKey>>);

impl AssertionKeyStore for KeptKeys {
    fn keys(&self) -> KeepingKeys<'_, Vec<AssertionKey>> {
        let keys = self.0.lock().expect("not poisoned").clone();
        Box::pin(async { Ok(keys) })
    }

    fn add<'a>(&'a self, key: &'a AssertionKey) -> KeepingKeys<'a, ()> {
        self.0.lock().expect("not poisoned").push(key.clone());
        Box::pin(async { Ok(()) })
    }

    fn forget(&self, _: Generation) -> KeepingKeys<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// What a usual assertion says, and what makes it.
fn upstream_assertions(cache_bytes: u64) -> (Assertions, Claims<'static>) {
    let settings = AssertionSettings {
        issuer: "clerk-authz".into(),
        default_audience: None,
        rotation: Duration::from_secs(86_400),
        cache_bytes,
    };
    let now = prepared().now;
    let store = Arc::new(KeptKeys::default());
    let assertions = Assertions::new(settings, store, Arc::new(move || now));
    let made = assertions.prepare().now_or_never();
    made.expect("at once").expect("a key");
    let claims = Claims {
        audience: "orders",
        subject: "user_2abcdefghijklmnopqrstuvwxyz",
        token_type: "session_token",
        session_id: Some("sess_2abcdefghijklmnopqrstuvwxyz"),
        actor: None,
        client_id: None,
        organization_id: Some("org_2abcdefghijklmnopqrstuvwxyz"),
        organization_role: Some("org:admin"),
        method: "GET",
        host: "api.example.com",
    };
    (assertions, claims)
}

const DECISION_ID: &str = "0123456789abcdef";

/// The floor of an assertion that is not cached: one signature by the same library over as many bytes.
#[divan::bench]
fn upstream_bare_signature_es256(bencher: Bencher<'_, '_>) {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref()).expect("a key");
    let input = [b'a'; 600];
    bencher.bench_local(|| key.sign(&random, black_box(&input)).expect("signed"));
}

/// What the other algorithm would cost.
#[divan::bench]
fn upstream_bare_signature_ed25519(bencher: Bencher<'_, '_>) {
    let key = Ed25519KeyPair::generate().expect("a key");
    let input = [b'a'; 600];
    bencher.bench_local(|| key.sign(black_box(&input)));
}

#[divan::bench]
fn upstream_assertion_signed(bencher: Bencher<'_, '_>) {
    let (assertions, claims) = upstream_assertions(0);
    bencher.bench_local(|| {
        let made = assertions.assertion(black_box(&claims), DECISION_ID, prepared().now);
        made.expect("made")
    });
}

/// The same with a cache in which it is not found, but kept.
#[divan::bench]
fn upstream_assertion_signed_and_kept(bencher: Bencher<'_, '_>) {
    let (assertions, claims) = upstream_assertions(8 << 20);
    let mut number = 0_u64;
    bencher.bench_local(|| {
        number += 1;
        let subject = format!("user_{number:028}");
        let claims = Claims {
            subject: &subject,
            ..claims
        };
        let made = assertions.assertion(black_box(&claims), DECISION_ID, prepared().now);
        made.expect("made")
    });
}

#[divan::bench]
fn upstream_assertion_cached(bencher: Bencher<'_, '_>) {
    let (assertions, claims) = upstream_assertions(8 << 20);
    assertions.assertion(&claims, DECISION_ID, prepared().now);
    bencher.bench_local(|| {
        let made = assertions.assertion(black_box(&claims), DECISION_ID, prepared().now);
        made.expect("made")
    });
}
