//! Facts about Clerk's world, each with its age. Bounded in bytes.

use std::{
    fmt,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use equivalent::Equivalent;
use moka::{Expiry, notification::RemovalCause, ops::compute::Op, sync::Cache};

use crate::identity::Timestamp;

/// What an entry costs beside its own strings: moka's bookkeeping, the allocator's, the two structs.
const ENTRY_OVERHEAD_BYTES: usize = 400;

/// Facts are known for at least so long, though they answer for less: what changed is held against the
/// tokens from before. Clerk's session tokens live for a minute.
const KNOWN_FOR: Duration = Duration::from_secs(60 * 60);

/// A fact, and when it was true for certain.
#[derive(Debug)]
pub(super) struct Known<V> {
    pub(super) value: Arc<V>,
    /// When Clerk was asked: all that had happened before shows in it.
    pub(super) as_of: Timestamp,
    /// How long it may answer at all.
    pub(super) keep_for: Duration,
    bytes: u32,
}

impl<V> Clone for Known<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            ..*self
        }
    }
}

impl<V> Known<V> {
    /// `heap_bytes` is what key and value hold on the heap.
    pub(super) fn new(value: V, as_of: Timestamp, keep_for: Duration, heap_bytes: usize) -> Self {
        Self {
            value: Arc::new(value),
            as_of,
            keep_for,
            bytes: u32::try_from(ENTRY_OVERHEAD_BYTES + heap_bytes).unwrap_or(u32::MAX),
        }
    }

    /// Whether it is younger than `max_age` and than its own limit. One from the future was learnt
    /// before the clock was set back: nobody knows how old it is.
    fn is_fresh(&self, max_age: Duration, now: Timestamp) -> bool {
        self.as_of <= now && now.since(self.as_of) < self.keep_for.min(max_age)
    }
}

/// Counters of a cache of facts since the start, and its size now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactCacheStats {
    /// Look-ups that found a fact that was fresh enough.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Facts that were removed to make room.
    pub evictions: u64,
    /// Facts now.
    pub entries: u64,
    /// Their size in bytes, as it is bounded.
    pub bytes: u64,
}

/// Facts by key; 0 bytes switches it off.
pub(super) struct FactCache<K, V> {
    entries: Option<Cache<K, Known<V>>>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: Arc<AtomicU64>,
}

impl<K, V> fmt::Debug for FactCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FactCache")
    }
}

impl<K, V> FactCache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(max_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let entries = (max_bytes > 0).then(|| {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, known: &Known<V>| known.bytes)
                .expire_after(UntilStale)
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

    /// What is known, however old.
    pub(super) fn peek<Q>(&self, key: &Q) -> Option<Known<V>>
    where
        Q: Equivalent<K> + Hash + ?Sized,
    {
        self.entries.as_ref()?.get(key)
    }

    /// What is known and fresh enough: younger than `max_age`, and of `not_before` or later.
    pub(super) fn fresh<Q>(
        &self,
        key: &Q,
        max_age: Duration,
        not_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Known<V>>
    where
        Q: Equivalent<K> + Hash + ?Sized,
    {
        let found = self.peek(key).filter(|known| {
            known.is_fresh(max_age, now) && not_before.is_none_or(|at| known.as_of >= at)
        });
        let counter = match found {
            Some(_) => &self.hits,
            None => &self.misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Remembers a fact, unless a younger one is there: two questions may be answered in the other
    /// order than they were sent, and the older answer must not win. Of one age, the one that came
    /// last stays. A fact from the future, from before the clock was set back, is no younger one.
    pub(super) fn insert(&self, key: K, known: Known<V>, now: Timestamp) {
        let Some(entries) = &self.entries else {
            return;
        };
        let as_of = known.as_of;
        let is_younger = |other| as_of < other && other <= now;
        entries.entry(key).and_compute_with(|entry| match entry {
            Some(entry) if is_younger(entry.value().as_of) => Op::Nop,
            _ => Op::Put(known),
        });
    }

    /// Counters and size. Settles moka's pending bookkeeping, so not for the hot path.
    pub(super) fn stats(&self) -> FactCacheStats {
        let (entries, bytes) = self.entries.as_ref().map_or((0, 0), |entries| {
            entries.run_pending_tasks();
            (entries.entry_count(), entries.weighted_size())
        });
        FactCacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            entries,
            bytes,
        }
    }
}

/// A fact leaves when it is of no use any more. Only housekeeping: each look-up checks the age by the
/// caller's clock. No read renews it; a younger fact does.
struct UntilStale;

impl<K, V> Expiry<K, Known<V>> for UntilStale {
    fn expire_after_create(&self, _: &K, known: &Known<V>, _: Instant) -> Option<Duration> {
        Some(known.keep_for.max(KNOWN_FOR))
    }

    fn expire_after_update(
        &self,
        _: &K,
        known: &Known<V>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(known.keep_for.max(KNOWN_FOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn cache() -> FactCache<u8, &'static str> {
        FactCache::new(1 << 20)
    }

    #[test]
    fn a_fact_is_used_within_its_age_and_the_callers() {
        let cache = cache();
        cache.insert(1, Known::new("member", at(100), MINUTE, 0), at(100));

        for (max_age, now, found) in [
            (MINUTE, 100, true),
            (MINUTE, 159, true),
            (MINUTE, 160, false),
            (MINUTE * 10, 160, false),
            (Duration::from_secs(10), 109, true),
            (Duration::from_secs(10), 110, false),
            (Duration::ZERO, 100, false),
            // The clock was set back.
            (MINUTE, 99, false),
        ] {
            let fresh = cache.fresh(&1, max_age, None, at(now));
            assert_eq!(fresh.is_some(), found, "{max_age:?} at {now}");
        }
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.entries), (3, 5, 1));
    }

    #[test]
    fn an_older_answer_never_replaces_a_younger_one() {
        let cache = cache();
        cache.insert(1, Known::new("not a member", at(105), MINUTE, 0), at(106));
        cache.insert(1, Known::new("member", at(100), MINUTE, 0), at(107));
        assert_eq!(*cache.peek(&1).expect("known").value, "not a member");

        cache.insert(1, Known::new("member again", at(106), MINUTE, 0), at(108));
        assert_eq!(*cache.peek(&1).expect("known").value, "member again");
    }

    #[test]
    fn a_fact_from_before_the_clock_was_set_back_is_replaced() {
        let cache = cache();
        cache.insert(1, Known::new("then", at(1_000), MINUTE, 0), at(1_000));
        cache.insert(1, Known::new("now", at(100), MINUTE, 0), at(100));
        assert_eq!(*cache.peek(&1).expect("known").value, "now");
    }

    #[test]
    fn a_fact_from_before_the_time_asked_for_does_not_answer() {
        let cache = cache();
        cache.insert(1, Known::new("member", at(100), MINUTE, 0), at(100));
        for (not_before, found) in [(None, true), (Some(100), true), (Some(101), false)] {
            let fresh = cache.fresh(&1, MINUTE, not_before.map(at), at(110));
            assert_eq!(fresh.is_some(), found, "{not_before:?}");
        }
    }

    #[test]
    fn size_zero_is_off() {
        let cache: FactCache<u8, &str> = FactCache::new(0);
        cache.insert(1, Known::new("member", at(100), MINUTE, 0), at(100));
        assert!(cache.peek(&1).is_none());
    }
}
