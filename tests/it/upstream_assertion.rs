//! What an upstream is told under our signature: by whom, about whom, by which door, with which key.

use clerk_authz::{
    emulator::{Emulator, Kind, TokenSpec, World},
    identity::Timestamp,
    server::{self, Limits, StartError},
    store::SqlStore,
    upstream_assertion::{AssertionKey, AssertionKeyStore, Generation, KeyMaterial},
};
use envoy_types::ext_authz::v3::pb::{HttpResponse, OkHttpResponse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::{
    envoy::{asking, check_at, http},
    forward_auth::{Original, ask},
    policy::{PolicyFile, routes_of},
    support::{
        Fixture,
        database::{Database, Place, ms, on_each_engine},
        directory::TestClock,
        eventually, http_client, loopback, offline_clerk, settings_for,
    },
};

const HEADER: &str = "x-clerk-authz-assertion";

const ROUTES: &str = r#"
  - {name: orders, path: /orders, access: signed_in, accept: [session_token, m2m_token], upstream: orders}
  - {name: admin, path: /admin, access: {role: admin}, upstream: "https://admin.internal"}
  - {name: shop, path: /shop, access: public, upstream: orders}
  - {name: silent, path: /silent, access: signed_in}
  - {name: none, path: /none, access: signed_in, upstream: none}
  - {name: blind, path: /blind, access: public, credentials: ignored}
"#;

/// The service with a database, and what has to live as long.
struct Scene {
    fixture: Fixture,
    policy: PolicyFile,
    place: Place,
}

impl Scene {
    async fn start(routes: &str, more: &[(&str, &str)]) -> Self {
        let place = Place::sqlite();
        let policy = PolicyFile::routes(routes);
        let url = place.url();
        let mut variables = vec![
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
            ("CLERK_AUTHZ_DATABASE_URL", &*url),
        ];
        variables.extend(more);
        Self {
            fixture: Fixture::start_with(&variables).await,
            policy,
            place,
        }
    }

    fn bearer(&self, spec: &TokenSpec) -> String {
        bearer(&self.fixture, spec)
    }

    fn alice(&self) -> String {
        self.bearer(&TokenSpec::session("user_alice").in_organization("acme"))
    }

    async fn forwarded(&self, path: &str, more: &[(&str, &str)]) -> Option<String> {
        forwarded(&self.fixture, path, more).await
    }

    /// What Envoy is told of a request that goes on.
    async fn checked(&self, path: &str, authorization: &str, spoofed: &[&str]) -> OkHttpResponse {
        let mut request = http(path, authorization);
        for name in spoofed {
            let value = "mallory".to_owned();
            request.headers.insert((*name).to_owned(), value);
        }
        let asked = asking(Some(request), &[]);
        let answer = check_at(self.fixture.service.grpc_addr(), asked).await;
        match answer.expect("an answer").http_response {
            Some(HttpResponse::OkResponse(ok)) => ok,
            other => panic!("{path}: {other:?}"),
        }
    }

    async fn stop(self) {
        self.fixture.stop().await;
    }
}

fn bearer(fixture: &Fixture, spec: &TokenSpec) -> String {
    format!("Bearer {}", fixture.mint(spec))
}

/// What a proxy gets at `/forward-auth` for a request that goes on.
async fn forwarded(fixture: &Fixture, path: &str, more: &[(&str, &str)]) -> Option<String> {
    let addr = fixture.service.http_addr();
    let answer = ask(addr, &Original::get(path), more).await;
    assert_eq!(answer.status(), 200, "{path}");
    let values: Vec<_> = answer.headers().get_all(HEADER).into_iter().collect();
    assert!(values.len() <= 1, "{values:?}");
    Some(values.first()?.to_str().expect("ASCII").to_owned())
}

/// The assertion among the headers that Envoy sets.
fn set_in(ok: &OkHttpResponse) -> Option<&str> {
    let headers = ok
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref());
    let mut set = headers.filter(|header| header.key == HEADER);
    set.next().map(|header| &*header.value)
}

