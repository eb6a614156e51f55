use super::*;
use crate::{
    identity::{FactorAges, MachineType, ScopedSlugs, SessionStatus, Texts, TokenForm},
    mirror::{Change, ChangeEvent},
};

const NOW: i64 = 1_800_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(NOW + seconds)
}

/// A token of Alice, an admin of Acme, that was issued now and lives for a minute.
fn session(change: impl FnOnce(&mut Session)) -> Session {
    let mut session = Session {
        user_id: "user_alice".parse().expect("an id"),
        session_id: "sess_1".parse().expect("an id"),
        token_id: None,
        token_version: 2,
        issuer: "https://clerk.example.com".parse().expect("an issuer"),
        authorized_party: None,
        audiences: Texts::default(),
        issued_at: Some(at(0)),
        not_before: None,
        expires_at: at(60),
        status: SessionStatus::Active,
        organization: Some(Box::new(Organization {
            id: "org_acme".parse().expect("an id"),
            slug: None,
            role: Some("org:admin".into()),
            permissions: Texts::default(),
        })),
        features: ScopedSlugs::default(),
        plans: ScopedSlugs::default(),
        factor_ages: None::<FactorAges>,
        actor: None,
        custom_claims: None,
    };
    change(&mut session);
    session
}

fn heard(events: impl IntoIterator<Item = (ChangeEvent, i64)>) -> Revocations {
    let revocations = Revocations::new(DAY);
    for (event, seconds) in events {
        hear(&revocations, event, seconds);
    }
    revocations
}

/// Says which users have to be looked at again.
fn hear(revocations: &Revocations, event: ChangeEvent, seconds: i64) -> usize {
    let change = Change {
        position: Position::new(1),
        event,
        at: at(seconds),
        recorded_at: at(seconds),
    };
    let mut to_restate = std::collections::HashSet::new();
    revocations.take(&change, at(seconds), &mut to_restate);
    to_restate.len()
}

fn judged(revocations: &Revocations, session: &Session) -> Option<Reason> {
    revocations.judge(session, &mut Steps::off()).err()
}

fn alice() -> UserId {
    "user_alice".parse().expect("an id")
}

fn acme() -> OrganizationId {
    "org_acme".parse().expect("an id")
}

fn ended() -> ChangeEvent {
    ChangeEvent::SessionEnded("sess_1".parse().expect("an id"))
}

fn put_out(cause: RevocationCause, seconds: i64) -> ChangeEvent {
    ChangeEvent::UserRevoked(alice(), at(seconds), cause)
}

#[test]
fn nothing_known_denies_nothing() {
    assert_eq!(judged(&heard([]), &session(|_| {})), None);
}

#[test]
fn an_ended_session_is_denied_whenever_its_token_was_issued() {
    let known = heard([(ended(), 0)]);
    for issued in [Some(at(-100)), Some(at(0)), Some(at(100)), None] {
        let token = session(|session| session.issued_at = issued);
        assert_eq!(judged(&known, &token), Some(Reason::SessionRevoked));
    }
    let other = session(|session| session.session_id = "sess_2".parse().expect("an id"));
    assert_eq!(judged(&known, &other), None);
}

/// Tokens issued before the time are denied; later ones only while the mirror says so.
#[test]
fn a_user_who_was_put_out_is_judged_by_time_and_by_the_mirror() {
    let known = heard([(put_out(RevocationCause::Banned, 0), 0)]);
    let issued = |seconds| session(|session| session.issued_at = Some(at(seconds)));
    assert_eq!(
        judged(&known, &issued(5)),
        Some(Reason::UserBanned),
        "still"
    );

    known.restate(&alice(), None);
    assert_eq!(judged(&known, &issued(-1)), Some(Reason::UserBanned));
    assert_eq!(judged(&known, &issued(0)), None);
    let undated = session(|session| session.issued_at = None);
    assert_eq!(judged(&known, &undated), Some(Reason::UserBanned));

    known.restate(&alice(), Some(RevocationCause::Deprovisioned));
    assert_eq!(judged(&known, &issued(5)), Some(Reason::UserDeprovisioned));
}

/// A token for this subject that was made now.
fn machine(subject: &str, form: TokenForm) -> Machine {
    Machine {
        machine_type: MachineType::ApiKey,
        form,
        token_id: None,
        issuer: "https://clerk.example.com".parse().expect("an issuer"),
        subject: MachineSubject::of(MachineType::ApiKey, subject).expect("a subject"),
        client_id: None,
        scopes: Texts::default(),
        audiences: Texts::default(),
        claims: None,
        issued_at: Some(at(0)),
        not_before: None,
        expires_at: None,
    }
}

#[test]
fn a_token_that_stands_for_who_is_out_is_denied_in_either_form() {
    use TokenForm::{Jwt, Opaque};
    let known = heard([
        (put_out(RevocationCause::Banned, 10), 10),
        (ChangeEvent::OrganizationDeleted(acme()), 10),
    ]);
    let judged = |subject, form| {
        let machine = machine(subject, form);
        known.judge_machine(&machine, &mut Steps::off()).err()
    };
    for form in [Jwt, Opaque] {
        assert_eq!(judged("user_alice", form), Some(Reason::UserBanned));
        assert_eq!(judged("org_acme", form), Some(Reason::OrganizationDeleted));
        for other in ["user_bob", "org_other", "mch_1"] {
            assert_eq!(judged(other, form), None, "{other}");
        }
    }

    // A key outlives a ban; what a JWT from before it says is not believed any more.
    known.restate(&alice(), None);
    assert_eq!(judged("user_alice", Jwt), Some(Reason::UserBanned));
    assert_eq!(judged("user_alice", Opaque), None);
}

