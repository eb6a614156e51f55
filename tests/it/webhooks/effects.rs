//! What messages do, in which order, and how often.

use clerk_authz::{
    mirror::{ChangeEvent, Feed, FeedPage, InboxState, Mirror, Position},
    server,
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::Scene;
use crate::support::{
    database::{Database, on_each_engine, user_id},
    eventually, settings_for,
    webhook::{Message, SECRET, user_data, user_updated},
};

on_each_engine! {
    async fn what_clerk_tells_is_in_the_mirror_and_in_the_feed(database: Database) {
        let scene = Scene::start(database).await;
        let organization = json!({"id": "org_1", "slug": "acme", "name": "Acme", "created_at": 1, "updated_at": 2});
        let membership = json!({
            "id": "orgmem_1", "role": "org:admin", "permissions": ["org:a:b"], "organization": organization,
            "public_user_data": {"user_id": "user_1"}, "created_at": 3, "updated_at": 4,
        });
        let mut banned = user_data("user_2", "Bob", 7);
        banned["banned"] = json!(true);
        for (number, (event_type, data)) in [
            ("user.created", user_data("user_1", "Ada", 5)),
            ("organizationMembership.created", membership),
            ("session.revoked", json!({"id": "sess_1", "user_id": "user_1"})),
            ("user.updated", banned),
            ("role.updated", json!({"key": "org:admin"})),
        ].into_iter().enumerate() {
            let message = Message::new(&format!("msg_{number}"), event_type, &data);
            assert_eq!(message.status(scene.addr()).await, 204, "{event_type}");
        }
        scene.settled().await;

        let database = &scene.database;
        assert_eq!(scene.first_name("user_1").await.as_deref(), Some("Ada"));
        let memberships = database.store.memberships_of(&database.instance, &user_id("user_1"), None, 10).await;
        assert_eq!(memberships.expect("answered")[0].value.membership.organization.id.as_str(), "org_1");
        let Ok(FeedPage::Changes(changes)) = database.store.changes(&database.instance, Position::START, 100).await else {
            panic!("a feed")
        };
        assert_eq!(changes.len(), 7, "{changes:?}");
        let has = |event| changes.iter().any(|change| change.event == event);
        assert!(has(ChangeEvent::SessionEnded("sess_1".parse().expect("an id"))));
        scene.stop().await;
    }

    /// However they arrive, the newest stands; each id counts once.
    async fn late_repeated_and_shuffled_messages_end_in_the_newest(database: Database) {
        let scene = Scene::start(database).await;
        for (id, version) in [("msg_3", 3), ("msg_1", 1), ("msg_9", 9), ("msg_2", 2), ("msg_9", 9), ("msg_3", 3)] {
            let message = user_updated(id, "user_1", &format!("v{version}"), version);
            assert_eq!(message.status(scene.addr()).await, 204);
        }
        scene.settled().await;
        assert_eq!(scene.first_name("user_1").await.as_deref(), Some("v9"));
        assert_eq!(scene.list(InboxState::Done).await.len(), 4);

        let gone = Message::new("msg_10", "user.deleted", &json!({"id": "user_1", "deleted": true}));
        assert_eq!(gone.status(scene.addr()).await, 204);
        let late = user_updated("msg_11", "user_1", "late", 10);
        assert_eq!(late.status(scene.addr()).await, 204);
        scene.settled().await;
        assert_eq!(scene.first_name("user_1").await, None, "the dead are not raised");
        scene.stop().await;
    }

    async fn types_without_a_meaning_are_kept_by_id_alone_and_codes_nowhere(database: Database) {
        let scene = Scene::start(database).await;
        for (id, event_type) in [
            ("msg_1", "email.created"), ("msg_2", "sms.created"), ("msg_3", "subscription.active"),
            ("msg_4", "user.promoted"), ("msg_5", "user.promoted"),
        ] {
            let data = json!({"id": "ema_1", "body": "your code is 314159"});
            assert_eq!(Message::new(id, event_type, &data).status(scene.addr()).await, 204, "{event_type}");
        }
        scene.settled().await;
        let done = scene.list(InboxState::Done).await;
        let types: Vec<_> = done.iter().map(|entry| &*entry.event_type).collect();
        assert_eq!(types, ["email.created", "sms.created", "subscription.active", "user.promoted", "user.promoted"]);
        let kept = "SELECT COUNT(*) FROM inbox WHERE body IS NOT NULL";
        assert_eq!(scene.database.place.number(kept).await, 0);
        let metrics = scene.fixture.metrics().await;
        for line in ["class=\"other\"} 3.0", "class=\"unknown\"} 2.0"] {
            let line = format!("clerk_authz_inbox_ignored_total{{instance=\"default\",{line}\n");
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
        let database = scene.stop().await;
        for file in database.place.files() {
            let bytes = std::fs::read(&file).expect("a file");
            let found = bytes.windows(6).any(|six| six == b"314159");
            assert!(!found, "a one-time code in {}", file.display());
        }
    }

    async fn what_cannot_be_read_is_poison_at_once_and_holds_nobody_up(database: Database) {
        let scene = Scene::start(database).await;
        let mut unreadable = user_data("user_1", "Ada", 5);
        unreadable["email_addresses"] = json!([{"email_address": {"hush": "hush"}}]);
        let poison = Message::new("msg_1", "user.updated", &unreadable);
        assert_eq!(poison.status(scene.addr()).await, 204, "Clerk need not send it again");
        assert_eq!(user_updated("msg_2", "user_1", "Ada", 6).status(scene.addr()).await, 204);
        scene.settled().await;

        assert_eq!(scene.first_name("user_1").await.as_deref(), Some("Ada"));
        let listed = scene.list(InboxState::Poison).await;
        assert_eq!(listed.len(), 1);
        let cause = listed[0].failure.as_deref().expect("a cause");
        assert_eq!(cause, "the event's data cannot be read: email_addresses[0].email_address is of another type");
        assert_eq!(listed[0].attempts, 1);
        let metrics = scene.fixture.metrics().await;
        assert!(metrics.contains("clerk_authz_inbox_poisoned_total{instance=\"default\"} 1.0\n"), "{metrics}");
        scene.stop().await;
    }

    /// A try that fails is made again, by itself.
    async fn what_fails_is_tried_again_until_it_works(database: Database) {
        let scene = Scene::start(database).await;
        scene.database.place.run("ALTER TABLE users RENAME TO users_away").await;
        assert_eq!(user_updated("msg_1", "user_1", "Ada", 5).status(scene.addr()).await, 204);
        eventually("a try fails", || async {
            let waiting = scene.list(InboxState::Waiting).await;
            waiting.first().is_some_and(|entry| entry.failure.is_some())
        }).await;
        scene.database.place.run("ALTER TABLE users_away RENAME TO users").await;
        scene.settled().await;
        assert_eq!(scene.first_name("user_1").await.as_deref(), Some("Ada"));
        assert!(scene.list(InboxState::Done).await[0].attempts > 1);
        scene.stop().await;
    }

    async fn what_was_accepted_before_a_stop_is_applied_after_it(database: Database) {
        let scene = Scene::start(database).await;
        for number in 0..40 {
            let message = user_updated(&format!("msg_{number}"), &format!("user_{number}"), "Ada", 5);
            assert_eq!(message.status(scene.addr()).await, 204);
        }
        let database = scene.stop().await;
        assert!(super::list(&database, InboxState::Claimed).await.is_empty(), "nothing is half-done");

        let scene = Scene::start(database).await;
        scene.settled().await;
        assert_eq!(scene.list(InboxState::Done).await.len(), 40);
        scene.stop().await;
    }
}

/// Two services on one PostgreSQL: each message is applied once, whoever took it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_on_postgres_share_the_inbox() {
    use crate::support::database::{Database, Place};
    let scene = Scene::start(Database::on(Place::postgres().await).await).await;
    let url = scene.database.place.url();
    let variables = [
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ("CLERK_AUTHZ_DATABASE_URL", &*url),
    ];
    let settings = settings_for(&scene.fixture.clerk, &variables);
    let other = server::start(&settings, server::system_clock())
        .await
        .expect("it starts");
    let addrs = [scene.addr(), other.http_addr()];
    let sending = (0..120).map(|number| async move {
        let message = user_updated(
            &format!("msg_{number}"),
            &format!("user_{}", number % 30),
            &format!("v{number}"),
            number,
        );
        // Each of them is sent to both.
        for addr in [addrs[number as usize % 2], addrs[(number as usize + 1) % 2]] {
            assert_eq!(message.status(addr).await, 204);
        }
    });
    // Fewer at once than the door takes.
    let mut sending = stream::iter(sending).buffer_unordered(16);
    while sending.next().await.is_some() {}
    drop(sending);
    scene.settled().await;

    assert_eq!(scene.list(InboxState::Done).await.len(), 120);
    for user in 0..30 {
        let name = scene.first_name(&format!("user_{user}")).await;
        assert_eq!(name, Some(format!("v{}", user + 90)), "user_{user}");
    }
    let applied = async |addr| {
        let metrics = crate::support::get(addr, "/metrics").await.1;
        let line = metrics.lines().find(|line| {
            line.starts_with("clerk_authz_inbox_applied_total{instance=\"default\",class=\"user\"}")
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .expect("a count")
    };
    let each = [applied(addrs[0]).await, applied(addrs[1]).await];
    assert_eq!(each.iter().sum::<f64>() as u64, 120, "{each:?}");
    other.stop().await;
    scene.stop().await;
}
