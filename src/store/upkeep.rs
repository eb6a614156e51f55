//! Forgetting what has been kept long enough, and counting what there is.

use super::{
    connection::{Session, Sql, values},
    feed,
};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{InboxState, Position, Retention, StoreError, StoreStats},
};

// inbox_done.
const FORGET_MESSAGES: Sql = Sql::both(
    "DELETE FROM inbox WHERE sequence IN (SELECT sequence FROM inbox \
     WHERE instance = $1 AND state = 'done' AND done_ms < $2 ORDER BY done_ms LIMIT $3)",
);
// users_buried. One that waits for Clerk's word stays.
const FORGET_USERS: Sql = Sql::both(
    "DELETE FROM users WHERE instance = $1 AND live = 0 AND id IN (SELECT id FROM users \
     WHERE instance = $1 AND live = 0 AND look_up = 0 AND touched_ms < $2 \
     ORDER BY touched_ms LIMIT $3)",
);
// organizations_buried.
const FORGET_ORGANIZATIONS: Sql = Sql::both(
    "DELETE FROM organizations WHERE instance = $1 AND live = 0 AND id IN \
     (SELECT id FROM organizations WHERE instance = $1 AND live = 0 AND look_up = 0 \
     AND touched_ms < $2 ORDER BY touched_ms LIMIT $3)",
);
// memberships_buried.
const FORGET_MEMBERSHIPS: Sql = Sql::both(
    "DELETE FROM memberships WHERE instance = $1 AND live = 0 AND (organization_id, user_id) IN \
     (SELECT organization_id, user_id FROM memberships WHERE instance = $1 AND live = 0 \
     AND look_up = 0 AND touched_ms < $2 ORDER BY touched_ms LIMIT $3)",
);
// revocations_by_age.
const FORGET_REVOCATIONS: Sql = Sql::both(
    "DELETE FROM revocations WHERE instance = $1 AND recorded_ms < $2 AND (kind, subject) IN \
     (SELECT kind, subject FROM revocations WHERE instance = $1 AND recorded_ms < $2 \
     ORDER BY recorded_ms LIMIT $3)",
);
// used_once_by_expiry.
const FORGET_USED: Sql = Sql::both(
    "DELETE FROM used_once WHERE instance = $1 AND id IN (SELECT id FROM used_once \
     WHERE instance = $1 AND expires_ms < $2 ORDER BY expires_ms LIMIT $3)",
);

// The primary key: the oldest entries, of which the first young one ends what may go.
const OLDEST_CHANGES: Sql = Sql::both(
    "SELECT position, recorded_ms FROM changes WHERE instance = $1 ORDER BY position LIMIT $2",
);
// Primary keys. First the mark, then the entries: a reader that finds them gone finds the mark.
const MARK_GONE: Sql = Sql::both("UPDATE feeds SET gone = $2 WHERE instance = $1 AND gone < $2");
const FORGET_CHANGES: Sql = Sql::both("DELETE FROM changes WHERE instance = $1 AND position <= $2");

// Whole tables of an instance.
const COUNT_ENTITIES: Sql = Sql::both(
    "SELECT (SELECT COUNT(*) FROM users WHERE instance = $1 AND live = 1), \
     (SELECT COUNT(*) FROM organizations WHERE instance = $1 AND live = 1), \
     (SELECT COUNT(*) FROM memberships WHERE instance = $1 AND live = 1), \
     (SELECT COUNT(*) FROM users WHERE instance = $1 AND live = 0) \
       + (SELECT COUNT(*) FROM organizations WHERE instance = $1 AND live = 0) \
       + (SELECT COUNT(*) FROM memberships WHERE instance = $1 AND live = 0), \
     (SELECT COUNT(*) FROM users WHERE instance = $1 AND look_up = 1) \
       + (SELECT COUNT(*) FROM organizations WHERE instance = $1 AND look_up = 1) \
       + (SELECT COUNT(*) FROM memberships WHERE instance = $1 AND look_up = 1), \
     (SELECT COUNT(*) FROM changes WHERE instance = $1), \
     (SELECT COUNT(*) FROM revocations WHERE instance = $1)",
);
// inbox_by_state.
const COUNT_MESSAGES: Sql =
    Sql::both("SELECT COUNT(*) FROM inbox WHERE instance = $1 AND state = $2");
