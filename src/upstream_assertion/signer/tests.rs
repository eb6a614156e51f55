use std::sync::{Mutex, atomic::AtomicBool};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::*;
use crate::upstream_assertion::{
    AssertionKey, Generation, KeepingKeys,
    claims::ALICE,
    ring::{PUBLISHED_AFTER, PUBLISHED_BEFORE},
};

const START: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);

/// Kept keys of all replicas, while they can be reached.
#[derive(Debug, Default)]
struct Kept {
    keys: Mutex<Vec<AssertionKey>>,
    is_down: AtomicBool,
}

impl Kept {
    fn answer<T>(&self, of: impl FnOnce(&mut Vec<AssertionKey>) -> T) -> Result<T, KeyStoreError> {
        if self.is_down.load(Relaxed) {
            return Err(KeyStoreError("it is down".to_owned()));
        }
        Ok(of(&mut self.keys.lock().expect("not poisoned")))
    }
}

impl AssertionKeyStore for Kept {
    fn keys(&self) -> KeepingKeys<'_, Vec<AssertionKey>> {
        Box::pin(async { self.answer(|keys| keys.clone()) })
    }

    fn add<'a>(&'a self, key: &'a AssertionKey) -> KeepingKeys<'a, ()> {
        Box::pin(async {
            self.answer(|keys| {
                if keys.iter().all(|kept| kept.generation != key.generation) {
                    keys.push(key.clone());
                }
            })
        })
    }

    fn forget(&self, last: Generation) -> KeepingKeys<'_, ()> {
        Box::pin(async move { self.answer(|keys| keys.retain(|kept| kept.generation > last)) })
    }
}

/// Replicas on one database, by one clock.
struct Scene {
    kept: Arc<Kept>,
    now: Arc<AtomicI64>,
}

impl Scene {
    fn new() -> Self {
        Self {
            kept: Arc::default(),
            now: Arc::new(AtomicI64::new(START.unix_millis())),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.now.load(Relaxed))
    }

    fn set(&self, now: Timestamp) {
        self.now.store(now.unix_millis(), Relaxed);
    }

    fn replica(&self, cache_bytes: u64) -> Assertions {
        let settings = AssertionSettings {
            issuer: "clerk-authz".into(),
            default_audience: None,
            rotation: DAY,
            cache_bytes,
        };
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || Timestamp::from_unix_millis(now.load(Relaxed)));
        Assertions::new(settings, Arc::clone(&self.kept) as _, clock)
    }

    fn ask(&self, replica: &Assertions, claims: &Claims<'_>, decision_id: &str) -> Arc<str> {
        let made = replica.assertion(claims, decision_id, self.now());
        made.expect("it can be made")
    }
}

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

fn part(assertion: &str, index: usize) -> Value {
    let part = assertion.split('.').nth(index).expect("three parts");
    serde_json::from_slice(&decoded(part)).expect("JSON")
}

/// Whether a key that is published verifies it.
fn verifies(assertion: &str, key_set: &str) -> bool {
    let set: Value = serde_json::from_str(key_set).expect("JSON");
    let kid = &part(assertion, 0)["kid"];
    let keys = set["keys"].as_array().expect("keys");
    let Some(key) = keys.iter().find(|key| key["kid"] == *kid) else {
        return false;
    };
    let text = |name: &str| decoded(key[name].as_str().expect("text"));
    let point = [&[4][..], &text("x"), &text("y")].concat();
    let (signed, signature) = assertion.rsplit_once('.').expect("a signature");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decoded(signature))
        .is_ok()
}

#[tokio::test]
async fn replicas_that_start_at_once_sign_with_one_key() {
    let scene = Scene::new();
    let [first, second] = [scene.replica(0), scene.replica(0)];
    let (one, other) = tokio::join!(first.prepare(), second.prepare());
    one.expect("a key");
    other.expect("a key");

    let assertions = [&first, &second].map(|replica| scene.ask(replica, &ALICE, "dec_1"));
    for assertion in &assertions {
        for replica in [&first, &second] {
            assert!(verifies(assertion, &replica.key_set().expect("keys")));
        }
    }
    assert_eq!(scene.kept.keys.lock().expect("keys").len(), 1);
}

#[tokio::test]
async fn a_key_is_published_before_it_signs_and_until_its_last_assertion_has_ended() {
    let scene = Scene::new();
    let replica = scene.replica(1 << 20);
    replica.prepare().await.expect("a key");
    let of_the_first = scene.ask(&replica, &ALICE, "dec_1");
    let due = START.plus(DAY);

    scene.set(due.minus(PUBLISHED_BEFORE));
    replica.refresh().await.expect("read");
    assert_eq!(replica.stats().published_keys, 2);
    scene.set(due.minus(SECOND));
    let last_of_the_first = scene.ask(&replica, &ALICE, "dec_2");
    assert_eq!(part(&last_of_the_first, 0), part(&of_the_first, 0));
    // The young assertion in the cache is of a key that signs no more.
    scene.set(due);
    let of_the_second = scene.ask(&replica, &ALICE, "dec_3");
    assert_ne!(part(&of_the_second, 0), part(&of_the_first, 0));

    scene.set(due.plus(PUBLISHED_AFTER).minus(SECOND));
    replica.refresh().await.expect("read");
    for assertion in [&last_of_the_first, &of_the_second] {
        assert!(verifies(assertion, &replica.key_set().expect("keys")));
    }
    scene.set(due.plus(PUBLISHED_AFTER));
    replica.refresh().await.expect("read");
    let key_set = replica.key_set().expect("keys");
    assert!(verifies(&of_the_second, &key_set));
    assert!(!verifies(&last_of_the_first, &key_set));
    let kept = scene.kept.keys.lock().expect("keys");
    let generations: Vec<_> = kept.iter().map(|key| key.generation).collect();
    assert_eq!(generations, [Generation(2)], "a private key goes, too");
}

