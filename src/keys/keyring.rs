//! The keys of one instance as they are now.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use super::schedule::RefreshSettings;
use super::{
    Clock, FetchError, IgnoredBecause, InvalidKeySet, JwksSource, KeySet, Snapshot, VerifyingKey,
    schedule::{Demand, Schedule},
};
use crate::{
    backoff::chance,
    identity::{KeyId, Timestamp},
};

/// When it is worth asking again while there are no keys and no fetch has failed yet.
const FIRST_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How many may wait at once for a fetch that an unknown `kid` caused; a further one is told at once
/// that it cannot be told. Anybody can make up a `kid`: while the source is slow those who wait would
/// otherwise take all the calls that the door works on, and good tokens with them.
const MAX_WAITING: usize = 1_000;

/// What a `kid` leads to.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// This key.
    Found(Arc<VerifyingKey>),
    /// The current set has no such key.
    Unknown,
    /// Cannot tell: there is no usable set, or the source could not be asked about the `kid`.
    Unavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// With a usable set.
    Success,
    /// No answer in time.
    Timeout,
    /// No connection.
    Connect,
    /// Another status than 200, or a redirect.
    Status,
    /// An answer that is not a usable key set.
    Document,
}

impl FetchOutcome {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Success,
        Self::Timeout,
        Self::Connect,
        Self::Status,
        Self::Document,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Status => "status",
            Self::Document => "document",
        }
    }
}

/// Why a fetch brought no set.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("answered with a document that is not usable: {0}")]
    Document(#[from] InvalidKeySet),
}

impl Failure {
    const fn outcome(&self) -> FetchOutcome {
        match self {
            Self::Fetch(FetchError::Timeout(_)) => FetchOutcome::Timeout,
            Self::Fetch(FetchError::Connect(_)) => FetchOutcome::Connect,
            Self::Fetch(FetchError::Status(_) | FetchError::Redirect) => FetchOutcome::Status,
            Self::Fetch(
                FetchError::ContentType | FetchError::TooLarge | FetchError::Discovery(_),
            )
            | Self::Document(_) => FetchOutcome::Document,
        }
    }
}

/// Numbers of a keyring.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyringStats {
    /// Keys of the current set, usable or too old.
    pub keys: u64,
    /// Since the last successful fetch.
    pub age: Option<Duration>,
    /// When the last fetch succeeded.
    pub last_success: Option<Timestamp>,
    /// Fetches by outcome, since the start.
    pub fetches: Vec<(FetchOutcome, u64)>,
    /// Look-ups of an unknown `kid` that the cooldown kept from fetching, or the number of those
    /// who wait already from waiting.
    pub refused_fetches: u64,
    /// Keys of the current document that are not used.
    pub ignored: Vec<(IgnoredBecause, u64)>,
    /// Snapshots that could not be written.
    pub snapshot_failures: u64,
}

/// The keys of one instance.
pub struct Keyring(Kind);

enum Kind {
    /// No key for any `kid`.
    Empty,
    /// One key for every `kid`, without a network.
    Pinned(Arc<VerifyingKey>),
    Refreshed(Box<Refreshed>),
}

struct Held {
    keys: KeySet,
    fetched_at: Timestamp,
}

struct Refreshed {
    source: Arc<dyn JwksSource>,
    settings: RefreshSettings,
    snapshot: Option<Snapshot>,
    clock: Clock,
    /// Replaced whole by the owner ([`Keyring::run`]), never changed.
    held: ArcSwapOption<Held>,
    schedule: ArcSwap<Schedule>,
    /// Asks the owner to fetch now. It holds one demand at most: a fetch serves all who wait.
    demand: Notify,
    /// A permit for each who may wait for a fetch.
    waiting: Semaphore,
    /// Counts finished fetches.
    fetched: watch::Sender<u64>,
    outcomes: [AtomicU64; FetchOutcome::ALL.len()],
    refused: AtomicU64,
    snapshot_failures: AtomicU64,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "Keyring::Empty",
            Kind::Pinned(_) => "Keyring::Pinned",
            Kind::Refreshed(_) => "Keyring::Refreshed",
        })
    }
}

impl Keyring {
    /// No key: no token verifies. For who supposes what tokens say.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// One key that verifies whatever `kid` a token has, as Clerk's SDK does with a PEM.
    pub fn pinned(key: VerifyingKey) -> Self {
        Self(Kind::Pinned(Arc::new(key)))
    }