async fn key_set(fixture: &Fixture) -> JwkSet {
    let addr = fixture.service.http_addr();
    let url = format!("http://{addr}/.well-known/jwks.json");
    let answer = http_client().get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().expect("ASCII").to_owned();
    assert_eq!(header("content-type"), "application/jwk-set+json");
    assert_eq!(header("cache-control"), "public, max-age=300");
    let text = answer.text().await.expect("a body");
    assert!(!text.contains("\"d\""), "a private key: {text}");
    serde_json::from_str(&text).expect("a key set")
}

/// The claims, by another library than the one that signs; `None` where no published key verifies them.
fn claims(assertion: &str, keys: &JwkSet, now: Timestamp) -> Option<Value> {
    let header = jsonwebtoken::decode_header(assertion).expect("a header");
    assert_eq!(header.typ.as_deref(), Some("clerk-authz-assertion+jwt"));
    assert_eq!(header.alg, Algorithm::ES256);
    let key = keys.find(&header.kid.expect("a kid"))?;
    let key = DecodingKey::from_jwk(key).expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    // By the test's clock, below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<Value>(assertion, &key, &validation)
        .ok()?
        .claims;
    let seconds = |name: &str| claims[name].as_i64().expect("a time");
    assert_eq!(seconds("exp") - seconds("iat"), 30, "{claims}");
    let left = seconds("exp") - now.unix_seconds();
    assert!((14..=30).contains(&left), "{left} s left: {claims}");
    Some(claims)
}

fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// Without what differs from one to the next.
fn lasting(mut claims: Value) -> Value {
    let all = claims.as_object_mut().expect("claims");
    for name in ["iat", "exp", "jti", "sid"] {
        all.remove(name);
    }
    claims
}

#[tokio::test]
async fn both_doors_vouch_for_who_sends_a_request_to_the_upstream_of_its_route() {
    let scene = Scene::start(ROUTES, &[]).await;
    let keys = key_set(&scene.fixture).await;
    let alice = scene.alice();
    let mut by_bob = TokenSpec::session("user_alice").in_organization("acme");
    by_bob.impersonated_by = Some("user_bob".to_owned());
    let by_bob = scene.bearer(&by_bob);
    let expected = json!({
        "iss": "clerk-authz", "aud": "https://admin.internal", "sub": "user_alice",
        "token_type": "session_token", "org_id": "org_acme", "org_role": "org:admin",
        "method": "GET", "host": "app.example.com",
    });

    let by_forward_auth = scene
        .forwarded("/admin", &[("authorization", &alice)])
        .await;
    let said = claims(&by_forward_auth.expect("vouched for"), &keys, now()).expect("good");
    assert_eq!(said["sid"], sid_in(&alice), "{said}");
    assert_eq!(said["jti"].as_str().map(str::len), Some(16), "{said}");
    assert_eq!(lasting(said), expected);

    let ok = scene.checked("/admin", &alice, &[]).await;
    let by_check = claims(set_in(&ok).expect("vouched for"), &keys, now()).expect("good");
    let mut of_envoy = expected.clone();
    of_envoy["host"] = json!("app.example");
    assert_eq!(lasting(by_check), of_envoy);

    // On a public route, too, where somebody is named; and who acts in the user's place is said.
    let shop = scene
        .forwarded("/shop", &[("authorization", &by_bob)])
        .await;
    let shop = lasting(claims(&shop.expect("vouched for"), &keys, now()).expect("good"));
    assert_eq!(shop["act"], json!({"sub": "user_bob"}), "{shop}");
    assert_eq!(shop["aud"], "orders", "{shop}");
    scene.stop().await;
}

/// Of the session token in `Bearer …`.
fn sid_in(bearer: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = bearer.split('.').nth(1).expect("a payload");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice::<Value>(&payload).expect("JSON")["sid"].clone()
}

#[tokio::test]
async fn a_machine_is_vouched_for_as_one() {
    let scene = Scene::start(ROUTES, &[]).await;
    let machine = scene.bearer(&TokenSpec::of(Kind::M2m));
    let assertion = scene
        .forwarded("/orders", &[("authorization", &machine)])
        .await;
    let keys = key_set(&scene.fixture).await;
    let said = claims(&assertion.expect("vouched for"), &keys, now()).expect("good");
    let subject = said["sub"].as_str().expect("text").to_owned();
    assert!(subject.starts_with("mch_"), "{said}");
    let expected = json!({
        "iss": "clerk-authz", "aud": "orders", "sub": subject, "token_type": "m2m_token",
        "method": "GET", "host": "app.example.com",
    });
    assert_eq!(lasting(said), expected);
    scene.stop().await;
}