#[tokio::test]
async fn without_the_database_the_known_keys_sign_and_later_ones_take_over() {
    let scene = Scene::new();
    scene.kept.is_down.store(true, Relaxed);
    let replica = scene.replica(0);
    let error = replica.prepare().await.expect_err("no key");
    assert!(matches!(error, KeysUnusable::Store(_)), "{error}");
    assert_eq!(replica.assertion(&ALICE, "dec_1", START), None);
    assert_eq!(replica.key_set(), None);

    scene.kept.is_down.store(false, Relaxed);
    replica.prepare().await.expect("a key");
    let before = scene.ask(&replica, &ALICE, "dec_1");
    scene.kept.is_down.store(true, Relaxed);
    scene.set(START.plus(3 * DAY));
    replica.refresh().await.expect_err("it is down");
    let meanwhile = scene.ask(&replica, &ALICE, "dec_2");
    assert_eq!(part(&meanwhile, 0), part(&before, 0));
    assert!(verifies(&meanwhile, &replica.key_set().expect("keys")));

    scene.kept.is_down.store(false, Relaxed);
    replica.refresh().await.expect("read");
    scene.set(START.plus(3 * DAY).plus(PUBLISHED_BEFORE));
    let after = scene.ask(&replica, &ALICE, "dec_3");
    assert_ne!(part(&after, 0), part(&before, 0));
    assert!(verifies(&after, &replica.key_set().expect("keys")));
    assert_eq!(replica.stats().readings, (2, 2));
}

#[tokio::test]
async fn deleted_keys_are_replaced_and_published_no_more() {
    let scene = Scene::new();
    let replica = scene.replica(1 << 20);
    replica.prepare().await.expect("a key");
    let leaked = scene.ask(&replica, &ALICE, "dec_1");

    scene.kept.keys.lock().expect("keys").clear();
    replica.refresh().await.expect("read");

    assert!(!verifies(&leaked, &replica.key_set().expect("keys")));
    let after = scene.ask(&replica, &ALICE, "dec_2");
    assert!(verifies(&after, &replica.key_set().expect("keys")));
}

#[tokio::test]
async fn an_assertion_is_handed_out_again_for_half_its_life_and_only_for_an_equal_request() {
    let scene = Scene::new();
    let replica = scene.replica(1 << 20);
    replica.prepare().await.expect("a key");
    let first = scene.ask(&replica, &ALICE, "dec_1");
    assert_eq!(part(&first, 1)["jti"], "dec_1");

    scene.set(START.plus(15 * SECOND).minus(Duration::from_millis(1)));
    assert_eq!(scene.ask(&replica, &ALICE, "dec_2"), first);
    let elsewhere = Claims {
        host: "other.example.com",
        ..ALICE
    };
    let elsewhere = scene.ask(&replica, &elsewhere, "dec_3");
    assert_eq!(part(&elsewhere, 1)["host"], "other.example.com");

    scene.set(START.plus(15 * SECOND));
    let second = scene.ask(&replica, &ALICE, "dec_4");
    assert_eq!(part(&second, 1)["jti"], "dec_4");
    // Nor one from the future, after the clock was set back.
    scene.set(START);
    assert_eq!(
        part(&scene.ask(&replica, &ALICE, "dec_5"), 1)["jti"],
        "dec_5"
    );
    let count = |wanted| replica.stats().outcomes[wanted as usize].1;
    assert_eq!(
        [Outcome::Cached, Outcome::Signed, Outcome::Failed].map(count),
        [1, 4, 0]
    );
}

#[tokio::test]
async fn what_would_be_too_long_for_a_header_is_not_vouched_for() {
    let scene = Scene::new();
    let replica = scene.replica(0);
    replica.prepare().await.expect("a key");
    let method = "M".repeat(5_000);
    let claims = Claims {
        method: &method,
        ..ALICE
    };
    assert_eq!(replica.assertion(&claims, "dec_1", START), None);
    let claims = Claims {
        method: &method[..3_000],
        ..ALICE
    };
    assert!(
        replica
            .assertion(&claims, "dec_2", START)
            .is_some_and(|text| text.len() < 8_000)
    );
}

#[tokio::test]
async fn the_cache_is_bounded_and_can_be_switched_off() {
    const MOST: u64 = 16 << 10;
    let scene = Scene::new();
    let replica = scene.replica(MOST);
    replica.prepare().await.expect("a key");
    for number in 0..200 {
        let subject = format!("user_{number}");
        let claims = Claims {
            subject: &subject,
            ..ALICE
        };
        scene.ask(&replica, &claims, "dec_1");
    }
    let cache = replica.stats().cache;
    assert!(
        cache.bytes <= MOST && cache.entries > 0 && cache.evictions > 100,
        "{cache:?}"
    );

    let off = scene.replica(0);
    off.prepare().await.expect("a key");
    let [one, other] = ["dec_1", "dec_2"].map(|id| scene.ask(&off, &ALICE, id));
    assert_ne!(one, other);
    assert_eq!(off.stats().cache, AssertionCacheStats::default());
}
