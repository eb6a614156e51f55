//! Two replicas on one PostgreSQL: a webhook to one, the denial at the other.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{HEARD_WITHIN, Scene};
use crate::support::{
    Reason, about, client,
    database::{Database, Place},
    reason_of,
};

/// Sessions that end, one after the other.
const REVOCATIONS: usize = 200;

/// Ends sessions and says how long each took from the answer to its webhook until the other replica
/// denied its token.
async fn delays(scene: &Scene, meanwhile: impl AsyncFn(usize)) -> Vec<Duration> {
    let replica = scene.replica().await;
    let other = client(replica.grpc_addr()).await;
    let mut delays = Vec::with_capacity(REVOCATIONS);
    let tokens: Vec<_> = (0..REVOCATIONS)
        .map(|_| scene.token("user_alice", |spec| spec.lifetime_seconds = Some(3_600)))
        .collect();
    join_all(tokens.iter().map(|(token, _)| {
        let mut other = other.clone();
        async move { other.verify_session(about(token)).await.expect("good") }
    }))
    .await;
    for (number, (token, session)) in tokens.iter().enumerate() {
        meanwhile(number).await;
        let begun = Instant::now();
        scene.directory().end_session(session).expect("ended");
        loop {
            match other.clone().verify_session(about(token)).await {
                Ok(_) => assert!(begun.elapsed() < HEARD_WITHIN, "never heard of"),
                Err(status) => {
                    assert_eq!(reason_of(&status), Reason::SessionRevoked.name());
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        delays.push(begun.elapsed());
    }
    replica.stop().await;
    delays.sort_unstable();
    delays
}

fn say(what: &str, delays: &[Duration]) {
    let at = |share: usize| delays[(delays.len() - 1) * share / 100].as_millis();
    println!(
        "revocation, {what}: {} sessions ended at one replica and denied at the other; p50 {} ms, \
         p99 {} ms, longest {} ms",
        delays.len(),
        at(50),
        at(99),
        at(100)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_is_told_the_other_denies() {
    let scene = Scene::start(Database::on(Place::postgres().await).await).await;
    let delays = delays(&scene, async |_| {}).await;
    say("heard", &delays);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_ear_cut_off_too() {
    let scene = Scene::start(Database::on(Place::postgres().await).await).await;
    let delays = delays(&scene, async |_| {
        scene
            .database
            .place
            .run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE query LIKE 'LISTEN%' AND datname = current_database()",
            )
            .await;
    })
    .await;
    say("with LISTEN cut before each", &delays);
    scene.stop().await;
}
