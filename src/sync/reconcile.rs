//! The whole of Clerk against the whole of the mirror: what is missing, stale or a ghost, and, where
//! it is wished, mended.
//!
//! A run pages through Clerk's users, organizations and memberships, judges each by the mirror's own
//! rules ([`judge`]), and notes in the store what it has come across. What it has not come across is
//! asked for by itself before it counts as a ghost: a list that moves while it is read leaves things
//! out. All writes are guarded as any others, so that nothing that changes meanwhile is undone. How
//! far a run is stands in the store after each page; whoever has the lease goes on there.
//!
//! Called by `cli` and, at its time, by [`Nightly`]. Memory is a page's, whatever there is at Clerk.

mod checkpoint;
mod ghosts;
mod judge;
mod last_run;
mod nightly;
mod persist;
mod report;
mod walk;

use std::{fmt, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};

pub use self::last_run::{LastRun, RunOutcome};
pub use self::nightly::{Nightly, NightlyStats, ReconcileAt};
pub use self::report::{Drift, DriftCount, KindReport, Report};
use self::{
    checkpoint::{Checkpoint, Step},
    persist::Persistent,
};
use super::Clock;
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{DirectoryError, EntityKind, Listing, Store, StoreError},
};

/// Under which the lease and how far a run is are kept.
const NAME: &str = "reconcile";
/// How long a run is one process's without its word.
const LEASE: Duration = Duration::from_secs(60);
/// It gives its word so often in that time.
const RENEWALS: u32 = 3;
/// A run that broke off is gone on with for so long; what was seen longer ago says too little.
const RESUMED_WITHIN: Duration = Duration::from_secs(6 * 3_600);
/// Notes of earlier runs that are forgotten in one transaction.
const FORGET_AT_ONCE: u32 = 10_000;

/// What is to be compared.
#[derive(Debug)]
pub struct ReconcileJob<'a> {
    /// Whose.
    pub instance: &'a InstanceName,
    /// Clerk's Backend API for it; in the background's share of the budget.
    pub clerk: &'a dyn Listing,
    /// Whether what is found is mended.
    pub apply: bool,
    /// Who does it: no two have the same.
    pub holder: &'a str,
}

/// How far it is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconcileProgress {
    /// Of which kind.
    pub kind: EntityKind,
    /// What is done with them.
    pub stage: ReconcileStage,
    /// How many so far.
    pub done: u64,
    /// Of how many, where that is known.
    pub total: Option<u64>,
}

/// What a run does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileStage {
    /// Reads Clerk's list and compares.
    Compares,
    /// Asks Clerk for what the list did not have.
    Confirms,
}

/// The run did not come to its end. What it has mended is mended, and the next one goes on where it
/// was, unless it says something else.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReconcileError {
    /// Clerk did not answer, for as long as is worth waiting.
    #[error(transparent)]
    Clerk(#[from] DirectoryError),
    /// The store did not, likewise.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process reconciles the instance.
    #[error("another process is reconciling this instance; its lease ends within a minute of it")]
    Busy,
    /// The lease passed to another process while this one could not renew it.
    #[error("the lease was lost: this process could not renew it in time")]
    LeaseLost,
    /// A list moves faster than it can be read.
    #[error("Clerk's list of {}s changes faster than it can be read", kind.name())]
    Moving {
        /// Of what.
        kind: EntityKind,
    },
    /// The mirror is of another Clerk than the one that is asked.
    #[error(
        "of the mirror's users Clerk knows none: the secret key is probably of another Clerk \
         instance than the one that the database was filled from. Nothing was changed. If these \
         users were really deleted, bury them first: clerk-authz sync {}", users.join(" ")
    )]
    OtherInstance {
        /// Whom Clerk was asked for.
        users: Vec<String>,
    },
}

/// Told of progress as it is made.
pub type OnProgress<'a> = dyn Fn(ReconcileProgress) + Send + Sync + 'a;

/// Reconciles.
#[derive(Clone)]
pub struct Reconciler {
    store: Arc<dyn Store>,
    clock: Clock,
    lease: Duration,
}

impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").finish_non_exhaustive()
    }
}

/// A run under way.
struct Run<'a> {
    job: &'a ReconcileJob<'a>,
    io: Persistent<'a>,
    on_progress: &'a OnProgress<'a>,
    state: Checkpoint,
}

