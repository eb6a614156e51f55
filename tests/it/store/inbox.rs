//! Messages that wait for their effect.

use std::{
    collections::BTreeSet,
    future::Future,
    io::{BufRead, BufReader},
    pin::pin,
    process::{Command, Stdio},
    task::Poll,
};

use clerk_authz::{
    mirror::{
        Claimed, Coordination, Effect, Failed, Inbox, InboxEntry, InboxFilter, InboxState, Mirror,
        Next, Retention, StoreError, Upkeep, UserKey,
    },
    store::SqlStore,
};

use crate::support::database::{
    Database, NOW, Place, event_user, message, ms, on_each_engine, user, user_id,
};

impl Database {
    async fn receive(&self, id: &str, entity: &str) {
        let new = self
            .store
            .receive(&self.instance, message(id, entity), ms(NOW))
            .await;
        assert_eq!(new, Ok(true), "{id} is new");
    }

    /// Claims for ten seconds, `later` milliseconds after now.
    async fn claim(&self, limit: u32, later: i64) -> Vec<Claimed> {
        let now = NOW + later;
        let claimed = self
            .store
            .claim(&self.instance, limit, ms(now + 10_000), ms(now))
            .await;
        claimed.expect("answered")
    }

    async fn list(&self, state: InboxState) -> Vec<InboxEntry> {
        let filter = InboxFilter {
            state,
            after: 0,
            limit: 100,
        };
        self.store
            .list(&self.instance, filter)
            .await
            .expect("answered")
    }

    async fn done(&self, claimed: &Claimed) {
        self.try_apply(Vec::new(), Some(claimed.claim))
            .await
            .expect("done");
    }
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed
        .iter()
        .map(|claimed| claimed.message.id.as_str())
        .collect()
}

