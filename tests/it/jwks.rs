//! Key sets over real HTTP, from a Clerk that misbehaves.

use std::sync::Arc;

use clerk_authz::{
    clerk::{HttpJwksSource, InsecureUrl},
    emulator::{Fault, Faults},
    keys::{FetchError, JwksSource, KeySet},
};
use secrecy::SecretString;

use crate::support::offline_clerk;

fn source(url: &str, secret: Option<&str>) -> Result<HttpJwksSource, InsecureUrl> {
    HttpJwksSource::new(url.parse().expect("a URL"), secret.map(SecretString::from))
}

#[tokio::test]
async fn both_addresses_serve_the_keys_and_the_backend_wants_its_secret() {
    let clerk = offline_clerk().await;
    let instance = &clerk.instances()[0];
    let (front, back) = (
        format!("{}/.well-known/jwks.json", instance.issuer()),
        format!("{}/v1/jwks", instance.issuer()),
    );
    let secret = instance.secret_key();
    for source in [source(&front, None), source(&back, Some(&secret))] {
        let document = source.expect("a source").fetch().await.expect("fetched");
        assert!(
            KeySet::parse(&document)
                .expect("a set")
                .get(&instance.seed().key_id)
                .is_some()
        );
    }
    for wrong in [None, Some("sk_test_wrong")] {
        let answer = source(&back, wrong).expect("a source").fetch().await;
        assert_eq!(answer, Err(FetchError::Status(401)));
    }
    clerk.stop().await;
}

#[tokio::test]
async fn each_fault_is_an_error_of_its_kind() {
    let clerk = offline_clerk().await;
    let instance = Arc::clone(&clerk.instances()[0]);
    let source = source(
        &format!("{}/.well-known/jwks.json", instance.issuer()),
        None,
    )
    .expect("good");
    for (fault, expected) in [
        (Fault::ServerError, FetchError::Status(500)),
        (Fault::RateLimited, FetchError::Status(429)),
        (Fault::WrongContentType, FetchError::ContentType),
        (Fault::Endless, FetchError::TooLarge),
        (Fault::Redirect, FetchError::Redirect),
    ] {
        instance.set_faults(Faults::always(fault));
        assert_eq!(source.fetch().await, Err(expected), "{fault:?}");
    }
    instance.set_faults(Faults::always(Fault::Down));
    assert!(matches!(source.fetch().await, Err(FetchError::Connect(_))));
    for fault in [Fault::Garbage, Fault::WrongContent, Fault::NoKeys] {
        instance.set_faults(Faults::always(fault));
        let document = source.fetch().await.expect("it is JSON by its type");
        assert!(KeySet::parse(&document).is_err(), "{fault:?}");
    }
    instance.set_faults(Faults {
        times: Some(1),
        ..Faults::always(Fault::ServerError)
    });
    assert!(source.fetch().await.is_err());
    assert!(
        source.fetch().await.is_ok(),
        "a fault that was for one request has worn out"
    );
    clerk.stop().await;
}

#[test]
fn keys_and_secrets_travel_over_tls_but_on_this_machine() {
    for url in [
        "http://clerk.example.com/jwks",
        "http://10.0.0.1/jwks",
        "ftp://127.0.0.1/jwks",
    ] {
        assert!(
            matches!(source(url, None), Err(InsecureUrl::PlainHttp(_))),
            "{url}"
        );
    }
    for url in [
        "https://clerk.example.com/jwks",
        "http://127.0.0.1:9/jwks",
        "http://[::1]/jwks",
    ] {
        assert!(source(url, None).is_ok(), "{url}");
    }
    let error = source("https://a.example", Some("sk_test_\nhushhush")).expect_err("refused");
    assert!(!error.to_string().contains("hushhush"));
}
