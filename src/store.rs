//! Our copy of Clerk's world in SQL: SQLite for one replica, PostgreSQL for many.
//!
//! Implements the traits of `mirror` and `keys`; built by `server`, which hands it on as those
//! traits. It holds no rule of its own: which of two things that were said stands, [`Head`] says.
//! One set of statements serves both engines; what differs stands in `sqlite.rs` and `postgres.rs`.
//! Each statement is a constant that the compiler has seen, and whatever comes from outside is
//! bound to it, never part of it. Drivers' errors end in `errors.rs`.
//!
//! [`Head`]: crate::mirror::Head

mod apply;
mod backup;
mod connection;
mod contents;
mod coordination;
mod copy;
mod errors;
mod feed;
mod heads;
mod inbox;
mod key_snapshots;
mod line;
mod locks;
mod lookups;
mod memberships;
mod migrations;
mod pools;
mod postgres;
mod readers;
mod sightings;
mod sqlite;
mod tables;
mod traits;
mod upkeep;
mod upstream_keys;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::{sync::broadcast, time::timeout};

pub use self::{
    backup::BackupError,
    copy::{CopiedTable, CopyError, CopyProgress, CopyStage},
    pools::PoolStats,
};
use self::{
    connection::{Session, SqliteTransaction},
    errors::translated,
    inbox::Receive,
    line::Line,
    lookups::UserById,
    pools::Waits,
};
use crate::{
    identity::InstanceName,
    mirror::{Position, StoreError},
    trace,
};

/// Positions that a listener in this process may lag behind; further back it is told that it missed
/// some.
const HEARD_BACKLOG: usize = 256;

/// How long open work may hold up the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A SQL database with our tables. Cheap to clone; the clones share connections.
#[derive(Clone)]
pub struct SqlStore {
    engine: Engine,
    lines: Arc<Lines>,
    waits: Arc<Waits>,
    /// What this process has committed.
    committed: broadcast::Sender<(InstanceName, Position)>,
}

/// Who waits for what.
#[derive(Default)]
struct Lines {
    receiving: Line<Receive>,
    users: Line<UserById>,
}

#[derive(Clone)]
enum Engine {
    Sqlite(sqlite::Pools),
    Postgres(PgPool),
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.engine {
            Engine::Sqlite(_) => "SqlStore::Sqlite",
            Engine::Postgres(_) => "SqlStore::Postgres",
        })
    }
}

impl SqlStore {
    /// Opens a SQLite file, makes it where there is none, and migrates it.
    pub async fn sqlite(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::new(Engine::Sqlite(sqlite::open(path).await?)))
    }

    /// Opens a SQLite file as [`SqlStore::sqlite`] does, for one that has it to itself: while another
    /// process has it open, what is asked of it is a conflict, and the other way round.
    pub async fn sqlite_alone(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::new(Engine::Sqlite(sqlite::open_alone(path).await?)))
    }

    /// Connects to PostgreSQL and migrates it. `url` holds the password and is in no error.
    pub async fn postgres(url: &str) -> Result<Self, StoreError> {
        Ok(Self::new(Engine::Postgres(postgres::open(url).await?)))
    }

    fn new(engine: Engine) -> Self {
        Self {
            engine,
            lines: Arc::default(),
            waits: Arc::default(),
            committed: broadcast::Sender::new(HEARD_BACKLOG),
        }
    }

    /// Ends its connections, when what they do is done, but for no longer than two seconds: a
    /// listener that nobody asks any more has one. Later calls find it unavailable.
    pub async fn close(&self) {
        let closed = async {
            match &self.engine {
                Engine::Sqlite(pools) => {
                    pools.readers.close().await;
                    pools.writer.close().await;
                }
                Engine::Postgres(pool) => pool.close().await,
            }
        };
        // What is still open then ends with the process; nothing of it is half done.
        let _ = timeout(CLOSE_WITHIN, closed).await;
    }

    /// For questions.
    async fn reading(&self) -> Result<Session, StoreError> {
        self.note();
        let session = async {
            match &self.engine {
                Engine::Sqlite(pools) => pools.readers.acquire().await.map(Session::SqliteReading),
                Engine::Postgres(pool) => pool
                    .acquire()
                    .await
                    .map(Session::PostgresReading)
                    .map_err(translated),
            }
        };
        Waits::count(&self.waits.reading, session).await
    }

    /// A transaction. On SQLite it has the right to write from its start, so that it never has to
    /// be undone for another writer.
    async fn writing(&self) -> Result<Session, StoreError> {
        self.note();
        let session = async {
            match &self.engine {
                Engine::Sqlite(pools) => SqliteTransaction::begin(&pools.writer)
                    .await
                    .map(Session::SqliteWriting),
                Engine::Postgres(pool) => pool
                    .begin()
                    .await
                    .map(Session::PostgresWriting)
                    .map_err(translated),
            }
        };
        Waits::count(&self.waits.writing, session).await
    }

    fn note(&self) {
        let engine = || match self.engine {
            Engine::Sqlite(_) => "sqlite".into(),
            Engine::Postgres(_) => "postgresql".into(),
        };
        trace::note("db.system.name", engine);
    }

    /// Tells this process's listeners. Nobody listening is no error.
    fn tell(&self, instance: &InstanceName, position: Option<Position>) {
        if let Some(position) = position {
            let _ = self.committed.send((instance.clone(), position));
        }
    }
}