on_each_engine! {
    async fn a_message_is_taken_once_however_often_it_comes(database: Database) {
        database.receive("msg_1", "user_1").await;
        let again = database.store.receive(&database.instance, message("msg_1", "user_2"), ms(NOW)).await;
        assert_eq!(again, Ok(false));

        let claimed = database.claim(10, 0).await;
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].message, message("msg_1", "user_1"));
        database.done(&claimed[0]).await;

        let again = database.store.receive(&database.instance, message("msg_1", "user_1"), ms(NOW)).await;
        assert_eq!(again, Ok(false), "its id is known also when it is done");
        assert!(database.claim(10, 60_000).await.is_empty());
        let body = "SELECT COUNT(*) FROM inbox WHERE body IS NOT NULL";
        assert_eq!(database.place.number(body).await, 0, "and its body is not kept");
    }

    async fn a_message_without_a_body_is_done_at_once(database: Database) {
        let mut received = message("msg_1", "email");
        received.body = None;
        let new = database.store.receive(&database.instance, received, ms(NOW)).await;
        assert_eq!(new, Ok(true));
        assert!(database.claim(10, 0).await.is_empty());
        assert_eq!(database.list(InboxState::Done).await.len(), 1);
    }

    async fn messages_about_one_entity_are_worked_on_one_after_the_other(database: Database) {
        for (id, entity) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("b2", "b")] {
            database.receive(id, entity).await;
        }
        let first = database.claim(10, 0).await;
        assert_eq!(ids(&first), ["a1", "b1"]);
        assert!(database.claim(10, 0).await.is_empty(), "the others wait for these");

        database.done(&first[1]).await;
        let second = database.claim(10, 0).await;
        assert_eq!(ids(&second), ["b2"]);

        let failed = Failed { cause: "not now".into(), next: Next::TryAt(ms(NOW + 5_000)) };
        database.store.fail(first[0].claim, failed).await.expect("given back");
        assert!(database.claim(10, 0).await.is_empty(), "a2 does not overtake a1");
        let again = database.claim(10, 5_000).await;
        assert_eq!(ids(&again), ["a1"]);
        assert_eq!(again[0].attempt, 2);
        database.done(&again[0]).await;
        assert_eq!(ids(&database.claim(10, 5_000).await), ["a2"]);
    }

    async fn no_more_are_taken_than_were_asked_for_and_the_oldest_first(database: Database) {
        for number in 0..10 {
            database.receive(&format!("m{number}"), &format!("user_{number}")).await;
        }
        assert_eq!(ids(&database.claim(3, 0).await), ["m0", "m1", "m2"]);
        assert_eq!(ids(&database.claim(4, 0).await), ["m3", "m4", "m5", "m6"]);
        assert_eq!(ids(&database.claim(9, 0).await), ["m7", "m8", "m9"]);
    }

    async fn messages_about_nothing_in_particular_do_not_wait_for_each_other(database: Database) {
        for id in ["m1", "m2", "m3"] {
            let mut received = message(id, "");
            received.entity = None;
            database.store.receive(&database.instance, received, ms(NOW)).await.expect("kept");
        }
        assert_eq!(ids(&database.claim(10, 0).await), ["m1", "m2", "m3"]);
    }

    async fn a_poisoned_message_lets_the_next_pass_and_is_tried_again_by_hand(database: Database) {
        database.receive("a1", "a").await;
        database.receive("a2", "a").await;
        let claimed = database.claim(10, 0).await;
        let failed = Failed { cause: "no such field".into(), next: Next::Poison };
        database.store.fail(claimed[0].claim, failed).await.expect("given up");

        assert_eq!(ids(&database.claim(10, 0).await), ["a2"]);
        let poison = database.list(InboxState::Poison).await;
        assert_eq!(poison.len(), 1);
        assert_eq!(poison[0].failure.as_deref(), Some("no such field"));
        assert_eq!((poison[0].id.as_str(), poison[0].attempts), ("a1", 1));

        let id = "a1".parse().expect("an id");
        assert_eq!(database.store.retry(&database.instance, &id, ms(NOW)).await, Ok(true));
        assert_eq!(database.store.retry(&database.instance, &id, ms(NOW)).await, Ok(false));
        let again = database.claim(10, 0).await;
        assert_eq!(ids(&again), ["a1"]);
        assert_eq!(again[0].attempt, 1, "it starts anew");
        assert_ne!(again[0].claim, claimed[0].claim, "and the old claim stays void");

        let failed = Failed { cause: "still".into(), next: Next::Poison };
        database.store.fail(again[0].claim, failed).await.expect("given up");
        assert_eq!(database.store.give_up(&database.instance, &id, ms(NOW)).await, Ok(true));
        assert_eq!(database.store.give_up(&database.instance, &id, ms(NOW)).await, Ok(false));
        assert!(database.list(InboxState::Poison).await.is_empty());
    }

    async fn a_lease_that_has_passed_gives_the_message_to_another(database: Database) {
        database.receive("msg_1", "user_1").await;
        let first = database.claim(10, 0).await;
        assert!(database.claim(10, 9_999).await.is_empty());
        let second = database.claim(10, 10_000).await;
        assert_eq!(ids(&second), ["msg_1"]);

        let late = database.try_apply(vec![event_user(user("user_1", 5))], Some(first[0].claim)).await;
        assert_eq!(late, Err(StoreError::ClaimLost));
        let failed = Failed { cause: "late".into(), next: Next::Poison };
        assert_eq!(database.store.fail(first[0].claim, failed).await, Err(StoreError::ClaimLost));
        let id = user_id("user_1");
        let found = database.store.user(&database.instance, UserKey::Id(&id)).await.expect("answered");
        assert!(found.is_none(), "nothing of the late worker's effect is there");

        database.try_apply(vec![event_user(user("user_1", 5))], Some(second[0].claim)).await.expect("applied");
        let twice = database.try_apply(vec![event_user(user("user_1", 6))], Some(second[0].claim)).await;
        assert_eq!(twice, Err(StoreError::ClaimLost), "done is done");
    }

    /// A worker is cut off at every point at which it waits: effect and "done" are both there, or
    /// neither is.
    async fn an_effect_that_is_cut_off_is_whole_or_not_at_all(database: Database) {
        for polls in 0..24 {
            let name = format!("user_{polls}");
            database.receive(&format!("msg_{polls}"), &name).await;
            let claimed = database.claim(1, 0).await;
            let effect = Effect { facts: vec![event_user(user(&name, 5))], done: Some(claimed[0].claim) };
            {
                let mut apply = pin!(database.store.apply(&database.instance, effect, ms(NOW)));
                let mut left = polls;
                std::future::poll_fn(|context| {
                    if left == 0 || apply.as_mut().poll(context).is_ready() {
                        return Poll::Ready(());
                    }
                    left -= 1;
                    Poll::Pending
                }).await;
            }
            // A writer's turn comes after what was cut off has been undone.
            database.store.set_checkpoint(&database.instance, "turn", "", ms(NOW)).await.expect("kept");
            let id = user_id(&name);
            let found = database.store.user(&database.instance, UserKey::Id(&id)).await.expect("answered");
            let open = database.list(InboxState::Claimed).await;
            assert_eq!(found.is_none(), open.iter().any(|entry| entry.id.as_str() == format!("msg_{polls}")), "{polls}");
            for entry in database.claim(10, 20_000).await {
                database.done(&entry).await;
            }
        }
    }

    /// Workers of two replicas at once: each message is applied once, and none waits for another's
    /// lock.
    async fn replicas_share_the_work(database: Database) {
        for number in 0..60 {
            database.receive(&format!("msg_{number}"), &format!("user_{}", number % 20)).await;
        }
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (store, instance) = (database.replica().await, database.instance.clone());
            workers.spawn(async move {
                let mut applied = Vec::new();
                let mut idle = 0;
                while idle < 200 {
                    let claimed = store.claim(&instance, 3, ms(NOW + 10_000), ms(NOW)).await.expect("answered");
                    idle = if claimed.is_empty() { idle + 1 } else { 0 };
                    for claimed in claimed {
                        let effect = Effect { facts: Vec::new(), done: Some(claimed.claim) };
                        store.apply(&instance, effect, ms(NOW)).await.expect("applied");
                        applied.push((claimed.message.entity, claimed.claim.sequence));
                    }
                    tokio::task::yield_now().await;
                    if store.stats(&instance).await.expect("answered").oldest_waiting.is_none() {
                        break;
                    }
                }
                applied
            });
        }
        let mut all = Vec::new();
        while let Some(applied) = workers.join_next().await {
            all.extend(applied.expect("it ran"));
        }
        let distinct: BTreeSet<i64> = all.iter().map(|(_, sequence)| *sequence).collect();
        assert_eq!((all.len(), distinct.len()), (60, 60));
    }

    async fn what_is_done_is_forgotten_after_its_time_and_what_waits_never(database: Database) {
        database.receive("done", "a").await;
        let claimed = database.claim(1, 0).await;
        database.done(&claimed[0]).await;
        database.receive("waits", "b").await;
        let retention = Retention {
            messages: std::time::Duration::from_secs(60),
            changes: std::time::Duration::from_secs(60),
            revocations: std::time::Duration::from_secs(60),
        };
        let forget = async |later| {
            let forgotten = database.store.forget(&database.instance, retention, 100, ms(NOW + later)).await;
            forgotten.expect("answered")
        };
        assert_eq!(forget(60_000).await, 0);
        assert_eq!(forget(60_001).await, 1);
        assert_eq!(forget(90_000_000).await, 0);
        assert_eq!(database.list(InboxState::Waiting).await.len(), 1);
        let stats = database.store.stats(&database.instance).await.expect("answered");
        assert_eq!(stats.oldest_waiting, Some(ms(NOW)));
        assert!(stats.inbox.contains(&(InboxState::Waiting, 1)));
    }
}

