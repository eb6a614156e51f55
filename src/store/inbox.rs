//! Messages that were accepted and wait for their effect.
//!
//! `next_attempt_ms` is when a message may be taken: while it waits, the time of the next try; while
//! a worker has it, the end of the lease. `fence` counts claims and never goes back, so that a worker
//! whose lease has passed can be told from the one that has the message now.

use std::sync::Arc;

use super::{
    SqlStore,
    connection::{Row, Session, Sql, values},
    line::Together,
};
use crate::{
    identity::{InstanceName, MessageId, Timestamp},
    mirror::{
        ClaimId, Claimed, Failed, InboxEntry, InboxFilter, InboxState, Next, Received, StoreError,
    },
};

// The unique key of instance and message id.
const RECEIVE: Sql = Sql::both(
    "INSERT INTO inbox (instance, message_id, event_type, entity, at_ms, received_ms, body, \
     state, fence, attempts, next_attempt_ms, done_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, $6, $9) ON CONFLICT DO NOTHING",
);

/// The oldest open message of each entity that may be taken now. An open one in front of it, also
/// one that waits for its next try, keeps the later ones of that entity back.
macro_rules! claim {
    ($is_one_of:literal, $end:literal) => {
        concat!(
            "UPDATE inbox SET state = 'claimed', fence = fence + 1, attempts = attempts + 1, \
             next_attempt_ms = $3 WHERE sequence ",
            $is_one_of,
            "SELECT i.sequence FROM inbox i \
               WHERE i.instance = $1 AND i.state IN ('waiting', 'claimed') \
               AND i.next_attempt_ms <= $4 AND ( \
                 SELECT 1 FROM inbox earlier \
                 WHERE earlier.instance = i.instance AND earlier.entity = i.entity \
                 AND earlier.sequence + 0 < i.sequence \
                 AND earlier.state IN ('waiting', 'claimed') LIMIT 1) IS NULL \
               ORDER BY i.sequence LIMIT $2",
            $end,
            " RETURNING sequence, fence, attempts, message_id, event_type, entity, at_ms, \
             body, received_ms"
        )
    };
}

// inbox_open, and inbox_open_by_entity for the earlier ones: PostgreSQL, while it has no statistics,
// would take inbox_open for those too, and read all that wait for each that is taken. It cannot with
// a sequence that is in no index, nor make a join of a question that has a limit. What another worker is just taking is passed over. As an
// array, the inner question is asked once: PostgreSQL may ask what stands behind IN once for each
// row, and then would take more than the limit.
const CLAIM: Sql = Sql::each(
    claim!("IN (", ")"),
    claim!("= ANY (ARRAY(", " FOR UPDATE SKIP LOCKED))"),
);

// The primary key. The body is not kept longer than it is needed.
const FINISH: Sql = Sql::both(
    "UPDATE inbox SET state = 'done', body = NULL, failure = NULL, done_ms = $3 \
     WHERE sequence = $1 AND fence = $2 AND state = 'claimed'",
);
const FAIL: Sql = Sql::both(
    "UPDATE inbox SET state = $3, next_attempt_ms = $4, failure = $5 \
     WHERE sequence = $1 AND fence = $2 AND state = 'claimed'",
);

// inbox_by_state.
const LIST: Sql = Sql::both(
    "SELECT sequence, message_id, event_type, entity, attempts, received_ms, next_attempt_ms, \
     failure FROM inbox WHERE instance = $1 AND state = $2 AND sequence > $3 \
     ORDER BY sequence LIMIT $4",
);
// The unique key of instance and message id.
const RETRY: Sql = Sql::both(
    "UPDATE inbox SET state = 'waiting', attempts = 0, next_attempt_ms = $3 \
     WHERE instance = $1 AND message_id = $2 AND state = 'poison'",
);
const GIVE_UP: Sql = Sql::both(
    "UPDATE inbox SET state = 'done', body = NULL, done_ms = $3 \
     WHERE instance = $1 AND message_id = $2 AND state IN ('waiting', 'poison')",
);

/// A message to be kept; the answer is `false` when its id is known.
#[derive(Clone)]
pub(super) struct Receive(Arc<(InstanceName, Received, Timestamp)>);

impl Receive {
    pub(super) fn new(instance: &InstanceName, message: Received, now: Timestamp) -> Self {
        Self(Arc::new((instance.clone(), message, now)))
    }
}

