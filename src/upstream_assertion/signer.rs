//! Makes assertions with the key whose time it is, and keeps the keys as all replicas have them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    AssertionCacheStats, AssertionKeyStore, Claims, KeyMaterial, KeyStoreError, UnusableKey,
    cache::AssertionCache,
    key::PublicJwk,
    ring::{Next, Ring},
};
use crate::{identity::Timestamp, keys::Clock};

/// From one reading of the kept keys to the next, by the clock of the service.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// From one look at that clock to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The most that an assertion says, in bytes: servers take about 8 KiB in a header. What is longer, such
/// as a method that somebody made up, is vouched for to nobody.
const MAX_CLAIMS_BYTES: usize = 4 * 1024;

/// How assertions are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionSettings {
    /// `iss`.
    pub issuer: Box<str>,
    /// The upstream of routes that name none; `None` where those get no assertion.
    pub default_audience: Option<Arc<str>>,
    /// How long a key signs.
    pub rotation: Duration,
    /// The size of the cache; 0 is off.
    pub cache_bytes: u64,
}

/// There are no keys to sign with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeysUnusable {
    /// They cannot be read or kept.
    #[error("the keys of upstream assertions cannot be had from the database: {0}")]
    Store(#[from] KeyStoreError),
    /// What is kept is none.
    #[error(
        "a key of upstream assertions in the database cannot be used: {0}; delete the rows of its \
         table upstream_keys, and a new one is made"
    )]
    Broken(#[from] UnusableKey),
}

/// What became of a wish for an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was signed.
    Signed,
    /// One from before was good.
    Cached,
    /// There was no key or no randomness, or it would say too much: the request goes on without.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Signed, Self::Cached, Self::Failed];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Cached => "cached",
            Self::Failed => "failed",
        }
    }
}

/// Counters since the start, and what there is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssertionStats {
    /// By what became of them.
    pub outcomes: [(Outcome, u64); 3],
    /// The cache.
    pub cache: AssertionCacheStats,
    /// Keys that are published now.
    pub published_keys: u64,
    /// How long the present key has been signing; `None` while there is none.
    pub key_age: Option<Duration>,
    /// Readings of the kept keys that worked, and that did not.
    pub readings: (u64, u64),
}

/// Makes assertions.
pub struct Assertions {
    settings: AssertionSettings,
    store: Arc<dyn AssertionKeyStore>,
    clock: Clock,
    ring: ArcSwapOption<Ring>,
    cache: AssertionCache,
    outcomes: [AtomicU64; 3],
    readings: AtomicU64,
    failed_readings: AtomicU64,
    /// When the kept keys were last asked for, in Unix milliseconds.
    asked_at: AtomicI64,
}

impl fmt::Debug for Assertions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertions")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// RFC 7517, 5.
#[derive(Serialize)]
struct PublicKeys<'a> {
    keys: Vec<&'a PublicJwk>,
}

impl Assertions {
    /// With the keys of `store`, which are first looked at when [`Assertions::prepare`] is called.
    pub fn new(
        settings: AssertionSettings,
        store: Arc<dyn AssertionKeyStore>,
        clock: Clock,
    ) -> Self {
        Self {
            cache: AssertionCache::new(settings.cache_bytes),
            settings,
            store,
            clock,
            ring: ArcSwapOption::empty(),
            outcomes: Default::default(),
            readings: AtomicU64::new(0),
            failed_readings: AtomicU64::new(0),
            asked_at: AtomicI64::new(i64::MIN),
        }
    }

    /// The upstream of routes that name none.
    pub fn default_audience(&self) -> Option<&Arc<str>> {
        self.settings.default_audience.as_ref()
    }

    /// Sees to it that there is a key to sign with, and makes the first one where there is none.
    pub async fn prepare(&self) -> Result<(), KeysUnusable> {
        if self.ring.load().is_some() {
            return Ok(());
        }
        self.refresh().await
    }

    /// Reads the kept keys, makes the next one when its time has come, and forgets those that have
    /// ended. Where that fails, what was known stays.
    pub async fn refresh(&self) -> Result<(), KeysUnusable> {
        let now = (self.clock)();
        self.asked_at.store(now.unix_millis(), Relaxed);
        let refreshed = self.refreshed(now).await;
        let counter = match &refreshed {
            Ok(()) => &self.readings,
            Err(_) => &self.failed_readings,
        };
        counter.fetch_add(1, Relaxed);
        refreshed
    }