    /// Keys from `source`, kept fresh by [`Keyring::run`]. Starts with the snapshot, if there is
    /// one that may be trusted.
    pub fn refreshed(
        source: Arc<dyn JwksSource>,
        settings: RefreshSettings,
        snapshot: Option<Snapshot>,
        clock: Clock,
    ) -> Self {
        let now = clock();
        let held = snapshot.as_ref().and_then(|snapshot| {
            match snapshot.keys(settings.algorithms, settings.max_staleness, now) {
                Ok(held) => held,
                Err(unusable) => {
                    let keys_of = snapshot.keys_of();
                    warn!(%keys_of, "the key snapshot {unusable}; starting without it");
                    None
                }
            }
        });
        let held = held.map(|(keys, fetched_at)| Arc::new(Held { keys, fetched_at }));
        Self(Kind::Refreshed(Box::new(Refreshed {
            source,
            settings,
            snapshot,
            clock,
            held: ArcSwapOption::new(held),
            schedule: ArcSwap::from_pointee(Schedule::default()),
            demand: Notify::new(),
            waiting: Semaphore::new(MAX_WAITING),
            fetched: watch::Sender::new(0),
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
            refused: AtomicU64::new(0),
            snapshot_failures: AtomicU64::new(0),
        })))
    }

    /// The key that `key_id` names. A known one is never waited for; an unknown one may cause a
    /// fetch, under the cooldown, and is waited for as long as that takes. May be dropped half-way:
    /// the fetch goes on for others.
    pub async fn find(&self, key_id: Option<&str>, now: Timestamp) -> Lookup {
        match &self.0 {
            Kind::Empty => Lookup::Unknown,
            Kind::Pinned(key) => Lookup::Found(Arc::clone(key)),
            Kind::Refreshed(refreshed) => refreshed.find(key_id, now).await,
        }
    }

    /// The same from what is at hand: nothing is fetched, and an unknown one cannot be told.
    pub fn find_at_hand(&self, key_id: Option<&str>, now: Timestamp) -> Lookup {
        match &self.0 {
            Kind::Empty => Lookup::Unknown,
            Kind::Pinned(key) => Lookup::Found(Arc::clone(key)),
            Kind::Refreshed(refreshed) => {
                let key_id = key_id.and_then(|key_id| key_id.parse().ok());
                let found = key_id.and_then(|key_id| refreshed.known(&key_id, now));
                found.unwrap_or(Lookup::Unavailable {
                    retry_after: FIRST_RETRY_AFTER,
                })
            }
        }
    }

    /// Whether this very key is still one of the usable keys.
    pub fn stands(&self, key: &Arc<VerifyingKey>, now: Timestamp) -> bool {
        match &self.0 {
            Kind::Empty => false,
            Kind::Pinned(pinned) => Arc::ptr_eq(pinned, key),
            Kind::Refreshed(refreshed) => {
                let held = refreshed.held.load();
                held.as_ref().is_some_and(|held| {
                    held.is_usable(&refreshed.settings, now) && held.keys.holds(key)
                })
            }
        }
    }

