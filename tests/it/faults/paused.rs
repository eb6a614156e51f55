//! One of two replicas stands still, as in a paused virtual machine, with whatever it holds.

use std::{sync::Arc, time::Duration};

use clerk_authz::{
    emulator::TokenSpec,
    mirror::{Mirror, Upkeep, UserKey},
};

use super::Load;
use crate::support::{
    Fixture, Reason, about, client,
    database::{Database, Place, user_id},
    eventually, eventually_within, offline_clerk,
    process::Service,
    reason_of, settings_on,
    webhook::{Message, SECRET, user_updated},
};

/// What it had taken to work on is free after 20 s, what it had locked after 30 s.
const FREE_WITHIN: Duration = Duration::from_secs(60);
/// Messages that are on their way when it stops.
const MESSAGES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_may_stand_still_and_go_on() {
    let database = Database::on(Place::postgres().await).await;
    let url = database.place.url();
    let clerk = offline_clerk().await;
    let settings = settings_on(&clerk, &url, &[]);
    let (key, issuer) = (
        clerk.instances()[0].publishable_key().as_str().to_owned(),
        clerk.instances()[0].issuer().to_string(),
    );
    let paused = Service::start(&[
        ("CLERK_PUBLISHABLE_KEY", &key),
        ("CLERK_AUTHZ_ISSUER", &issuer),
        ("CLERK_AUTHORIZED_PARTIES", "http://localhost:3000"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ("CLERK_AUTHZ_DATABASE_URL", &url),
    ])
    .await;
    let other = Arc::new(Fixture::start_on(clerk, &settings).await);
    let addr = other.service.http_addr();
    let session = |id: &str| {
        let mut spec = TokenSpec::session("user_alice");
        spec.session = Some(id.to_owned());
        spec.lifetime_seconds = Some(600);
        other.mint(&spec)
    };
    let (ends, stays) = (session("sess_ends"), session("sess_stays"));
    let mut there = client(paused.grpc_addr).await;
    there.verify_session(about(&ends)).await.expect("good");
    for number in 0..MESSAGES {
        let id = format!("user_{}", number % 4);
        let message = user_updated(&format!("msg_{number}"), &id, "Ada", number as i64);
        assert_eq!(message.status(paused.http_addr).await, 204);
    }

    paused.signal("-STOP");
    let load = Load::on(&other);
    load.goes_on("one replica stands still").await;
    let over = Message::new(
        "msg_over",
        "session.ended",
        &serde_json::json!({"id": "sess_ends", "user_id": "user_alice"}),
    );
    assert_eq!(over.status(addr).await, 204);
    let newest = user_updated("msg_newest", "user_1", "Grace", 999);
    assert_eq!(newest.status(addr).await, 204);
    eventually_within(FREE_WITHIN, "the other one has done all of it", || async {
        let stats = database.store.stats(&database.instance).await;
        stats.is_ok_and(|stats| stats.oldest_waiting.is_none())
    })
    .await;
    let denied = other.verify(&ends).await.expect_err("it has ended");
    assert_eq!(reason_of(&denied), Reason::SessionRevoked.name());

    paused.signal("-CONT");
    eventually("it denies what ended meanwhile", || async {
        let answer = there.clone().verify_session(about(&ends)).await;
        answer.is_err_and(|it| reason_of(&it) == Reason::SessionRevoked.name())
    })
    .await;
    there.verify_session(about(&stays)).await.expect("good");
    let sent = user_updated("msg_last", "user_2", "Alan", 1_000);
    assert_eq!(
        sent.status(paused.http_addr).await,
        204,
        "it works as before"
    );
    let name = async |user: &str| {
        let id = user_id(user);
        let found = database
            .store
            .user(&database.instance, UserKey::Id(&id))
            .await;
        found.expect("answered").and_then(|it| it.value.first_name)
    };
    eventually("it is applied", || async {
        name("user_2").await.as_deref() == Some("Alan")
    })
    .await;
    assert_eq!(
        name("user_1").await.as_deref(),
        Some("Grace"),
        "nothing older came after it"
    );
    load.end().await;
    paused.kill().await;
}