#[test]
fn of_two_revocations_the_later_counts_in_whatever_order() {
    let (banned, deleted) = (
        put_out(RevocationCause::Banned, 10),
        put_out(RevocationCause::Deleted, 20),
    );
    for events in [[banned.clone(), deleted.clone()], [deleted, banned]] {
        let known = heard(events.map(|event| (event, 30)));
        assert_eq!(judged(&known, &session(|_| {})), Some(Reason::UserDeleted));
        known.restate(&alice(), None);
        let between = session(|session| session.issued_at = Some(at(15)));
        assert_eq!(judged(&known, &between), Some(Reason::UserDeleted));
    }
}

#[test]
fn only_users_who_were_put_out_are_looked_at_again() {
    let known = heard([]);
    let changed = || ChangeEvent::UserChanged(alice());
    assert_eq!(hear(&known, changed(), 0), 0);
    assert_eq!(hear(&known, put_out(RevocationCause::Banned, 0), 0), 1);
    assert_eq!(hear(&known, changed(), 0), 1);
}

#[test]
fn a_deleted_organization_denies_until_clerk_shows_it() {
    let known = heard([(ChangeEvent::OrganizationDeleted(acme()), 0)]);
    assert!(known.is_deleted(&acme()));
    let token = session(|_| {});
    assert_eq!(judged(&known, &token), Some(Reason::OrganizationDeleted));
    let without = session(|session| session.organization = None);
    assert_eq!(judged(&known, &without), None);
    hear(&known, ChangeEvent::OrganizationChanged(acme()), 1);
    assert_eq!(judged(&known, &token), None);
}

#[test]
fn a_token_does_not_show_a_change_of_its_second_or_later() {
    let changed = |known: &Revocations, issued, permission_asked| {
        let token = session(|session| session.issued_at = issued);
        let active = token.organization.as_deref().expect("active");
        known.changed_since(active, &token, permission_asked)
    };
    let of_member = || ChangeEvent::MembershipChanged(acme(), alice());
    let role = |name: Option<&str>| ChangeEvent::RoleChanged(name.map(Into::into));
    // What happened, whether a permission is asked, and whether it is held against the token.
    for (event, permission_asked, held) in [
        (of_member(), false, true),
        (ChangeEvent::MembershipDeleted(acme(), alice()), false, true),
        (role(Some("org:admin")), true, true),
        (role(Some("org:admin")), false, false),
        (role(Some("org:member")), true, false),
        (role(None), true, true),
        (role(None), false, false),
    ] {
        let what = format!("{event:?}, {permission_asked}");
        let known = heard([(event, 10)]);
        for (issued, is_before) in [
            (Some(9), true),
            (Some(10), true),
            (None, true),
            (Some(11), false),
        ] {
            let issued_at = issued.map(at);
            let expected = held && is_before;
            assert_eq!(
                changed(&known, issued_at, permission_asked),
                expected,
                "{what}, {issued:?}"
            );
        }
    }
    let other = heard([(
        ChangeEvent::MembershipChanged("org_other".parse().expect("an id"), alice()),
        10,
    )]);
    assert!(!changed(&other, Some(at(0)), true));
}

#[test]
fn what_clerk_said_before_a_change_was_heard_of_does_not_count() {
    let known = heard([]);
    assert_eq!(known.facts_not_before(&acme(), &alice()), None);
    hear(&known, ChangeEvent::MembershipDeleted(acme(), alice()), 5);
    assert_eq!(known.facts_not_before(&acme(), &alice()), Some(at(5)));
    let bob = "user_bob".parse().expect("an id");
    assert_eq!(known.facts_not_before(&acme(), &bob), None);
    hear(&known, put_out(RevocationCause::Banned, 7), 7);
    assert_eq!(known.facts_not_before(&acme(), &alice()), Some(at(7)));
    hear(&known, ChangeEvent::RoleChanged(Some("org:any".into())), 9);
    assert_eq!(known.facts_not_before(&acme(), &bob), Some(at(9)));
}

#[test]
fn what_is_older_than_the_memory_is_forgotten_and_tokens_that_live_longer_are_known() {
    let known = heard([(ended(), 0), (put_out(RevocationCause::Banned, 0), 0)]);
    let margin = i64::try_from(DAY.as_secs() + CLOCKS_APART.as_secs()).expect("small");
    known.forget(at(margin));
    assert_eq!(judged(&known, &session(|_| {})), Some(Reason::UserBanned));
    known.forget(at(margin + 1));
    assert_eq!(judged(&known, &session(|_| {})), None);

    for (lives, outlives) in [(86_400, false), (86_401, true)] {
        let token = session(|session| session.expires_at = at(lives));
        assert_eq!(known.outlives(&token), outlives, "{lives}");
    }
    assert!(known.outlives(&session(|session| session.issued_at = None)));
}

#[test]
fn the_lag_grows_while_it_is_not_certain_that_all_was_heard() {
    let known = heard([]);
    let lag = |newest, until: i64, now: i64| {
        known
            .stats(Position::new(newest), at(until), at(now))
            .lag
            .as_secs()
    };
    known.position.store(5, Relaxed);
    known.current_at.store(at(10).unix_millis(), Relaxed);
    assert_eq!(lag(5, 19, 20), 1, "nothing new as of the last look");
    assert_eq!(lag(6, 19, 20), 10, "something new that was not read");
    assert_eq!(lag(5, 10, 30), 20, "the store does not answer");
}
