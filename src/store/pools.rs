//! What is told of connections: how many there are, and how long somebody waited for one.

use std::time::Instant;

use sqlx::{Database, Pool};

use super::{Engine, SqlStore, postgres, readers};
use crate::{
    histogram::{Histogram, Recorded},
    mirror::StoreError,
};

/// Waits for a connection.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) reading: Histogram,
    pub(super) writing: Histogram,
}

impl Waits {
    /// Counts how long it takes until a connection is there, or is not.
    pub(super) async fn count<T>(
        histogram: &Histogram,
        connection: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let connected = connection.await;
        histogram.record(began.elapsed());
        connected
    }
}

/// The numbers of connections that are kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// `reading` and `writing` on SQLite, `shared` on PostgreSQL.
    pub name: &'static str,
    /// The most that there may be.
    pub most: u64,
    /// In use.
    pub used: u64,
    /// Open, and free for whoever comes next.
    pub idle: u64,
}

impl PoolStats {
    fn of<D: Database>(name: &'static str, pool: &Pool<D>, most: u64) -> Self {
        let idle = u64::try_from(pool.num_idle()).unwrap_or(u64::MAX);
        Self {
            name,
            most,
            used: u64::from(pool.size()).saturating_sub(idle),
            idle,
        }
    }
}

impl SqlStore {
    /// Its connections at this moment.
    pub fn pools(&self) -> Vec<PoolStats> {
        match &self.engine {
            Engine::Sqlite(pools) => {
                let (used, idle) = pools.readers.in_use_and_idle();
                let reading = PoolStats {
                    name: "reading",
                    most: readers::READERS as u64,
                    used: used as u64,
                    idle: idle as u64,
                };
                vec![reading, PoolStats::of("writing", &pools.writer, 1)]
            }
            Engine::Postgres(pool) => {
                let most = u64::from(postgres::CONNECTIONS);
                vec![PoolStats::of("shared", pool, most)]
            }
        }
    }

    /// How long questions waited for a connection, and how long writers did: on SQLite until they had
    /// the right to write, on PostgreSQL until their transaction began.
    pub fn waits(&self) -> [(&'static str, Recorded); 2] {
        let Waits { reading, writing } = &*self.waits;
        [("reading", reading.read()), ("writing", writing.read())]
    }
}
