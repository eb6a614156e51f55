use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Drift, Report, persist::Persistent};
use crate::{
    closed_list::closed_list,
    identity::{InstanceName, Timestamp},
    mirror::{EntityKind, Store, StoreError},
};

/// Under which it is kept.
const NAME: &str = "reconcile-last";

/// What is known of an instance's last run, by all replicas and after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    ended: Option<Ended>,
    failed_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    started_ms: i64,
    ended_ms: i64,
    applied: bool,
    found: [[u64; Drift::ALL.len()]; EntityKind::ALL.len()],
}

closed_list! {
    /// How a run ended.
    RunOutcome {
        /// The mirror is as Clerk is.
        InStep = "in_step",
        /// It was not; where that was wished, it was mended.
        Drift = "drift",
        /// It could not finish.
        Failed = "failed",
    }
}

impl LastRun {
    /// When the last run ended, in whatever way.
    pub fn at(&self) -> Option<Timestamp> {
        let ended = self.ended.as_ref().map(|ended| ended.ended_ms);
        ended.max(self.failed_ms).map(Timestamp::from_unix_millis)
    }

    /// How the last run ended.
    pub fn outcome(&self) -> Option<RunOutcome> {
        match (&self.ended, self.failed_ms) {
            (None, None) => None,
            (Some(ended), failed_ms) if failed_ms.is_none_or(|at| at < ended.ended_ms) => {
                let found: u64 = ended.found.iter().flatten().sum();
                Some(if found == 0 {
                    RunOutcome::InStep
                } else {
                    RunOutcome::Drift
                })
            }
            (_, _) => Some(RunOutcome::Failed),
        }
    }

    /// When the last run that came to its end began, and whether it mended; `None` before the first.
    pub fn ended(&self) -> Option<(Timestamp, bool)> {
        let ended = self.ended.as_ref()?;
        Some((Timestamp::from_unix_millis(ended.started_ms), ended.applied))
    }

    /// When the last run that came to its end began, where the mirror is since as Clerk was then: it
    /// mended, or there was nothing to mend.
    pub fn compared_at(&self) -> Option<Timestamp> {
        let ended = self.ended.as_ref()?;
        let same = ended.applied || ended.found.iter().flatten().all(|found| *found == 0);
        same.then(|| Timestamp::from_unix_millis(ended.started_ms))
    }

    /// How much drift the last run found that came to its end; `None` before the first.
    pub fn found(&self, kind: EntityKind, drift: Drift) -> Option<u64> {
        let ended = self.ended.as_ref()?;
        Some(ended.found[kind as usize][drift as usize])
    }

    /// What is kept of an instance; `None` where nothing is, or nothing that this version can read.
    pub(super) async fn read(
        store: &dyn Store,
        instance: &InstanceName,
    ) -> Result<Option<Self>, StoreError> {
        let kept = store.checkpoint(instance, NAME).await?;
        Ok(kept.and_then(|kept| serde_json::from_str(&kept.value).ok()))
    }

    /// Keeps that a run ended, or failed now. Only whoever has the lease writes it.
    pub(super) async fn keep(
        io: &Persistent<'_>,
        report: Option<&Report>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let kept = io.stored(|| Box::pin(Self::read(io.store, io.instance)));
        let mut last = kept.await?.unwrap_or_default();
        match report {
            Some(report) => {
                last = Self {
                    ended: Some(Ended::of(report)),
                    failed_ms: None,
                };
            }
            None => last.failed_ms = Some(now.unix_millis()),
        }
        let text = serde_json::to_string(&last).expect("numbers have a JSON form");
        debug!(instance = %io.instance, outcome = ?last.outcome(), "a run is on record");
        io.set_checkpoint(NAME, &text).await
    }
}

impl Ended {
    fn of(report: &Report) -> Self {
        let found = |kind| Drift::ALL.map(|drift| report.kind(kind).drift(drift).found);
        Self {
            started_ms: report.started_at.unix_millis(),
            ended_ms: report.ended_at.unix_millis(),
            applied: report.applied,
            found: EntityKind::ALL.map(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_counts_as_compared_where_nothing_was_left_to_mend() {
        let last = |applied, found| {
            let ended = Ended {
                started_ms: 5,
                ended_ms: 9,
                applied,
                found: [[0, 0, found]; EntityKind::ALL.len()],
            };
            let last = LastRun {
                ended: Some(ended),
                failed_ms: None,
            };
            last.compared_at()
        };
        let started = Some(Timestamp::from_unix_millis(5));
        assert_eq!(LastRun::default().compared_at(), None);
        assert_eq!(last(true, 0), started);
        assert_eq!(last(true, 1), started);
        assert_eq!(last(false, 0), started);
        assert_eq!(last(false, 1), None);
    }
}
