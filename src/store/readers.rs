//! Connections to a SQLite file for questions.
//!
//! In place of a pool of the driver's, which asks a connection whether it lives before and after each
//! use. A file's connection has nobody who could have gone away meanwhile, and each of these
//! questions is a hop to the connection's thread and back: with them a look-up took three times as
//! long.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::errors::translated;
use crate::mirror::StoreError;

/// Connections. A further reader waits for one.
pub(super) const READERS: usize = 16;
/// How long somebody waits for one; then the database is unavailable.
const WAIT: Duration = Duration::from_secs(10);

/// Opened when they are needed, kept until the end.
#[derive(Clone, Debug)]
pub(super) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: SqliteConnectOptions,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<SqliteConnection>>,
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self(Arc::new(Shared {
            options,
            turns: Arc::new(Semaphore::new(READERS)),
            idle: Mutex::default(),
        }))
    }

    /// A connection of one's own, until it is dropped.
    pub(super) async fn acquire(&self) -> Result<Reader, StoreError> {
        let unavailable = |cause: &str| StoreError::Unavailable {
            cause: cause.to_owned(),
        };
        let turn = timeout(WAIT, Arc::clone(&self.0.turns).acquire_owned())
            .await
            .map_err(|_| unavailable("no connection became free in time"))?
            .map_err(|_| unavailable("the connection was closed"))?;
        let idle = self.0.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.0.options.connect().await.map_err(translated)?,
        };
        Ok(Reader {
            connection: Some(connection),
            readers: Arc::clone(&self.0),
            _turn: turn,
        })
    }

    /// Connections in use, and those that are kept for the next.
    pub(super) fn in_use_and_idle(&self) -> (usize, usize) {
        let free = self.0.turns.available_permits();
        (READERS.saturating_sub(free), self.0.idle().len())
    }

    /// Ends them; those in use when they are free. Later calls find the database unavailable.
    pub(super) async fn close(&self) {
        let all = self.0.turns.acquire_many(READERS as u32).await;
        self.0.turns.close();
        drop(all);
        let idle = std::mem::take(&mut *self.0.idle());
        for connection in idle {
            // It was only for reading: nothing can be lost.
            let _ = connection.close().await;
        }
    }
}

/// A connection in use.
pub(super) struct Reader {
    /// There until it is dropped.
    connection: Option<SqliteConnection>,
    readers: Arc<Shared>,
    _turn: OwnedSemaphorePermit,
}

impl Reader {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.idle().push(connection);
        }
    }
}
