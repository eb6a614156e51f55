//! The one place where a driver's error becomes one that says what can be done about it. Values that
//! were bound are in none of them.

use sqlx::error::DatabaseError;

use crate::mirror::StoreError;

/// What is stored cannot be read.
pub(super) fn broken(cause: impl Into<String>) -> StoreError {
    StoreError::Broken {
        cause: cause.into(),
    }
}

/// Another driver's error; see [`StoreError`].
pub(super) fn translated(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => of_database(&*error),
        sqlx::Error::Io(error) => StoreError::Unavailable {
            cause: error.to_string(),
        },
        sqlx::Error::Tls(error) => StoreError::Refused {
            cause: format!("no TLS: {error}"),
        },
        sqlx::Error::Configuration(error) => StoreError::Refused {
            cause: error.to_string(),
        },
        sqlx::Error::PoolTimedOut => StoreError::Unavailable {
            cause: "no connection became free in time".to_owned(),
        },
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            StoreError::Unavailable {
                cause: "the connection was closed".to_owned(),
            }
        }
        sqlx::Error::Protocol(cause) => StoreError::Unavailable { cause },
        // Names of columns and types only; never a value.
        other => broken(other.to_string()),
    }
}

fn of_database(error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        // The details of such an error hold values; the message of a conversion does too.
        let cause = match code.get(..2) {
            Some("22") => format!("SQLSTATE {code}"),
            _ => format!("{} (SQLSTATE {code})", error.message()),
        };
        return of_postgres(&code, cause);
    }
    of_sqlite(&code, error.message().to_owned())
}

/// By SQLSTATE; <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn of_postgres(code: &str, cause: String) -> StoreError {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available.
        "40001" | "40P01" | "55P03" => StoreError::Conflict { cause },
        // A standby, a full disk.
        "25006" | "53100" => StoreError::NotWritable { cause },
        // query_canceled: the statement timeout; idle_in_transaction_session_timeout.
        "57014" | "25P03" => StoreError::Unavailable { cause },
        // Database, role or schema are missing, or rights are.
        "3D000" | "3F000" | "42501" => StoreError::Refused { cause },
        _ => match code.get(..2) {
            Some("08" | "53" | "57" | "58") => StoreError::Unavailable { cause },
            Some("28") => StoreError::Refused { cause },
            _ => StoreError::Broken { cause },
        },
    }
}

/// By result code, whose lowest byte is the primary one; <https://www.sqlite.org/rescode.html>.
fn of_sqlite(code: &str, cause: String) -> StoreError {
    const BUSY: i64 = 5;
    const LOCKED: i64 = 6;
    const PERM: i64 = 3;
    const READONLY: i64 = 8;
    const IOERR: i64 = 10;
    const FULL: i64 = 13;
    const CANTOPEN: i64 = 14;
    match code.parse::<i64>().map(|code| code & 0xff) {
        Ok(BUSY | LOCKED) => StoreError::Conflict { cause },
        Ok(READONLY) => StoreError::NotWritable { cause },
        Ok(FULL) => StoreError::NotWritable {
            cause: format!("{cause}; make room, and the service goes on by itself"),
        },
        Ok(PERM | CANTOPEN) => StoreError::Refused { cause },
        Ok(IOERR) => StoreError::Unavailable { cause },
        _ => StoreError::Broken { cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_can_be_done() {
        let cause = String::new;
        for (code, expected) in [
            ("40P01", StoreError::Conflict { cause: cause() }),
            ("25006", StoreError::NotWritable { cause: cause() }),
            ("53100", StoreError::NotWritable { cause: cause() }),
            ("53300", StoreError::Unavailable { cause: cause() }),
            ("57P01", StoreError::Unavailable { cause: cause() }),
            ("57014", StoreError::Unavailable { cause: cause() }),
            ("28P01", StoreError::Refused { cause: cause() }),
            ("3D000", StoreError::Refused { cause: cause() }),
            ("42601", StoreError::Broken { cause: cause() }),
        ] {
            assert_eq!(of_postgres(code, cause()), expected, "{code}");
        }
        // The extended codes of a busy snapshot and of a read-only directory.
        assert_eq!(
            of_sqlite("517", cause()),
            StoreError::Conflict { cause: cause() }
        );
        assert_eq!(
            of_sqlite("1544", cause()),
            StoreError::NotWritable { cause: cause() }
        );
        assert!(matches!(
            of_sqlite("13", cause()),
            StoreError::NotWritable { .. }
        ));
    }
}
