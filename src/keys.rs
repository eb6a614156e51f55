//! The keys of one Clerk instance: fetched off the request path, kept through outages and restarts,
//! never older than their bound.
//!
//! Called by `authz` and `server`. Knows no HTTP: the set's document comes through [`JwksSource`].
//! No lock is held across I/O, and a key that is known is never waited for.

mod key_set;
mod keyring;
mod schedule;
mod self_test;
mod snapshot;
mod verifying_key;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use thiserror::Error;

pub use self::key_set::{IgnoredBecause, InvalidKeySet, KeySet};
pub use self::keyring::{FetchOutcome, Keyring, KeyringStats, Lookup, RefreshSettings};
pub use self::self_test::{SelfTestFailed, self_test};
pub use self::snapshot::{
    Keeping, KeysOf, SavedKeys, Snapshot, SnapshotDirectory, SnapshotError, SnapshotStore,
};
pub use self::verifying_key::{InvalidKey, VerifyingKey};
use crate::identity::Timestamp;

/// Says what time it is. Only `server` passes the machine's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The largest key-set document in bytes; a source stops reading there.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Where the key-set document comes from.
pub trait JwksSource: Send + Sync + 'static {
    /// Fetches the document; at most [`MAX_DOCUMENT_BYTES`]. May be dropped half-way.
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + '_>>;
}

/// Why a document could not be fetched. Never holds a secret or a body.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or it broke.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Another status than 200.
    #[error("answered with status {0}")]
    Status(u16),
    /// Redirects are not followed: keys come from the address that is configured.
    #[error("answered with a redirect, which is not followed")]
    Redirect,
    /// Not JSON by its content type.
    #[error("answered with another content type than JSON")]
    ContentType,
    /// Larger than [`MAX_DOCUMENT_BYTES`].
    #[error("answered with more than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    /// A discovery document that cannot be used.
    #[error("answered with a discovery document that cannot be used: {0}")]
    Discovery(String),
}

impl fmt::Debug for dyn JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwksSource")
    }
}

#[cfg(test)]
pub(crate) mod tests;
