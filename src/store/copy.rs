//! Everything of one database into another one, of the same engine or the other.
//!
//! Called by `clerk-authz store copy`. The target is written in one transaction, which is committed
//! when what it holds was read again and is what the source holds: a copy is whole, or there is none.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value as Json};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::{
    SqlStore,
    connection::{Row, Session, Sql, Value, values},
    contents::json,
    tables::{Kind, TABLES, Table},
};
use crate::mirror::{FEED_ID_CHECKPOINT, StoreError};

/// How long connections that were just closed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// From one look at them to the next.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Locks all tables of PostgreSQL against writers and other copies, until the end of the transaction.
const LOCK: Sql = Sql::both(
    "LOCK TABLE users, user_emails, organizations, memberships, feeds, changes, \
     revocations, inbox, leases, checkpoints, used_once, key_snapshots, sightings, \
     upstream_keys \
     IN SHARE ROW EXCLUSIVE MODE",
);
/// One side does nothing while the other works, and a page of large rows may take its time.
const WITHOUT_LIMITS: [Sql; 2] = [
    Sql::both("SET LOCAL statement_timeout = 0"),
    Sql::both("SET LOCAL idle_in_transaction_session_timeout = 0"),
];
/// Others of ours on the same PostgreSQL database.
const OTHERS: Sql = Sql::both(
    "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'clerk-authz' \
     AND datname = current_database() AND pid <> pg_backend_pid()",
);
/// The next message's number is behind all that there are. SQLite sees to it itself.
const SET_SEQUENCE: Sql = Sql::both(
    "SELECT setval(pg_get_serial_sequence('inbox', 'sequence'), COALESCE(MAX(sequence), 1), \
     MAX(sequence) IS NOT NULL) FROM inbox",
);
// Whole table; it has a row for each of a few names.
pub(super) const FORGET_FEED_IDS: &str = "DELETE FROM checkpoints WHERE name = $1";

/// Why nothing was copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The source cannot be read.
    #[error("the source: {0}")]
    Source(StoreError),
    /// The target cannot be written.
    #[error("the target: {0}")]
    Target(StoreError),
    /// A service, or another command, has the source open.
    #[error(
        "the source is open elsewhere; stop every clerk-authz on it first: what is written meanwhile \
         would be missing in the copy"
    )]
    InUse,
    /// The target has rows already.
    #[error(
        "the target is not empty: its table {table} has rows; give a database that no clerk-authz \
         has written yet"
    )]
    NotEmpty {
        /// The first table that has some.
        table: &'static str,
    },
    /// What was read back is not what was written.
    #[error(
        "table {table} differs after the copy: {source_rows} rows at the source, {target_rows} at the \
         target{}; nothing was kept",
        if source_rows == target_rows { ", which say something else" } else { "" }
    )]
    Differs {
        /// Which.
        table: &'static str,
        /// Rows read of the source.
        source_rows: u64,
        /// Rows read of the target.
        target_rows: u64,
    },
}

/// How far a copy is.
#[derive(Clone, Copy, Debug)]
pub struct CopyProgress {
    /// What is done to which table.
    pub stage: CopyStage,
    /// The table's name.
    pub table: &'static str,
    /// Rows so far.
    pub done: u64,
    /// Rows in all.
    pub total: u64,
}

/// What a copy does; one after the other for each table, first all of one and then all of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStage {
    /// Rows are read and written.
    Copies,
    /// Rows are read again at the target.
    Verifies,
}

/// What a table holds, at the source as at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name.
    pub table: &'static str,
    /// How many rows.
    pub rows: u64,
    /// Of all rows in any order: the SHA-256 of each, added up.
    pub sum: String,
}

