//! What happens at the limits of calls: who is turned away, and who is not.

use std::{cell::RefCell, time::Duration};

use clerk_authz::{
    door::grpc::proto::authz_service_client::AuthzServiceClient,
    emulator::{Endpoint, Faults, TokenSpec},
    reason::Reason,
    server::Limits,
};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use crate::support::{
    Fixture, about, channel, client, directory::TestClock, eventually, offline_clerk, reason_of,
    settings_for,
};

/// A service that takes on so many calls, whose source of keys is slow, and whose next token with
/// an unknown `kid` waits for it.
async fn with_slow_keys(max_calls: usize, slow_milliseconds: u64) -> Fixture {
    let clock = TestClock::at_now();
    let clerk = offline_clerk().await;
    let settings = settings_for(&clerk, &[]);
    let limits = Limits {
        max_calls,
        ..Limits::default()
    };
    let fixture = Fixture::start_under(limits, clerk, &settings, &clock).await;
    let slow = Faults::slow(slow_milliseconds);
    fixture.instance().set_faults_for(Endpoint::Jwks, slow);
    // Past the cooldown of the first fetch.
    clock.step(6);
    fixture
}

fn junk(fixture: &Fixture, name: &str) -> String {
    fixture.mint(&TokenSpec::session("user_alice").with_header("kid", json!(name)))
}

#[tokio::test]
async fn a_call_too_many_is_turned_away_and_health_checks_are_not() {
    let fixture = with_slow_keys(2, 4_500).await;
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    assert!(fixture.verify(&good).await.is_ok());
    let mut waiting = JoinSet::new();
    for name in ["ins_a", "ins_b"] {
        let (mut client, token) = (fixture.client.clone(), junk(&fixture, name));
        waiting.spawn(async move { client.verify_session(about(&token)).await });
    }

    let turned_away = RefCell::new(None);
    eventually("both places are taken", async || {
        turned_away.replace(fixture.verify(&good).await.err());
        turned_away.borrow().is_some()
    })
    .await;

    let status = turned_away.into_inner().expect("it was");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(reason_of(&status), Reason::Overloaded.name());
    let retry = status.get_details_retry_info().expect("RetryInfo");
    assert!(retry.retry_delay.is_some_and(|it| it > Duration::ZERO));
    let mut health = HealthClient::new(channel(fixture.service.grpc_addr()).await);
    let answer = health.check(HealthCheckRequest::default()).await;
    let answer = answer.expect("health is answered").into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    // Those who leave make room.
    waiting.shutdown().await;
    eventually("there is room again", async || {
        fixture.verify(&good).await.is_ok()
    })
    .await;
    fixture.stop().await;
}

/// Anybody can make up a `kid`: those who wait for one must not take every place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_junk_kids_sheds_no_good_call_while_the_keys_are_slow() {
    const CONNECTIONS: usize = 4;
    const AT_ONCE: usize = 250;
    const FURTHER: usize = 600;
    // A thousand wait at most, so 200 places are left for the others.
    let fixture = with_slow_keys(1_200, 2_000).await;
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(client(fixture.service.grpc_addr()).await);
    }
    let token = junk(&fixture, "ins_junk");
    let mut flood = JoinSet::new();
    let mut send = |client: &AuthzServiceClient<Channel>, count: usize| {
        for _ in 0..count {
            let (mut client, token) = (client.clone(), token.clone());
            flood.spawn(async move { client.verify_session(about(&token)).await });
        }
    };

    for client in &clients {
        send(client, AT_ONCE);
    }
    for _ in 0..FURTHER / 50 {
        send(&clients[0], 50);
        for _ in 0..10 {
            let answer = fixture.verify(&good).await;
            assert!(answer.is_ok(), "{answer:?}");
        }
    }

    while let Some(answer) = flood.join_next().await {
        let status = answer.expect("no panic").expect_err("junk");
        assert!(
            matches!(status.code(), Code::Unavailable | Code::Unauthenticated),
            "{status:?}"
        );
    }
    let metrics = fixture.metrics().await;
    let refused = metrics.lines().find_map(|line| {
        let rest = line.strip_prefix("clerk_authz_keys_fetches_refused")?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    assert!(
        refused.is_some_and(|it| it >= FURTHER as f64),
        "{refused:?}"
    );
    fixture.stop().await;
}
