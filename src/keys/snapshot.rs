//! The last good key set, kept so that keys survive a restart during an outage. Only public keys are
//! in it.

use std::{
    fmt, fs,
    future::Future,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{KeySet, MAX_DOCUMENT_BYTES};
use crate::identity::{InstanceName, ProviderName, SigningAlgorithms, Timestamp};

/// How far in the future a snapshot may have been fetched: the clock may have been set back a
/// little.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(300);

/// The largest file that is read: a document, as a JSON string, and the frame around it.
const MAX_FILE_BYTES: u64 = 2 * MAX_DOCUMENT_BYTES as u64 + 4096;

/// An answer on its way. May be dropped half-way; what was kept before stays.
pub type Keeping<'a, T> = Pin<Box<dyn Future<Output = Result<T, SnapshotError>> + Send + 'a>>;

/// Where snapshots are kept: the old one or the new one, never half.
pub trait SnapshotStore: fmt::Debug + Send + Sync + 'static {
    /// Somebody's snapshot; `None` when there is none.
    fn load<'a>(&'a self, keys_of: &'a KeysOf) -> Keeping<'a, Option<SavedKeys>>;

    /// Keeps a snapshot in place of an older one.
    fn save<'a>(&'a self, keys_of: &'a KeysOf, saved: SavedKeys) -> Keeping<'a, ()>;
}

/// Whose keys they are: a Clerk instance's, or an identity provider's of one. Neither name has a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysOf(Box<str>);

impl KeysOf {
    /// Those with which Clerk signs for an instance.
    pub fn instance(name: &InstanceName) -> Self {
        Self(name.as_str().into())
    }

    /// Those of an identity provider of an instance.
    pub fn provider(instance: &InstanceName, name: &ProviderName) -> Self {
        Self(format!("{instance}.{name}").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeysOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key set as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedKeys {
    /// Whose keys they are.
    pub issuer: String,
    /// When they were fetched.
    pub fetched_at: Timestamp,
    /// The document as it came.
    pub document: Vec<u8>,
}

/// A snapshot cannot be read or kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SnapshotError(pub String);

/// Somebody's snapshot.
#[derive(Debug)]
pub struct Snapshot {
    store: Arc<dyn SnapshotStore>,
    keys_of: KeysOf,
    issuer: String,
    /// What was kept when it was opened.
    kept: Result<Option<SavedKeys>, SnapshotError>,
}

/// Why a snapshot is not used.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    #[error("cannot be read: {0}")]
    Unreadable(SnapshotError),
    #[error("holds no key set")]
    Form,
    #[error("is of another issuer or address, {0}")]
    OtherIssuer(String),
    #[error("was fetched at {0}, longer ago than keys are trusted")]
    TooOld(Timestamp),
    #[error("was fetched at {0}, in the future")]
    Future(Timestamp),
}

impl Snapshot {
    /// Reads what `store` keeps; it is believed only for the same issuer, which may have behind it
    /// where its keys come from.
    pub async fn open(store: Arc<dyn SnapshotStore>, keys_of: KeysOf, issuer: &str) -> Self {
        let kept = store.load(&keys_of).await;
        Self {
            store,
            keys_of,
            issuer: issuer.to_owned(),
            kept,
        }
    }

    /// Whose.
    pub(super) fn keys_of(&self) -> &KeysOf {
        &self.keys_of
    }

    /// The keys that were kept when it was opened; `None` when there were none.
    pub(super) fn keys(
        &self,
        algorithms: SigningAlgorithms,
        max_staleness: Duration,
        now: Timestamp,
    ) -> Result<Option<(KeySet, Timestamp)>, Unusable> {
        let Some(saved) = self.kept.clone().map_err(Unusable::Unreadable)? else {
            return Ok(None);
        };
        let SavedKeys {
            issuer,
            fetched_at,
            document,
        } = saved;
        if issuer != self.issuer {
            return Err(Unusable::OtherIssuer(issuer));
        }
        if fetched_at > now.plus(FUTURE_TOLERANCE) {
            return Err(Unusable::Future(fetched_at));
        }
        if now.since(fetched_at) > max_staleness {
            return Err(Unusable::TooOld(fetched_at));
        }
        let keys = KeySet::parse_for(algorithms, &document).map_err(|_| Unusable::Form)?;
        Ok(Some((keys, fetched_at)))
    }

    /// Keeps a set that was fetched.
    pub(super) async fn save(
        &self,
        document: Vec<u8>,
        fetched_at: Timestamp,
    ) -> Result<(), SnapshotError> {
        let saved = SavedKeys {
            issuer: self.issuer.clone(),
            fetched_at,
            document,
        };
        self.store.save(&self.keys_of, saved).await
    }
}

/// Snapshots as files in a directory: `keys-<instance>.json`, `keys-<instance>.<provider>.json`.
#[derive(Clone, Debug)]
pub struct SnapshotDirectory(PathBuf);

#[derive(Serialize, Deserialize)]
struct File {
    issuer: String,
    fetched_at_unix_millis: i64,
    /// The document as it came.
    jwks: String,
}

impl SnapshotDirectory {
    /// Files in this directory, which is made where there is none.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where somebody's file is.
    pub fn file(&self, keys_of: &KeysOf) -> PathBuf {
        self.0.join(format!("keys-{keys_of}.json"))
    }
}

impl SnapshotStore for SnapshotDirectory {
    fn load<'a>(&'a self, keys_of: &'a KeysOf) -> Keeping<'a, Option<SavedKeys>> {
        let file = self.file(keys_of);
        Box::pin(async move { read(&file).map_err(|error| failed(&file, &error)) })
    }

    fn save<'a>(&'a self, keys_of: &'a KeysOf, saved: SavedKeys) -> Keeping<'a, ()> {
        let file = self.file(keys_of);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || {
                write(&file, &saved).map_err(|error| failed(&file, &error))
            })
            .await
            .unwrap_or_else(|error| Err(SnapshotError(error.to_string())))
        })
    }
}

fn failed(file: &Path, error: &io::Error) -> SnapshotError {
    SnapshotError(format!("{}: {error}", file.display()))
}

fn read(file: &Path) -> io::Result<Option<SavedKeys>> {
    let mut bytes = Vec::new();
    match fs::File::open(file) {
        Ok(file) => file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file: File = serde_json::from_slice(&bytes)?;
    Ok(Some(SavedKeys {
        issuer: file.issuer,
        fetched_at: Timestamp::from_unix_millis(file.fetched_at_unix_millis),
        document: file.jwks.into_bytes(),
    }))
}

/// Written beside and renamed, so that a crash leaves the old one or the new one, never half.
fn write(file: &Path, saved: &SavedKeys) -> io::Result<()> {
    let content = File {
        issuer: saved.issuer.clone(),
        fetched_at_unix_millis: saved.fetched_at.unix_millis(),
        jwks: String::from_utf8_lossy(&saved.document).into_owned(),
    };
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&mut temporary, &content)?;
    temporary.flush()?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}
