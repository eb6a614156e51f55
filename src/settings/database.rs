//! The address of the database, taken apart and shown without its password.

use std::{fmt, path::PathBuf};

use secrecy::SecretString;
use url::Url;

/// Which database.
#[derive(Clone, Debug)]
pub enum DatabaseSettings {
    /// A SQLite file.
    Sqlite {
        /// Absolute, or below the directory in which the service is started.
        path: PathBuf,
    },
    /// PostgreSQL.
    Postgres {
        /// The address, with the password where it has one.
        url: SecretString,
    },
}

impl DatabaseSettings {
    /// Takes an address apart. The error says what was expected, and holds no part of the address.
    pub fn from_address(text: &str) -> Result<Self, String> {
        parse(text)
    }

    /// Whether the address holds a password, which must not stand where others can read it.
    pub fn has_password(&self) -> bool {
        use secrecy::ExposeSecret;
        match self {
            Self::Sqlite { .. } => false,
            Self::Postgres { url } => Url::parse(url.expose_secret()).is_ok_and(|url| {
                url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
            }),
        }
    }
}

/// Without the password.
impl fmt::Display for DatabaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use secrecy::ExposeSecret;
        match self {
            Self::Sqlite { path } => write!(f, "sqlite://{}", path.display()),
            Self::Postgres { url } => f.write_str(&shown(url.expose_secret())),
        }
    }
}

/// What is expected of an address that is not one.
const EXPECTED: &str = "\"sqlite:///PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"";

/// Takes an address apart; the error says what was expected and holds no part of the address.
pub(super) fn parse(text: &str) -> Result<DatabaseSettings, String> {
    let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
    match scheme {
        "sqlite" => sqlite(rest),
        "postgres" | "postgresql" => postgres(text),
        _ => Err(format!(
            "one that starts with \"sqlite://\" or \"postgres://\", such as {EXPECTED}"
        )),
    }
}

/// What stands behind `sqlite://` is a path as the file system has it, not one of a URL: nothing in
/// it is decoded.
fn sqlite(path: &str) -> Result<DatabaseSettings, String> {
    if path.is_empty() || path.ends_with('/') {
        return Err(
            "a file behind \"sqlite://\", such as \"sqlite:///var/lib/clerk-authz/clerk-authz.db\""
                .to_owned(),
        );
    }
    if path.contains(":memory:") {
        return Err("a file: a database in memory would forget everything at a restart; leave the setting out to have none".to_owned());
    }
    if path.contains(['?', '#', '%']) {
        return Err(
            "a path without \"?\", \"#\" and \"%\": it takes no options and is not decoded"
                .to_owned(),
        );
    }
    Ok(DatabaseSettings::Sqlite { path: path.into() })
}

fn postgres(text: &str) -> Result<DatabaseSettings, String> {
    let url = Url::parse(text).map_err(|_| EXPECTED)?;
    let is_there = |host: Option<&str>| host.is_some_and(|host| !host.is_empty());
    let socket = url
        .query_pairs()
        .any(|(name, value)| name == "host" && is_there(Some(&value)));
    if !is_there(url.host_str()) && !socket {
        return Err(format!("a host, as in {EXPECTED}"));
    }
    if url.path().trim_start_matches('/').is_empty() {
        return Err(format!(
            "the name of a database behind the host, as in {EXPECTED}"
        ));
    }
    Ok(DatabaseSettings::Postgres { url: text.into() })
}

/// An address without its password; nothing of one that cannot be taken apart.
pub(super) fn shown(text: &str) -> String {
    if text.starts_with("sqlite://") {
        return text.to_owned();
    }
    match Url::parse(text) {
        Ok(mut url) if matches!(url.scheme(), "postgres" | "postgresql") => {
            // A query may hold a password too.
            let with_query = url.query().is_some();
            url.set_query(None);
            if url.password().is_some() && url.set_password(Some("…")).is_err() {
                return "…".to_owned();
            }
            let shown = url.to_string().replace("%E2%80%A6", "…");
            if with_query {
                format!("{shown}?…")
            } else {
                shown
            }
        }
        _ => "…".to_owned(),
    }
}
