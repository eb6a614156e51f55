//! Signed identity for upstreams: a short-lived JWT of ours that says who sends a request, for one
//! upstream, one method and one host, and the keys that sign it.
//!
//! Called by `door`, which adds it to what a proxy sends on, and by `server`, which keeps the keys.
//! May not touch any transport, and a database only through [`AssertionKeyStore`]. It decides nothing:
//! whoever asks has allowed the request before.

mod cache;
mod claims;
mod key;
mod ring;
mod signer;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use thiserror::Error;

pub use self::cache::AssertionCacheStats;
pub use self::claims::Claims;
pub use self::key::{KeyMaterial, SigningKey, UnusableKey};
pub use self::ring::{AssertionKey, Generation};
pub use self::signer::{AssertionSettings, AssertionStats, Assertions, KeysUnusable, Outcome};

/// `typ` of the header. Of our own, so that an assertion passes as no other JWT, and none as an
/// assertion (RFC 8725, 3.11).
pub const TYPE: &str = "clerk-authz-assertion+jwt";

/// How long an assertion is good for.
pub const LIFE: Duration = Duration::from_secs(30);

/// How long the published keys may be kept by whoever has read them.
pub const KEYS_MAX_AGE: Duration = Duration::from_secs(300);

/// An answer on its way. May be dropped half-way; what was kept before stays.
pub type KeepingKeys<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeyStoreError>> + Send + 'a>>;

/// Where keys are kept, for all replicas.
pub trait AssertionKeyStore: fmt::Debug + Send + Sync + 'static {
    /// All keys, the oldest first.
    fn keys(&self) -> KeepingKeys<'_, Vec<AssertionKey>>;

    /// Keeps a key, unless there is one of its generation already: of two replicas that make the next
    /// one at once, one is heard.
    fn add<'a>(&'a self, key: &'a AssertionKey) -> KeepingKeys<'a, ()>;

    /// Forgets the keys of this generation and of those before.
    fn forget(&self, last: Generation) -> KeepingKeys<'_, ()>;
}

/// Keys cannot be read or kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct KeyStoreError(pub String);
