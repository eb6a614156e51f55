//! `clerk-authz store copy`: all of a database into another one.

use std::{collections::BTreeMap, time::SystemTime};

use clerk_authz::{
    door::grpc::proto::watch_users_response::Change,
    emulator::TokenSpec,
    identity::Timestamp,
    keys::{KeysOf, SavedKeys, SnapshotStore},
    mirror::{
        Coordination, Entity, Fact, Failed, Feed, Inbox, Mirror, Next, Position, Received,
        RevocationCause, SessionEnd, Sighting, Sightings, Upkeep, UserKey,
    },
    store::{CopiedTable, CopyError, CopyStage, SqlStore},
    upstream_assertion::{AssertionKey, AssertionKeyStore, Generation, KeyMaterial},
};
use serde_json::Value;
use tokio::sync::Notify;

use super::{command, complaint, text, told};
use crate::support::{
    Fixture, Reason, assert_denied,
    database::{
        Database, NOW, Place, api_user, event_membership, event_organization, event_user,
        membership, message, ms, organization, organization_id, user, user_id, user_with,
    },
    eventually, offline_clerk, settings_for,
    webhook::{SECRET, user_updated},
};

/// What is hard to carry over: quotes, what other formats escape, all lengths of UTF-8, and what a
/// text with a zero byte becomes.
const AWKWARD: &str = "O'Brien \\x00 \"{}\" $1 \t\r\n \u{1F600} \u{e9}\u{fffd}\u{7f}";

/// Something in every table, and in every kind of column what is hard to carry over.
async fn fill(database: &Database) {
    let (store, instance) = (&database.store, &database.instance);
    database
        .apply([
            event_user(user_with("user_1", 5, |user| {
                user.first_name = Some(AWKWARD.into());
                user.public_metadata = r#"{"n":1e400,"t":"\u0000\ud83d\ude00"}"#.into();
            })),
            api_user(user("user_2", 6), 7),
            event_user(user("user_3", 6)),
            event_organization(organization("org_1", 5)),
            event_membership(membership("org_1", "user_1", 5)),
            event_membership(membership("org_1", "user_2", 5)),
            Fact::SessionEnded(SessionEnd {
                session: "sess_1".parse().expect("an id"),
                user: Some(user_id("user_1")),
                at: ms(NOW),
            }),
            Fact::UserRevoked {
                user: user_id("user_2"),
                not_before: ms(NOW),
                cause: RevocationCause::Banned,
            },
        ])
        .await;
    database
        .apply([
            Fact::Deleted {
                entity: Entity::User(user_id("user_3")),
                at: ms(8),
            },
            Fact::Deleted {
                entity: Entity::User(user_id("user_unheard")),
                at: ms(8),
            },
        ])
        .await;
    for (id, entity) in [
        ("msg_a", "user_1"),
        ("msg_b", "user_2"),
        ("msg_c", "user_4"),
    ] {
        let kept = store.receive(instance, message(id, entity), ms(NOW)).await;
        assert_eq!(kept, Ok(true));
    }
    let without_effect = Received {
        body: None,
        ..message("msg_d", "user_1")
    };
    assert_eq!(
        store.receive(instance, without_effect, ms(NOW)).await,
        Ok(true)
    );
    // One is on the poison list, one is claimed, one waits, one is done.
    let claimed = store.claim(instance, 2, ms(NOW + 20), ms(NOW)).await;
    let claimed = claimed.expect("answered");
    let failed = Failed {
        cause: AWKWARD.into(),
        next: Next::Poison,
    };
    store
        .fail(claimed[0].claim, failed)
        .await
        .expect("it was its own");
    let used = store.use_once(instance, "jti_1", ms(NOW)).await;
    assert_eq!(used, Ok(true));
    let lease = store
        .lease(instance, "reconcile", "somebody", ms(NOW), ms(0))
        .await;
    assert!(lease.expect("answered").is_some());
    let noted = store
        .note(
            instance,
            ms(1),
            &[(Entity::User(user_id("user_1")), Sighting::There)],
            ("reconcile", "{\"page\":1}"),
            ms(NOW),
        )
        .await;
    noted.expect("noted");
    let keys = SavedKeys {
        issuer: "https://clerk.example.com".into(),
        fetched_at: ms(NOW),
        document: (0..=255).collect(),
    };
    let keys_of = KeysOf::instance(instance);
    store.save(&keys_of, keys).await.expect("saved");
    let key = AssertionKey {
        generation: Generation(7),
        signs_from: ms(NOW),
        material: KeyMaterial::of((0..=255).rev().collect()),
    };
    store.add(&key).await.expect("kept");
}

