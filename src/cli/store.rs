//! `clerk-authz store`

use std::{fs, io::Read, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{SUCCESS, mirror::DatabaseArgs, progress::Progress, until_signal};
use crate::{
    settings::DatabaseSettings,
    store::{CopiedTable, CopyProgress, CopyStage, SqlStore},
};

/// What is read of a file with an address, which is much shorter.
const MAX_ADDRESS_BYTES: u64 = 16 << 10;

/// Copies the service's database to another engine, backs it up, and says that it was restored.
#[derive(Args)]
#[command(
    after_help = "Example: clerk-authz store backup /var/backups/clerk-authz.db\n\
                  Exit codes: 0 done, 2 could not; then nothing was changed"
)]
pub(super) struct Store {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Copy everything into an empty database, such as from SQLite to PostgreSQL
    Copy(CopyArgs),
    /// Write a SQLite database to a new file, while the service goes on
    Backup(BackupArgs),
    /// Say that the database was restored from a backup: who watches it begins anew
    Restored(RestoredArgs),
}

/// Copies everything: users, organizations, memberships, tombstones, what was ended, the inbox with what
/// waits in it, the feed, and the keys. Needs the source for itself: stop the service first. The target
/// has to be empty; it is written in one transaction, read again and compared before that is committed,
/// so that a copy is whole or not there at all. Those who watch go on at the target where they were.
#[derive(Args)]
#[command(
    after_help = "Example: clerk-authz store copy --from sqlite:///var/lib/clerk-authz/clerk-authz.db --to-file new-database-url\n\
                  Exit codes: 0 copied and verified, 2 could not; then the target is as empty as it was"
)]
struct CopyArgs {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    to: To,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct From {
    /// The database to read, such as sqlite:///PATH; without a password
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// A file that holds the address of the database to read
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct To {
    /// The database to fill, such as postgres://USER@HOST/NAME; without a password
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// A file that holds the address of the database to fill
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
}

/// Writes all that the SQLite database holds at one moment to a new file, checks it, and leaves it there
/// only when it is sound. The service may run and write meanwhile. For PostgreSQL use `pg_dump`.
#[derive(Args)]
#[command(
    after_help = "Example: CLERK_AUTHZ_DATABASE_URL=sqlite:///var/lib/clerk-authz/clerk-authz.db clerk-authz store backup /var/backups/clerk-authz-2026-11-25.db\n\
                  To restore it, stop the service and put the file in the database's place, without a -wal and a -shm beside it.\n\
                  Exit codes: 0 done, 2 could not"
)]
struct BackupArgs {
    /// The new file
    path: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// After a backup was restored, positions of the feed behind it are given out a second time. This tells
/// every watcher of the time before to begin anew. A backup by `store backup` does not need it.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz store restored\n\
                  It reads the service's settings from the environment: CLERK_AUTHZ_DATABASE_URL.\n\
                  Exit codes: 0 done, 2 could not")]
struct RestoredArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Store {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        match self.action {
            Action::Copy(args) => args.run().await,
            Action::Backup(args) => args.run().await,
            Action::Restored(args) => args.run().await,
        }
    }
}

impl CopyArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let from = address("--from", self.from.from.as_deref(), self.from.from_file)?;
        let to = address("--to", self.to.to.as_deref(), self.to.to_file)?;
        if from.to_string() == to.to_string() {
            bail!("--from and --to name the same database: {from}");
        }
        let source = match &from {
            DatabaseSettings::Sqlite { path } if !path.exists() => {
                bail!("--from names {}, where there is no file", path.display())
            }
            DatabaseSettings::Sqlite { path } => SqlStore::sqlite_alone(path).await,
            DatabaseSettings::Postgres { url } => SqlStore::postgres(url.expose_secret()).await,
        };
        let source = source.with_context(|| format!("{from} cannot be opened"))?;
        let target = match &to {
            DatabaseSettings::Sqlite { path } => SqlStore::sqlite(path).await,
            DatabaseSettings::Postgres { url } => SqlStore::postgres(url.expose_secret()).await,
        };
        let target = target.with_context(|| format!("{to} cannot be opened"))?;
        let copied = copy(&source, &target).await;
        source.close().await;
        target.close().await;
        let copied = copied.with_context(|| format!("nothing was copied from {from} to {to}"))?;
        if self.json {
            anstream::println!("{}", as_json(&copied));
        } else {
            anstream::print!("{}", as_text(&copied));
            anstream::println!("copied and verified; now start the service on {to}");
        }
        Ok(SUCCESS)
    }
}

async fn copy(source: &SqlStore, target: &SqlStore) -> anyhow::Result<Vec<CopiedTable>> {
    let progress = Progress::new();
    let on_progress = |now: CopyProgress| {
        let label = match now.stage {
            CopyStage::Copies => format!("copying {}", now.table),
            CopyStage::Verifies => format!("verifying {}", now.table),
        };
        if now.total > 0 {
            progress.set(&label, now.done, Some(now.total));
        }
    };
    let ended = tokio::select! {
        ended = source.copy_to(target, &on_progress) => ended.map_err(Into::into),
        stopped = until_signal() => stopped.and_then(|()| Err(anyhow!("stopped"))),
    };
    progress.finish();
    ended
}

fn as_text(copied: &[CopiedTable]) -> String {
    copied
        .iter()
        .map(|table| format!("{:<14}{:>12}  {}\n", table.table, table.rows, table.sum))
        .collect()
}

fn as_json(copied: &[CopiedTable]) -> serde_json::Value {
    let tables: serde_json::Map<_, _> = copied
        .iter()
        .map(|table| {
            let value = json!({ "rows": table.rows, "sum": table.sum });
            (table.table.to_owned(), value)
        })
        .collect();
    json!({ "tables": tables })
}

impl BackupArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let store = self.database.open().await?;
        let ended = store.backup(&self.path).await;
        store.close().await;
        let bytes = ended.context("there is no backup")?;
        anstream::println!("{}  {bytes} bytes, checked", self.path.display());
        Ok(SUCCESS)
    }
}

impl RestoredArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let store = self.database.open().await?;
        let ended = store.begin_feeds_anew().await;
        store.close().await;
        let feeds = ended.context("watchers were not told")?;
        anstream::println!(
            "watchers begin anew ({feeds} feeds had been watched); now start the service and run \
             `clerk-authz reconcile --apply`"
        );
        Ok(SUCCESS)
    }
}

/// The address that an option gives, itself or in a file.
fn address(
    option: &str,
    address: Option<&str>,
    file: Option<PathBuf>,
) -> anyhow::Result<DatabaseSettings> {
    let text = match (address, &file) {
        (Some(address), _) => address.to_owned(),
        (None, Some(path)) => {
            let said = || format!("{option}-file: {} cannot be read", path.display());
            let mut text = String::new();
            let mut file = fs::File::open(path)
                .with_context(said)?
                .take(MAX_ADDRESS_BYTES);
            file.read_to_string(&mut text).with_context(said)?;
            text
        }
        // clap asks for one of both.
        (None, None) => bail!("{option} is missing"),
    };
    let database = DatabaseSettings::from_address(text.trim())
        .map_err(|expected| anyhow!("{option} is not a database's address; expected {expected}"))?;
    if file.is_none() && database.has_password() {
        bail!(
            "{option} holds a password, which every user of this machine can read there; write the \
             address to a file and give {option}-file FILE, or leave the password to PGPASSWORD"
        );
    }
    Ok(database)
}
