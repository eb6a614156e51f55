//! The feed of changes, revocations, and hearing of them.

use std::time::Duration;

use clerk_authz::{
    identity::InstanceName,
    mirror::{
        Change, ChangeEvent, Effect, Entity, Fact, Feed, FeedPage, Heard, Mirror, Position,
        Retention, RevocationCause, SessionEnd, Upkeep, Write,
    },
};

use crate::support::{
    PATIENCE,
    database::{
        Database, NOW, Place, event_membership, event_user, membership, ms, on_each_engine,
        organization_id, user, user_id,
    },
    postgres,
};

impl Database {
    async fn changes(&self, after: i64) -> Vec<Change> {
        let page = self
            .store
            .changes(&self.instance, Position::new(after), 1_000)
            .await;
        match page.expect("answered") {
            FeedPage::Changes(changes) => changes,
            FeedPage::Gone { oldest } => panic!("gone up to {oldest:?}"),
        }
    }
}

fn session_end(session: &str) -> Fact {
    Fact::SessionEnded(SessionEnd {
        session: session.parse().expect("an id"),
        user: None,
        at: ms(5),
    })
}

fn revoked(user: &str, seconds: i64) -> Fact {
    Fact::UserRevoked {
        user: user_id(user),
        not_before: ms(seconds * 1_000),
        cause: RevocationCause::Banned,
    }
}

