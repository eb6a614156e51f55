//! Clerk and the store, asked again when they fail: a run of many minutes is not given up for a
//! moment's fault.

use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::{FORGET_AT_ONCE, ReconcileError};
use crate::{
    backoff::{Backoff, chance},
    identity::{InstanceName, Timestamp},
    mirror::{
        Answered, Applied, Asking, Checkpoint, DirectoryError, Effect, Fact, Store, StoreError,
        Storing,
    },
    sync::Clock,
};

/// How long one question may wait for its turn and its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often Clerk is asked one thing; at it the run ends, and is gone on with later.
const CLERK_ATTEMPTS: u32 = 6;
const CLERK_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// Likewise the store.
const STORE_ATTEMPTS: u32 = 8;
const STORE_BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(10),
};
/// Facts of one transaction: others wait for it.
const FACTS_AT_ONCE: usize = 100;

/// The store of one instance, and patience.
#[derive(Clone, Copy)]
pub(super) struct Persistent<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) clock: &'a Clock,
    pub(super) instance: &'a InstanceName,
}

impl<'a> Persistent<'a> {
    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Asks until it is answered, or refused.
    pub(super) async fn ask<'b, T>(
        &self,
        mut question: impl FnMut() -> Asking<'b, T>,
    ) -> Result<Answered<T>, ReconcileError> {
        for attempt in 1.. {
            let error = match question().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let retry_after = match &error {
                DirectoryError::Unavailable { retry_after, .. }
                | DirectoryError::RateLimited { retry_after } => *retry_after,
                DirectoryError::CredentialsRefused { .. } | DirectoryError::Rejected { .. } => {
                    return Err(error.into());
                }
            };
            if attempt == CLERK_ATTEMPTS {
                return Err(error.into());
            }
            debug!(instance = %self.instance, %error, attempt, "Clerk is asked again");
            sleep(CLERK_BACKOFF.after(attempt, chance()).max(retry_after)).await;
        }
        unreachable!("the last attempt returns")
    }

    /// Asks the store until it answers, or says that a person has to act.
    pub(super) async fn stored<'b, T>(
        &self,
        mut question: impl FnMut() -> Storing<'b, T>,
    ) -> Result<T, StoreError> {
        for attempt in 1.. {
            let error = match question().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_passing = matches!(
                error,
                StoreError::Unavailable { .. } | StoreError::Conflict { .. }
            );
            if !is_passing || attempt == STORE_ATTEMPTS {
                return Err(error);
            }
            debug!(instance = %self.instance, %error, attempt, "the store is asked again");
            sleep(STORE_BACKOFF.after(attempt, chance())).await;
        }
        unreachable!("the last attempt returns")
    }

    pub(super) async fn checkpoint(&self, name: &'a str) -> Result<Option<Checkpoint>, StoreError> {
        self.stored(|| self.store.checkpoint(self.instance, name))
            .await
    }

    pub(super) async fn set_checkpoint(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let now = self.now();
        self.stored(|| self.store.set_checkpoint(self.instance, name, value, now))
            .await
    }

    /// Writes facts, in parts; what became of each.
    pub(super) async fn apply(&self, facts: Vec<Fact>) -> Result<Vec<Applied>, StoreError> {
        let now = self.now();
        let mut applied = Vec::new();
        for part in facts.chunks(FACTS_AT_ONCE) {
            let effect = || Effect {
                facts: part.to_vec(),
                done: None,
            };
            let part = self.stored(|| self.store.apply(self.instance, effect(), now));
            applied.push(part.await?);
        }
        Ok(applied)
    }

    pub(super) async fn forget_sightings(&self, keep: Option<Timestamp>) -> Result<(), StoreError> {
        let forget = || {
            self.store
                .forget_sightings(self.instance, keep, FORGET_AT_ONCE)
        };
        while self.stored(forget).await? > 0 {}
        Ok(())
    }
}
