//! A statement, what is bound to it, and what comes back, the same for both engines.

use sqlx::{
    PgConnection, Postgres, Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction,
    pool::PoolConnection, postgres::PgRow, query::Query, sqlite::SqliteRow,
};

use super::{
    errors::{broken, translated},
    readers::Reader,
};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::StoreError,
};

/// A statement. Both engines read `$1`, so one text mostly serves both. It is `'static`: no part of
/// it can come from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sql {
    sqlite: &'static str,
    postgres: &'static str,
}

impl Sql {
    /// One text for both.
    pub(super) const fn both(text: &'static str) -> Self {
        Self {
            sqlite: text,
            postgres: text,
        }
    }

    /// One text each.
    pub(super) const fn each(sqlite: &'static str, postgres: &'static str) -> Self {
        Self { sqlite, postgres }
    }
}

/// What is bound; each knows its type also where it is NULL.
#[derive(Debug)]
pub(super) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Blob(Option<Vec<u8>>),
}

/// PostgreSQL has no text with a zero byte in it. In both engines it is kept as U+FFFD.
fn without_zero(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(without_zero(text)))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(without_zero))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(Some(number.into()))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(Some(flag.into()))
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Int(Some(time.unix_millis()))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(time: Option<Timestamp>) -> Self {
        Self::Int(time.map(Timestamp::unix_millis))
    }
}

impl From<Option<&[u8]>> for Value {
    fn from(bytes: Option<&[u8]>) -> Self {
        Self::Blob(bytes.map(<[u8]>::to_vec))
    }
}

/// Values for `$1`, `$2` and so on.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::connection::Value::from($value)),*] };
}
pub(super) use values;

/// A connection, perhaps with a transaction. Dropped before [`Session::commit`], a transaction is
/// undone.
pub(super) enum Session {
    SqliteReading(Reader),
    SqliteWriting(SqliteTransaction),
    PostgresReading(PoolConnection<Postgres>),
    PostgresWriting(Transaction<'static, Postgres>),
}

/// A transaction on SQLite that has the right to write from its start. What is not committed is
/// undone by closing the connection: after some errors, such as a full disk, SQLite has undone the
/// transaction already and a rollback fails, which would leave sqlx's own transactions, and with them
/// the one writer, stuck.
pub(super) struct SqliteTransaction {
    connection: PoolConnection<Sqlite>,
    is_open: bool,
}

impl SqliteTransaction {
    pub(super) async fn begin(pool: &SqlitePool) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(translated)?;
        let mut transaction = Self {
            connection,
            is_open: true,
        };
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut *transaction.connection)
            .await
            .map_err(translated)?;
        Ok(transaction)
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT")
            .execute(&mut *self.connection)
            .await
            .map_err(translated)?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        if self.is_open {
            self.connection.close_on_drop();
        }
    }
}

/// The connection of whichever engine.
enum Engine<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

impl Session {
    fn engine(&mut self) -> Engine<'_> {
        match self {
            Self::SqliteReading(reader) => Engine::Sqlite(reader.connection()),
            Self::SqliteWriting(transaction) => Engine::Sqlite(&mut transaction.connection),
            Self::PostgresReading(connection) => Engine::Postgres(connection),
            Self::PostgresWriting(transaction) => Engine::Postgres(transaction),
        }
    }

    /// Runs a statement; says how many rows it changed.
    pub(super) async fn run(&mut self, sql: Sql, values: Vec<Value>) -> Result<u64, StoreError> {
        let changed = match self.engine() {
            Engine::Sqlite(connection) => sqlite_query(sql, values)
                .execute(connection)
                .await
                .map(|done| done.rows_affected()),
            Engine::Postgres(connection) => postgres_query(sql, values)
                .execute(connection)
                .await
                .map(|done| done.rows_affected()),
        };
        changed.map_err(translated)
    }

    /// All rows of an answer. The statement bounds how many.
    pub(super) async fn rows(
        &mut self,
        sql: Sql,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = match self.engine() {
            Engine::Sqlite(connection) => sqlite_query(sql, values)
                .fetch_all(connection)
                .await
                .map(|rows| rows.into_iter().map(Row::sqlite).collect()),
            Engine::Postgres(connection) => postgres_query(sql, values)
                .fetch_all(connection)
                .await
                .map(|rows| rows.into_iter().map(Row::postgres).collect()),
        };
        rows.map_err(translated)
    }

    /// The first row of a question, where there is one.
    pub(super) async fn row(
        &mut self,
        sql: Sql,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        let row = match self.engine() {
            Engine::Sqlite(connection) => sqlite_query(sql, values)
                .fetch_optional(connection)
                .await
                .map(|row| row.map(Row::sqlite)),
            Engine::Postgres(connection) => postgres_query(sql, values)
                .fetch_optional(connection)
                .await
                .map(|row| row.map(Row::postgres)),
        };
        row.map_err(translated)
    }

    /// The one row of a statement that always has one.
    pub(super) async fn one(&mut self, sql: Sql, values: Vec<Value>) -> Result<Row, StoreError> {
        let rows = self.rows(sql, values).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| broken("an answer without a row"))
    }

    /// Whether it speaks PostgreSQL.
    pub(super) fn is_postgres(&self) -> bool {
        matches!(self, Self::PostgresReading(_) | Self::PostgresWriting(_))
    }

    /// Makes what was written last; it is durable when this returns.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::SqliteWriting(transaction) => transaction.commit().await,
            Self::PostgresWriting(transaction) => transaction.commit().await.map_err(translated),
            Self::SqliteReading(_) | Self::PostgresReading(_) => Ok(()),
        }
    }
}

