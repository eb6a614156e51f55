//! What happens at the limits of watches.

use std::time::Duration;

use clerk_authz::{
    door::grpc::proto::{GetUserRequest, get_user_request::Key},
    server::Limits,
    sync::WatchLimits,
};
use tokio::time::Instant;
use tonic::Code;
use tonic_types::StatusExt;

use super::{Keeper, Service, a_moment, behind, end_of, names_in, next, short, told, users_only};
use crate::support::{
    Reason,
    database::{Database, Place, event_user, on_each_engine, user, user_with},
    eventually, get, reason_of,
};

fn limited(watches: WatchLimits) -> Limits {
    Limits {
        watches,
        // They take none of the places of calls.
        max_calls: 2,
    }
}

on_each_engine! {
    async fn a_consumer_that_does_not_take_is_told_to_go_on_later_and_can(database: Database) {
        const USERS: usize = 400;
        // More than the connection holds by itself.
        let notes = "x".repeat(40_000);
        for part in 0..4 {
            let users = (0..USERS / 4).map(|number| event_user(user_with(
                &format!("user_{part}{number:03}"), 5,
                |it| it.public_metadata = format!(r#"{{"notes":"{notes}"}}"#).into(),
            )));
            database.apply(users.collect::<Vec<_>>()).await;
        }
        let watches = WatchLimits { patience: a_moment(), ..WatchLimits::default() };
        let service = Service::under(limited(watches), &database.place).await;
        let mut keeper = Keeper::default();
        let mut stream = service.open(behind("")).await.expect("it opens");
        keeper.take(next(&mut stream).await.expect("a user"));

        eventually("it has ended", || async {
            let metrics = get(service.running.http_addr(), "/metrics").await.1;
            metrics.contains("clerk_authz_watches_ended_total{instance=\"default\",cause=\"too_slow\"} 1")
        }).await;

        // What was under way still comes, and then why nothing more does.
        let status = loop {
            match next(&mut stream).await {
                Ok(message) => keeper.take(message),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        assert_eq!(reason_of(&status), Reason::WatchTooSlow.name());
        assert!(keeper.users.len() < USERS, "it was not buffered without end");
        keeper.follow(&service, |it| it.snapshot_is_complete).await;
        assert_eq!(keeper.names(), names_in(&database).await);
        service.stop().await;
    }

    async fn watches_that_are_open_leave_room_for_calls_and_one_too_many_is_refused(database: Database) {
        database.apply([event_user(user("user_a", 5))]).await;
        let watches = WatchLimits { max_open: 5, ..WatchLimits::default() };
        let service = Service::under(limited(watches), &database.place).await;
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut stream = service.open(users_only()).await.expect("there is room");
            assert_eq!(short(&told(&mut stream).await), "user_a Ada");
            open.push(stream);
        }

        let status = service.refused(users_only()).await;

        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert_eq!(reason_of(&status), Reason::Overloaded.name());
        assert!(status.get_details_retry_info().is_some_and(|it| it.retry_delay.is_some()));
        // More are open than calls may be.
        let user = GetUserRequest { key: Some(Key::UserId("user_a".into())), ..Default::default() };
        let found = service.client.clone().get_user(user).await;
        assert_eq!(found.expect("answered").into_inner().user.expect("set").id, "user_a");
        let metrics = get(service.running.http_addr(), "/metrics").await.1;
        assert!(metrics.contains("clerk_authz_watches{instance=\"default\"} 5"), "{metrics}");
        assert!(metrics.contains("clerk_authz_calls_in_flight{} 0") || metrics.contains("clerk_authz_calls_in_flight 0"), "{metrics}");
        // Whoever leaves makes room.
        open.pop();
        eventually("there is room", || async { service.open(users_only()).await.is_ok() }).await;
        service.stop().await;
    }

    async fn the_end_of_a_replica_sends_watches_elsewhere_and_waits_for_none(database: Database) {
        let service = Service::on(&database.place).await;
        let mut keeper = Keeper::default();
        let mut stream = service.open(behind("")).await.expect("it opens");
        while !keeper.snapshot_is_complete {
            keeper.take(next(&mut stream).await.expect("the watch goes on"));
        }
        let began = Instant::now();
        let (status, ()) = tokio::join!(end_of(&mut stream), service.stop());

        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(reason_of(&status), Reason::Draining.name());
        let retry = status.get_details_retry_info().expect("RetryInfo");
        assert!(retry.retry_delay.is_some_and(|it| it <= Duration::from_secs(1)));
        let next_one = Service::on(&database.place).await;
        database.apply([event_user(user("user_a", 5))]).await;
        keeper.follow(&next_one, |it| it.users.len() == 1).await;
        next_one.stop().await;
    }
}

/// Calls end after ten seconds; this is none of them.
#[tokio::test]
async fn a_watch_outlives_the_longest_call() {
    let watches = WatchLimits {
        heartbeat: Duration::from_secs(1),
        ..WatchLimits::default()
    };
    let place = Place::sqlite();
    let service = Service::under(limited(watches), &place).await;
    let mut stream = service.open(users_only()).await.expect("it opens");
    assert_eq!(short(&told(&mut stream).await), "complete");
    for _ in 0..11 {
        let message = next(&mut stream).await.expect("it lives");
        assert_eq!(short(&message.change.expect("set")), "heartbeat");
    }
    drop(stream);
    service.stop().await;
}
