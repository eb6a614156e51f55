//! What denies tokens that verify, or what they say of an organization: in memory, read at every
//! use of a token without a lock.

mod follow;
mod map;

use std::{
    fmt,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use self::map::{Dated, Map, Name};
use crate::{
    explain::{Rule, Steps},
    identity::{
        Machine, MachineSubject, Organization, OrganizationId, Session, SessionId, Timestamp,
        TokenForm, UserId,
    },
    mirror::{Position, RevocationCause},
    reason::Reason,
};

/// Replicas' clocks and Clerk's may be so far apart: entries are kept for longer by this.
const CLOCKS_APART: Duration = Duration::from_secs(120);

/// What is known of one instance that tokens do not say: ended sessions, users who are out, deleted
/// organizations, changes of memberships and roles. Filled from the feed by [`Self::load`] and
/// [`Self::catch_up`].
///
/// Entries are forgotten after the memory's time. A token that lives longer than that is not
/// believed by itself: see [`Self::outlives`].
pub struct Revocations {
    memory: Duration,
    sessions: Map<Ended>,
    users: Map<Out>,
    organizations: Map<Ended>,
    memberships: Map<Changed>,
    roles: Map<Changed>,
    /// Of any role, and of roles of which it is not known which.
    latest_role: AtomicChange,
    unnamed_role: AtomicChange,
    /// How far the feed has been read.
    position: AtomicI64,
    /// When it was last known that nothing was left to read, in Unix milliseconds.
    current_at: AtomicI64,
}

/// It is over.
#[derive(Clone, Copy)]
struct Ended {
    recorded_at: Timestamp,
}

/// A user is out, or was.
#[derive(Clone, Copy)]
struct Out {
    cause: RevocationCause,
    /// Tokens issued before are denied.
    not_before: Timestamp,
    /// The mirror still says so: every token is denied.
    still: bool,
    recorded_at: Timestamp,
    heard_at: Timestamp,
}

/// What tokens and facts from before do not show.
#[derive(Clone, Copy)]
struct Changed {
    /// By Clerk's clock, as tokens' `iat`.
    at: Timestamp,
    /// By ours, as facts' age.
    heard_at: Timestamp,
    recorded_at: Timestamp,
}

impl Out {
    const fn reason(self) -> Reason {
        match self.cause {
            RevocationCause::Banned => Reason::UserBanned,
            RevocationCause::Deprovisioned => Reason::UserDeprovisioned,
            RevocationCause::Deleted => Reason::UserDeleted,
        }
    }
}

impl Dated for Ended {
    fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }
}

impl Dated for Out {
    fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }
}

impl Dated for Changed {
    fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }
}

impl Changed {
    /// Two of one thing: nothing from before either counts.
    fn and(self, other: Self) -> Self {
        Self {
            at: self.at.max(other.at),
            heard_at: self.heard_at.max(other.heard_at),
            recorded_at: self.recorded_at.max(other.recorded_at),
        }
    }
}

/// The newest of changes; nothing so far is the least time there is.
struct AtomicChange {
    at: AtomicI64,
    heard_at: AtomicI64,
}

impl AtomicChange {
    const fn never() -> Self {
        Self {
            at: AtomicI64::new(i64::MIN),
            heard_at: AtomicI64::new(i64::MIN),
        }
    }

    fn note(&self, changed: Changed) {
        self.at.fetch_max(changed.at.unix_millis(), Relaxed);
        self.heard_at
            .fetch_max(changed.heard_at.unix_millis(), Relaxed);
    }

    fn at(&self) -> Option<Timestamp> {
        some(self.at.load(Relaxed))
    }

    fn heard_at(&self) -> Option<Timestamp> {
        some(self.heard_at.load(Relaxed))
    }
}

fn some(millis: i64) -> Option<Timestamp> {
    (millis != i64::MIN).then(|| Timestamp::from_unix_millis(millis))
}