fn sqlite_query(
    sql: Sql,
    values: Vec<Value>,
) -> Query<'static, Sqlite, <Sqlite as sqlx::Database>::Arguments> {
    let query = sqlx::query(sql.sqlite);
    values.into_iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
        Value::Blob(bytes) => query.bind(bytes),
    })
}

fn postgres_query(
    sql: Sql,
    values: Vec<Value>,
) -> Query<'static, Postgres, <Postgres as sqlx::Database>::Arguments> {
    let query = sqlx::query(sql.postgres);
    values.into_iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
        Value::Blob(bytes) => query.bind(bytes),
    })
}

/// A row, read from left to right.
pub(super) struct Row {
    row: EngineRow,
    next: usize,
}

enum EngineRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! read {
    ($row:expr, $type:ty) => {{
        let index = $row.next;
        $row.next += 1;
        match &$row.row {
            EngineRow::Sqlite(row) => row.try_get::<$type, _>(index),
            EngineRow::Postgres(row) => row.try_get::<$type, _>(index),
        }
        .map_err(translated)
    }};
}

impl Row {
    fn sqlite(row: SqliteRow) -> Self {
        Self {
            row: EngineRow::Sqlite(row),
            next: 0,
        }
    }

    fn postgres(row: PgRow) -> Self {
        Self {
            row: EngineRow::Postgres(row),
            next: 0,
        }
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<String>, StoreError> {
        read!(self, Option<String>)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        read!(self, String)
    }

    pub(super) fn maybe_int(&mut self) -> Result<Option<i64>, StoreError> {
        read!(self, Option<i64>)
    }

    pub(super) fn int(&mut self) -> Result<i64, StoreError> {
        read!(self, i64)
    }

    pub(super) fn maybe_blob(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        read!(self, Option<Vec<u8>>)
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.int()? != 0)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.int().map(Timestamp::from_unix_millis)
    }

    pub(super) fn maybe_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.maybe_int()?.map(Timestamp::from_unix_millis))
    }

    /// A count; below zero is none.
    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.int()?).unwrap_or(0))
    }

    /// A text that was an id when it was written.
    pub(super) fn id<T: TryFrom<Box<str>>>(&mut self) -> Result<T, StoreError> {
        parsed(self.text()?)
    }

    /// A text that was an instance's name when it was written.
    pub(super) fn name(&mut self) -> Result<InstanceName, StoreError> {
        let name = self.text()?;
        name.parse().map_err(|_| broken("a name that is none"))
    }

    pub(super) fn maybe_id<T: TryFrom<Box<str>>>(&mut self) -> Result<Option<T>, StoreError> {
        self.maybe_text()?.map(parsed).transpose()
    }

    pub(super) fn maybe_boxed(&mut self) -> Result<Option<Box<str>>, StoreError> {
        Ok(self.maybe_text()?.map(String::into_boxed_str))
    }

    pub(super) fn boxed(&mut self) -> Result<Box<str>, StoreError> {
        self.text().map(String::into_boxed_str)
    }
}

fn parsed<T: TryFrom<Box<str>>>(text: String) -> Result<T, StoreError> {
    T::try_from(text.into_boxed_str()).map_err(|_| broken("an id that is none"))
}
