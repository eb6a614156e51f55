use proptest::prelude::*;

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

fn digest(of: u8) -> Digest {
    Digest::from_bytes([of; 32])
}

fn event(version: i64, content: u8) -> Incoming {
    Incoming::Content {
        version: at(version),
        origin: Origin::Event,
        digest: digest(content),
    }
}

fn api(version: i64, content: u8, as_of: i64) -> Incoming {
    Incoming::Content {
        version: at(version),
        origin: Origin::Api { as_of: at(as_of) },
        digest: digest(content),
    }
}

fn deleted(millis: i64) -> Incoming {
    Incoming::Deleted { at: at(millis) }
}

fn absent(millis: i64) -> Incoming {
    Incoming::Absent { as_of: at(millis) }
}

fn after(all: &[Incoming]) -> (Head, Vec<Write>) {
    let mut head = Head::default();
    let writes = all.iter().map(|incoming| head.take(*incoming)).collect();
    (head, writes)
}

/// What a reader sees: nothing, or a version with its content.
fn visible(head: &Head) -> Option<(i64, u8)> {
    let content = head.content.filter(|_| head.is_live())?;
    Some((
        head.version.expect("content has one").unix_millis(),
        content.digest.as_bytes()[0],
    ))
}

/// Each rule of docs/mirror.md: what came in, what became of each, what is seen, whether Clerk has
/// to be asked.
#[test]
#[expect(clippy::type_complexity, reason = "a table")]
fn each_rule_holds() {
    use Write::{Created, Deleted, HeldBack, Stale, Tombstoned, Unchanged, Updated};
    let cases: &[(&str, &[Incoming], &[Write], Option<(i64, u8)>, bool)] = &[
        (
            "2 a newer version wins",
            &[event(1, 1), event(2, 2)],
            &[Created, Updated],
            Some((2, 2)),
            false,
        ),
        (
            "2 an older version does not",
            &[event(2, 2), event(1, 1)],
            &[Created, Stale],
            Some((2, 2)),
            false,
        ),
        (
            "2 an older answer of the API does not either",
            &[event(2, 2), api(1, 1, 9)],
            &[Created, Stale],
            Some((2, 2)),
            false,
        ),
        (
            "4 the same again changes nothing",
            &[event(1, 1), event(1, 1)],
            &[Created, Unchanged],
            Some((1, 1)),
            false,
        ),
        (
            "4 at one version the API beats an event",
            &[event(1, 1), api(1, 2, 9)],
            &[Created, Updated],
            Some((1, 2)),
            false,
        ),
        (
            "4 and an event never the API",
            &[api(1, 2, 9), event(1, 1)],
            &[Created, Stale],
            Some((1, 2)),
            false,
        ),
        (
            "4 of two answers at one version the later wins",
            &[api(1, 2, 9), api(1, 3, 8), api(1, 4, 10)],
            &[Created, Stale, Updated],
            Some((1, 4)),
            false,
        ),
        (
            "4 of two events at one version the first stays, and Clerk is asked",
            &[event(1, 1), event(1, 2)],
            &[Created, Stale],
            Some((1, 1)),
            true,
        ),
        (
            "4 the answer settles it",
            &[event(1, 1), event(1, 2), api(1, 1, 9)],
            &[Created, Stale, Unchanged],
            Some((1, 1)),
            false,
        ),
        (
            "4 and so does a newer version",
            &[event(1, 1), event(1, 2), event(2, 3)],
            &[Created, Stale, Updated],
            Some((2, 3)),
            false,
        ),
        (
            "5 a deletion beats what is older",
            &[event(1, 1), deleted(2)],
            &[Created, Deleted],
            None,
            false,
        ),
        (
            "5 and what has its very time",
            &[event(2, 1), deleted(2)],
            &[Created, Deleted],
            None,
            false,
        ),
        (
            "6 a late update does not raise the dead",
            &[deleted(2), event(1, 1)],
            &[Tombstoned, Tombstoned],
            None,
            false,
        ),
        (
            "6 a newer event waits for the API",
            &[deleted(2), event(3, 1)],
            &[Tombstoned, HeldBack],
            None,
            true,
        ),
        (
            "6 in either order",
            &[event(3, 1), deleted(2)],
            &[Created, Deleted],
            None,
            true,
        ),
        (
            "6 the API confirms it",
            &[deleted(2), event(3, 1), api(3, 1, 9)],
            &[Tombstoned, HeldBack, Created],
            Some((3, 1)),
            false,
        ),
        (
            "6 or does not",
            &[deleted(2), event(3, 1), absent(9)],
            &[Tombstoned, HeldBack, Tombstoned],
            None,
            false,
        ),
        (
            "6 an answer with a version from before the deletion is from before it",
            &[deleted(2), api(1, 1, 9)],
            &[Tombstoned, Tombstoned],
            None,
            false,
        ),
        (
            "6 what the API confirmed survives a late deletion",
            &[api(3, 1, 9), deleted(2)],
            &[Created, Stale],
            Some((3, 1)),
            false,
        ),
        (
            "6 but not a newer one",
            &[api(3, 1, 9), deleted(4)],
            &[Created, Deleted],
            None,
            false,
        ),
        (
            "7 a deletion of something unknown is remembered",
            &[deleted(2), deleted(2)],
            &[Tombstoned, Unchanged],
            None,
            false,
        ),
        (
            "8 the API says that there is no such thing",
            &[event(1, 1), absent(2)],
            &[Created, Deleted],
            None,
            false,
        ),
        (
            "8 what is younger than that answer is asked about",
            &[event(3, 1), absent(2)],
            &[Created, Deleted],
            None,
            true,
        ),
        (
            "8 a later answer takes it back",
            &[absent(2), api(1, 1, 3)],
            &[Tombstoned, Created],
            Some((1, 1)),
            false,
        ),
        (
            "8 an earlier one does not",
            &[absent(3), api(1, 1, 2)],
            &[Tombstoned, Tombstoned],
            None,
            false,
        ),
        (
            "8 an event about as old as that answer is asked about, since clocks differ",
            &[absent(100_000), event(99_000, 1)],
            &[Tombstoned, HeldBack],
            None,
            true,
        ),
        (
            "8 the next answer settles it",
            &[absent(100_000), event(99_000, 1), absent(101_000)],
            &[Tombstoned, HeldBack, Tombstoned],
            None,
            false,
        ),
        (
            "8 an older event is not",
            &[absent(100_000), event(40_000, 1)],
            &[Tombstoned, Tombstoned],
            None,
            false,
        ),
        (
            "9 a deletion in whole seconds, inside the second of a confirmed version, is asked about",
            &[api(5_400, 1, 9_000), deleted(5_000)],
            &[Created, Stale],
            Some((5_400, 1)),
            true,
        ),
        (
            "content that a deletion took is not known when the deletion did not last",
            &[event(15, 1), absent(20), api(12, 2, 30)],
            &[Created, Deleted, Stale],
            None,
            true,
        ),
    ];
    for (name, incoming, writes, seen, look_up) in cases {
        let (head, found) = after(incoming);
        assert_eq!(found, *writes, "{name}");
        assert_eq!(visible(&head), *seen, "{name}");
        assert_eq!(head.wants_look_up(), *look_up, "{name}");
    }
}

