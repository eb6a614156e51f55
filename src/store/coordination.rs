//! What replicas agree on: leases, checkpoints, what was used once, and the last good keys.

use super::connection::{Session, Sql, values};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{Checkpoint, Lease, StoreError},
};

// The primary key. Ours to renew, or nobody's any more; else no row comes back.
const LEASE: Sql = Sql::both(
    "INSERT INTO leases (instance, name, holder, term, until_ms) VALUES ($1, $2, $3, 1, $4) \
     ON CONFLICT (instance, name) DO UPDATE SET \
     term = leases.term + CASE WHEN leases.holder = excluded.holder THEN 0 ELSE 1 END, \
     holder = excluded.holder, until_ms = excluded.until_ms \
     WHERE leases.holder = excluded.holder OR leases.until_ms <= $5 \
     RETURNING term",
);
// The primary key. The row stays, and with it the term.
const RELEASE: Sql =
    Sql::both("UPDATE leases SET until_ms = 0 WHERE instance = $1 AND name = $2 AND holder = $3");

const SET_CHECKPOINT: Sql = Sql::both(
    "INSERT INTO checkpoints (instance, name, value, updated_ms) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (instance, name) DO UPDATE SET value = excluded.value, \
     updated_ms = excluded.updated_ms",
);
// The primary key.
const CHECKPOINT: Sql =
    Sql::both("SELECT value, updated_ms FROM checkpoints WHERE instance = $1 AND name = $2");

// The primary key decides who was first.
const USE_ONCE: Sql = Sql::both(
    "INSERT INTO used_once (instance, id, expires_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
);

/// Takes or renews a lease.
pub(super) async fn lease(
    session: &mut Session,
    instance: &InstanceName,
    name: &str,
    holder: &str,
    until: Timestamp,
    now: Timestamp,
) -> Result<Option<Lease>, StoreError> {
    let row = values![instance.as_str(), name, holder, until, now];
    let Some(mut row) = session.rows(LEASE, row).await?.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some(Lease {
        term: row.int()?,
        until,
    }))
}

/// Gives a lease back.
pub(super) async fn release(
    session: &mut Session,
    instance: &InstanceName,
    name: &str,
    holder: &str,
) -> Result<(), StoreError> {
    let row = values![instance.as_str(), name, holder];
    session.run(RELEASE, row).await.map(drop)
}

/// Keeps how far some work has come.
pub(super) async fn set_checkpoint(
    session: &mut Session,
    instance: &InstanceName,
    name: &str,
    value: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let row = values![instance.as_str(), name, value, now];
    session.run(SET_CHECKPOINT, row).await.map(drop)
}

/// How far some work has come.
pub(super) async fn checkpoint(
    session: &mut Session,
    instance: &InstanceName,
    name: &str,
) -> Result<Option<Checkpoint>, StoreError> {
    let key = values![instance.as_str(), name];
    let Some(mut row) = session.row(CHECKPOINT, key).await? else {
        return Ok(None);
    };
    Ok(Some(Checkpoint {
        value: row.text()?,
        updated_at: row.time()?,
    }))
}

/// Uses something that may be used once.
pub(super) async fn use_once(
    session: &mut Session,
    instance: &InstanceName,
    id: &str,
    expires_at: Timestamp,
) -> Result<bool, StoreError> {
    let row = values![instance.as_str(), id, expires_at];
    Ok(session.run(USE_ONCE, row).await? == 1)
}
