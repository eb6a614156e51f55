//! Assertions that are still good, by everything that they say. Bounded in bytes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use moka::{notification::RemovalCause, sync::Cache};

use super::{LIFE, SigningKey};
use crate::identity::Timestamp;

/// How long an assertion is handed out again: whoever gets it has the other half of its life for it.
pub(super) const HANDED_OUT_FOR: Duration = Duration::from_secs(LIFE.as_secs() / 2);

/// What an entry costs beside its own texts: moka's bookkeeping, the allocator's, the struct.
const ENTRY_OVERHEAD_BYTES: usize = 400;

/// The cache's size, and what it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssertionCacheStats {
    /// Assertions now.
    pub entries: u64,
    /// Their size in bytes, as it is bounded.
    pub bytes: u64,
    /// Assertions that were removed to make room.
    pub evictions: u64,
}

#[derive(Clone)]
struct Entry {
    text: Arc<str>,
    made_at: Timestamp,
    /// An assertion goes with its key.
    key: Arc<SigningKey>,
    bytes: u32,
}

/// 0 bytes switches it off.
pub(super) struct AssertionCache {
    entries: Option<Cache<Box<[u8]>, Entry>>,
    evictions: Arc<AtomicU64>,
}

impl fmt::Debug for AssertionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssertionCache")
    }
}

impl AssertionCache {
    pub(super) fn new(max_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let entries = (max_bytes > 0).then(|| {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, entry: &Entry| entry.bytes)
                // Frees what nobody asks for; what may be handed out is judged by our clock.
                .time_to_live(HANDED_OUT_FOR)
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        counted.fetch_add(1, Relaxed);
                    }
                })
                .build()
        });
        Self { entries, evictions }
    }

    /// One that this key signed and that has half its life before it.
    pub(super) fn get(
        &self,
        claims: &[u8],
        key: &Arc<SigningKey>,
        now: Timestamp,
    ) -> Option<Arc<str>> {
        let entry = self.entries.as_ref()?.get(claims)?;
        let is_young = entry.made_at <= now && now.since(entry.made_at) < HANDED_OUT_FOR;
        (is_young && entry.key.kid() == key.kid()).then_some(entry.text)
    }

    pub(super) fn insert(
        &self,
        claims: Vec<u8>,
        text: &Arc<str>,
        key: &Arc<SigningKey>,
        now: Timestamp,
    ) {
        let Some(entries) = &self.entries else {
            return;
        };
        let bytes = ENTRY_OVERHEAD_BYTES + claims.len() + text.len();
        let entry = Entry {
            text: Arc::clone(text),
            made_at: now,
            key: Arc::clone(key),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        entries.insert(claims.into(), entry);
    }

    pub(super) fn stats(&self) -> AssertionCacheStats {
        let Some(entries) = &self.entries else {
            return AssertionCacheStats::default();
        };
        entries.run_pending_tasks();
        AssertionCacheStats {
            entries: entries.entry_count(),
            bytes: entries.weighted_size(),
            evictions: self.evictions.load(Relaxed),
        }
    }
}