#[tokio::test]
async fn where_nobody_is_named_or_no_upstream_nothing_is_vouched_for() {
    let scene = Scene::start(ROUTES, &[]).await;
    let alice = scene.alice();
    let by_alice: &[(&str, &str)] = &[("authorization", &alice)];
    assert_eq!(scene.forwarded("/shop", &[]).await, None, "nobody");
    assert!(scene.forwarded("/shop", by_alice).await.is_some());
    assert_eq!(scene.forwarded("/silent", by_alice).await, None);
    assert_eq!(scene.forwarded("/none", by_alice).await, None);
    let denied = ask(
        scene.fixture.service.http_addr(),
        &Original::get("/orders"),
        &[],
    )
    .await;
    assert_eq!(denied.status(), 401);
    assert!(!denied.headers().contains_key(HEADER));
    scene.stop().await;

    // A setting names one for all that name none.
    let more = [
        ("CLERK_AUTHZ_UPSTREAM_ASSERTIONS", "https://shop.internal"),
        ("CLERK_AUTHZ_UPSTREAM_ISSUER", "https://authz.internal"),
    ];
    let scene = Scene::start(ROUTES, &more).await;
    let alice = scene.alice();
    let by_alice: &[(&str, &str)] = &[("authorization", &alice)];
    let keys = key_set(&scene.fixture).await;
    for (path, audience) in [("/silent", "https://shop.internal"), ("/orders", "orders")] {
        let assertion = scene.forwarded(path, by_alice).await.expect("vouched for");
        let said = claims(&assertion, &keys, now()).expect("good");
        assert_eq!(said["aud"], audience, "{path}: {said}");
        assert_eq!(said["iss"], "https://authz.internal", "{path}: {said}");
    }
    assert_eq!(scene.forwarded("/none", by_alice).await, None);
    scene.stop().await;
}

#[tokio::test]
async fn what_a_client_sends_under_its_name_never_goes_on() {
    let scene = Scene::start(ROUTES, &[]).await;
    let alice = scene.alice();
    let spellings = [
        "x-clerk-authz-assertion",
        "x_clerk_authz_assertion",
        "x-clerk_authz-assertion",
        "x.clerk.authz.assertion",
    ];
    for (path, sender, is_set) in [
        ("/silent", &*alice, false),
        ("/orders", &*alice, true),
        ("/shop", "", false),
        ("/blind", &*alice, false),
    ] {
        let ok = scene.checked(path, sender, &spellings).await;
        assert_eq!(set_in(&ok).is_some(), is_set, "{path}");
        assert_ne!(set_in(&ok), Some("mallory"), "{path}");
        for spelling in spellings {
            // What is set takes the place of every other; the rest is removed.
            let is_removed = ok.headers_to_remove.iter().any(|name| name == spelling);
            let is_overwritten = is_set && spelling == HEADER;
            assert_ne!(is_removed, is_overwritten, "{path}: {spelling}");
        }
    }
    scene.stop().await;
}

#[tokio::test]
async fn without_a_database_a_policy_that_names_an_upstream_is_refused() {
    let clerk = offline_clerk().await;
    let policy = PolicyFile::routes(ROUTES);
    let settings = settings_for(&clerk, &[("CLERK_AUTHZ_POLICY", policy.text())]);
    let started = server::start(&settings, server::system_clock()).await;
    let error = started.err().expect("it does not start");
    assert!(matches!(error, StartError::Policy { .. }), "{error}");
    let text = error.to_string();
    for part in ["\"orders\" (line 4)", "CLERK_AUTHZ_DATABASE_URL"] {
        assert!(text.contains(part), "{text}");
    }

    // Nor is it put in force later.
    let silent = routes_of("  - {name: silent, path: /silent, access: public}\n");
    policy.replace(&silent);
    let more = [
        ("CLERK_AUTHZ_POLICY", policy.text()),
        ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
    ];
    let settings = settings_for(&clerk, &more);
    let fixture = Fixture::start_on(clerk, &settings).await;
    policy.replace(&routes_of(ROUTES));
    const REFUSED: &str =
        "clerk_authz_policy_reloads_total{kind=\"in_force\",outcome=\"refused\"} 1";
    eventually("it is refused", async || {
        fixture.metrics().await.contains(REFUSED)
    })
    .await;
    assert_eq!(forwarded(&fixture, "/silent", &[]).await, None);
    let url = format!(
        "http://{}/.well-known/jwks.json",
        fixture.service.http_addr()
    );
    let answer = http_client().get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 404, "there are no keys");
    fixture.stop().await;
}

