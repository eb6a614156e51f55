//! Tokens that live longer than what ended is remembered.

use clerk_authz::{
    door::grpc::proto::DecisionSource,
    emulator::{Endpoint, Fault, Faults, TokenSpec},
};

use super::{Scene, may_create_invoices};
use crate::support::{
    Reason, assert_denied,
    database::{Database, Place},
    reason_of,
};

const DAY: i64 = 86_400;

async fn scene(more: &[(&str, &str)]) -> Scene {
    let scene = Scene::start_with(Database::on(Place::sqlite()).await, more).await;
    // What is not heard of has to be looked up.
    scene.tell(|settings| settings.lose = 1.0);
    scene
}

impl Scene {
    fn long_lived(&self, change: impl FnOnce(&mut TokenSpec)) -> (String, String) {
        self.token("user_alice", |spec| {
            spec.lifetime_seconds = Some(DAY + 1);
            change(spec);
        })
    }

    fn asked(&self) -> u64 {
        self.fixture.instance().api_requests(Endpoint::Sessions)
    }
}

#[tokio::test]
async fn clerk_is_asked_about_the_session_once_in_a_while() {
    let scene = scene(&[]).await;
    let (token, session) = scene.long_lived(|_| {});
    for _ in 0..3 {
        assert_eq!(scene.reason(&token).await, None);
    }
    assert_eq!(scene.asked(), 1, "remembered");
    let short = scene.old_token("user_alice");
    assert_eq!(scene.reason(&short).await, None);
    assert_eq!(scene.asked(), 1, "it is believed by itself");

    // Asked before it ends, an hour ago: another session, so that nothing is remembered.
    scene.directory().end_session(&session).expect("ended");
    let (other, session) = scene.long_lived(|_| {});
    scene.directory().end_session(&session).expect("ended");
    assert_denied(
        scene.fixture.verify(&other).await,
        Reason::SessionRevoked,
        "it ended",
    );
    let unknown = scene.long_lived(|spec| spec.session = Some("sess_gone".into()));
    assert_denied(
        scene.fixture.verify(&unknown.0).await,
        Reason::SessionRevoked,
        "Clerk has no such session",
    );
    let of_somebody_else = scene.directory().create_session("user_bob", None);
    let of_bob = of_somebody_else.expect("signed in").id;
    let (token, _) = scene.long_lived(|spec| spec.session = Some(of_bob));
    assert_denied(
        scene.fixture.verify(&token).await,
        Reason::SessionRevoked,
        "it is somebody else's",
    );
    scene.stop().await;
}

#[tokio::test]
async fn cannot_tell_is_neither_yes_nor_no() {
    let scene = scene(&[]).await;
    let (token, _) = scene.long_lived(|_| {});
    let down = Faults {
        fault: Some(Fault::ServerError),
        ..Faults::default()
    };
    let instance = scene.fixture.instance();
    instance.set_faults_for(Endpoint::Sessions, down);

    let status = scene.fixture.verify(&token).await.expect_err("no answer");

    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(reason_of(&status), Reason::ClerkUnavailable.name());
    scene.stop().await;
}

#[tokio::test]
async fn a_token_that_does_not_say_when_it_was_issued_may_be_of_any_age() {
    let scene = scene(&[]).await;
    let (token, _) = scene.token("user_alice", |spec| {
        spec.claims.insert("iat".into(), serde_json::Value::Null);
    });
    assert_eq!(scene.reason(&token).await, None);
    assert_eq!(scene.asked(), 1);
    scene.stop().await;
}

/// Nor is what it says of an organization believed: a change of it may have been forgotten.
#[tokio::test]
async fn a_membership_is_looked_up_for_it() {
    let scene = scene(&[("CLERK_AUTHZ_REVOCATION_MEMORY", "1h")]).await;
    let (token, _) = scene.token("user_alice", |spec| {
        spec.lifetime_seconds = Some(3_601);
        spec.organization = Some("acme".into());
    });
    let answer = scene
        .check(may_create_invoices(&token))
        .await
        .expect("decided");
    assert_eq!(
        (answer.allowed, answer.source()),
        (true, DecisionSource::Clerk)
    );
    scene.stop().await;
}
