//! Reconciliation at its time of the day, by one replica of many.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Drift, LastRun, NAME, ReconcileError, ReconcileJob, Reconciler, Report, RunOutcome,
    checkpoint::Checkpoint,
};
use crate::{
    backoff::chance,
    identity::{InstanceName, Timestamp},
    mirror::{EntityKind, Listing, Store, StoreError},
    sync::{Clock, Listings},
};

/// How often is looked whether it is time, and what the last runs were.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// A run that failed is made again for so long after its time; then the next one comes.
const WINDOW: Duration = Duration::from_secs(6 * 3_600);
/// From a run that failed to the next.
const PAUSE: Duration = Duration::from_secs(600);
/// How long giving the lease back may take at the stop.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

const SECONDS_A_DAY: i64 = 86_400;

/// When the mirror is reconciled by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileAt {
    /// Never.
    Off,
    /// Each day, so many minutes after midnight UTC.
    Daily(u32),
}

impl ReconcileAt {
    /// The last time before `now` at which a run was due.
    fn due(self, now: Timestamp) -> Option<Timestamp> {
        let Self::Daily(minutes) = self else {
            return None;
        };
        let second = i64::from(minutes) * 60;
        let days = (now.unix_seconds() - second).div_euclid(SECONDS_A_DAY);
        Some(Timestamp::from_unix_seconds(days * SECONDS_A_DAY + second))
    }
}

/// Reconciles every instance at its time, mends, and knows of the last runs, whoever made them.
pub struct Nightly {
    store: Arc<dyn Store>,
    clock: Clock,
    at: ReconcileAt,
    /// Of this process.
    holder: String,
    listings: Arc<Listings>,
    last_runs: ArcSwap<HashMap<InstanceName, LastRun>>,
    runs: [AtomicU64; RunOutcome::ALL.len()],
}

/// Counts, and what is known of the last runs.
#[derive(Clone, Debug)]
pub struct NightlyStats {
    /// Runs that this process made, by how they ended.
    pub runs: Vec<(RunOutcome, u64)>,
    /// Of each instance that was ever reconciled, by name.
    pub last_runs: Vec<(InstanceName, LastRun)>,
}

