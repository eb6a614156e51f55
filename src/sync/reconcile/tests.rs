use std::sync::Mutex;

use super::{checkpoint::Place, judge::*, *};
use crate::{
    mirror::{Digest, Entity, Head, Incoming, Origin, Write},
    store::SqlStore,
    sync::Listings,
};

const START: Timestamp = Timestamp::from_unix_millis(1_000_000);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

fn content(version: i64, digest: u8, origin: Origin) -> Incoming {
    Incoming::Content {
        version: at(version),
        origin,
        digest: Digest::from_bytes([digest; 32]),
    }
}

/// What Clerk says in this run.
fn clerk(version: i64, digest: u8) -> Incoming {
    content(
        version,
        digest,
        Origin::Api {
            as_of: at(1_000_100),
        },
    )
}

fn knowing(incoming: &[Incoming]) -> Option<Head> {
    let mut head = Head::default();
    for each in incoming {
        head.take(*each);
    }
    Some(head)
}

#[test]
fn a_difference_is_what_the_rules_would_write() {
    let event = |version, digest| content(version, digest, Origin::Event);
    let deleted = |millis| Incoming::Deleted { at: at(millis) };
    let absent = Incoming::Absent {
        as_of: at(1_000_100),
    };
    let young = 1_000_001;
    for (name, known, incoming, expected) in [
        (
            "nothing is known",
            None,
            clerk(5, 1),
            Judgement::Drift(Drift::Missing),
        ),
        (
            "the same",
            knowing(&[event(5, 1)]),
            clerk(5, 1),
            Judgement::InStep,
        ),
        (
            "an older version",
            knowing(&[event(4, 1)]),
            clerk(5, 2),
            Judgement::Drift(Drift::Stale),
        ),
        (
            "the version alone",
            knowing(&[event(4, 1)]),
            clerk(5, 1),
            Judgement::Touched,
        ),
        (
            "the same version with other content",
            knowing(&[event(5, 1)]),
            clerk(5, 2),
            Judgement::Drift(Drift::Stale),
        ),
        (
            "a newer version here",
            knowing(&[event(6, 1)]),
            clerk(5, 2),
            Judgement::Overtaken,
        ),
        (
            "made after the run began",
            None,
            clerk(young, 1),
            Judgement::Young,
        ),
        (
            "changed after the run began",
            knowing(&[event(5, 1)]),
            clerk(young, 2),
            Judgement::Young,
        ),
        (
            "two minds",
            knowing(&[event(5, 2), event(5, 1)]),
            clerk(5, 2),
            Judgement::Settles,
        ),
        (
            "held back behind a tombstone",
            knowing(&[deleted(4), event(5, 1)]),
            clerk(5, 1),
            Judgement::Drift(Drift::Missing),
        ),
        (
            "deleted after Clerk was asked",
            knowing(&[deleted(young)]),
            clerk(5, 1),
            Judgement::Overtaken,
        ),
        (
            "buried here and there at Clerk",
            knowing(&[Incoming::Absent { as_of: at(6) }]),
            clerk(5, 1),
            Judgement::Drift(Drift::Missing),
        ),
        (
            "gone at Clerk",
            knowing(&[event(5, 1)]),
            absent,
            Judgement::Drift(Drift::Ghost),
        ),
        (
            "gone in both",
            knowing(&[event(5, 1), deleted(6)]),
            absent,
            Judgement::Overtaken,
        ),
        (
            "seen by somebody since",
            knowing(&[content(
                5,
                1,
                Origin::Api {
                    as_of: at(1_000_200),
                },
            )]),
            absent,
            Judgement::Overtaken,
        ),
    ] {
        let judged = judge(known, incoming, START);
        assert_eq!(judged, expected, "{name}");
        // What is worth writing is what the rules write, or what settles.
        let mut head = known.unwrap_or_default();
        let write = head.take(incoming);
        let writes = matches!(write, Write::Created | Write::Updated | Write::Deleted);
        assert_eq!(
            judged.is_worth_writing(),
            writes || judged == Judgement::Settles,
            "{name}"
        );
    }
}

#[test]
fn a_checkpoint_is_read_as_it_was_written_and_only_by_its_like() {
    let mut kept = Checkpoint::new(START, true);
    let user: Entity = Entity::User("user_1".parse().expect("an id"));
    kept.place.passed(std::slice::from_ref(&user));
    kept.next_step();
    kept.place.total = Some(7);
    kept.kind(EntityKind::User)
        .found_drift(Drift::Stale, &user, true);
    let read = Checkpoint::parse(&kept.to_text()).expect("a checkpoint");
    assert_eq!(read, kept);

    assert!(read.can_go_on(true, START.plus(RESUMED_WITHIN)));
    assert!(!read.can_go_on(false, START), "of another kind");
    assert!(
        !read.can_go_on(true, START.plus(RESUMED_WITHIN).plus(LEASE)),
        "too old"
    );
    assert!(!read.can_go_on(true, START.minus(LEASE)), "from the future");
    for text in [Checkpoint::NONE, "{}", "something of another version"] {
        assert_eq!(Checkpoint::parse(text), None, "{text}");
    }
}