#[tokio::test]
async fn a_key_is_made_when_a_policy_first_names_an_upstream_and_lasts() {
    let silent = "  - {name: silent, path: /silent, access: signed_in}\n";
    let scene = Scene::start(silent, &[]).await;
    let alice = scene.alice();
    let by_alice: &[(&str, &str)] = &[("authorization", &alice)];
    assert_eq!(scene.forwarded("/silent", by_alice).await, None);
    let kept = "SELECT COUNT(*) FROM upstream_keys";
    assert_eq!(scene.place.number(kept).await, 0, "nobody asked for one");

    let named = silent.replace("signed_in", "signed_in, upstream: orders");
    scene.policy.replace(&routes_of(&named));
    eventually("it is vouched for", async || {
        scene.forwarded("/silent", by_alice).await.is_some()
    })
    .await;
    assert_eq!(scene.place.number(kept).await, 1);
    let before = key_set(&scene.fixture).await;
    let Scene {
        fixture,
        policy,
        place,
    } = scene;
    fixture.stop().await;

    // The same key after a restart.
    let clerk = offline_clerk().await;
    let url = place.url();
    let more = [
        ("CLERK_AUTHZ_POLICY", policy.text()),
        ("CLERK_AUTHZ_DATABASE_URL", &*url),
    ];
    let settings = settings_for(&clerk, &more);
    let fixture = Fixture::start_on(clerk, &settings).await;
    assert_eq!(key_set(&fixture).await, before);
    fixture.stop().await;
}

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

