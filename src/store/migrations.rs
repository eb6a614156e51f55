//! The schema, in steps. A step is never edited after a release; the next one follows it.

use sqlx::{Connection, PgConnection, SqliteConnection};

use super::errors::translated;
use crate::mirror::StoreError;

/// A step, for each engine.
struct Migration {
    sqlite: &'static str,
    postgres: &'static str,
}

/// In order; the version is how many have been run.
const MIGRATIONS: &[Migration] = &[
    Migration {
        sqlite: include_str!("migrations/0001_tables.sqlite.sql"),
        postgres: include_str!("migrations/0001_tables.postgres.sql"),
    },
    Migration {
        sqlite: include_str!("migrations/0002_sightings.sqlite.sql"),
        postgres: include_str!("migrations/0002_sightings.postgres.sql"),
    },
    Migration {
        sqlite: include_str!("migrations/0003_upstream_keys.sqlite.sql"),
        postgres: include_str!("migrations/0003_upstream_keys.postgres.sql"),
    },
];

/// Two that start at once migrate one after the other. The number is "clerkaut".
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(7164212649341842804)";
const POSTGRES_SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS clerk_authz";

const VERSION_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)";
const VERSION: &str = "SELECT COALESCE(MAX(version), CAST(0 AS BIGINT)) FROM schema_version";
const SET_VERSION: &str = "INSERT INTO schema_version (version) VALUES ($1)";

/// Brings a SQLite database to our version; all steps, or none.
pub(super) async fn sqlite(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut transaction = connection
        .begin_with("BEGIN EXCLUSIVE")
        .await
        .map_err(translated)?;
    sqlx::raw_sql(VERSION_TABLE)
        .execute(&mut *transaction)
        .await
        .map_err(translated)?;
    let found: i64 = sqlx::query_scalar(VERSION)
        .fetch_one(&mut *transaction)
        .await
        .map_err(translated)?;
    for (version, migration) in after(found)? {
        sqlx::raw_sql(migration.sqlite)
            .execute(&mut *transaction)
            .await
            .map_err(translated)?;
        sqlx::query(SET_VERSION)
            .bind(version)
            .execute(&mut *transaction)
            .await
            .map_err(translated)?;
    }
    transaction.commit().await.map_err(translated)
}

/// Brings a PostgreSQL database to our version; all steps, or none.
pub(super) async fn postgres(connection: &mut PgConnection) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await.map_err(translated)?;
    for statement in [POSTGRES_LOCK, POSTGRES_SCHEMA, VERSION_TABLE] {
        sqlx::raw_sql(statement)
            .execute(&mut *transaction)
            .await
            .map_err(translated)?;
    }
    let found: i64 = sqlx::query_scalar(VERSION)
        .fetch_one(&mut *transaction)
        .await
        .map_err(translated)?;
    for (version, migration) in after(found)? {
        sqlx::raw_sql(migration.postgres)
            .execute(&mut *transaction)
            .await
            .map_err(translated)?;
        sqlx::query(SET_VERSION)
            .bind(version)
            .execute(&mut *transaction)
            .await
            .map_err(translated)?;
    }
    transaction.commit().await.map_err(translated)
}

/// The steps behind a version, each with its own.
fn after(found: i64) -> Result<impl Iterator<Item = (i64, &'static Migration)>, StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    let done = usize::try_from(found).unwrap_or(0);
    Ok((1..).zip(MIGRATIONS).skip(done))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables, columns and indexes of a step, without what the engines say differently.
    fn form(step: &str) -> Vec<String> {
        let mut form: Vec<String> = step
            .lines()
            .filter(|line| !line.starts_with("--"))
            .map(|line| {
                [
                    (" STRICT, WITHOUT ROWID", ""),
                    (" STRICT", ""),
                    (" COLLATE \"C\"", ""),
                    ("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "KEY"),
                    ("INTEGER PRIMARY KEY AUTOINCREMENT", "KEY"),
                    ("BIGINT", "INTEGER"),
                    ("BYTEA", "BLOB"),
                ]
                .into_iter()
                .fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
            })
            .collect();
        form.retain(|line| !line.is_empty());
        form
    }

    #[test]
    fn both_engines_have_the_same_tables() {
        for migration in MIGRATIONS {
            assert_eq!(form(migration.sqlite), form(migration.postgres));
        }
    }
}