#[test]
fn content_that_a_deletion_took_is_gone() {
    let (head, _) = after(&[event(1, 1), deleted(2)]);
    assert_eq!(head.content, None);
    assert_eq!(head.died_at(), Some(at(2)));
}

#[test]
fn event_times_in_seconds_and_in_milliseconds_are_told_apart() {
    assert_eq!(event_time(1_716_883_200), at(1_716_883_200_000));
    assert_eq!(event_time(1_716_883_200_123), at(1_716_883_200_123));
}

#[test]
fn a_revocation_holds_from_the_next_whole_second() {
    assert_eq!(not_before(at(1_000)), at(1_000));
    assert_eq!(not_before(at(1_001)), at(2_000));
    assert_eq!(not_before(at(1_999)), at(2_000));
}

/// What happens to one entity in Clerk, and the questions that we ask, each at its own time.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Written(u8),
    Deleted,
    Asked,
}

/// What Clerk sends and answers, in the order of time.
fn said(history: &[Happening]) -> Vec<Incoming> {
    let mut now = 0;
    let mut exists: Option<(i64, u8)> = None;
    let mut said = Vec::new();
    for happening in history {
        // Not a multiple of 1,000: a time in whole seconds has rules of its own.
        now += 7;
        match happening {
            Happening::Written(content) => {
                exists = Some((now, *content));
                said.push(event(now, *content));
            }
            Happening::Deleted if exists.is_some() => {
                exists = None;
                said.push(deleted(now));
            }
            Happening::Deleted => {}
            Happening::Asked => said.push(match exists {
                Some((version, content)) => api(version, content, now),
                None => absent(now),
            }),
        }
    }
    said
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1_u8..=250).prop_map(Happening::Written),
        2 => Just(Happening::Deleted),
        2 => Just(Happening::Asked),
    ]
}

/// What arrives of it: some is lost, some comes twice, in any order.
fn arrivals() -> impl Strategy<Value = (Vec<Incoming>, Vec<Incoming>)> {
    prop::collection::vec(happening(), 1..12)
        .prop_map(|history| said(&history))
        .prop_flat_map(|said| {
            let times = prop::collection::vec(0_usize..=2, said.len());
            (Just(said), times)
        })
        .prop_flat_map(|(said, times)| {
            let received: Vec<Incoming> = said
                .iter()
                .zip(&times)
                .filter(|(_, times)| **times > 0)
                .map(|(incoming, _)| *incoming)
                .collect();
            let arriving: Vec<Incoming> = said
                .into_iter()
                .zip(times)
                .flat_map(|(incoming, times)| std::iter::repeat_n(incoming, times))
                .collect();
            (Just(received), Just(arriving).prop_shuffle())
        })
}

