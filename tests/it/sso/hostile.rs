//! Hostile assertions, each with its reason: what is believed of none.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clerk_authz::{door::grpc::proto::Reason, emulator::AssertionSpec};
use serde_json::{Value, json};
use tonic::Code;

use super::{BY_EMAIL, Scene, denied, exchanging, said};
use crate::support::{eventually, reason_of};

/// Signed with the public key as if it were a secret (RFC 8725 §2.1).
fn with_hmac(assertion: &str, secret: &str) -> String {
    let (input, _) = assertion.rsplit_once('.').expect("a signature");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn each_hostile_assertion_is_denied_with_its_reason() {
    let scene = Scene::start(BY_EMAIL).await;
    let now = clerk_authz::identity::Timestamp::from(std::time::SystemTime::now()).unix_seconds();
    let alice = || AssertionSpec::of("user_alice");
    let with = |name: &str, value: Value| scene.assertion(alice().with_claim(name, value));
    let header = |name: &str, value: Value| {
        let mut spec = alice();
        spec.header.insert(name.to_owned(), value);
        scene.assertion(spec)
    };
    let good = scene.assertion(alice());
    let (head, signature) = good.rsplit_once('.').expect("a signature");
    let clerks = scene
        .fixture
        .mint(&clerk_authz::emulator::TokenSpec::session("user_alice"));
    let pem = scene.fixture.instance().public_key_pem();
    // Signed with another provider's key, which has the name of one of this one's.
    let stranger = Scene::start(BY_EMAIL).await;
    let others = stranger
        .assertion(alice().with_claim("iss", json!(scene.fixture.instance().identity_provider())));
    let invalid = |rule: &str| denied("ASSERTION_INVALID", rule);
    for (what, assertion, expected) in [
        (
            "wrong issuer",
            with("iss", json!("https://evil.example.com")),
            invalid("issuer"),
        ),
        (
            "another provider's key of the same name",
            others,
            invalid("signature"),
        ),
        (
            "a key that the provider has not",
            header("kid", json!("unknown")),
            invalid("key"),
        ),
        ("no key named", header("kid", Value::Null), invalid("key")),
        (
            "a key for another algorithm",
            header("kid", json!("idp_es256")),
            invalid("key"),
        ),
        (
            "wrong audience",
            with("aud", json!("somebody-else")),
            invalid("audience"),
        ),
        (
            "two audiences, no azp",
            with("aud", json!(["emulator-client", "x"])),
            invalid("authorized_party"),
        ),
        (
            "azp another",
            with("azp", json!("x")),
            invalid("authorized_party"),
        ),
        (
            "no algorithm",
            format!(
                "{}.{}.",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
                head.split_once('.').expect("two parts").1
            ),
            invalid("algorithm"),
        ),
        (
            "HMAC",
            with_hmac(&header("alg", json!("HS256")), &pem),
            invalid("algorithm"),
        ),
        ("crit", header("crit", json!(["exp"])), invalid("header")),
        (
            "a key of its own",
            scene.assertion(AssertionSpec {
                forged: true,
                header: [
                    ("jwk".to_owned(), json!({"kty": "RSA"})),
                    ("jku".to_owned(), json!("https://evil.example.com")),
                ]
                .into_iter()
                .collect(),
                ..alice()
            }),
            invalid("signature"),
        ),
        (
            "forged",
            scene.assertion(AssertionSpec {
                forged: true,
                ..alice()
            }),
            invalid("signature"),
        ),
        (
            "tampered",
            format!(
                "{}.{signature}",
                with("email", json!("bob@example.com"))
                    .rsplit_once('.')
                    .expect("a signature")
                    .0
            ),
            invalid("signature"),
        ),
        ("a token of Clerk's", clerks, invalid("issuer")),
        (
            "another nonce",
            with("nonce", json!("another")),
            invalid("nonce"),
        ),
        ("no nonce", with("nonce", Value::Null), invalid("nonce")),
        (
            "expired",
            scene.assertion(AssertionSpec {
                expired: true,
                ..alice()
            }),
            invalid("expiry"),
        ),
        (
            "not yet",
            with("nbf", json!(now + 600)),
            invalid("not_before"),
        ),
        (
            "from the future",
            with("iat", json!(now + 600)),
            invalid("issued_at"),
        ),
        (
            "old, and good for a day",
            scene.assertion(
                AssertionSpec {
                    issued_in_seconds: -700,
                    ..alice()
                }
                .with_claim("exp", json!(now + 86_400)),
            ),
            invalid("issued_at"),
        ),
        (
            "signed in long ago",
            with("auth_time", json!(now - 7_200)),
            invalid("sign_in_age"),
        ),
        (
            "no auth_time",
            with("auth_time", Value::Null),
            invalid("sign_in_age"),
        ),
        (
            "e-mail unverified",
            with("email_verified", json!(false)),
            denied("USER_UNMATCHED", ""),
        ),
        (
            "verified as text",
            with("email_verified", json!("true")),
            invalid("claims"),
        ),
        (
            "domain not allowed",
            with("email", json!("alice@evil.com")),
            denied("USER_UNMATCHED", ""),
        ),
        (
            "nobody",
            with("email", json!("nobody@example.com")),
            denied("USER_UNMATCHED", ""),
        ),
        (
            "no second factor",
            with("amr", json!(["pwd"])),
            denied("MFA_REQUIRED", ""),
        ),
        (
            "amr forged as a string",
            with("amr", json!("mfa")),
            invalid("claims"),
        ),
        (
            "acr that does not count",
            scene.assertion(
                AssertionSpec {
                    amr: Some(vec![]),
                    ..alice()
                }
                .with_claim("acr", json!("urn:weak")),
            ),
            denied("MFA_REQUIRED", ""),
        ),
        (
            "a KELVIN SIGN for a k",
            with("email", json!("\u{212A}ate@acme.example")),
            denied("USER_UNMATCHED", ""),
        ),
        (
            "a KELVIN SIGN in the domain",
            with("email", json!("x@\u{212A}iosk.example")),
            denied("USER_UNMATCHED", ""),
        ),
        (
            "a logout token",
            with(
                "events",
                json!({"http://schemas.openid.net/event/backchannel-logout": {}}),
            ),
            invalid("claims"),
        ),
        ("no form", "not.an.assertion".to_owned(), invalid("form")),
        ("too long", "a".repeat(16 * 1024 + 1), invalid("size")),
    ] {
        let status = scene
            .exchange(exchanging(&assertion))
            .await
            .expect_err(what);
        assert_eq!(said(&status), expected, "{what}: {status:?}");
        let explained = scene.explain(exchanging(&assertion)).await;
        assert_eq!(
            explained.reason().as_str_name(),
            format!("REASON_{}", expected.1),
            "{what}"
        );
    }
    let mut unknown = exchanging(&good);
    unknown.provider = "other".to_owned();
    let status = scene.exchange(unknown).await.expect_err("unknown");
    assert_eq!(said(&status), denied("PROVIDER_UNKNOWN", ""));
    let mut no_nonce = exchanging(&good);
    no_nonce.nonce.clear();
    let status = scene.exchange(no_nonce).await.expect_err("no nonce");
    assert_eq!(said(&status), invalid("nonce"));

    // The nearest that is good: none of all that used it up.
    assert!(scene.exchange(exchanging(&good)).await.is_ok());
    stranger.stop().await;
    scene.stop().await;
}

#[tokio::test]
async fn who_may_not_sign_in_at_clerk_gets_no_ticket() {
    let scene = Scene::start(BY_EMAIL).await;
    let directory = scene.fixture.instance().directory();
    let bob = async || {
        let assertion = scene.assertion(AssertionSpec::of("user_bob"));
        scene.exchange(exchanging(&assertion)).await
    };
    assert!(bob().await.is_ok());
    directory.ban_user("user_bob").expect("banned");
    assert_eq!(
        said(&bob().await.expect_err("banned")),
        denied("USER_BANNED", "")
    );
    directory.unban_user("user_bob").expect("unbanned");
    directory
        .change_user("user_bob", |user| user.deprovisioned = true)
        .expect("changed");
    let status = bob().await.expect_err("deprovisioned");
    assert_eq!(said(&status), denied("USER_DEPROVISIONED", ""));
    directory
        .change_user("user_bob", |user| user.deprovisioned = false)
        .expect("changed");
    directory.lock_user("user_bob").expect("locked");
    assert_eq!(
        said(&bob().await.expect_err("locked")),
        denied("USER_LOCKED", "")
    );
    directory.unlock_user("user_bob").expect("unlocked");
    assert!(bob().await.is_ok());
    let assertion = scene.assertion(AssertionSpec::of("user_bob"));
    directory.delete_user("user_bob").expect("deleted");
    let status = scene
        .exchange(exchanging(&assertion))
        .await
        .expect_err("deleted");
    assert_eq!(said(&status), denied("USER_UNMATCHED", ""));
    scene.stop().await;
}

#[tokio::test]
async fn keys_that_were_kept_are_not_those_of_another_address() {
    let scene = Scene::start(BY_EMAIL).await;
    let assertion = scene.assertion(AssertionSpec::of("user_alice"));
    let explained = async || scene.explain(exchanging(&assertion)).await.reason();
    // Another name among the rules leaves the keys of the address; they are in the database by then.
    scene.rewrite("[\"emulator-client\"]", "[\"another-client\"]");
    eventually("it is read", async || {
        explained().await == Reason::AssertionInvalid
    })
    .await;

    let own = scene.fixture.instance().identity_provider();
    scene.rewrite(
        BY_EMAIL,
        &format!("jwks_url = \"{own}/nowhere\"\n{BY_EMAIL}"),
    );
    scene.rewrite("[\"another-client\"]", "[\"emulator-client\"]");
    eventually("it is read", async || {
        explained().await != Reason::AssertionInvalid
    })
    .await;
    assert_eq!(explained().await, Reason::KeysUnavailable);

    scene.rewrite("/nowhere", "/jwks");
    eventually("its keys are fetched", async || {
        explained().await == Reason::Unspecified
    })
    .await;
    scene.stop().await;
}

#[tokio::test]
async fn keys_come_from_the_issuers_own_document_or_from_the_set_that_is_named() {
    let other = Scene::start(BY_EMAIL).await;
    let others = other.fixture.instance().identity_provider();
    let discovery =
        format!("discovery = \"{others}/.well-known/openid-configuration\"\n{BY_EMAIL}");
    let scene = Scene::start(&discovery).await;
    let assertion = scene.assertion(AssertionSpec::of("user_alice"));
    let status = scene.exchange(exchanging(&assertion)).await;
    let status = status.expect_err("a document of another issuer");
    assert_eq!(
        status.code(),
        Code::Unavailable,
        "it cannot be told: {status:?}"
    );
    assert_eq!(reason_of(&status), "KEYS_UNAVAILABLE");

    // As if the file had been right from the beginning; the provider's keys are fetched anew.
    let own = scene.fixture.instance().identity_provider();
    scene.rewrite(
        &discovery,
        &format!("jwks_url = \"{own}/jwks\"\n{BY_EMAIL}"),
    );
    eventually("the provider is replaced", async || {
        scene.exchange(exchanging(&assertion)).await.is_ok()
    })
    .await;

    // And gone by the next change.
    scene.rewrite("name = \"acme\"", "name = \"renamed\"");
    eventually("the provider is gone", async || {
        let assertion = scene.assertion(AssertionSpec::of("user_alice"));
        let answer = scene.exchange(exchanging(&assertion)).await;
        answer.is_err_and(|status| said(&status) == denied("PROVIDER_UNKNOWN", ""))
    })
    .await;
    let mut renamed = exchanging(&scene.assertion(AssertionSpec::of("user_alice")));
    renamed.provider = "renamed".to_owned();
    assert!(scene.exchange(renamed).await.is_ok());
    other.stop().await;
    scene.stop().await;
}
