//! Entities of which only Clerk can tell how they are are asked for, in the background.
//!
//! Called by `server`. One replica at a time looks at an instance; each answer is written as any
//! other, and what it does not settle is asked for again, later and later.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Clock, Listings};
use crate::{
    backoff::{Backoff, chance},
    closed_list::closed_list,
    identity::{InstanceName, Timestamp},
    mirror::{
        Answered, DirectoryError, Effect, Entity, EntityKind, Fact, Listing, Store, StoreError,
    },
};

/// Under which the lease is kept.
const NAME: &str = "settle";
/// How long an instance is one replica's without its word.
const LEASE: Duration = Duration::from_secs(60);
/// How often is looked whether there is something to ask.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Entities of a kind that are read at once. Those behind them wait until some are settled.
const PAGE: u32 = 1_000;
/// Questions of a round: each as long as it may take, they end within the lease.
const ROUND: usize = 20;
/// Questions that are under way at once.
const AT_ONCE: usize = 4;
/// How long one waits for its turn and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions about one entity that the first did not settle.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(600),
};

closed_list! {
    /// What became of a question.
    LookUpOutcome {
        /// It is known how the entity is.
        Settled = "settled",
        /// Clerk's answer does not tell yet.
        Open = "open",
        /// There was no answer, or it could not be written.
        Failed = "failed",
    }
}

/// Asks Clerk for what only Clerk can tell.
pub struct Settler {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Of this process.
    holder: String,
    listings: Arc<Listings>,
    /// What was not settled, and when it is asked for again. As many as are read at once.
    waits: Mutex<HashMap<(InstanceName, Entity), Wait>>,
    /// Instances without a secret key of which people have heard.
    said: Mutex<HashSet<InstanceName>>,
    outcomes: [AtomicU64; LookUpOutcome::ALL.len()],
}

#[derive(Clone, Copy)]
struct Wait {
    failures: u32,
    until: Timestamp,
}

impl fmt::Debug for Settler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settler").finish_non_exhaustive()
    }
}

impl Settler {
    /// Of the mirror in `store`, with what `listings` has.
    pub fn new(
        store: Arc<dyn Store>,
        listings: Arc<Listings>,
        holder: String,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            clock,
            holder,
            listings,
            waits: Mutex::default(),
            said: Mutex::default(),
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Settles until the stop. What a stop cuts off is not written, and asked for again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let running = async {
            loop {
                for (instance, clerk) in self.listings.all() {
                    if let Err(error) = self.settle(&instance, clerk.as_deref()).await {
                        debug!(%instance, %error, "nothing can be settled now");
                    }
                }
                sleep(LOOK_INTERVAL.mul_f64(0.5 + chance() / 2.0)).await;
            }
        };
        tokio::select! {
            () = running => {}
            () = stop.cancelled() => {}
        }
    }

    /// One round.
    async fn settle(
        &self,
        instance: &InstanceName,
        clerk: Option<&dyn Listing>,
    ) -> Result<(), StoreError> {
        let mut open = Vec::new();
        for kind in EntityKind::ALL {
            open.extend(self.store.to_look_up(instance, kind, PAGE).await?);
        }
        let now = (self.clock)();
        let due = self.due(instance, open, now);
        if due.is_empty() {
            return Ok(());
        }
        let Some(clerk) = clerk else {
            if lock(&self.said).insert(instance.clone()) {
                warn!(
                    %instance,
                    "what is in doubt in the mirror waits, since only Clerk can tell: set \
                     CLERK_SECRET_KEY (secret_key_file)"
                );
            }
            return Ok(());
        };
        let lease = self
            .store
            .lease(instance, NAME, &self.holder, now.plus(LEASE), now);
        if lease.await?.is_none() {
            return Ok(());
        }
        let mut asked = stream::iter(due)
            .map(|entity| async move {
                let outcome = self.ask(instance, clerk, &entity).await;
                (entity, outcome)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((entity, outcome)) = asked.next().await {
            self.asked(instance, entity, outcome);
        }
        drop(asked);
        self.store.release(instance, NAME, &self.holder).await
    }

    /// Those whose time has come. What is open no more is forgotten.
    fn due(&self, instance: &InstanceName, open: Vec<Entity>, now: Timestamp) -> Vec<Entity> {
        let mut waits = lock(&self.waits);
        let known: HashSet<&Entity> = open.iter().collect();
        waits.retain(|(of, entity), _| of != instance || known.contains(entity));
        let is_due = |entity: &Entity| {
            let wait = waits.get(&(instance.clone(), entity.clone()));
            wait.is_none_or(|wait| wait.until <= now)
        };
        let due: Vec<Entity> = open.iter().filter(|it| is_due(it)).cloned().collect();
        due.into_iter().take(ROUND).collect()
    }

    async fn ask(
        &self,
        instance: &InstanceName,
        clerk: &dyn Listing,
        entity: &Entity,
    ) -> Result<bool, SettleError> {
        let Answered { value, as_of } = clerk.entity(entity, PATIENCE).await?;
        let fact = match value {
            Some(whole) => whole.into_fact(as_of),
            None => Fact::Absent {
                entity: entity.clone(),
                as_of,
            },
        };
        let effect = Effect {
            facts: vec![fact],
            done: None,
        };
        let applied = self.store.apply(instance, effect, (self.clock)()).await?;
        Ok(applied.outcomes.iter().all(|outcome| !outcome.look_up))
    }

    fn asked(&self, instance: &InstanceName, entity: Entity, asked: Result<bool, SettleError>) {
        let key = (instance.clone(), entity);
        let outcome = match asked {
            Ok(true) => LookUpOutcome::Settled,
            Ok(false) => LookUpOutcome::Open,
            Err(error) => {
                debug!(%instance, entity = ?key.1, %error, "cannot be settled yet");
                LookUpOutcome::Failed
            }
        };
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        let mut waits = lock(&self.waits);
        match outcome {
            LookUpOutcome::Settled => {
                waits.remove(&key);
            }
            LookUpOutcome::Open | LookUpOutcome::Failed => {
                let failures = waits.get(&key).map_or(0, |wait| wait.failures);
                let failures = failures.saturating_add(1);
                let until = (self.clock)().plus(BACKOFF.after(failures, chance()));
                waits.insert(key, Wait { failures, until });
            }
        }
    }

    /// Questions since this process began, by what became of them.
    pub fn stats(&self) -> Vec<(LookUpOutcome, u64)> {
        LookUpOutcome::ALL
            .into_iter()
            .map(|outcome| (outcome, self.outcomes[outcome as usize].load(Relaxed)))
            .collect()
    }
}

/// Nothing was settled.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Clerk(#[from] DirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