/// A history that ends with a question to Clerk, and all of it but the answer in any order.
fn ending_with_an_answer() -> impl Strategy<Value = (Vec<Incoming>, Vec<Incoming>)> {
    prop::collection::vec(happening(), 0..12)
        .prop_map(|mut history| {
            history.push(Happening::Asked);
            said(&history)
        })
        .prop_flat_map(|said| {
            let but_the_answer = said[..said.len() - 1].to_vec();
            (Just(said), Just(but_the_answer).prop_shuffle())
        })
}

/// Anything at all, also what contradicts itself.
fn anything() -> impl Strategy<Value = Incoming> {
    let time = 1_i64..30;
    prop_oneof![
        (time.clone(), 1_u8..4).prop_map(|(version, content)| event(version, content)),
        (time.clone(), 1_u8..4, time.clone())
            .prop_map(|(version, content, as_of)| api(version, content, as_of)),
        time.clone().prop_map(deleted),
        time.prop_map(absent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_order_with_losses_and_repetitions_ends_the_same((received, arriving) in arrivals()) {
        let (in_order, _) = after(&received);
        let (arrived, _) = after(&arriving);
        // Content that a deletion took and a later answer cannot bring back is asked for; until
        // then it is not shown in either.
        prop_assert_eq!(in_order.is_live(), arrived.is_live() || (arrived.wants_look_up() && !in_order.is_dead()));
        prop_assert_eq!(in_order.version, arrived.version);
        prop_assert_eq!(in_order.died_at(), arrived.died_at());
        if arrived.is_live() {
            prop_assert_eq!(visible(&in_order), visible(&arrived));
        }
    }

    #[test]
    fn once_clerk_is_asked_all_orders_are_one((in_order, mut arriving) in ending_with_an_answer()) {
        let answer = *in_order.last().expect("at least the answer");
        arriving.push(answer);
        let ((in_order, _), (arrived, _)) = (after(&in_order), after(&arriving));
        prop_assert_eq!(visible(&arrived), visible(&in_order));
        prop_assert!(!arrived.wants_look_up() && !in_order.wants_look_up());
    }

    #[test]
    fn nothing_seen_is_older_than_anything_received(all in prop::collection::vec(anything(), 1..12)) {
        let (head, _) = after(&all);
        if let Some((version, _)) = visible(&head) {
            for incoming in &all {
                if let Incoming::Content { version: other, .. } = incoming {
                    prop_assert!(version >= other.unix_millis());
                }
            }
        }
    }

    #[test]
    fn a_deletion_never_loses_but_to_a_newer_version_that_the_api_showed(
        all in prop::collection::vec(anything(), 1..12),
    ) {
        let (head, _) = after(&all);
        let newest = all.iter().filter_map(|incoming| match incoming {
            Incoming::Deleted { at } => Some(*at),
            Incoming::Content { .. } | Incoming::Absent { .. } => None,
        }).max();
        let confirmed = all.iter().filter_map(|incoming| match incoming {
            Incoming::Content { version, origin: Origin::Api { .. }, .. } => Some(*version),
            Incoming::Content { .. } | Incoming::Deleted { .. } | Incoming::Absent { .. } => None,
        }).max();
        if newest.is_some() && newest >= confirmed {
            prop_assert!(!head.is_live());
        }
    }

    #[test]
    fn what_is_said_is_what_happens(all in prop::collection::vec(anything(), 1..12)) {
        let mut head = Head::default();
        for incoming in all {
            let before = visible(&head);
            let write = head.take(incoming);
            let now = visible(&head);
            match write {
                Write::Created => prop_assert!(before.is_none() && now.is_some()),
                Write::Deleted => prop_assert!(before.is_some() && now.is_none()),
                Write::Updated => prop_assert!(before.is_some() && now.is_some() && before != now),
                Write::Unchanged | Write::Stale => prop_assert_eq!(before, now),
                Write::Tombstoned => prop_assert!(now.is_none() && head.is_dead()),
                Write::HeldBack => prop_assert!(now.is_none() && head.wants_look_up()),
            }
        }
    }
}

/// Also where nobody knew of it, and again when it is deleted again; not when it is said again.
#[test]
fn an_end_is_told_when_it_comes_and_when_it_comes_again() {
    let time = Timestamp::from_unix_millis;
    let deleted = |at| Incoming::Deleted { at: time(at) };
    let absent = |as_of| Incoming::Absent { as_of: time(as_of) };
    let mut head = Head::default();
    for (incoming, is_told) in [
        (deleted(5), true),
        (deleted(5), false),
        (deleted(4), false),
        (absent(6), false),
        (deleted(9), true),
    ] {
        let before = head;
        head.take(incoming);
        assert_eq!(head.has_ended_since(&before), is_told, "{incoming:?}");
    }
    let mut unknown = Head::default();
    unknown.take(absent(5));
    assert!(unknown.has_ended_since(&Head::default()));
}