#[tokio::test]
async fn keys_rotate_on_schedule_and_the_old_one_is_good_in_the_overlap_alone() {
    let clock = TestClock::at_now();
    let clerk = Emulator::start(World::default_world(), loopback(), clock.as_clock()).await;
    let clerk = clerk.expect("an offline Clerk");
    let (place, policy) = (Place::sqlite(), PolicyFile::routes(ROUTES));
    let (url, pem) = (place.url(), clerk.instances()[0].public_key_pem());
    let settings = settings_for(
        &clerk,
        &[
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
            ("CLERK_AUTHZ_DATABASE_URL", &url),
            ("CLERK_AUTHZ_UPSTREAM_KEY_ROTATION", "1d"),
            // Clerk's keys are not what grows old here.
            ("CLERK_JWT_KEY", &pem),
        ],
    );
    let fixture = Fixture::start_under(Limits::default(), clerk, &settings, &clock).await;
    let vouched = async || {
        let alice = bearer(&fixture, &TokenSpec::session("user_alice"));
        let assertion = forwarded(&fixture, "/orders", &[("authorization", &alice)]).await;
        assertion.expect("vouched for")
    };
    let of_the_first = vouched().await;
    let is_good = async |assertion: &str| {
        let header = jsonwebtoken::decode_header(assertion).expect("a header");
        let keys = key_set(&fixture).await;
        keys.find(&header.kid.expect("a kid")).is_some()
    };
    let published = async |count: usize| {
        eventually("the keys were looked at", async || {
            key_set(&fixture).await.keys.len() == count
        })
        .await;
    };
    assert!(claims(&of_the_first, &key_set(&fixture).await, clock.now()).is_some());

    clock.step(DAY - HOUR);
    published(2).await;
    let kid = |assertion: &str| {
        jsonwebtoken::decode_header(assertion)
            .expect("a header")
            .kid
    };
    let last_of_the_first = vouched().await;
    assert_eq!(
        kid(&last_of_the_first),
        kid(&of_the_first),
        "it is published only"
    );

    clock.step(HOUR);
    let of_the_second = vouched().await;
    assert_ne!(kid(&of_the_second), kid(&of_the_first));
    assert!(claims(&of_the_second, &key_set(&fixture).await, clock.now()).is_some());
    assert!(is_good(&last_of_the_first).await, "in the overlap");

    clock.step(HOUR);
    published(1).await;
    assert!(!is_good(&last_of_the_first).await, "after it");
    assert!(is_good(&of_the_second).await);
    eventually("the old private key is gone", async || {
        place.number("SELECT COUNT(*) FROM upstream_keys").await == 1
    })
    .await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_vouch_with_one_key() {
    let database = Database::on(Place::postgres().await).await;
    let policy = PolicyFile::routes(ROUTES);
    let clerk = offline_clerk().await;
    let url = database.place.url();
    let settings = settings_for(
        &clerk,
        &[
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
            ("CLERK_AUTHZ_DATABASE_URL", &url),
        ],
    );
    let (first, second) = tokio::join!(
        server::start(&settings, server::system_clock()),
        Fixture::start_on(clerk, &settings),
    );
    let (first, second) = (first.expect("it starts"), second);

    let alice = bearer(&second, &TokenSpec::session("user_alice"));
    let original = Original::get("/orders");
    let by_alice = [("authorization", &*alice)];
    let of_the_first = ask(first.http_addr(), &original, &by_alice).await;
    let of_the_first = of_the_first.headers()[HEADER]
        .to_str()
        .expect("ASCII")
        .to_owned();
    let keys = key_set(&second).await;
    assert_eq!(keys.keys.len(), 1);
    assert!(
        claims(&of_the_first, &keys, now()).is_some(),
        "the other publishes its key"
    );
    first.stop().await;
    second.stop().await;
}

fn key(generation: i64, byte: u8) -> AssertionKey {
    AssertionKey {
        generation: Generation(generation),
        signs_from: ms(generation * 1_000),
        material: KeyMaterial::of(vec![byte; 138]),
    }
}

async fn kept(store: &SqlStore) -> Vec<(Generation, Timestamp, Vec<u8>)> {
    let keys = store.keys().await.expect("read");
    let keys = keys.into_iter();
    keys.map(|key| {
        (
            key.generation,
            key.signs_from,
            key.material.expose().to_vec(),
        )
    })
    .collect()
}

on_each_engine! {
    async fn of_a_generation_one_key_is_kept_whichever_replica_was_first(database: Database) {
        let replica = database.replica().await;
        assert_eq!(kept(&database.store).await, []);
        let (ours, theirs) = (key(1, 1), key(1, 2));
        let (one, other) = tokio::join!(database.store.add(&ours), replica.add(&theirs));
        one.expect("answered");
        other.expect("answered");
        let first = kept(&database.store).await;
        assert_eq!(first.len(), 1);
        assert_eq!(kept(&replica).await, first);

        replica.add(&key(2, 3)).await.expect("kept");
        let both = kept(&database.store).await;
        assert_eq!(both, [first[0].clone(), (Generation(2), ms(2_000), vec![3; 138])]);
        database.store.forget(Generation(1)).await.expect("forgotten");
        assert_eq!(kept(&replica).await, both[1..]);
    }

    async fn a_key_that_cannot_be_read_is_an_error_at_the_start(database: Database) {
        database.store.add(&key(1, 1)).await.expect("kept");
        let clerk = offline_clerk().await;
        let (policy, url) = (PolicyFile::routes(ROUTES), database.place.url());
        let more = [("CLERK_AUTHZ_POLICY", policy.text()), ("CLERK_AUTHZ_DATABASE_URL", &*url)];
        let started = server::start(&settings_for(&clerk, &more), server::system_clock()).await;
        let error = started.err().expect("it does not start").to_string();
        assert!(error.contains("upstream_keys"), "{error}");

        database.store.forget(Generation(1)).await.expect("forgotten");
        let started = server::start(&settings_for(&clerk, &more), server::system_clock()).await;
        started.expect("it starts").stop().await;
        clerk.stop().await;
    }
}
