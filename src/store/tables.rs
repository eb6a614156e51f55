//! All tables and their columns, for what goes through everything: copies of a database.
//!
//! A test holds them to the migrations. Rows go in and out as JSON, so that a page is one statement on
//! either engine.

use super::connection::Sql;

/// What stands in a column; each may be NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Blob,
}

/// A table. Its primary key are its first columns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// How many of the columns are the key.
    pub(super) key: usize,
    /// A page behind a key.
    pub(super) page: Sql,
    /// Writes the rows of a list of objects.
    pub(super) write: Sql,
    pub(super) count: Sql,
    /// The first row, where there is one.
    pub(super) any: Sql,
}

/// How SQLite reads a column of the object `value`. Bytes are `\x` and hexadecimal digits, as
/// PostgreSQL has them.
macro_rules! from_json {
    (Blob, $column:literal) => {
        concat!("unhex(substr(value ->> '$.", $column, "', 3))")
    };
    ($kind:ident, $column:literal) => {
        concat!("value ->> '$.", $column, "'")
    };
}

/// The row of a key, in the words of either engine: what stands behind it, and how it is sorted.
macro_rules! table {
    (
        $name:literal, [$first_key:literal $(, $key:literal as $place:literal)*] $($overriding:literal)?,
        at once $rows:literal, $first:literal: $first_kind:ident $(, $column:literal: $kind:ident)* $(,)?
    ) => {
        Table {
            name: $name,
            columns: &[($first, Kind::$first_kind) $(, ($column, Kind::$kind))*],
            key: [$first_key $(, $key)*].len(),
            page: Sql::both(concat!(
                "SELECT ", $first $(, ", ", $column)*, " FROM ", $name,
                " WHERE (", $first_key $(, ", ", $key)*, ") > ($1" $(, ", ", $place)*, ")",
                " ORDER BY ", $first_key $(, ", ", $key)*, " LIMIT ", $rows
            )),
            write: Sql::each(
                concat!(
                    "INSERT INTO ", $name, " (", $first $(, ", ", $column)*, ") SELECT ",
                    from_json!($first_kind, $first) $(, ", ", from_json!($kind, $column))*,
                    " FROM json_each($1)"
                ),
                concat!(
                    "INSERT INTO ", $name, " (", $first $(, ", ", $column)*, ") ", $($overriding,)?
                    "SELECT ", $first $(, ", ", $column)*,
                    " FROM json_populate_recordset(NULL::", $name, ", $1::json)"
                ),
            ),
            count: Sql::both(concat!("SELECT COUNT(*) FROM ", $name)),
            any: Sql::both(concat!("SELECT CAST(1 AS BIGINT) FROM ", $name, " LIMIT 1")),
        }
    };
}

