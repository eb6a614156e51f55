//! The feed of changes, and the revocations that stand in it.
//!
//! Positions become visible in their order: the row in `feeds` is locked from the moment that a
//! transaction takes its positions until it commits, so that no reader sees a position before all
//! that are smaller. A sequence of PostgreSQL would not do: it hands out numbers that are committed
//! in another order.

use super::{
    connection::{Row, Session, Sql, values},
    errors::broken,
    postgres::NOTIFY,
};
use crate::{
    identity::{InstanceName, Timestamp, UserId},
    mirror::{Change, ChangeEvent, FeedPage, Position, Revocation, RevocationCause, StoreError},
};

// The primary key; locks the row until the commit.
const TAKE_POSITIONS: Sql = Sql::both(
    "INSERT INTO feeds (instance, position, gone) VALUES ($1, $2, 0) \
     ON CONFLICT (instance) DO UPDATE SET position = feeds.position + excluded.position \
     RETURNING position",
);
const ADD_CHANGE: Sql = Sql::both(
    "INSERT INTO changes (instance, position, kind, user_id, organization_id, session_id, role, \
     not_before_ms, cause, at_ms, recorded_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
);
// The primary key.
const CHANGES_AFTER: Sql = Sql::both(
    "SELECT position, kind, user_id, organization_id, session_id, role, not_before_ms, cause, \
     at_ms, recorded_ms FROM changes WHERE instance = $1 AND position > $2 ORDER BY position LIMIT $3",
);
// The primary key.
const FEED: Sql = Sql::both("SELECT position, gone FROM feeds WHERE instance = $1");

// The primary key.
const REVOKED: Sql = Sql::both(
    "SELECT not_before_ms, cause FROM revocations WHERE instance = $1 AND kind = $2 AND subject = $3",
);
const SAVE_REVOCATION: Sql = Sql::both(
    "INSERT INTO revocations (instance, kind, subject, not_before_ms, cause, recorded_ms) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (instance, kind, subject) DO UPDATE SET \
     not_before_ms = excluded.not_before_ms, cause = excluded.cause, \
     recorded_ms = excluded.recorded_ms",
);
// The whole table: a row for each instance.
const POSITIONS: Sql = Sql::both("SELECT instance, position FROM feeds");
// All changes of the instance that are kept; asked once, at a start. Replicas' clocks differ, so
// that the first one need not be the oldest.
const RECORDED_SINCE: Sql =
    Sql::both("SELECT MIN(position) FROM changes WHERE instance = $1 AND recorded_ms >= $2");

/// A change that has no position yet.
pub(super) struct Draft {
    pub(super) event: ChangeEvent,
    pub(super) at: Timestamp,
    /// What it revokes.
    pub(super) revocation: Option<Revocation>,
}

impl Draft {
    pub(super) fn new(event: ChangeEvent, at: Timestamp) -> Self {
        Self {
            event,
            at,
            revocation: None,
        }
    }

    pub(super) fn revoking(revocation: Revocation) -> Self {
        let (event, at) = match &revocation {
            Revocation::Session { session, at } => {
                (ChangeEvent::SessionEnded(session.clone()), *at)
            }
            Revocation::User {
                user,
                not_before,
                cause,
            } => (
                ChangeEvent::UserRevoked(user.clone(), *not_before, *cause),
                *not_before,
            ),
        };
        Self {
            event,
            at,
            revocation: Some(revocation),
        }
    }
}

/// Writes the changes and says how far the feed is now. The last thing before the commit.
pub(super) async fn append(
    session: &mut Session,
    instance: &InstanceName,
    drafts: &[Draft],
    now: Timestamp,
) -> Result<Option<Position>, StoreError> {
    let count = i64::try_from(drafts.len()).unwrap_or(i64::MAX);
    if count == 0 {
        return Ok(None);
    }
    let taken = values![instance.as_str(), count];
    let last = session.one(TAKE_POSITIONS, taken).await?.int()?;
    for (position, draft) in (last - count + 1..).zip(drafts) {
        add(session, instance, position, draft, now).await?;
        if let Some(revocation) = &draft.revocation {
            let (kind, subject, not_before, cause) = parts(revocation);
            let cause = cause.map(RevocationCause::name);
            let row = values![instance.as_str(), kind, subject, not_before, cause, now];
            session.run(SAVE_REVOCATION, row).await?;
        }
    }
    if session.is_postgres() {
        let payload = format!("{instance} {last}");
        session.run(NOTIFY, values![&*payload]).await?;
    }
    Ok(Some(Position::new(last)))
}

async fn add(
    session: &mut Session,
    instance: &InstanceName,
    position: i64,
    draft: &Draft,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut user = None;
    let mut organization = None;
    let mut ended = None;
    let mut role = None;
    let mut not_before = None;
    let mut revoked_for = None;
    let kind = match &draft.event {
        ChangeEvent::UserChanged(id) => {
            user = Some(id.as_str());
            "user_changed"
        }
        ChangeEvent::UserDeleted(id) => {
            user = Some(id.as_str());
            "user_deleted"
        }
        ChangeEvent::UserRevoked(id, time, cause) => {
            user = Some(id.as_str());
            not_before = Some(*time);
            revoked_for = Some(cause.name());
            "user_revoked"
        }
        ChangeEvent::OrganizationChanged(id) => {
            organization = Some(id.as_str());
            "organization_changed"
        }
        ChangeEvent::OrganizationDeleted(id) => {
            organization = Some(id.as_str());
            "organization_deleted"
        }
        ChangeEvent::MembershipChanged(organization_id, user_id) => {
            organization = Some(organization_id.as_str());
            user = Some(user_id.as_str());
            "membership_changed"
        }
        ChangeEvent::MembershipDeleted(organization_id, user_id) => {
            organization = Some(organization_id.as_str());
            user = Some(user_id.as_str());
            "membership_deleted"
        }
        ChangeEvent::SessionEnded(id) => {
            ended = Some(id.as_str());
            "session_ended"
        }
        ChangeEvent::RoleChanged(key) => {
            role = key.as_deref();
            "role_changed"
        }
    };
    let row = values![
        instance.as_str(),
        position,
        kind,
        user,
        organization,
        ended,
        role,
        not_before,
        revoked_for,
        draft.at,
        now,
    ];
    session.run(ADD_CHANGE, row).await.map(drop)
}

