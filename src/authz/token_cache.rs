//! Tokens that were verified: signature, type and claims. Bounded in bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use moka::{Expiry, notification::RemovalCause, sync::Cache};

use super::Verified;
use crate::identity::{Session, Timestamp};

/// What an entry costs beside the token's own strings: moka's bookkeeping and the allocator's.
const ENTRY_OVERHEAD_BYTES: usize = 350;

/// Verified tokens by the SHA-256 of their text.
///
/// The text decides everything that a verification depends on: it holds the issuer, which chooses
/// the instance, and the `kid`, which chooses the key. Whether that instance and that key still
/// stand is the reader's to check, as are time and whatever the request asks: an entry says only
/// "this was signed by that key and holds these claims".
#[derive(Debug)]
pub struct TokenCache {
    entries: Option<Cache<[u8; 32], Entry>>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct Entry {
    verified: Arc<Verified>,
    bytes: u32,
    lifetime_seconds: u32,
}

/// Counters of a [`TokenCache`] since the start, and its size now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCacheStats {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Entries that were removed to make room.
    pub evictions: u64,
    /// Entries now.
    pub entries: u64,
    /// Their size in bytes, as it is bounded.
    pub bytes: u64,
}

/// The name of a token in the cache.
#[derive(Clone, Copy)]
pub(super) struct TokenKey([u8; 32]);

impl TokenCache {
    /// Holds up to `max_bytes`; 0 switches the cache off.
    pub fn new(max_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let entries = (max_bytes > 0).then(|| {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, entry: &Entry| entry.bytes)
                .expire_after(UntilExpiry)
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .build()
        });
        Self {
            entries,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions,
        }
    }

    /// The token's name; `None` when the cache is off, so that nothing is hashed in vain.
    pub(super) fn key(&self, token: &str) -> Option<TokenKey> {
        self.entries.as_ref()?;
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        hash.as_ref().try_into().ok().map(TokenKey)
    }

    pub(super) fn get(&self, key: TokenKey) -> Option<Arc<Verified>> {
        let found = self.entries.as_ref()?.get(&key.0);
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found.map(|entry| entry.verified)
    }

    /// Remembers a token until `dies_at`. A token that is already dead is not remembered.
    pub(super) fn insert(
        &self,
        key: TokenKey,
        verified: &Arc<Verified>,
        dies_at: Timestamp,
        now: Timestamp,
    ) {
        let lifetime = dies_at.since(now);
        if let Some(entries) = &self.entries
            && !lifetime.is_zero()
        {
            let bytes = u32::try_from(size_of(&verified.session)).unwrap_or(u32::MAX);
            let entry = Entry {
                verified: Arc::clone(verified),
                bytes,
                lifetime_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            };
            entries.insert(key.0, entry);
        }
    }

    pub(super) fn remove(&self, key: TokenKey) {
        if let Some(entries) = &self.entries {
            entries.invalidate(&key.0);
        }
    }

    /// Counters and size. Settles moka's pending bookkeeping, so not for the hot path.
    pub fn stats(&self) -> TokenCacheStats {
        let (entries, bytes) = self.entries.as_ref().map_or((0, 0), |entries| {
            entries.run_pending_tasks();
            (entries.entry_count(), entries.weighted_size())
        });
        TokenCacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            entries,
            bytes,
        }
    }
}

/// An entry dies with its token. Only housekeeping: each hit checks the time by the caller's clock.
struct UntilExpiry;

impl Expiry<[u8; 32], Entry> for UntilExpiry {
    fn expire_after_create(&self, _: &[u8; 32], entry: &Entry, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(u64::from(entry.lifetime_seconds) + 1))
    }
}

/// What an entry for the session costs, in bytes. The issuer is shared; so is the authorized party
/// where it is a configured one, but it need not be.
fn size_of(session: &Session) -> usize {
    // The allocator hands out multiples of 16 with 8 of its own.
    let text = |text: &str| text.len().next_multiple_of(16) + 16;
    let maybe = |value: &Option<Box<str>>| value.as_deref().map_or(0, text);
    let list = |heap_bytes: usize| match heap_bytes {
        0 => 0,
        bytes => bytes + 16,
    };
    ENTRY_OVERHEAD_BYTES
        + std::mem::size_of::<Verified>()
        + text(session.user_id.as_str())
        + text(session.session_id.as_str())
        + maybe(&session.token_id)
        + session.authorized_party.as_deref().map_or(0, text)
        + list(session.audiences.heap_bytes())
        + list(session.features.heap_bytes())
        + list(session.plans.heap_bytes())
        + session.organization.as_ref().map_or(0, |organization| {
            std::mem::size_of_val(&**organization)
                + text(organization.id.as_str())
                + maybe(&organization.slug)
                + maybe(&organization.role)
                + list(organization.permissions.heap_bytes())
        })
        + session.actor.as_ref().map_or(0, |actor| {
            std::mem::size_of_val(&**actor)
                + text(&actor.subject)
                + maybe(&actor.issuer)
                + maybe(&actor.session_id)
                + maybe(&actor.kind)
        })
        + session
            .custom_claims
            .as_ref()
            .map_or(0, |claims| text(claims.as_json()))
}