/// Numbers of [`Revocations`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevocationStats {
    /// Sessions that ended.
    pub sessions: u64,
    /// Users who are out, or were.
    pub users: u64,
    /// Organizations that were deleted.
    pub organizations: u64,
    /// Memberships that changed.
    pub memberships: u64,
    /// For how long it has not been certain that everything was heard of.
    pub lag: Duration,
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Revocations {
    /// With nothing known; entries are kept for `memory`.
    pub fn new(memory: Duration) -> Self {
        Self {
            memory,
            sessions: Map::default(),
            users: Map::default(),
            organizations: Map::default(),
            memberships: Map::default(),
            roles: Map::default(),
            latest_role: AtomicChange::never(),
            unnamed_role: AtomicChange::never(),
            position: AtomicI64::new(0),
            current_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Whether a token lives longer than what ended is remembered, so that it may be one of a
    /// session that was forgotten. One that does not say when it was issued may be.
    pub fn outlives(&self, session: &Session) -> bool {
        session
            .issued_at
            .is_none_or(|issued_at| session.expires_at.since(issued_at) > self.memory)
    }

    /// Denies tokens of users who are out, of sessions that ended and of organizations that were
    /// deleted.
    pub fn judge(&self, session: &Session, steps: &mut Steps) -> Result<(), Reason> {
        let denied = self.of_user(session).or_else(|| {
            if self.sessions.has(session.session_id.as_str()) {
                return Some(Reason::SessionRevoked);
            }
            let active = session.organization.as_deref()?;
            self.is_deleted(&active.id)
                .then_some(Reason::OrganizationDeleted)
        });
        match denied {
            None => {
                steps.passed(
                    Rule::Revocation,
                    || "nothing is known against the user, the session or the active organization",
                );
                Ok(())
            }
            Some(reason) => {
                steps.failed(Rule::Revocation, || match reason {
                    Reason::SessionRevoked => "the session has ended".to_owned(),
                    Reason::OrganizationDeleted => "the active organization was deleted".to_owned(),
                    _ => format!("{}, or was when the token was issued", reason.description()),
                });
                Err(reason)
            }
        }
    }

    /// Denies tokens that stand for users who are out or for organizations that were deleted. That a
    /// token itself was revoked no event tells: Clerk says it of opaque ones when it is asked.
    pub fn judge_machine(&self, machine: &Machine, steps: &mut Steps) -> Result<(), Reason> {
        let denied = match &machine.subject {
            MachineSubject::Machine(_) => {
                steps.skipped(Rule::Revocation, || "of machines nothing is heard");
                return Ok(());
            }
            MachineSubject::User(user) => match machine.form {
                TokenForm::Jwt => self.out(user, machine.issued_at),
                // Of what is asked about again and again it counts what is so now: an API key from
                // before a ban is good again after it.
                TokenForm::Opaque => self.out_still(user),
            },
            MachineSubject::Organization(organization) => self
                .is_deleted(organization)
                .then_some(Reason::OrganizationDeleted),
        };
        match denied {
            None => {
                steps.passed(Rule::Revocation, || "nothing is known against the subject");
                Ok(())
            }
            Some(reason) => {
                steps.failed(Rule::Revocation, || reason.description());
                Err(reason)
            }
        }
    }

    fn of_user(&self, session: &Session) -> Option<Reason> {
        self.out(&session.user_id, session.issued_at)
    }

    fn out(&self, user: &UserId, issued_at: Option<Timestamp>) -> Option<Reason> {
        let out = self.users.get(user.as_str())?;
        let is_before = issued_at.is_none_or(|issued_at| issued_at < out.not_before);
        (out.still || is_before).then_some(out.reason())
    }

    fn out_still(&self, user: &UserId) -> Option<Reason> {
        let out = self.users.get(user.as_str())?;
        out.still.then_some(out.reason())
    }

    /// Whether an organization was deleted.
    pub fn is_deleted(&self, organization: &OrganizationId) -> bool {
        self.organizations.has(organization.as_str())
    }

    /// Whether a change is known of the membership in the session's active organization, or of what
    /// its role permits where that is asked, that the session's token cannot show. In doubt, it is: a
    /// second is the finest that a token says.
    pub fn changed_since(
        &self,
        active: &Organization,
        session: &Session,
        permission_asked: bool,
    ) -> bool {
        let is_since = |at: Option<Timestamp>| {
            at.is_some_and(|at| session.issued_at.is_none_or(|issued_at| at >= issued_at))
        };
        let at = |changed: Option<Changed>| changed.map(|changed| changed.at);
        let membership = self.memberships.get(pair(&active.id, &session.user_id));
        if is_since(at(membership)) {
            return true;
        }
        if !permission_asked || !is_since(self.latest_role.at()) {
            return false;
        }
        match active.role.as_deref() {
            Some(role) => is_since(at(self.roles.get(role))) || is_since(self.unnamed_role.at()),
            None => true,
        }
    }

    /// The time, by our clock, from before which nothing that Clerk said of a membership counts any
    /// more.
    pub(super) fn facts_not_before(
        &self,
        organization: &OrganizationId,
        user: &UserId,
    ) -> Option<Timestamp> {
        let membership = self.memberships.get(pair(organization, user));
        let of_membership = membership.map(|changed| changed.heard_at);
        let of_user = self.users.get(user.as_str()).map(|out| out.heard_at);
        of_membership.max(of_user).max(self.roles_not_before())
    }

    /// The time, by our clock, from before which nothing that a membership says of its role's
    /// permissions counts any more.
    pub(super) fn roles_not_before(&self) -> Option<Timestamp> {
        self.latest_role.heard_at()
    }

    /// Numbers; `heard_until` is when the feed's end was last known, `newest` where it is.
    pub fn stats(
        &self,
        newest: Position,
        heard_until: Timestamp,
        now: Timestamp,
    ) -> RevocationStats {
        let current_at = Timestamp::from_unix_millis(self.current_at.load(Relaxed));
        let is_current = self.position.load(Relaxed) >= newest.number();
        let certain_until = if is_current {
            current_at.max(heard_until)
        } else {
            current_at
        };
        RevocationStats {
            sessions: self.sessions.len(),
            users: self.users.len(),
            organizations: self.organizations.len(),
            memberships: self.memberships.len(),
            lag: now.since(certain_until),
        }
    }

    fn end_session(&self, session: &SessionId, recorded_at: Timestamp) {
        self.sessions.put(session.as_str(), Ended { recorded_at });
    }

    fn put_out(&self, user: &UserId, out: Out) {
        self.users.merge(user.as_str(), out, |old, new| Out {
            recorded_at: old.recorded_at.max(new.recorded_at),
            heard_at: old.heard_at.max(new.heard_at),
            ..if (old.not_before, old.cause) > (new.not_before, new.cause) {
                old
            } else {
                new
            }
        });
    }

    /// What the mirror says of a user who was put out once. Nothing where the user was not.
    fn restate(&self, user: &UserId, still: Option<RevocationCause>) {
        self.users.update(user.as_str(), |out| Out {
            still: still.is_some(),
            cause: still.unwrap_or(out.cause),
            ..out
        });
    }

    fn change_membership(&self, organization: &OrganizationId, user: &UserId, changed: Changed) {
        self.memberships
            .merge(pair(organization, user), changed, Changed::and);
    }

    fn change_role(&self, role: Option<&str>, changed: Changed) {
        match role {
            Some(role) => self.roles.merge(role, changed, Changed::and),
            None => self.unnamed_role.note(changed),
        }
        // Last: who sees it sees the role's own.
        self.latest_role.note(changed);
    }

    /// Forgets what was recorded longer ago than the memory.
    pub fn forget(&self, now: Timestamp) {
        let before = now.minus(self.memory).minus(CLOCKS_APART);
        self.sessions.forget(before);
        self.users.forget(before);
        self.organizations.forget(before);
        self.memberships.forget(before);
        self.roles.forget(before);
    }
}

fn pair<'a>(organization: &'a OrganizationId, user: &'a UserId) -> Name<'a> {
    Name(organization.as_str(), user.as_str())
}

#[cfg(test)]
mod tests;