fn change(mut row: Row) -> Result<Change, StoreError> {
    let row = &mut row;
    let position = Position::new(row.int()?);
    let kind = row.text()?;
    let user: Option<UserId> = row.maybe_id()?;
    let organization = row.maybe_id()?;
    let session = row.maybe_id()?;
    let role = row.maybe_boxed()?;
    let revoked = match (row.maybe_time()?, row.maybe_text()?) {
        (Some(not_before), Some(name)) => Some((not_before, cause(&name)?)),
        _ => None,
    };
    let event = match (&*kind, user, organization, session, revoked) {
        ("user_changed", Some(user), ..) => ChangeEvent::UserChanged(user),
        ("user_deleted", Some(user), ..) => ChangeEvent::UserDeleted(user),
        ("user_revoked", Some(user), _, _, Some((not_before, cause))) => {
            ChangeEvent::UserRevoked(user, not_before, cause)
        }
        ("organization_changed", _, Some(id), ..) => ChangeEvent::OrganizationChanged(id),
        ("organization_deleted", _, Some(id), ..) => ChangeEvent::OrganizationDeleted(id),
        ("membership_changed", Some(user), Some(id), ..) => {
            ChangeEvent::MembershipChanged(id, user)
        }
        ("membership_deleted", Some(user), Some(id), ..) => {
            ChangeEvent::MembershipDeleted(id, user)
        }
        ("session_ended", _, _, Some(session), _) => ChangeEvent::SessionEnded(session),
        ("role_changed", ..) => ChangeEvent::RoleChanged(role),
        _ => return Err(broken("a change of no known kind")),
    };
    Ok(Change {
        position,
        event,
        at: row.time()?,
        recorded_at: row.time()?,
    })
}

/// What follows a position.
pub(super) async fn page(
    session: &mut Session,
    instance: &InstanceName,
    after: Position,
    limit: u32,
) -> Result<FeedPage, StoreError> {
    let key = values![instance.as_str(), after.number(), limit];
    let rows = session.rows(CHANGES_AFTER, key).await?;
    // Asked second: whatever was forgotten before the first question shows in it.
    let (newest, gone) = state(session, instance).await?;
    // Beyond the end: from another database, or from before a backup was restored.
    if after < gone || after > newest {
        return Ok(FeedPage::Gone { oldest: gone });
    }
    rows.into_iter()
        .map(change)
        .collect::<Result<_, _>>()
        .map(FeedPage::Changes)
}

/// The newest position, and the newest that is no longer kept.
pub(super) async fn state(
    session: &mut Session,
    instance: &InstanceName,
) -> Result<(Position, Position), StoreError> {
    Ok(match session.row(FEED, values![instance.as_str()]).await? {
        Some(mut row) => (Position::new(row.int()?), Position::new(row.int()?)),
        None => (Position::START, Position::START),
    })
}

/// Whether it denies tokens that are not denied yet.
pub(super) async fn revokes_more(
    session: &mut Session,
    instance: &InstanceName,
    revocation: &Revocation,
) -> Result<bool, StoreError> {
    let (kind, subject, not_before, why) = parts(revocation);
    let known = session
        .row(REVOKED, values![instance.as_str(), kind, subject])
        .await?;
    Ok(match known {
        None => true,
        Some(mut row) => {
            let known = (row.maybe_time()?, row.maybe_text()?);
            let known_cause = known.1.as_deref().map(cause).transpose()?;
            (not_before, why) > (known.0, known_cause)
        }
    })
}

/// How far every instance's feed has come.
pub(super) async fn positions(
    session: &mut Session,
) -> Result<Vec<(InstanceName, Position)>, StoreError> {
    let rows = session.rows(POSITIONS, values![]).await?;
    rows.into_iter()
        .map(|mut row| Ok((row.name()?, Position::new(row.int()?))))
        .collect()
}

/// The position before the first change that was recorded at `time` or later.
pub(super) async fn position_before(
    session: &mut Session,
    instance: &InstanceName,
    time: Timestamp,
) -> Result<Position, StoreError> {
    let first = session
        .one(RECORDED_SINCE, values![instance.as_str(), time])
        .await?
        .maybe_int()?;
    match first {
        Some(position) => Ok(Position::new(position - 1)),
        None => Ok(state(session, instance).await?.0),
    }
}

const SESSION: &str = "session";
const USER: &str = "user";

type Parts<'a> = (
    &'static str,
    &'a str,
    Option<Timestamp>,
    Option<RevocationCause>,
);

fn parts(revocation: &Revocation) -> Parts<'_> {
    match revocation {
        Revocation::Session { session, .. } => (SESSION, session.as_str(), None, None),
        Revocation::User {
            user,
            not_before,
            cause,
        } => (USER, user.as_str(), Some(*not_before), Some(*cause)),
    }
}

fn cause(name: &str) -> Result<RevocationCause, StoreError> {
    let mut all = RevocationCause::ALL.into_iter();
    all.find(|cause| cause.name() == name)
        .ok_or_else(|| broken("a revocation for no known cause"))
}