impl SqlStore {
    /// Copies everything into `target`, which has to be empty, and says what each table holds.
    ///
    /// The source keeps its rows but gets a new name for its feeds: positions that watchers were told
    /// before are good at the target, and what the source may tell later is not taken for the same.
    /// Of a source on PostgreSQL no other connection may be open, also none of this store: it is opened
    /// for this. May be dropped at any time: then nothing is copied, or, where the last commit was under
    /// way already, all of it.
    pub async fn copy_to(
        &self,
        target: &Self,
        on_progress: &(dyn Fn(CopyProgress) + Sync),
    ) -> Result<Vec<CopiedTable>, CopyError> {
        use CopyError::{Source, Target};
        let mut from = match self.writing().await {
            // SQLite's source is opened alone.
            Err(StoreError::Conflict { .. }) => return Err(CopyError::InUse),
            begun => begun.map_err(Source)?,
        };
        let mut to = target.writing().await.map_err(Target)?;
        others_are_gone(&mut from).await?;
        alone(&mut from).await.map_err(Source)?;
        alone(&mut to).await.map_err(Target)?;
        for table in TABLES {
            if to
                .row(table.any, Vec::new())
                .await
                .map_err(Target)?
                .is_some()
            {
                return Err(CopyError::NotEmpty { table: table.name });
            }
        }

        let mut totals = BTreeMap::new();
        for table in TABLES {
            let mut count = from.one(table.count, Vec::new()).await.map_err(Source)?;
            totals.insert(table.name, count.count().map_err(Source)?);
        }
        let progress = |stage, table: &Table, done| {
            on_progress(CopyProgress {
                stage,
                table: table.name,
                done,
                total: totals[table.name],
            });
        };

        let mut copied = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            progress(CopyStage::Copies, table, 0);
            let mut pages = Pages::of(table);
            while let Some(rows) = pages.next(&mut from).await.map_err(Source)? {
                let rows = json(&rows).map_err(Source)?;
                let write = to.run(table.write, values![&*rows]).await;
                write.map_err(Target)?;
                progress(CopyStage::Copies, table, pages.rows);
            }
            copied.push(pages.sum());
        }
        if to.is_postgres() {
            to.one(SET_SEQUENCE, Vec::new()).await.map_err(Target)?;
        }
        for (table, source) in TABLES.iter().zip(&copied) {
            let mut pages = Pages::of(table);
            while pages.next(&mut to).await.map_err(Target)?.is_some() {
                progress(CopyStage::Verifies, table, pages.rows);
            }
            if pages.sum() != *source {
                return Err(CopyError::Differs {
                    table: table.name,
                    source_rows: source.rows,
                    target_rows: pages.rows,
                });
            }
        }
        // The source first: should the target's commit fail, its watchers begin anew, and that is all.
        forget_feed_ids(&mut from).await.map_err(Source)?;
        from.commit().await.map_err(Source)?;
        to.commit().await.map_err(Target)?;
        Ok(copied)
    }

    /// Gives the feeds of all instances new names: after a backup was restored the positions behind it
    /// will be given out a second time, and watchers have to be told to begin anew. Says of how many
    /// instances somebody had watched.
    pub async fn begin_feeds_anew(&self) -> Result<u64, StoreError> {
        let mut session = self.writing().await?;
        let forgotten = forget_feed_ids(&mut session).await?;
        session.commit().await?;
        Ok(forgotten)
    }
}

async fn forget_feed_ids(session: &mut Session) -> Result<u64, StoreError> {
    session
        .run(Sql::both(FORGET_FEED_IDS), values![FEED_ID_CHECKPOINT])
        .await
}