#[test]
fn a_place_remembers_the_last_twenty() {
    let users: Vec<Entity> = (0..30)
        .map(|number| Entity::User(format!("user_{number}").parse().expect("an id")))
        .collect();
    let mut place = Place::default();
    place.passed(&users[..15]);
    place.passed(&users[15..]);
    assert!(place.meets(&users[10..11]) && !place.meets(&users[..10]));
    assert_eq!(place.last(EntityKind::User).as_ref(), users.last());
    place.drop_last();
    assert_eq!(place.last(EntityKind::User).as_ref(), users.get(28));
}

/// A nightly at 03:00 on a fresh database, and its clock.
async fn nightly() -> (tempfile::TempDir, SqlStore, Nightly, Arc<Mutex<Timestamp>>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqlStore::sqlite(&folder.path().join("x.db"))
        .await
        .expect("a store");
    let now = Arc::new(Mutex::new(START));
    let read = Arc::clone(&now);
    let nightly = Nightly::new(
        Arc::new(store.clone()),
        Arc::new(Listings::default()),
        ReconcileAt::Daily(180),
        "test".to_owned(),
        Arc::new(move || *read.lock().expect("a time")),
    );
    (folder, store, nightly, now)
}

#[tokio::test]
async fn a_run_is_due_once_a_day_and_for_six_hours() {
    let (_folder, store, nightly, now) = nightly().await;
    let instance: InstanceName = "default".parse().expect("a name");
    let hours = |hours: i64| Timestamp::from_unix_seconds(86_400 + hours * 3_600);
    let due = async |since, now| {
        nightly
            .is_due(&instance, since, now)
            .await
            .expect("answered")
    };
    assert!(!due(hours(0), hours(2)).await, "not yet");
    assert!(due(hours(0), hours(3)).await);
    assert!(due(hours(0), hours(9)).await, "still tried");
    assert!(!due(hours(0), hours(10)).await, "tomorrow");
    assert!(
        !due(hours(4), hours(5)).await,
        "it was due before this process began"
    );

    // One that another process left is gone on with.
    let io = Persistent {
        store: &store,
        clock: &nightly_clock(&now),
        instance: &instance,
    };
    let left = |started, apply| Checkpoint::new(started, apply).to_text();
    io.set_checkpoint(NAME, &left(hours(3), true))
        .await
        .expect("kept");
    assert!(due(hours(4), hours(5)).await);
    io.set_checkpoint(NAME, &left(hours(3), false))
        .await
        .expect("kept");
    assert!(
        !due(hours(4), hours(5)).await,
        "a comparison by hand is not the nightly's"
    );

    // One that mended is enough, whoever made it; a comparison is not.
    let report = |applied| Report {
        started_at: hours(4),
        ended_at: hours(4),
        applied,
        kinds: Default::default(),
    };
    LastRun::keep(&io, Some(&report(false)), hours(4))
        .await
        .expect("kept");
    assert!(due(hours(0), hours(5)).await);
    LastRun::keep(&io, Some(&report(true)), hours(4))
        .await
        .expect("kept");
    assert!(!due(hours(0), hours(5)).await);
    assert!(due(hours(0), hours(27)).await, "the next day");
}

fn nightly_clock(now: &Arc<Mutex<Timestamp>>) -> Clock {
    let now = Arc::clone(now);
    Arc::new(move || *now.lock().expect("a time"))
}

#[tokio::test]
async fn the_last_run_that_came_to_its_end_outlives_one_that_failed() {
    let (_folder, store, _, now) = nightly().await;
    let instance: InstanceName = "default".parse().expect("a name");
    let clock = nightly_clock(&now);
    let io = Persistent {
        store: &store,
        clock: &clock,
        instance: &instance,
    };
    let read = async || {
        LastRun::read(&store, &instance)
            .await
            .expect("answered")
            .expect("kept")
    };
    LastRun::keep(&io, None, at(5)).await.expect("kept");
    assert_eq!(
        (read().await.outcome(), read().await.ended()),
        (Some(RunOutcome::Failed), None)
    );

    let mut report = Checkpoint::new(at(6), true).report(at(7));
    LastRun::keep(&io, Some(&report), at(7))
        .await
        .expect("kept");
    assert_eq!(read().await.outcome(), Some(RunOutcome::InStep));
    let user = Entity::User("user_1".parse().expect("an id"));
    report.kinds[EntityKind::User as usize].found_drift(Drift::Ghost, &user, true);
    LastRun::keep(&io, Some(&report), at(7))
        .await
        .expect("kept");
    assert_eq!(read().await.outcome(), Some(RunOutcome::Drift));

    LastRun::keep(&io, None, at(9)).await.expect("kept");
    let last = read().await;
    assert_eq!(
        (last.outcome(), last.at()),
        (Some(RunOutcome::Failed), Some(at(9)))
    );
    assert_eq!(last.found(EntityKind::User, Drift::Ghost), Some(1));
    assert_eq!(last.ended(), Some((at(6), true)));
}
