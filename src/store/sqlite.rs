//! SQLite: one file, one writer, readers beside it.

use std::{fs, io, path::Path, time::Duration};

use sqlx::{
    ConnectOptions, Connection, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};

use tokio::time::{Instant, sleep};

use super::{errors::translated, migrations, readers::Readers};
use crate::mirror::StoreError;

/// How long a transaction waits for another process, such as `clerk-authz inbox`; then it is a
/// conflict.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The page cache of each reader, in KiB and negative, as SQLite wants it; else it is 2 MiB each, which
/// fill for hours. The kernel has the same pages once for all of them.
const READER_CACHE_KIB: &str = "-256";
/// From one try to migrate to the next.
const MIGRATE_PAUSE: Duration = Duration::from_millis(20);
/// How long somebody waits for the writing connection; then the database is unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections to one file.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    /// One connection: SQLite has one writer at a time, and waiting here costs nothing.
    pub(super) writer: SqlitePool,
    pub(super) readers: Readers,
}

/// Opens the file, makes it where there is none, and brings its schema to our version.
pub(super) async fn open(path: &Path) -> Result<Pools, StoreError> {
    open_with(path, |options| options).await
}

/// As [`open`], with the lock of a connection that keeps all others out from its first use on.
pub(super) async fn open_alone(path: &Path) -> Result<Pools, StoreError> {
    open_with(path, |options| {
        options.locking_mode(SqliteLockingMode::Exclusive)
    })
    .await
}

async fn open_with(
    path: &Path,
    change: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
) -> Result<Pools, StoreError> {
    make_private(path).map_err(|error| StoreError::Refused {
        cause: format!("{}: {error}", path.display()),
    })?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal)
        // A message that was answered with 204 is on the disk, also when the power fails.
        .synchronous(SqliteSynchronous::Full)
        // What a deletion took is overwritten, at the latest with the next checkpoint.
        .pragma("secure_delete", "on");
    migrate(&options).await?;
    let options = change(options);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        // There is nobody at the other end who could be gone.
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE_TIMEOUT);
    Ok(Pools {
        writer: writer.connect_lazy_with(options.clone()),
        readers: Readers::new(
            options
                .pragma("query_only", "on")
                .pragma("cache_size", READER_CACHE_KIB),
        ),
    })
}

/// Of several that make the file at once some are told that it is locked without having waited: SQLite
/// does not wait for the one that switches it to WAL. So it is tried again for as long as it would wait.
async fn migrate(options: &SqliteConnectOptions) -> Result<(), StoreError> {
    let begun = Instant::now();
    loop {
        match try_to_migrate(options).await {
            Err(StoreError::Conflict { .. }) if begun.elapsed() < BUSY_TIMEOUT => {
                sleep(MIGRATE_PAUSE).await;
            }
            ended => return ended,
        }
    }
}

async fn try_to_migrate(options: &SqliteConnectOptions) -> Result<(), StoreError> {
    let mut connection = options.connect().await.map_err(translated)?;
    migrations::sqlite(&mut connection).await?;
    connection.close().await.map_err(translated)
}

/// A new file is for our user only: names and addresses stand in it. SQLite gives its side files the
/// same rights.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs::create_dir_all(directory)?;
    }
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{InstanceName, Timestamp},
        mirror::{Coordination, Inbox, Received},
        store::{Engine, SqlStore},
    };

    async fn refused(
        change: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> (tempfile::TempDir, SqlStore, StoreError) {
        let folder = tempfile::tempdir().expect("a folder");
        let pools = open_with(&folder.path().join("clerk-authz.db"), change).await;
        let store = SqlStore::new(Engine::Sqlite(pools.expect("it opens")));
        let message = Received {
            id: "msg_1".parse().expect("an id"),
            event_type: "user.updated".into(),
            entity: None,
            at: Timestamp::from_unix_millis(0),
            body: Some(vec![b'x'; 1 << 20]),
        };
        let instance = InstanceName::default_instance();
        let kept = store
            .receive(&instance, message, Timestamp::from_unix_millis(0))
            .await;
        (folder, store, kept.expect_err("it cannot be kept"))
    }

    #[tokio::test]
    async fn a_full_disk_says_so_and_questions_go_on() {
        let (_folder, store, error) =
            refused(|options| options.pragma("max_page_count", "100")).await;

        assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
        assert!(error.to_string().contains("make room"), "{error}");
        let instance = InstanceName::default_instance();
        assert_eq!(store.checkpoint(&instance, "none").await, Ok(None));
        // What is small still fits: nothing is stuck.
        let now = Timestamp::from_unix_millis(0);
        let kept = store.set_checkpoint(&instance, "one", "1", now).await;
        assert_eq!(kept, Ok(()));
    }

    #[tokio::test]
    async fn a_read_only_database_says_so() {
        let (_folder, _, error) = refused(|options| options.pragma("query_only", "on")).await;

        assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
    }
}