/// Whether nobody else has a PostgreSQL source open.
async fn others_are_gone(session: &mut Session) -> Result<(), CopyError> {
    if !session.is_postgres() {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        let others = session.one(OTHERS, Vec::new()).await;
        let connections = others
            .and_then(|mut row| row.count())
            .map_err(CopyError::Source)?;
        if connections == 0 {
            return Ok(());
        }
        if begun.elapsed() >= GONE_WITHIN {
            return Err(CopyError::InUse);
        }
        sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Keeps other writers out. On SQLite the transaction has done so already.
async fn alone(session: &mut Session) -> Result<(), StoreError> {
    if session.is_postgres() {
        for statement in WITHOUT_LIMITS {
            session.run(statement, Vec::new()).await?;
        }
        session.run(LOCK, Vec::new()).await?;
    }
    Ok(())
}

/// All rows of a table, page by page in the order of its key, and their sum so far.
struct Pages<'a> {
    table: &'a Table,
    /// The key behind which the next page begins; `None` at the end.
    after: Option<Vec<Value>>,
    rows: u64,
    sum: [u64; 4],
}

impl<'a> Pages<'a> {
    fn of(table: &'a Table) -> Self {
        // Before all: no row is without an instance, and numbers count from one.
        let first = table.columns[..table.key]
            .iter()
            .map(|(_, kind)| match kind {
                Kind::Text | Kind::Blob => Value::from(""),
                Kind::Int => Value::from(i64::MIN),
            });
        Self {
            table,
            after: Some(first.collect()),
            rows: 0,
            sum: [0; 4],
        }
    }

    async fn next(&mut self, session: &mut Session) -> Result<Option<Vec<Json>>, StoreError> {
        let Some(after) = self.after.take() else {
            return Ok(None);
        };
        let found = session.rows(self.table.page, after).await?;
        let mut page = Vec::with_capacity(found.len());
        for mut row in found {
            let cells = cells(self.table, &mut row)?;
            self.add(&cells);
            page.push(object(self.table, &cells));
            let mut cells = cells;
            cells.truncate(self.table.key);
            self.after = Some(cells);
        }
        Ok((!page.is_empty()).then_some(page))
    }

    /// Of each row its SHA-256; added up, so that the order does not count, in which engines differ.
    fn add(&mut self, cells: &[Value]) {
        let mut bytes = Vec::new();
        for cell in cells {
            let number;
            let (tag, cell) = match cell {
                Value::Text(Some(text)) => (b't', text.as_bytes()),
                Value::Int(Some(it)) => {
                    number = it.to_le_bytes();
                    (b'i', &number[..])
                }
                Value::Blob(Some(blob)) => (b'b', &blob[..]),
                Value::Text(None) | Value::Int(None) | Value::Blob(None) => (b'-', &[][..]),
            };
            bytes.push(tag);
            bytes.extend_from_slice(&(cell.len() as u64).to_le_bytes());
            bytes.extend_from_slice(cell);
        }
        let digest = digest(&SHA256, &bytes);
        for (sum, part) in self.sum.iter_mut().zip(digest.as_ref().chunks_exact(8)) {
            let part = part.try_into().expect("chunks of eight");
            *sum = sum.wrapping_add(u64::from_le_bytes(part));
        }
        self.rows += 1;
    }

    fn sum(&self) -> CopiedTable {
        let mut sum = String::new();
        for part in self.sum {
            // Writing to a string does not fail.
            let _ = write!(sum, "{part:016x}");
        }
        CopiedTable {
            table: self.table.name,
            rows: self.rows,
            sum,
        }
    }
}

fn cells(table: &Table, row: &mut Row) -> Result<Vec<Value>, StoreError> {
    let cells = table.columns.iter().map(|(_, kind)| {
        Ok(match kind {
            Kind::Text => Value::Text(row.maybe_text()?),
            Kind::Int => Value::Int(row.maybe_int()?),
            Kind::Blob => Value::Blob(row.maybe_blob()?),
        })
    });
    cells.collect()
}

fn object(table: &Table, cells: &[Value]) -> Json {
    let members = table.columns.iter().zip(cells).map(|((name, _), cell)| {
        let value = match cell {
            Value::Text(text) => text.clone().into(),
            Value::Int(number) => (*number).into(),
            Value::Blob(bytes) => bytes.as_deref().map(hexadecimal).into(),
        };
        ((*name).to_owned(), value)
    });
    Json::Object(members.collect::<Map<_, _>>())
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tables_are_locked() {
        let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let locks = format!("LOCK TABLE {} IN", names.join(", "));
        assert!(format!("{LOCK:?}").contains(&locks), "{locks}");
    }

    #[test]
    fn a_sum_tells_rows_apart_and_not_their_order() {
        let sum = |rows: &[[Option<&str>; 3]]| {
            let mut pages = Pages::of(&TABLES[0]);
            for row in rows {
                let cells: Vec<Value> = row.iter().map(|it| Value::from(*it)).collect();
                pages.add(&cells);
            }
            pages.sum()
        };
        let (one, two) = ([Some("a"), Some("b"), None], [Some("c"), None, Some("")]);
        assert_eq!(sum(&[one, two]), sum(&[two, one]));
        for other in [
            [Some("a"), None, Some("b")],
            [Some("ab"), Some(""), None],
            [Some("a"), Some("b"), Some("")],
        ] {
            assert_ne!(sum(&[one]), sum(&[other]), "{other:?}");
        }
    }
}
