//! Several replicas, and several instances.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::{Keeper, Service, behind, end_of, next, short, told, users_only};
use crate::support::{
    Fixture,
    database::{Database, Place, event_user, user},
    eventually, offline_clerk, settings, settings_for,
    webhook::{Message, SECRET, user_updated},
};

/// Two services on one PostgreSQL: what one is told, the other tells; a token of one is good at the
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_is_told_another_tells_within_a_second() {
    const ROUNDS: i64 = 50;
    let database = Database::on(Place::postgres().await).await;
    let clerk = offline_clerk().await;
    let settings = settings_for(
        &clerk,
        &[
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
            ("CLERK_AUTHZ_DATABASE_URL", &database.place.url()),
        ],
    );
    let one = Fixture::start_on(clerk, &settings).await;
    let mut others = [
        Service::on(&database.place).await,
        Service::on(&database.place).await,
    ];
    let addr = one.service.http_addr();
    let mut keeper = Keeper::default();
    keeper
        .follow(&others[0], |it| it.snapshot_is_complete)
        .await;

    let mut slowest = Duration::ZERO;
    for version in 1..=ROUNDS {
        // Now here, now there.
        others.swap(0, 1);
        let mut stream = others[0]
            .open(behind(&keeper.token))
            .await
            .expect("it opens");
        let name = format!("v{version}");
        let message = user_updated(&format!("msg_{version}"), "user_1", &name, version);
        let sent = Instant::now();
        assert_eq!(message.status(addr).await, 204);
        while keeper.names().get("user_1") != Some(&name) {
            keeper.take(next(&mut stream).await.expect("the watch goes on"));
        }
        slowest = slowest.max(sent.elapsed());
    }
    println!("slowest of {ROUNDS}: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let gone = Message::new(
        "msg_gone",
        "user.deleted",
        &serde_json::json!({"id": "user_1"}),
    );
    assert_eq!(gone.status(addr).await, 204);
    keeper.follow(&others[1], |it| it.users.is_empty()).await;

    for other in others {
        other.stop().await;
    }
    one.stop().await;
}

/// Of two instances in one database each has its users, its tokens and its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_is_watched_by_itself_until_it_is_no_more() {
    let database = Database::on(Place::sqlite()).await;
    database.apply([event_user(user("user_default", 5))]).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = |names: &[&str]| {
        let instances = names.iter().enumerate().map(|(number, name)| {
            let port = 9 + number;
            format!("[[instance]]\nname = \"{name}\"\nissuer = \"http://127.0.0.1:{port}\"\n")
        });
        instances.collect::<String>()
    };
    std::fs::write(file.path(), text(&["default", "other"])).expect("written");
    let settings = settings(&[
        (
            "CLERK_AUTHZ_INSTANCES",
            file.path().to_str().expect("UTF-8"),
        ),
        ("CLERK_AUTHZ_DATABASE_URL", &database.place.url()),
    ]);
    let clock = clerk_authz::server::system_clock();
    let running = clerk_authz::server::start(&settings, clock).await;
    let running = running.expect("it starts");
    let client = crate::support::client(running.grpc_addr()).await;
    let service = Service { running, client };
    let of = |instance: &str, token: &str| {
        let mut request = users_only();
        request.instance = instance.to_owned();
        request.resume_token = token.to_owned();
        request
    };

    assert_eq!(
        service.refused(of("", "")).await.code(),
        Code::InvalidArgument
    );
    let mut stream = service.open(of("default", "")).await.expect("it opens");
    assert_eq!(short(&told(&mut stream).await), "user_default Ada");
    let token = next(&mut stream).await.expect("complete").resume_token;
    let mut other = service.open(of("other", "")).await.expect("it opens");
    assert_eq!(short(&told(&mut other).await), "complete");
    let status = service.refused(of("other", &token)).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(
        status
            .message()
            .contains("resume_token: is of instance \"default\""),
        "{status:?}"
    );

    std::fs::write(file.path(), text(&["other"])).expect("written");
    eventually("the instance is no more", || async {
        service.open(of("default", &token)).await.is_err()
    })
    .await;
    // With the next that there is to tell.
    database.apply([event_user(user("user_new", 6))]).await;
    let status = end_of(&mut stream).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().starts_with("instance:"), "{status:?}");
    service.stop().await;
}
