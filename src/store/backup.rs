//! A copy of a SQLite file while the service writes to it.
//!
//! Called by `clerk-authz store backup`. PostgreSQL has `pg_dump` for this.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use thiserror::Error;

use super::{Engine, SqlStore, copy::FORGET_FEED_IDS, errors::translated, sqlite};
use crate::mirror::{FEED_ID_CHECKPOINT, StoreError};

/// All that there is at one moment, without free pages; the writer goes on meanwhile.
const COPY_INTO: &str = "VACUUM INTO $1";
/// `ok`, or the first fault.
const CHECK: &str = "PRAGMA integrity_check(1)";

/// Why there is no backup.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The database is PostgreSQL.
    #[error(
        "the database is PostgreSQL, which has a tool of its own: pg_dump --format=custom \
         --schema=clerk_authz --file=FILE ADDRESS"
    )]
    NotSqlite,
    /// A backup never takes the place of something.
    #[error("{} is there already; give the name of a new file", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("{} cannot be written: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The database cannot be read, or the copy has no room.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy was checked, and is not a sound database.
    #[error(
        "the copy is damaged, and with it most likely the database: {problem}; go back to the last \
         good backup, then run `clerk-authz reconcile --apply`"
    )]
    Damaged {
        /// What SQLite found first.
        problem: String,
    },
}

impl SqlStore {
    /// Writes all that the SQLite database holds at one moment to a new file, for its owner only, and
    /// says its size in bytes. The file stands under its name when it was checked and is on the disk;
    /// before that, and where it fails, it has `.partial` behind its name, or is not there.
    pub async fn backup(&self, path: &Path) -> Result<u64, BackupError> {
        let Engine::Sqlite(pools) = &self.engine else {
            return Err(BackupError::NotSqlite);
        };
        if path.exists() {
            let path = path.to_owned();
            return Err(BackupError::Exists { path });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = |cause| BackupError::File {
            path: partial.clone(),
            cause,
        };
        // What one before us has left half done.
        if partial.exists() {
            fs::remove_file(&partial).map_err(file)?;
        }
        sqlite::make_private(&partial).map_err(file)?;
        let made = async {
            let mut from = pools.writer.acquire().await.map_err(translated)?;
            let name = partial.to_string_lossy().into_owned();
            sqlx::query(COPY_INTO)
                .bind(name)
                .execute(&mut *from)
                .await
                .map_err(translated)?;
            drop(from);
            finish(&partial).await?;
            kept(&partial, path).map_err(file)
        };
        let made = made.await;
        if made.is_err() {
            // Already told what went wrong; what cannot be removed will be by the next one.
            let _ = fs::remove_file(&partial);
        }
        made
    }
}

/// Makes the copy one that can be restored, and checks it.
async fn finish(copy: &Path) -> Result<(), BackupError> {
    let options = SqliteConnectOptions::new().filename(copy);
    let mut connection = options.connect().await.map_err(translated)?;
    // Watchers of what will be restored have to begin anew: positions behind the backup will be given
    // out a second time.
    sqlx::query(FORGET_FEED_IDS)
        .bind(FEED_ID_CHECKPOINT)
        .execute(&mut connection)
        .await
        .map_err(translated)?;
    let problem = problem(&mut connection).await?;
    connection.close().await.map_err(translated)?;
    match problem {
        Some(problem) => Err(BackupError::Damaged { problem }),
        None => Ok(()),
    }
}

async fn problem(connection: &mut SqliteConnection) -> Result<Option<String>, StoreError> {
    let said: String = sqlx::query_scalar(CHECK)
        .fetch_one(connection)
        .await
        .map_err(translated)?;
    Ok((said != "ok").then_some(said))
}

/// On the disk, then under its name, and that on the disk too.
fn kept(partial: &Path, path: &Path) -> io::Result<u64> {
    let file = fs::File::open(partial)?;
    file.sync_all()?;
    fs::rename(partial, path)?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file.metadata()?.len())
}