/// In an order in which what refers to something comes behind it.
pub(super) const TABLES: &[Table] = &[
    table!(
        "users", ["instance", "id" as "$2"], at once 500,
        "instance": Text, "id": Text, "version_ms": Int, "as_of_ms": Int, "digest": Blob,
        "doubtful": Int, "deleted_ms": Int, "absent_ms": Int, "confirmed_ms": Int, "seen_ms": Int,
        "live": Int, "look_up": Int, "touched_ms": Int, "external_id": Text, "username": Text,
        "first_name": Text, "last_name": Text, "image_url": Text, "emails": Text, "banned": Int,
        "locked": Int, "deprovisioned": Int, "public_metadata": Text, "created_ms": Int,
        "last_sign_in_ms": Int, "source": Text,
    ),
    table!(
        "user_emails", ["instance", "address" as "$2", "user_id" as "$3"], at once 1000,
        "instance": Text, "address": Text, "user_id": Text,
    ),
    table!(
        "organizations", ["instance", "id" as "$2"], at once 500,
        "instance": Text, "id": Text, "version_ms": Int, "as_of_ms": Int, "digest": Blob,
        "doubtful": Int, "deleted_ms": Int, "absent_ms": Int, "confirmed_ms": Int, "seen_ms": Int,
        "live": Int, "look_up": Int, "touched_ms": Int, "slug": Text, "name": Text,
        "image_url": Text, "public_metadata": Text, "created_ms": Int, "source": Text,
    ),
    table!(
        "memberships", ["instance", "organization_id" as "$2", "user_id" as "$3"], at once 500,
        "instance": Text, "organization_id": Text, "user_id": Text, "version_ms": Int,
        "as_of_ms": Int, "digest": Blob, "doubtful": Int, "deleted_ms": Int, "absent_ms": Int,
        "confirmed_ms": Int, "seen_ms": Int, "live": Int, "look_up": Int, "touched_ms": Int,
        "slug": Text, "role": Text, "permissions": Text, "standing": Text, "created_ms": Int,
        "source": Text,
    ),
    table!(
        "feeds", ["instance"], at once 1000,
        "instance": Text, "position": Int, "gone": Int,
    ),
    table!(
        "changes", ["instance", "position" as "$2"], at once 1000,
        "instance": Text, "position": Int, "kind": Text, "user_id": Text, "organization_id": Text,
        "session_id": Text, "role": Text, "not_before_ms": Int, "cause": Text, "at_ms": Int,
        "recorded_ms": Int,
    ),
    table!(
        "revocations", ["instance", "kind" as "$2", "subject" as "$3"], at once 1000,
        "instance": Text, "kind": Text, "subject": Text, "not_before_ms": Int, "cause": Text,
        "recorded_ms": Int,
    ),
    // A body has up to a megabyte. The key is PostgreSQL's to give out, but for such a copy.
    table!(
        "inbox", ["sequence"] "OVERRIDING SYSTEM VALUE ", at once 32,
        "sequence": Int, "instance": Text, "message_id": Text, "event_type": Text, "entity": Text,
        "at_ms": Int, "received_ms": Int, "body": Blob, "state": Text, "fence": Int,
        "attempts": Int, "next_attempt_ms": Int, "done_ms": Int, "failure": Text,
    ),
    table!(
        "leases", ["instance", "name" as "$2"], at once 1000,
        "instance": Text, "name": Text, "holder": Text, "term": Int, "until_ms": Int,
    ),
    table!(
        "checkpoints", ["instance", "name" as "$2"], at once 1000,
        "instance": Text, "name": Text, "value": Text, "updated_ms": Int,
    ),
    table!(
        "used_once", ["instance", "id" as "$2"], at once 1000,
        "instance": Text, "id": Text, "expires_ms": Int,
    ),
    table!(
        "key_snapshots", ["instance"], at once 100,
        "instance": Text, "issuer": Text, "fetched_ms": Int, "document": Blob,
    ),
    table!(
        "sightings",
        ["instance", "run_ms" as "$2", "kind" as "$3", "first_id" as "$4", "second_id" as "$5"],
        at once 1000,
        "instance": Text, "run_ms": Int, "kind": Text, "first_id": Text, "second_id": Text,
        "gone": Int,
    ),
    table!(
        "upstream_keys", ["generation"], at once 100,
        "generation": Int, "signs_from_ms": Int, "private_key": Blob,
    ),
];

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions, Row, SqliteConnection, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::store::migrations;

    async fn migrated() -> SqliteConnection {
        let memory = SqliteConnectOptions::new().in_memory(true);
        let mut connection = memory.connect().await.expect("a database");
        migrations::sqlite(&mut connection).await.expect("migrated");
        connection
    }

    #[tokio::test]
    async fn every_table_and_column_of_the_migrations_is_copied() {
        let mut connection = migrated().await;
        let there = sqlx::query(
            "SELECT t.name, c.name, c.type, c.pk FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT IN ('schema_version', 'sqlite_sequence') \
             ORDER BY t.name, c.cid",
        );
        let there = there.fetch_all(&mut connection).await.expect("answered");
        let there: Vec<String> = there
            .iter()
            .map(|row| {
                let (table, column): (&str, &str) = (row.get(0), row.get(1));
                let (kind, key): (&str, i64) = (row.get(2), row.get(3));
                format!("{table}.{column} {kind} key {key}")
            })
            .collect();

        let mut tables: Vec<&Table> = TABLES.iter().collect();
        tables.sort_unstable_by_key(|table| table.name);
        let copied: Vec<String> = tables
            .iter()
            .flat_map(|table| {
                (1..)
                    .zip(table.columns)
                    .map(move |(place, (column, kind))| {
                        let kind = match kind {
                            Kind::Text => "TEXT",
                            Kind::Int => "INTEGER",
                            Kind::Blob => "BLOB",
                        };
                        let key = if place <= table.key { place } else { 0 };
                        format!("{}.{column} {kind} key {key}", table.name)
                    })
            })
            .collect();

        assert_eq!(
            copied, there,
            "src/store/tables.rs does not list what the migrations make"
        );
    }
}