/// While one worker is just taking a message, another gets the next one and does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_workers_pass_over_what_another_is_taking() {
    use crate::support::postgres;
    let database = Database::on(Place::postgres().await).await;
    database.receive("msg_1", "a").await;
    database.receive("msg_2", "b").await;
    let Place::Postgres { url } = &database.place else {
        panic!("PostgreSQL")
    };
    let mut taking = postgres::beside(url).await;
    sqlx::raw_sql("BEGIN; SELECT sequence FROM inbox WHERE message_id = 'msg_1' FOR UPDATE")
        .execute(&mut taking)
        .await
        .expect("locked");

    let claimed = database.claim(10, 0).await;

    assert_eq!(ids(&claimed), ["msg_2"]);
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut taking)
        .await
        .expect("let go");
    assert_eq!(ids(&database.claim(10, 0).await), ["msg_1"]);
}

/// Set where this binary is run once more as a service that is about to be killed: its database.
const VICTIM: &str = "CLERK_AUTHZ_TEST_VICTIM";

/// Accepts messages and says so, as the door does with its 204, until it is killed.
async fn accept_until_killed(file: &str) {
    let store = SqlStore::sqlite(file.as_ref()).await.expect("a store");
    let instance = "default".parse().expect("a name");
    for number in 0_u32.. {
        let received = message(&format!("msg_{number}"), "user_1");
        store
            .receive(&instance, received, ms(NOW))
            .await
            .expect("kept");
        println!("\naccepted {number}");
    }
}

#[tokio::test]
async fn what_was_accepted_survives_kill_9() {
    if let Ok(file) = std::env::var(VICTIM) {
        return accept_until_killed(&file).await;
    }
    let place = Place::sqlite();
    let Place::Sqlite { file, .. } = &place else {
        panic!("SQLite")
    };
    let mut victim = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "--nocapture"])
        .arg("store::inbox::what_was_accepted_survives_kill_9")
        .env(VICTIM, file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let lines = BufReader::new(victim.stdout.take().expect("it was asked for")).lines();
    let accepted = lines
        .map(|line| line.expect("a line"))
        .filter(|line| line.starts_with("accepted "))
        .take(100)
        .count();
    victim.kill().expect("killed");
    victim.wait().expect("ended");

    let database = Database::on(place).await;

    let kept = database.list(InboxState::Waiting).await;
    assert_eq!((accepted, kept.len()), (100, 100));
    assert_eq!(
        ids(&database.claim(1, 0).await),
        ["msg_0"],
        "and the service goes on with them"
    );
}
