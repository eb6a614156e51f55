//! PostgreSQL, or what speaks its protocol: many replicas, one database.

use std::{future::Future, pin::Pin, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use super::{connection::Sql, errors::translated, migrations};
use crate::mirror::{Heard, Listener, Position, StoreError};

/// Connections of a replica, one for listening among them. A further caller waits for one.
pub(super) const CONNECTIONS: u32 = 10;
/// How long somebody waits for a connection; then the database is unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is replaced after this, so that replicas follow a failover behind a load balancer.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Limits that the server keeps for us: of a statement, of a wait for a lock, of a transaction that
/// does nothing. Their errors are "unavailable", "conflict" and "unavailable".
const SERVER_LIMITS: [(&str, &str); 3] = [
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "30s"),
];
/// Our tables stand in a schema of their own, beside whatever else is in the database.
const SCHEMA: (&str, &str) = ("search_path", "clerk_authz");

/// Where replicas hear of changes.
const CHANNEL: &str = "clerk_authz_changes";
/// Heard when the transaction commits, and not if it does not.
pub(super) const NOTIFY: Sql = Sql::both("SELECT pg_notify('clerk_authz_changes', $1)");

/// Locks until the end of the transaction; by number, since what is locked need not exist yet.
pub(super) const LOCK: Sql = Sql::both("SELECT pg_advisory_xact_lock($1)");
pub(super) const LOCK_SHARED: Sql = Sql::both("SELECT pg_advisory_xact_lock_shared($1)");

/// Connects, and brings the schema to our version.
pub(super) async fn open(url: &str) -> Result<PgPool, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(translated)?
        .application_name("clerk-authz")
        .options(SERVER_LIMITS.into_iter().chain([SCHEMA]));
    let mut connection = options.connect().await.map_err(translated)?;
    migrations::postgres(&mut connection).await?;
    connection.close().await.map_err(translated)?;
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(CONNECTION_LIFETIME)
        .connect_lazy_with(options))
}

/// Listens on a connection of its own.
pub(super) async fn listen(pool: PgPool) -> Result<ChannelListener, StoreError> {
    let connected = connected(&pool).await.map_err(translated)?;
    Ok(ChannelListener {
        pool,
        connected: Some(connected),
    })
}

async fn connected(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Hears what other replicas commit.
pub(super) struct ChannelListener {
    pool: PgPool,
    /// `None` after an error, until the next call.
    connected: Option<PgListener>,
}

impl Listener for ChannelListener {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Heard> + Send + '_>> {
        Box::pin(async move {
            loop {
                let Some(listener) = &mut self.connected else {
                    return match connected(&self.pool).await {
                        Ok(listener) => {
                            self.connected = Some(listener);
                            // From here on nothing is missed; what was before, may have been.
                            lost("the connection was cut and is there again")
                        }
                        Err(error) => lost(&translated(error).to_string()),
                    };
                };
                match listener.try_recv().await {
                    Ok(Some(notification)) => {
                        if let Some(heard) = reached(notification.payload()) {
                            return heard;
                        }
                    }
                    // Connected again already.
                    Ok(None) => return lost("the connection was cut and is there again"),
                    Err(error) => {
                        self.connected = None;
                        return lost(&translated(error).to_string());
                    }
                }
            }
        })
    }
}

fn lost(cause: &str) -> Heard {
    Heard::Lost {
        cause: cause.to_owned(),
    }
}

/// `NAME POSITION`; anything else on the channel is not ours.
fn reached(payload: &str) -> Option<Heard> {
    let (name, position) = payload.split_once(' ')?;
    Some(Heard::Reached(
        name.parse().ok()?,
        Position::new(position.parse().ok()?),
    ))
}

/// A number for a lock: FNV-1a, which says the same in every replica and every version.
pub(super) fn lock_number(parts: [&str; 4]) -> i64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = parts
        .into_iter()
        .flat_map(|part| part.bytes().chain(std::iter::once(0)));
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    i64::from_ne_bytes(hash.to_ne_bytes())
}