// inbox_open: the first that came is the oldest.
const OLDEST_OPEN: Sql = Sql::both(
    "SELECT received_ms FROM inbox WHERE instance = $1 AND state IN ('waiting', 'claimed') \
     ORDER BY sequence LIMIT 1",
);
const SIZE: Sql = Sql::each(
    "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "SELECT pg_database_size(current_database())",
);
const PING: Sql = Sql::both("SELECT CAST(1 AS BIGINT)");

/// Forgets up to `limit` rows of each kind; `session` is a transaction.
pub(super) async fn forget(
    mut session: Session,
    instance: &InstanceName,
    retention: Retention,
    limit: u32,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let Retention {
        messages,
        changes,
        revocations,
    } = retention;
    let mut forgotten = 0;
    for (sql, before) in [
        (FORGET_MESSAGES, now.minus(messages)),
        (FORGET_USERS, now.minus(messages)),
        (FORGET_ORGANIZATIONS, now.minus(messages)),
        (FORGET_MEMBERSHIPS, now.minus(messages)),
        (FORGET_REVOCATIONS, now.minus(revocations)),
        (FORGET_USED, now),
    ] {
        let row = values![instance.as_str(), before, limit];
        forgotten += session.run(sql, row).await?;
    }
    forgotten += forget_changes(&mut session, instance, limit, now.minus(changes)).await?;
    session.commit().await?;
    Ok(forgotten)
}

async fn forget_changes(
    session: &mut Session,
    instance: &InstanceName,
    limit: u32,
    before: Timestamp,
) -> Result<u64, StoreError> {
    let oldest = session
        .rows(OLDEST_CHANGES, values![instance.as_str(), limit])
        .await?;
    let mut gone = Position::START;
    for mut row in oldest {
        let position = Position::new(row.int()?);
        if row.time()? >= before {
            break;
        }
        gone = position;
    }
    if gone == Position::START {
        return Ok(0);
    }
    let row = || values![instance.as_str(), gone.number()];
    session.run(MARK_GONE, row()).await?;
    session.run(FORGET_CHANGES, row()).await
}

/// Counts of an instance.
pub(super) async fn stats(
    session: &mut Session,
    instance: &InstanceName,
) -> Result<StoreStats, StoreError> {
    let key = || values![instance.as_str()];
    let mut counts = session.one(COUNT_ENTITIES, key()).await?;
    let mut inbox = Vec::with_capacity(InboxState::ALL.len());
    for state in InboxState::ALL {
        let row = values![instance.as_str(), state.name()];
        inbox.push((state, session.one(COUNT_MESSAGES, row).await?.count()?));
    }
    let oldest = session.row(OLDEST_OPEN, key()).await?;
    Ok(StoreStats {
        users: counts.count()?,
        organizations: counts.count()?,
        memberships: counts.count()?,
        tombstones: counts.count()?,
        to_look_up: counts.count()?,
        inbox,
        oldest_waiting: oldest.map(|mut row| row.time()).transpose()?,
        changes: counts.count()?,
        revocations: counts.count()?,
    })
}

/// The size of the database in bytes.
pub(super) async fn size_bytes(session: &mut Session) -> Result<u64, StoreError> {
    session.one(SIZE, Vec::new()).await?.count()
}

/// The newest position of an instance's feed.
pub(super) async fn newest(
    session: &mut Session,
    instance: &InstanceName,
) -> Result<Position, StoreError> {
    Ok(feed::state(session, instance).await?.0)
}

/// Asks the least that there is to ask.
pub(super) async fn ping(session: &mut Session) -> Result<(), StoreError> {
    session.one(PING, Vec::new()).await.map(drop)
}