    async fn refreshed(&self, now: Timestamp) -> Result<(), KeysUnusable> {
        let ring = self.read().await?;
        let wanted = match &ring {
            None => Some(Next::first(now)),
            Some(ring) => ring.next(self.settings.rotation, now),
        };
        let mut ended = ring.as_ref().and_then(|ring| ring.ended(now));
        if let Some(next) = wanted {
            let made = next.with(KeyMaterial::generate()?);
            self.store.add(&made).await?;
            // Another replica may have been first: what is kept counts, not what was made.
            let ring = self.read().await?;
            let Some(ring) = ring else {
                let gone = "the key that was just kept is not there".to_owned();
                return Err(KeysUnusable::Store(KeyStoreError(gone)));
            };
            ended = ring.ended(now);
            info!(
                generation = next.generation.0, signs_from = %next.signs_from,
                "there is a next key for upstream assertions"
            );
        }
        if let Some(ended) = ended {
            self.store.forget(ended).await?;
        }
        Ok(())
    }

    /// The kept keys, which count from here on.
    async fn read(&self) -> Result<Option<Arc<Ring>>, KeysUnusable> {
        let ring = Ring::of(&self.store.keys().await?)?.map(Arc::new);
        if ring.is_some() {
            self.ring.store(ring.clone());
        }
        Ok(ring)
    }

    /// Keeps the keys fresh until the stop. Nothing is read before the first [`Assertions::prepare`]:
    /// where nobody asked for assertions no key is made.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_INTERVAL) => {}
            }
            let asked_at = Timestamp::from_unix_millis(self.asked_at.load(Relaxed));
            let now = (self.clock)();
            // A clock that was set back is no reason to wait.
            let is_due = now < asked_at || now.since(asked_at) >= READ_AGAIN_AFTER;
            if self.ring.load().is_none() || !is_due {
                continue;
            }
            let refreshed = tokio::select! {
                () = stop.cancelled() => return,
                refreshed = self.refresh() => refreshed,
            };
            match refreshed {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !is_failing {
                        warn!(%error, "assertions are signed with the keys that are known");
                    }
                    is_failing = true;
                }
            }
        }
    }

    /// The assertion of these claims, for a decision; `None` where it cannot be made. What is handed
    /// out may be one of an equal request before, and bear the id of that one's decision.
    pub fn assertion(
        &self,
        claims: &Claims<'_>,
        decision_id: &str,
        now: Timestamp,
    ) -> Option<Arc<str>> {
        let made = self.made(claims, decision_id, now);
        let outcome = made
            .as_ref()
            .map_or(Outcome::Failed, |(outcome, _)| *outcome);
        let before = self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        if outcome == Outcome::Failed && before == 0 {
            warn!(
                "an upstream assertion cannot be made: requests go on without, and upstreams refuse them"
            );
        }
        made.map(|(_, text)| text)
    }

    fn made(
        &self,
        claims: &Claims<'_>,
        decision_id: &str,
        now: Timestamp,
    ) -> Option<(Outcome, Arc<str>)> {
        let ring = self.ring.load();
        let key = ring.as_ref()?.signing(now);
        let known_by = claims.key();
        if known_by.len() > MAX_CLAIMS_BYTES {
            return None;
        }
        if let Some(text) = self.cache.get(&known_by, key, now) {
            return Some((Outcome::Cached, text));
        }
        let payload = claims.payload(&self.settings.issuer, decision_id, now);
        let text: Arc<str> = key.sign(&payload)?.into();
        self.cache.insert(known_by, &text, key, now);
        Some((Outcome::Signed, text))
    }

    /// The key set for whoever verifies, as JSON; `None` where no assertions are made.
    pub fn key_set(&self) -> Option<String> {
        let now = (self.clock)();
        let ring = self.ring.load();
        let keys = ring.as_ref()?.published(now).collect();
        // Texts alone: it cannot fail.
        serde_json::to_string(&PublicKeys { keys }).ok()
    }

    /// Counters, and what there is now.
    pub fn stats(&self) -> AssertionStats {
        let now = (self.clock)();
        let ring = self.ring.load();
        let ring = ring.as_ref();
        AssertionStats {
            outcomes: Outcome::ALL
                .map(|outcome| (outcome, self.outcomes[outcome as usize].load(Relaxed))),
            cache: self.cache.stats(),
            published_keys: ring.map_or(0, |ring| ring.published(now).count() as u64),
            key_age: ring.map(|ring| now.since(ring.signs_since(now))),
            readings: (
                self.readings.load(Relaxed),
                self.failed_readings.load(Relaxed),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