impl Reconciler {
    /// Of the mirror in `store`.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            lease: LEASE,
        }
    }

    /// With a lease of another length than a minute: tests wait for its end.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// One run, or the rest of one that broke off. May be dropped at any time; the next one goes on.
    pub async fn run(
        &self,
        job: &ReconcileJob<'_>,
        on_progress: &OnProgress<'_>,
    ) -> Result<Report, ReconcileError> {
        if !self.take_lease(job).await? {
            return Err(ReconcileError::Busy);
        }
        let ended = tokio::select! {
            ended = self.run_with_lease(job, on_progress) => ended,
            lost = self.keep_lease(job) => Err(lost),
        };
        if !matches!(ended, Err(ReconcileError::LeaseLost)) {
            self.release(job).await;
        }
        ended
    }

    /// Gives the lease back after a run was dropped; else it passes by itself.
    pub async fn release(&self, job: &ReconcileJob<'_>) {
        let released = self.store.release(job.instance, NAME, job.holder).await;
        if let Err(error) = released {
            info!(instance = %job.instance, %error, "the lease has to pass first");
        }
    }

    async fn take_lease(&self, job: &ReconcileJob<'_>) -> Result<bool, StoreError> {
        let now = (self.clock)();
        let until = now.plus(self.lease);
        let lease = self
            .store
            .lease(job.instance, NAME, job.holder, until, now)
            .await?;
        Ok(lease.is_some())
    }

    /// Ends when the lease is somebody else's, or may be.
    async fn keep_lease(&self, job: &ReconcileJob<'_>) -> ReconcileError {
        let mut renewed_at = (self.clock)();
        loop {
            sleep(self.lease / RENEWALS).await;
            let asked_at = (self.clock)();
            match self.take_lease(job).await {
                Ok(true) => renewed_at = asked_at,
                Ok(false) => return ReconcileError::LeaseLost,
                Err(_) if (self.clock)().since(renewed_at) < self.lease => {}
                Err(error) => {
                    warn!(instance = %job.instance, %error, "the lease could not be renewed");
                    return ReconcileError::LeaseLost;
                }
            }
        }
    }

    async fn run_with_lease(
        &self,
        job: &ReconcileJob<'_>,
        on_progress: &OnProgress<'_>,
    ) -> Result<Report, ReconcileError> {
        let io = Persistent {
            store: &*self.store,
            clock: &self.clock,
            instance: job.instance,
        };
        let state = self.begin(job, &io).await?;
        let mut run = Run {
            job,
            io,
            on_progress,
            state,
        };
        let ended = run.finish().await;
        let now = (self.clock)();
        let report = ended.map(|()| run.state.report(now));
        let kept = LastRun::keep(&io, report.as_ref().ok(), now).await;
        match (kept, report) {
            (Err(error), Ok(_)) => Err(error.into()),
            (Ok(()) | Err(_), report) => report,
        }
    }

    /// What broke off not long ago is gone on with; else a new run begins.
    async fn begin(
        &self,
        job: &ReconcileJob<'_>,
        io: &Persistent<'_>,
    ) -> Result<Checkpoint, ReconcileError> {
        let now = (self.clock)();
        let kept = io.checkpoint(NAME).await?;
        let kept = kept.and_then(|kept| Checkpoint::parse(&kept.value));
        let begun = match kept {
            Some(kept) if kept.can_go_on(job.apply, now) => {
                info!(instance = %job.instance, started_at = %kept.started(), "going on with a run");
                kept
            }
            Some(_) | None => {
                io.set_checkpoint(NAME, Checkpoint::NONE).await?;
                Checkpoint::new(now, job.apply)
            }
        };
        io.forget_sightings(Some(begun.started())).await?;
        Ok(begun)
    }
}

impl Run<'_> {
    async fn finish(&mut self) -> Result<(), ReconcileError> {
        loop {
            match self.state.step() {
                Step::CheckInstance => self.check_instance().await?,
                Step::Walk(kind) => self.walk(kind).await?,
                Step::Ghosts(kind) => self.ghosts(kind).await?,
                Step::Done => break,
            }
            self.state.next_step();
            self.save().await?;
        }
        self.io.set_checkpoint(NAME, Checkpoint::NONE).await?;
        self.io.forget_sightings(None).await?;
        Ok(())
    }

    async fn save(&self) -> Result<(), ReconcileError> {
        let text = self.state.to_text();
        Ok(self.io.set_checkpoint(NAME, &text).await?)
    }

    fn tell(&self, kind: EntityKind, stage: ReconcileStage, done: u64, total: Option<u64>) {
        (self.on_progress)(ReconcileProgress {
            kind,
            stage,
            done,
            total,
        });
    }

    fn started(&self) -> Timestamp {
        self.state.started()
    }
}

#[cfg(test)]
mod tests;
