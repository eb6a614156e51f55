//! The last good key set on disk, so that keys survive a restart during an outage. Only public keys
//! are in it.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{KeySet, MAX_DOCUMENT_BYTES};
use crate::identity::{InstanceName, Issuer, Timestamp};

/// How far in the future a snapshot may have been fetched: the clock may have been set back a
/// little.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(300);

/// The largest file that is read: a document, as a JSON string, and the frame around it.
const MAX_FILE_BYTES: u64 = 2 * MAX_DOCUMENT_BYTES as u64 + 4096;

/// Where an instance's snapshot is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    file: PathBuf,
    issuer: Issuer,
}

/// Why a snapshot is not used.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a key snapshot")]
    Form,
    #[error("is of another issuer, {0}")]
    OtherIssuer(String),
    #[error("was fetched at {0}, longer ago than keys are trusted")]
    TooOld(Timestamp),
    #[error("was fetched at {0}, in the future")]
    Future(Timestamp),
}

#[derive(Serialize, Deserialize)]
struct File {
    issuer: String,
    fetched_at_unix_millis: i64,
    /// The document as it came.
    jwks: String,
}

impl Snapshot {
    /// `keys-<instance>.json` in `directory`; it is believed only for the same issuer.
    pub fn new(directory: PathBuf, instance: &InstanceName, issuer: Issuer) -> Self {
        Self {
            file: directory.join(format!("keys-{instance}.json")),
            issuer,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// `None` when there is none.
    pub(super) fn load(
        &self,
        max_staleness: Duration,
        now: Timestamp,
    ) -> Result<Option<(KeySet, Timestamp)>, Unusable> {
        let mut bytes = Vec::new();
        match fs::File::open(&self.file) {
            Ok(file) => file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|_| Unusable::Form)?;
        if file.issuer != self.issuer.as_str() {
            return Err(Unusable::OtherIssuer(file.issuer));
        }
        let fetched_at = Timestamp::from_unix_millis(file.fetched_at_unix_millis);
        if fetched_at > now.plus(FUTURE_TOLERANCE) {
            return Err(Unusable::Future(fetched_at));
        }
        if now.since(fetched_at) > max_staleness {
            return Err(Unusable::TooOld(fetched_at));
        }
        let keys = KeySet::parse(file.jwks.as_bytes()).map_err(|_| Unusable::Form)?;
        Ok(Some((keys, fetched_at)))
    }

    /// Written beside and renamed, so that a crash leaves the old one or the new one, never half.
    pub(super) fn store(&self, document: &[u8], fetched_at: Timestamp) -> io::Result<()> {
        let file = File {
            issuer: self.issuer.as_str().to_owned(),
            fetched_at_unix_millis: fetched_at.unix_millis(),
            jwks: String::from_utf8_lossy(document).into_owned(),
        };
        let directory = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut temporary, &file)?;
        temporary.flush()?;
        temporary.as_file().sync_all()?;
        temporary.persist(&self.file)?;
        Ok(())
    }
}