/// What stores say of what was filled in, not by way of a copy.
async fn all_that_is_told(database: &Database) -> String {
    let (store, instance) = (&database.store, &database.instance);
    let changes = store.changes(instance, Position::START, 1_000).await;
    let mut users = Vec::new();
    for id in ["user_1", "user_2", "user_3"] {
        let id = user_id(id);
        users.push((
            store.user(instance, UserKey::Id(&id)).await,
            store
                .user(instance, UserKey::Email(&format!("{id}@example.com")))
                .await,
            store.head(instance, &Entity::User(id)).await,
        ));
    }
    let unheard = Entity::User(user_id("user_unheard"));
    let organization = organization_id("org_1");
    let banned = user_id("user_2");
    let member = store.membership(instance, &organization, &banned);
    let keys = store
        .load(&KeysOf::instance(instance))
        .await
        .expect("answered")
        .expect("saved");
    let assertion_keys = store.keys().await.expect("answered");
    let assertion_keys = assertion_keys.iter();
    let assertion_keys: Vec<_> = assertion_keys
        .map(|key| (key.generation, key.signs_from, key.material.expose()))
        .collect();
    format!(
        "{:?}\n{:?}\n{users:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?} {:?} {:?}\n{assertion_keys:?}",
        store.stats(instance).await,
        changes,
        store.head(instance, &unheard).await,
        member.await,
        store.organization(instance, &organization).await,
        store.checkpoint(instance, "reconcile").await,
        store.positions().await,
        keys.issuer,
        keys.fetched_at,
        keys.document,
    )
}

async fn fresh(engine: &str) -> Place {
    match engine {
        "sqlite" => Place::sqlite(),
        _ => Place::postgres().await,
    }
}