on_each_engine! {
    async fn each_visible_change_has_an_entry_and_nothing_else_has(database: Database) {
        let member = || Entity::Membership(organization_id("org_1"), user_id("user_1"));
        database.apply([event_user(user("user_1", 5))]).await;
        database.apply([event_user(user("user_1", 5)), event_user(user("user_1", 4))]).await;
        database.apply([
            event_membership(membership("org_1", "user_1", 6)),
            Fact::Deleted { entity: member(), at: ms(7) },
            session_end("sess_1"),
            revoked("user_1", 9),
            Fact::RoleChanged { role: Some("org:admin".into()), at: ms(10) },
            Fact::RoleChanged { role: None, at: ms(11) },
        ]).await;

        let changes = database.changes(0).await;
        let numbers: Vec<i64> = changes.iter().map(|change| change.position.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        let events: Vec<ChangeEvent> = changes.iter().map(|change| change.event.clone()).collect();
        assert_eq!(events, [
            ChangeEvent::UserChanged(user_id("user_1")),
            ChangeEvent::MembershipChanged(organization_id("org_1"), user_id("user_1")),
            ChangeEvent::MembershipDeleted(organization_id("org_1"), user_id("user_1")),
            ChangeEvent::SessionEnded("sess_1".parse().expect("an id")),
            ChangeEvent::UserRevoked(user_id("user_1"), ms(9_000), RevocationCause::Banned),
            ChangeEvent::RoleChanged(Some("org:admin".into())),
            ChangeEvent::RoleChanged(None),
        ]);
        assert_eq!((changes[0].at, changes[0].recorded_at), (ms(5), ms(NOW)));
        assert_eq!(database.store.newest(&database.instance).await, Ok(Position::new(7)));
        assert_eq!(database.changes(5).await.len(), 2);
        assert!(database.changes(7).await.is_empty());
    }

    async fn a_revocation_only_grows(database: Database) {
        let first = database.apply([session_end("sess_1"), revoked("user_1", 20)]).await;
        assert!(first.outcomes.iter().all(|outcome| outcome.write == Write::Created));
        let again = database.apply([session_end("sess_1"), revoked("user_1", 10), revoked("user_1", 20)]).await;
        assert!(again.outcomes.iter().all(|outcome| outcome.write == Write::Unchanged));
        assert_eq!(again.position, None);

        database.apply([revoked("user_1", 30)]).await;

        let events: Vec<ChangeEvent> = database.changes(0).await.into_iter().map(|change| change.event).collect();
        assert_eq!(events, [
            ChangeEvent::SessionEnded("sess_1".parse().expect("an id")),
            ChangeEvent::UserRevoked(user_id("user_1"), ms(20_000), RevocationCause::Banned),
            ChangeEvent::UserRevoked(user_id("user_1"), ms(30_000), RevocationCause::Banned),
        ]);
    }

    async fn a_reader_can_begin_at_a_time(database: Database) {
        let other: InstanceName = "other".parse().expect("a name");
        let before = async |millis| database.store.position_before(&database.instance, ms(millis)).await.expect("answered");
        assert_eq!(before(NOW).await, Position::START, "nothing there");
        for (instance, id, now) in [
            (&database.instance, "user_1", NOW),
            (&database.instance, "user_2", NOW + 10),
            (&other, "user_1", NOW + 15),
            (&database.instance, "user_3", NOW + 20),
        ] {
            let effect = Effect { facts: vec![event_user(user(id, 5))], done: None };
            database.store.apply(instance, effect, ms(now)).await.expect("applied");
        }

        let mut found = Vec::new();
        for millis in [NOW, NOW + 1, NOW + 10, NOW + 20, NOW + 21] {
            found.push(before(millis).await.number());
        }
        assert_eq!(found, [0, 1, 1, 2, 3]);
        let mut positions = database.store.positions().await.expect("answered");
        positions.sort();
        assert_eq!(positions, [(database.instance.clone(), Position::new(3)), (other, Position::new(1))]);
    }

    /// Writers of two replicas commit in whatever order they do; somebody who reads all the while
    /// and always goes on behind the last position misses nothing.
    async fn a_reader_that_goes_on_misses_nothing(database: Database) {
        const WRITES: i64 = 120;
        let other = database.replica().await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..6 {
            let store = if writer % 2 == 0 { other.clone() } else { database.store.clone() };
            let instance = database.instance.clone();
            writers.spawn(async move {
                for number in 0..WRITES / 6 {
                    let facts = vec![event_user(user(&format!("user_{writer}x{number}"), 5))];
                    let effect = Effect { facts, done: None };
                    store.apply(&instance, effect, ms(NOW)).await.expect("applied");
                }
            });
        }
        let mut read = 0;
        while read < WRITES {
            for change in database.changes(read).await {
                assert_eq!(change.position.number(), read + 1, "a position was seen too early");
                read += 1;
            }
            tokio::task::yield_now().await;
        }
        while let Some(done) = writers.join_next().await {
            done.expect("it ran");
        }
        assert_eq!(database.store.newest(&database.instance).await, Ok(Position::new(WRITES)));
    }

    async fn what_is_no_longer_kept_is_said_to_be_gone(database: Database) {
        let day = Duration::from_secs(86_400);
        for number in 0..5 {
            let effect = Effect { facts: vec![event_user(user(&format!("user_{number}"), 5)), session_end(&format!("sess_{number}"))], done: None };
            let now = ms(NOW).plus(day * number);
            database.store.apply(&database.instance, effect, now).await.expect("applied");
        }
        let retention = Retention { messages: day, changes: day * 2, revocations: day };
        let now = ms(NOW).plus(day * 4);
        let forget = async |limit| database.store.forget(&database.instance, retention, limit, now).await.expect("answered");
        // In small steps: of the days 0 and 1 the changes, of 0 to 2 the revocations.
        assert_eq!((forget(2).await, forget(2).await, forget(2).await), (2 + 2, 1 + 2, 0));

        let gone = async |after| database.store.changes(&database.instance, Position::new(after), 10).await.expect("answered");
        assert_eq!(gone(3).await, FeedPage::Gone { oldest: Position::new(4) });
        assert_eq!(database.changes(4).await.len(), 6);
        assert!(database.changes(10).await.is_empty(), "the end is not gone");
        assert_eq!(gone(11).await, FeedPage::Gone { oldest: Position::new(4) }, "a position of another database");
        assert_eq!(database.place.number("SELECT COUNT(*) FROM revocations").await, 2);
    }

    async fn a_tombstone_is_forgotten_after_its_time(database: Database) {
        let entity = Entity::User(user_id("user_1"));
        database.apply([
            event_user(user("user_1", 5)),
            Fact::Deleted { entity: entity.clone(), at: ms(9) },
            event_user(user("user_2", 5)),
            // Waits for Clerk's word.
            Fact::Deleted { entity: Entity::User(user_id("user_3")), at: ms(9) },
            event_user(user("user_3", 10)),
        ]).await;
        let month = Duration::from_secs(30 * 86_400);
        let retention = Retention { messages: month, changes: month, revocations: month };
        let head = async || database.store.head(&database.instance, &entity).await.expect("answered");
        let forget = async |now| database.store.forget(&database.instance, retention, 100, now).await.expect("answered");

        forget(ms(NOW).plus(month)).await;
        assert!(head().await.expect("kept").is_dead());
        forget(ms(NOW + 1).plus(month)).await;
        assert_eq!(head().await, None);
        assert_eq!(database.place.number("SELECT COUNT(*) FROM users").await, 2);
    }

    async fn a_listener_hears_of_each_commit(database: Database) {
        let mut listener = database.store.listen().await.expect("listening");
        database.apply([event_user(user("user_1", 5)), event_user(user("user_2", 5))]).await;

        let heard = tokio::time::timeout(PATIENCE, listener.next()).await.expect("in time");

        assert_eq!(heard, Heard::Reached(database.instance.clone(), Position::new(2)));
        // What changes nothing is not heard of.
        database.apply([event_user(user("user_1", 5))]).await;
        database.apply([event_user(user("user_1", 6))]).await;
        let heard = tokio::time::timeout(PATIENCE, listener.next()).await.expect("in time");
        assert_eq!(heard, Heard::Reached(database.instance.clone(), Position::new(3)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_replicas_hear_each_other_and_notice_when_they_cannot() {
    let database = Database::on(Place::postgres().await).await;
    let other = database.replica().await;
    let mut listener = other.listen().await.expect("listening");
    let mut heard = async || {
        tokio::time::timeout(PATIENCE, listener.next())
            .await
            .expect("in time")
    };
    database.apply([event_user(user("user_1", 5))]).await;
    assert_eq!(
        heard().await,
        Heard::Reached(database.instance.clone(), Position::new(1))
    );

    database
        .place
        .run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE query LIKE 'LISTEN%' AND datname = current_database()",
        )
        .await;

    assert!(matches!(heard().await, Heard::Lost { .. }));
    database.apply([event_user(user("user_1", 6))]).await;
    loop {
        match heard().await {
            Heard::Lost { .. } => {}
            Heard::Reached(_, position) => {
                assert_eq!(position, Position::new(2));
                break;
            }
        }
    }
}

/// A transaction that has taken its position and is not done keeps later ones back, so that none of
/// them is seen before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_positions_become_visible_in_their_order() {
    let database = Database::on(Place::postgres().await).await;
    database.apply([event_user(user("user_1", 5))]).await;
    let Place::Postgres { url } = &database.place else {
        panic!("PostgreSQL")
    };
    let mut slow = postgres::beside(url).await;
    sqlx::raw_sql(
        "BEGIN; UPDATE feeds SET position = position + 1 WHERE instance = 'default'; \
         INSERT INTO changes (instance, position, kind, user_id, at_ms, recorded_ms) \
         VALUES ('default', 2, 'user_changed', 'user_slow', 1, 1)",
    )
    .execute(&mut slow)
    .await
    .expect("position 2 is taken");
    let (store, instance) = (database.store.clone(), database.instance.clone());
    let quick = tokio::spawn(async move {
        let facts = vec![event_user(user("user_quick", 5))];
        let effect = Effect { facts, done: None };
        store.apply(&instance, effect, ms(NOW)).await
    });
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    crate::support::eventually("the quick one waits", async || {
        database.place.number(waiting).await == 1
    })
    .await;
    assert!(database.changes(1).await.is_empty());

    sqlx::raw_sql("COMMIT")
        .execute(&mut slow)
        .await
        .expect("committed");

    let applied = quick.await.expect("it ran").expect("applied");
    assert_eq!(applied.position, Some(Position::new(3)));
    assert_eq!(database.changes(1).await.len(), 2);
}
