//! Messages that come at the same time go to the disk together.
//!
//! A write of the disk takes milliseconds, for many messages no longer than for one. Whoever comes
//! while one is under way gets into line; the first whose turn it is takes the line with it into one
//! transaction, and tells each what became of its own. There is no task behind it: who waits, works.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{SqlStore, inbox};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{Received, StoreError},
};

/// Messages of one transaction. Those behind it go with the next.
const MAX_TOGETHER: usize = 128;

/// Whether a message is new.
type Outcome = Result<bool, StoreError>;

/// The line of those who wait for the disk.
#[derive(Default)]
pub(super) struct Intake {
    line: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    instance: InstanceName,
    message: Arc<Received>,
    now: Timestamp,
    /// Dropped unsaid when whoever had the turn was dropped; then nothing was written.
    told: oneshot::Sender<Outcome>,
}

impl Intake {
    /// Keeps a message; `false` when its id is known. May be dropped at any time: the message may
    /// then be kept or not, and the others in its transaction are kept all the same.
    pub(super) async fn receive(
        &self,
        store: &SqlStore,
        instance: &InstanceName,
        message: Received,
        now: Timestamp,
    ) -> Outcome {
        let message = Arc::new(message);
        loop {
            let (told, mut hears) = oneshot::channel();
            self.line().push(Waiting {
                instance: instance.clone(),
                message: Arc::clone(&message),
                now,
                told,
            });
            let _turn = tokio::select! {
                biased;
                heard = &mut hears => match heard {
                    Ok(outcome) => return outcome,
                    Err(_) => continue,
                },
                turn = self.turn.lock() => turn,
            };
            // Until it is in one: there may be more in front of it than one transaction takes.
            loop {
                match hears.try_recv() {
                    Ok(outcome) => return outcome,
                    Err(TryRecvError::Empty) => self.take_turn(store).await,
                    Err(TryRecvError::Closed) => break,
                }
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps those in front and tells them.
    async fn take_turn(&self, store: &SqlStore) {
        let group: Vec<Waiting> = {
            let mut line = self.line();
            let count = line.len().min(MAX_TOGETHER);
            let group = line.drain(..count);
            group.filter(|waiting| !waiting.told.is_closed()).collect()
        };
        match keep(store, &group).await {
            Ok(outcomes) => {
                for (waiting, is_new) in group.into_iter().zip(outcomes) {
                    // Nobody may be waiting any more.
                    let _ = waiting.told.send(Ok(is_new));
                }
            }
            Err(error) if group.len() > 1 && may_be_of_one(&error) => {
                for waiting in group {
                    if waiting.told.is_closed() {
                        continue;
                    }
                    let alone = keep(store, std::slice::from_ref(&waiting)).await;
                    let _ = waiting.told.send(alone.map(|kept| kept == [true]));
                }
            }
            Err(error) => {
                for waiting in group {
                    let _ = waiting.told.send(Err(error.clone()));
                }
            }
        }
    }
}

/// All of them, or none; which of them are new.
async fn keep(store: &SqlStore, group: &[Waiting]) -> Result<Vec<bool>, StoreError> {
    let mut session = store.writing().await?;
    let mut kept = Vec::with_capacity(group.len());
    for waiting in group {
        let Waiting {
            instance,
            message,
            now,
            told: _,
        } = waiting;
        kept.push(inbox::receive(&mut session, instance, message, *now).await?);
    }
    session.commit().await?;
    Ok(kept)
}

/// Whether one of several messages may be at fault, so that each is worth a try of its own: one that
/// is large does not fit on a disk on which the others do.
fn may_be_of_one(error: &StoreError) -> bool {
    match error {
        StoreError::NotWritable { .. } | StoreError::Broken { .. } => true,
        StoreError::Unavailable { .. }
        | StoreError::Conflict { .. }
        | StoreError::Refused { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::ClaimLost
        | StoreError::TooManyFacts { .. } => false,
    }
}