const DIRECTIONS: [(&str, &str); 3] = [
    ("sqlite", "postgres"),
    ("postgres", "sqlite"),
    ("sqlite", "sqlite"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_database_is_in_the_other_one() {
    for (from, to) in DIRECTIONS {
        let source = Database::on(fresh(from).await).await;
        fill(&source).await;
        let before = all_that_is_told(&source).await;
        let newest = source.store.newest(&source.instance).await;
        assert!(newest.expect("answered") > Position::new(5), "{before}");
        source.store.close().await;
        let place = fresh(to).await;

        let (from, to) = (source.place.url(), place.url());
        let arguments = ["store", "copy", "--from", &from, "--to", &to, "--json"];
        let copied = command(&arguments, &[]).await;

        assert_eq!(copied.status.code(), Some(0), "{copied:?}");
        assert!(
            text(&copied.stderr).contains("verifying users: 4 of 4"),
            "{copied:?}"
        );
        let report: Value = serde_json::from_slice(&copied.stdout).expect("JSON");
        for (table, said) in report["tables"].as_object().expect("an object") {
            assert!(
                said["rows"].as_u64() > Some(0),
                "{table} was left empty by this test"
            );
        }
        let target = Database::on(place).await;
        let after = all_that_is_told(&target).await;
        assert_eq!(after, before, "{from} to {to}");
        // A message that comes now has a number of its own, behind those that were there.
        let (store, instance) = (&target.store, &target.instance);
        let kept = store
            .receive(instance, message("msg_e", "user_5"), ms(NOW))
            .await;
        assert_eq!(kept, Ok(true));
        let again = store
            .receive(instance, message("msg_a", "user_1"), ms(NOW))
            .await;
        assert_eq!(again, Ok(false), "its id is known");
        assert_eq!(
            target.place.number("SELECT MAX(sequence) FROM inbox").await,
            5
        );
        let used = store.use_once(instance, "jti_1", ms(NOW)).await;
        assert_eq!(used, Ok(false), "it was used at the source");
        target.store.close().await;
    }
}

/// A copy as a command of its own, behind one that has ended: with its process all of its connections are
/// gone. In this process some may be open still, for as long as the test.
async fn copy_behind(before: &Database, to: &SqlStore) -> Result<Vec<CopiedTable>, CopyError> {
    before.store.close().await;
    if let Place::Postgres { .. } = before.place {
        let gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'clerk-authz' AND datname = current_database()";
        before.place.run(gone).await;
    }
    // SQLite undoes what was dropped on a thread of its own, which on a busy machine may take its time.
    for _ in 0..5 {
        let store = before.replica().await;
        let ended = store.copy_to(to, &|_| {}).await;
        store.close().await;
        if !matches!(ended, Err(CopyError::InUse)) {
            return ended;
        }
    }
    Err(CopyError::InUse)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_broken_off_has_left_nothing() {
    for (from, to) in DIRECTIONS {
        for (stage, table) in [
            (CopyStage::Copies, "organizations"),
            (CopyStage::Verifies, "users"),
        ] {
            let filled = Database::on(fresh(from).await).await;
            fill(&filled).await;
            // Which has more than one connection open.
            filled.store.close().await;
            let source = Database::on(filled.place).await;
            let target = Database::on(fresh(to).await).await;
            let stats = async |of: &Database| of.store.stats(&of.instance).await.expect("answered");
            let (whole, empty) = (stats(&source).await, stats(&target).await);
            let reached = Notify::new();
            let on_progress = |at: clerk_authz::store::CopyProgress| {
                if at.stage == stage && at.table == table {
                    reached.notify_one();
                }
            };
            tokio::select! {
                biased;
                () = reached.notified() => {}
                ended = source.store.copy_to(&target.store, &on_progress) => panic!("{ended:?}"),
            }
            // PostgreSQL undoes what was dropped when it hears of it. SQLite can be so quick that what is
            // broken off is the last commit, which is done then.
            eventually("all or nothing is there", async || {
                let left = stats(&target).await;
                left == empty || left == whole
            })
            .await;
            if stats(&target).await == whole {
                continue;
            }

            // The next one does it.
            let copied = copy_behind(&source, &target.store).await;
            assert_eq!(copied.expect("copied")[0].rows, 4);
            let again = copy_behind(&source, &target.store).await;
            let error = again.expect_err("there is something");
            assert!(
                matches!(error, CopyError::NotEmpty { table: "users" }),
                "{error}"
            );
        }
    }
}

/// A database that does not keep what it is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_read_back_as_it_was_is_not_kept() {
    const ON_SQLITE: &str = "CREATE TRIGGER forger AFTER INSERT ON memberships BEGIN \
         UPDATE memberships SET role = 'org:forged' WHERE user_id = 'user_2'; END";
    const ON_POSTGRES: &str = "CREATE FUNCTION forged() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN NEW.role := ''org:forged''; RETURN NEW; END'; CREATE TRIGGER forger \
         BEFORE INSERT ON memberships FOR EACH ROW EXECUTE FUNCTION forged()";
    for (to, trigger) in [("sqlite", ON_SQLITE), ("postgres", ON_POSTGRES)] {
        let source = Database::on(Place::sqlite()).await;
        fill(&source).await;
        let target = Database::on(fresh(to).await).await;
        target.place.run(trigger).await;

        let copied = source.store.copy_to(&target.store, &|_| {}).await;

        let error = copied.expect_err("it is not the same").to_string();
        assert!(error.starts_with("table memberships differs after the copy: 2 rows at the source, 2 at the target, which say something else"), "{error}");
        let stats = target
            .store
            .stats(&target.instance)
            .await
            .expect("answered");
        assert_eq!((stats.users, stats.memberships), (0, 0));
    }
}

async fn fixture(place: &Place, clerk: clerk_authz::emulator::Emulator) -> Fixture {
    let url = place.url();
    let variables = [
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ("CLERK_AUTHZ_DATABASE_URL", &*url),
    ];
    let settings = settings_for(&clerk, &variables);
    Fixture::start_on(clerk, &settings).await
}

/// The service moves from SQLite to PostgreSQL: what was known, waited, ended and watched goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_has_moved_goes_on() {
    let old = Database::on(Place::sqlite()).await;
    let before = fixture(&old.place, offline_clerk().await).await;
    let addr = before.service.http_addr();
    for (number, version) in [(1, 5), (2, 5), (3, 5)] {
        let (id, name) = (format!("msg_{number}"), format!("user_{number}"));
        let sent = user_updated(&id, &name, "Ada", version).status(addr).await;
        assert_eq!(sent, 204);
        before.is_called(&name, "Ada").await;
    }
    let mut spec = TokenSpec::session("user_alice");
    spec.lifetime_seconds = Some(3_600);
    spec.session = Some("sess_over".to_owned());
    let over = before.mint(&spec);
    spec.session = Some("sess_live".to_owned());
    let live = before.mint(&spec);
    old.apply([Fact::SessionEnded(SessionEnd {
        session: "sess_over".parse().expect("an id"),
        user: None,
        at: ms(NOW),
    })])
    .await;
    let watched = before.watched().await;
    let in_use = Place::postgres().await.url();
    let from = old.place.url();
    let output = command(&["store", "copy", "--from", &from, "--to", &in_use], &[]).await;
    assert!(
        complaint(&output)
            .contains("the source is open elsewhere; stop every clerk-authz on it first"),
        "{output:?}"
    );
    before.service.stop().await;
    // What was answered with 204 and is not applied yet.
    for number in 1..=3 {
        let entity = format!("user_{number}");
        let later = user_updated(&format!("msg_later{number}"), &entity, "Grace", 9);
        let waits = Received {
            body: Some(later.body.into_bytes()),
            ..message(&later.id, &entity)
        };
        let now = Timestamp::from(SystemTime::now());
        let kept = old.store.receive(&old.instance, waits, now).await;
        assert_eq!(kept, Ok(true));
    }
    let newest = old.store.newest(&old.instance).await.expect("answered");
    old.store.close().await;

    let new = Place::postgres().await;
    let to = new.url();
    let copied = command(&["store", "copy", "--from", &from, "--to", &to], &[]).await;
    assert_eq!(copied.status.code(), Some(0), "{copied:?}");
    let said = text(&copied.stdout);
    assert!(said.contains("inbox                    6  "), "{said}");
    assert!(
        said.contains(
            "copied and verified; now start the service on postgres://postgres@localhost/"
        ),
        "{said}"
    );

    let after = fixture(&new, before.clerk).await;
    let addr = after.service.http_addr();
    for number in 1..=3 {
        after.is_called(&format!("user_{number}"), "Grace").await;
        let again = user_updated(
            &format!("msg_later{number}"),
            &format!("user_{number}"),
            "Eve",
            99,
        );
        assert_eq!(again.status(addr).await, 204, "its id is known");
    }
    assert_denied(
        after.verify(&over).await,
        Reason::SessionRevoked,
        "it ended before",
    );
    after.verify(&live).await.expect("another session goes on");
    // The watcher goes on where it was, and is told of each change once.
    let mut stream = after.watch(&watched).await.expect("it goes on");
    let mut told_of = BTreeMap::new();
    let mut last = watched.clone();
    while told_of.len() < 3 {
        let (token, change) = told(&mut stream).await;
        last = token;
        match change {
            Change::User(user) => assert_eq!(told_of.insert(user.id, user.first_name), None),
            Change::Heartbeat(_) => {}
            other => panic!("not of what came behind: {other:?}"),
        }
    }
    assert!(told_of.values().all(|name| name == "Grace"), "{told_of:?}");
    let new = Database::on(new).await;
    let position = new.store.newest(&new.instance).await.expect("answered");
    assert_eq!(
        position,
        Position::new(newest.number() + 3),
        "each was applied once"
    );
    after.service.stop().await;

    // Whoever starts the old one again watches another feed than the new one's.
    let back = fixture(&old.place, after.clerk).await;
    // Also with a token that both have given out a position for.
    back.begins_anew(&watched).await;
    back.begins_anew(&last).await;
    back.stop().await;
}

#[tokio::test]
async fn what_cannot_be_copied_says_how_to_mend_it() {
    let place = Place::sqlite();
    let database = Database::on(place).await;
    fill(&database).await;
    database.store.close().await;
    let there = database.place.url();
    let folder = tempfile::tempdir().expect("a folder");
    let new = format!("sqlite://{}/new.db", folder.path().display());
    let secret = "postgres://someone:hushhush@127.0.0.1:1/none";
    let with_password = folder.path().join("address");
    std::fs::write(&with_password, format!("{secret}\n")).expect("written");
    let with_password = with_password.to_str().expect("UTF-8");
    for (arguments, expected) in [
        (&["--from", &*there][..], "--to"),
        (
            &["--from", &*there, "--to", &*new, "--to-file", "x"],
            "cannot be used with",
        ),
        (
            &["--from", "sqlite:///nowhere/x.db", "--to", &*new],
            "--from names /nowhere/x.db, where there is no file",
        ),
        (
            &["--from", &*there, "--to", "mysql://x/y"],
            "--to is not a database's address; expected one that starts with",
        ),
        (
            &["--from", &*there, "--to", secret],
            "--to holds a password, which every user of this machine can read there",
        ),
        (
            &[
                "--from",
                "postgres://x@h/db?password=hushhush",
                "--to",
                &*new,
            ],
            "--from holds a password",
        ),
        (
            &["--from", &*there, "--to-file", with_password],
            "postgres://someone:…@127.0.0.1:1/none cannot be opened: the database is unavailable",
        ),
        (
            &["--from", &*there, "--to-file", "/nowhere/x"],
            "--to-file: /nowhere/x cannot be read",
        ),
        (
            &["--from", &*there, "--to", &*there],
            "--from and --to name the same database",
        ),
    ] {
        let output = command(&[&["store", "copy"], arguments].concat(), &[]).await;
        let said = complaint(&output);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("hushhush"), "{said}");
    }
    assert!(!folder.path().join("new.db").exists());

    let copied = command(&["store", "copy", "--from", &there, "--to", &new], &[]).await;
    assert_eq!(copied.status.code(), Some(0), "{copied:?}");
    let again = command(&["store", "copy", "--from", &there, "--to", &new], &[]).await;
    let said = complaint(&again);
    assert!(
        said.contains(": the target is not empty: its table users has rows"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_somebody_has_open_is_not_copied() {
    let database = Database::on(Place::postgres().await).await;
    fill(&database).await;
    let place = Place::sqlite();
    let (from, to) = (database.place.url(), place.url());

    let output = command(&["store", "copy", "--from", &from, "--to", &to], &[]).await;

    let said = complaint(&output);
    assert!(said.contains("the source is open elsewhere"), "{said}");
    database.store.close().await;
    // PostgreSQL ends the process of a connection a little after it was closed.
    eventually("it is copied", async || {
        let copied = command(&["store", "copy", "--from", &from, "--to", &to], &[]).await;
        copied.status.code() == Some(0)
    })
    .await;
}