    /// Whether tokens can be verified.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        match &self.0 {
            Kind::Empty => false,
            Kind::Pinned(_) => true,
            Kind::Refreshed(refreshed) => {
                let held = refreshed.held.load();
                held.as_ref()
                    .is_some_and(|held| held.is_usable(&refreshed.settings, now))
            }
        }
    }

    /// Changes with every finished fetch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Kind::Empty | Kind::Pinned(_) => watch::channel(0).1,
            Kind::Refreshed(refreshed) => refreshed.fetched.subscribe(),
        }
    }

    /// Its numbers.
    pub fn stats(&self, now: Timestamp) -> KeyringStats {
        match &self.0 {
            Kind::Empty => KeyringStats::default(),
            Kind::Pinned(_) => KeyringStats {
                keys: 1,
                ..KeyringStats::default()
            },
            Kind::Refreshed(refreshed) => refreshed.stats(now),
        }
    }

    /// Keeps the keys fresh until `stop`. The one owner: nobody else fetches.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        if let Kind::Refreshed(refreshed) = &self.0 {
            tokio::select! {
                () = refreshed.refresh_for_ever() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

impl Held {
    fn is_usable(&self, settings: &RefreshSettings, now: Timestamp) -> bool {
        now.since(self.fetched_at) <= settings.max_staleness
    }
}

impl Refreshed {
    /// What is known without a fetch; `None` when one might help.
    fn known(&self, key_id: &KeyId, now: Timestamp) -> Option<Lookup> {
        let held = self.held.load();
        let held = held
            .as_ref()
            .filter(|held| held.is_usable(&self.settings, now))?;
        held.keys
            .get(key_id.as_str())
            .map(|key| Lookup::Found(Arc::clone(key)))
    }

    /// The answer once no fetch can help: the set was asked, or there is none.
    fn settled(&self, key_id: &KeyId, now: Timestamp) -> Lookup {
        if let Some(found) = self.known(key_id, now) {
            return found;
        }
        let has_set = self
            .held
            .load()
            .as_ref()
            .is_some_and(|held| held.is_usable(&self.settings, now));
        match self.schedule.load().demand(&self.settings, now) {
            Demand::Fresh if has_set => Lookup::Unknown,
            Demand::Wait(retry_after) => Lookup::Unavailable { retry_after },
            // The fetch took longer than anybody waits, or nobody fetches.
            Demand::Fetch | Demand::Fresh => Lookup::Unavailable {
                retry_after: FIRST_RETRY_AFTER,
            },
        }
    }

    async fn find(&self, key_id: Option<&str>, now: Timestamp) -> Lookup {
        let Some(key_id) = key_id.and_then(|key_id| key_id.parse::<KeyId>().ok()) else {
            // No set can have it. Without a set it is still not known whether the rest holds.
            return if self.is_usable(now) {
                Lookup::Unknown
            } else {
                Lookup::Unavailable {
                    retry_after: FIRST_RETRY_AFTER,
                }
            };
        };
        if let Some(found) = self.known(&key_id, now) {
            return found;
        }
        let mut fetched = self.fetched.subscribe();
        if self.schedule.load().demand(&self.settings, now) != Demand::Fetch {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return self.settled(&key_id, now);
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Lookup::Unavailable {
                retry_after: FIRST_RETRY_AFTER,
            };
        };
        self.demand.notify_one();
        // The owner's own limit on a fetch, and a moment for the rest.
        let patience = self.settings.fetch_timeout + Duration::from_millis(100);
        let _ = timeout(patience, fetched.changed()).await;
        self.settled(&key_id, (self.clock)())
    }

    fn is_usable(&self, now: Timestamp) -> bool {
        self.held
            .load()
            .as_ref()
            .is_some_and(|held| held.is_usable(&self.settings, now))
    }

    async fn refresh_for_ever(&self) {
        loop {
            let wait = self
                .schedule
                .load()
                .next_in(&self.settings, (self.clock)(), chance());
            tokio::select! {
                () = sleep(wait) => {}
                () = self.demand.notified() => {
                    // Several may have asked, and one may have asked just as a fetch ended.
                    if self.schedule.load().demand(&self.settings, (self.clock)()) != Demand::Fetch {
                        continue;
                    }
                }
            }
            self.fetch_once().await;
        }
    }

    async fn fetch_once(&self) {
        let result = self.fetch().await;
        let now = (self.clock)();
        let outcome = match &result {
            Ok(_) => FetchOutcome::Success,
            Err(failure) => failure.outcome(),
        };
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        match result {
            Ok((keys, document)) => {
                debug!(keys = keys.len(), "fetched the key set");
                self.held.store(Some(Arc::new(Held {
                    keys,
                    fetched_at: now,
                })));
                self.attempted(now, true);
                self.store_snapshot(document, now).await;
            }
            Err(failure) => {
                let age = self
                    .held
                    .load()
                    .as_ref()
                    .map(|held| now.since(held.fetched_at));
                match age {
                    Some(age) => warn!(
                        %failure, ?age, until = ?self.settings.max_staleness,
                        "cannot fetch the key set; the last one stays in use"
                    ),
                    None => warn!(
                        %failure,
                        "cannot fetch the key set and there is none: no token can be verified"
                    ),
                }
                self.attempted(now, false);
            }
        }
    }

    /// Those who wait look only after both the set and the schedule say how it went.
    fn attempted(&self, at: Timestamp, succeeded: bool) {
        let mut schedule = **self.schedule.load();
        schedule.attempted(at, succeeded);
        self.schedule.store(Arc::new(schedule));
        self.fetched.send_modify(|count| *count += 1);
    }

    async fn fetch(&self) -> Result<(KeySet, Vec<u8>), Failure> {
        let limit = self.settings.fetch_timeout;
        let document = timeout(limit, self.source.fetch())
            .await
            .map_err(|_| FetchError::Timeout(limit))??;
        let keys = KeySet::parse_for(self.settings.algorithms, &document)?;
        Ok((keys, document))
    }

    /// Not waited for longer than for a fetch: the next one is due.
    async fn store_snapshot(&self, document: Vec<u8>, fetched_at: Timestamp) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        let limit = self.settings.fetch_timeout;
        let error = match timeout(limit, snapshot.save(document, fetched_at)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        let first = self.snapshot_failures.fetch_add(1, Ordering::Relaxed) == 0;
        if first {
            let keys_of = snapshot.keys_of();
            warn!(%keys_of, %error, "cannot keep the key snapshot; keys will not survive a restart");
        }
    }

    fn stats(&self, now: Timestamp) -> KeyringStats {
        let held = self.held.load();
        let held = held.as_ref();
        KeyringStats {
            keys: held.map_or(0, |held| held.keys.len() as u64),
            age: held.map(|held| now.since(held.fetched_at)),
            last_success: held.map(|held| held.fetched_at),
            fetches: FetchOutcome::ALL
                .into_iter()
                .map(|outcome| {
                    (
                        outcome,
                        self.outcomes[outcome as usize].load(Ordering::Relaxed),
                    )
                })
                .collect(),
            refused_fetches: self.refused.load(Ordering::Relaxed),
            ignored: held
                .map(|held| held.keys.ignored().collect())
                .unwrap_or_default(),
            snapshot_failures: self.snapshot_failures.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