impl Together for Receive {
    type Answer = bool;
    const MOST: usize = 128;

    async fn serve(store: &SqlStore, group: &[Self]) -> Result<Vec<bool>, StoreError> {
        let mut session = store.writing().await?;
        let mut kept = Vec::with_capacity(group.len());
        for Self(received) in group {
            let (instance, message, now) = &**received;
            kept.push(receive(&mut session, instance, message, *now).await?);
        }
        session.commit().await?;
        Ok(kept)
    }
}

async fn receive(
    session: &mut Session,
    instance: &InstanceName,
    message: &Received,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (state, done_at) = match &message.body {
        Some(_) => (InboxState::Waiting, None),
        None => (InboxState::Done, Some(now)),
    };
    let row = values![
        instance.as_str(),
        message.id.as_str(),
        &*message.event_type,
        message.entity.as_deref(),
        message.at,
        now,
        message.body.as_deref(),
        state.name(),
        done_at,
    ];
    Ok(session.run(RECEIVE, row).await? == 1)
}

/// Takes messages to work on.
pub(super) async fn claim(
    session: &mut Session,
    instance: &InstanceName,
    limit: u32,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    let row = values![instance.as_str(), limit, lease_until, now];
    let rows = session.rows(CLAIM, row).await?;
    let mut claimed = rows
        .into_iter()
        .map(claimed)
        .collect::<Result<Vec<_>, _>>()?;
    claimed.sort_unstable_by_key(|claimed| claimed.claim.sequence);
    Ok(claimed)
}

fn claimed(mut row: Row) -> Result<Claimed, StoreError> {
    let row = &mut row;
    Ok(Claimed {
        claim: ClaimId {
            sequence: row.int()?,
            fence: row.int()?,
        },
        attempt: small(row.int()?),
        message: Received {
            id: row.id()?,
            event_type: row.boxed()?,
            entity: row.maybe_boxed()?,
            at: row.time()?,
            body: row.maybe_blob()?,
        },
        received_at: row.time()?,
    })
}

/// A message is done; an error when the claim no longer holds, so that its effect is undone.
pub(super) async fn finish(
    session: &mut Session,
    claim: ClaimId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let row = values![claim.sequence, claim.fence, now];
    held(session.run(FINISH, row).await?)
}

/// Gives a message back that could not be applied.
pub(super) async fn fail(
    session: &mut Session,
    claim: ClaimId,
    failed: &Failed,
) -> Result<(), StoreError> {
    let (state, next) = match failed.next {
        Next::TryAt(at) => (InboxState::Waiting, at),
        Next::Poison => (InboxState::Poison, Timestamp::from_unix_millis(0)),
    };
    let row = values![
        claim.sequence,
        claim.fence,
        state.name(),
        next,
        &*failed.cause
    ];
    held(session.run(FAIL, row).await?)
}

fn held(changed: u64) -> Result<(), StoreError> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::ClaimLost)
    }
}

/// Messages in a state.
pub(super) async fn list(
    session: &mut Session,
    instance: &InstanceName,
    filter: InboxFilter,
) -> Result<Vec<InboxEntry>, StoreError> {
    let row = values![
        instance.as_str(),
        filter.state.name(),
        filter.after,
        filter.limit
    ];
    let rows = session.rows(LIST, row).await?;
    rows.into_iter()
        .map(|mut row| {
            Ok(InboxEntry {
                sequence: row.int()?,
                id: row.id()?,
                event_type: row.boxed()?,
                entity: row.maybe_boxed()?,
                state: filter.state,
                attempts: small(row.int()?),
                received_at: row.time()?,
                next_attempt_at: row.time()?,
                failure: row.maybe_boxed()?,
            })
        })
        .collect()
}

/// Puts a poisoned message back.
pub(super) async fn retry(
    session: &mut Session,
    instance: &InstanceName,
    id: &MessageId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row = values![instance.as_str(), id.as_str(), now];
    Ok(session.run(RETRY, row).await? == 1)
}

/// Gives a message up.
pub(super) async fn give_up(
    session: &mut Session,
    instance: &InstanceName,
    id: &MessageId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row = values![instance.as_str(), id.as_str(), now];
    Ok(session.run(GIVE_UP, row).await? == 1)
}

fn small(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