impl fmt::Debug for Nightly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nightly")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Nightly {
    /// Of the mirror in `store`, with what `listings` has.
    pub fn new(
        store: Arc<dyn Store>,
        listings: Arc<Listings>,
        at: ReconcileAt,
        holder: String,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            clock,
            at,
            holder,
            listings,
            last_runs: ArcSwap::default(),
            runs: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Reconciles until the stop, one instance after the other. What a stop cuts off is gone on with
    /// by whoever comes next.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let running = async {
            let since = (self.clock)();
            let mut not_before = HashMap::new();
            loop {
                for (instance, clerk) in self.listings.all() {
                    let Some(clerk) = clerk else { continue };
                    let now = (self.clock)();
                    if not_before.get(&instance).is_some_and(|at| *at > now) {
                        continue;
                    }
                    match self.is_due(&instance, since, now).await {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(error) => {
                            debug!(%instance, %error, "cannot tell whether a run is due");
                            continue;
                        }
                    }
                    if self.reconcile(&instance, &*clerk).await.is_err() {
                        not_before.insert(instance.clone(), (self.clock)().plus(PAUSE));
                    }
                    self.read_last_run(&instance).await;
                }
                // Replicas that began together do not stay together.
                sleep(LOOK_INTERVAL.mul_f64(0.5 + chance() / 2.0)).await;
            }
        };
        tokio::select! {
            () = running => {}
            () = stop.cancelled() => {}
        }
        for (instance, clerk) in self.listings.all() {
            if clerk.is_some() {
                let release = self.store.release(&instance, NAME, &self.holder);
                // Else it passes by itself.
                let _ = timeout(RELEASE_WITHIN, release).await;
            }
        }
    }

    /// Whether a run is to be made, or gone on with, now.
    pub(super) async fn is_due(
        &self,
        instance: &InstanceName,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(due) = self.at.due(now) else {
            return Ok(false);
        };
        let last = LastRun::read(&*self.store, instance).await?;
        let ended = last.and_then(|last| last.ended());
        if ended.is_some_and(|(started, applied)| applied && started >= due) {
            return Ok(false);
        }
        if due >= since {
            return Ok(now.since(due) <= WINDOW);
        }
        // It was due before this process began. One that another process left is gone on with.
        let kept = self.store.checkpoint(instance, NAME).await?;
        let kept = kept.and_then(|kept| Checkpoint::parse(&kept.value));
        Ok(kept.is_some_and(|kept| kept.started() >= due && kept.can_go_on(true, now)))
    }

    async fn reconcile(
        &self,
        instance: &InstanceName,
        clerk: &dyn Listing,
    ) -> Result<(), ReconcileError> {
        let job = ReconcileJob {
            instance,
            clerk,
            apply: true,
            holder: &self.holder,
        };
        let reconciler = Reconciler::new(Arc::clone(&self.store), Arc::clone(&self.clock));
        let outcome = match reconciler.run(&job, &|_| {}).await {
            Ok(report) => {
                log(instance, &report);
                if report.is_in_step() {
                    RunOutcome::InStep
                } else {
                    RunOutcome::Drift
                }
            }
            // Another replica does it.
            Err(ReconcileError::Busy) => return Ok(()),
            Err(error) => {
                warn!(
                    %instance, %error,
                    "the mirror could not be reconciled; it is tried again in {PAUSE:?}, for \
                     {WINDOW:?} in all"
                );
                self.runs[RunOutcome::Failed as usize].fetch_add(1, Relaxed);
                return Err(error);
            }
        };
        self.runs[outcome as usize].fetch_add(1, Relaxed);
        Ok(())
    }

    /// Learns of the last runs until the stop; for replicas that make none, too.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.look(&stop).await;
            tokio::select! {
                () = sleep(LOOK_INTERVAL) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn look(&self, stop: &CancellationToken) {
        for (instance, _) in self.listings.all() {
            tokio::select! {
                () = self.read_last_run(&instance) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// What cannot be read stays as it was.
    async fn read_last_run(&self, instance: &InstanceName) {
        let Ok(Some(last)) = LastRun::read(&*self.store, instance).await else {
            return;
        };
        self.last_runs.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(instance.clone(), last.clone());
            known
        });
    }

    /// When an instance's mirror was last held against Clerk and found, or made, the same, by
    /// whichever process: all that had happened at Clerk before is in the mirror. Known half a minute
    /// late at most.
    pub fn compared_at(&self, instance: &InstanceName) -> Option<Timestamp> {
        self.last_runs.load().get(instance)?.compared_at()
    }

    /// Its numbers.
    pub fn stats(&self) -> NightlyStats {
        let known = self.last_runs.load();
        let mut last_runs: Vec<_> = self
            .listings
            .all()
            .into_iter()
            .filter_map(|(instance, _)| {
                let last = known.get(&instance)?.clone();
                Some((instance, last))
            })
            .collect();
        last_runs.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        NightlyStats {
            runs: RunOutcome::ALL
                .into_iter()
                .map(|outcome| (outcome, self.runs[outcome as usize].load(Relaxed)))
                .collect(),
            last_runs,
        }
    }
}

fn log(instance: &InstanceName, report: &Report) {
    let found = |drift: Drift| -> u64 {
        let kinds = EntityKind::ALL.into_iter();
        kinds.map(|kind| report.kind(kind).drift(drift).found).sum()
    };
    info!(
        %instance,
        at_clerk = report.kinds.iter().map(|kind| kind.at_clerk).sum::<u64>(),
        missing = found(Drift::Missing),
        stale = found(Drift::Stale),
        ghosts = found(Drift::Ghost),
        took = ?report.ended_at.since(report.started_at),
        "reconciled the mirror"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_due_time_is_today_or_yesterday() {
        let at = |text: &str| Timestamp::from(humantime(text));
        let daily = ReconcileAt::Daily(3 * 60 + 30);
        for (now, due) in [
            ("2026-11-25T03:30:00Z", "2026-11-25T03:30:00Z"),
            ("2026-11-25T03:29:59Z", "2026-11-24T03:30:00Z"),
            ("2026-11-25T23:59:59Z", "2026-11-25T03:30:00Z"),
            ("2026-11-26T00:00:00Z", "2026-11-25T03:30:00Z"),
        ] {
            assert_eq!(daily.due(at(now)), Some(at(due)), "{now}");
        }
        assert_eq!(ReconcileAt::Off.due(at("2026-11-25T03:30:00Z")), None);
    }

    fn humantime(text: &str) -> std::time::SystemTime {
        humantime::parse_rfc3339(text).expect("a time")
    }
}
