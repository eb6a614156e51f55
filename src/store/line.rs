//! Those who come at the same time are served together.
//!
//! A write of the disk takes milliseconds and a round trip to a database microseconds, for many no
//! longer than for one. Whoever comes while one is under way gets into line; the first whose turn it
//! is takes the line with it, and tells each what became of its own. There is no task behind it: who
//! waits, works. What is answered was begun after it was asked.

use std::{
    future::Future,
    slice,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::SqlStore;
use crate::mirror::StoreError;

/// Something that is asked of the store, and served for many at once.
pub(super) trait Together: Clone + Send + Sync {
    /// What each hears.
    type Answer: Send;
    /// How many are served at once. Those behind them are served next.
    const MOST: usize;

    /// All of them, in their order, or none.
    fn serve(
        store: &SqlStore,
        group: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// A line of those who wait for the same.
pub(super) struct Line<T: Together> {
    waiting: Mutex<Vec<Waiting<T>>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting<T: Together> {
    asked: T,
    /// Dropped unsaid when whoever had the turn was dropped; then nothing was done.
    told: oneshot::Sender<Result<T::Answer, StoreError>>,
}

impl<T: Together> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl<T: Together> Line<T> {
    /// Served with those who wait too. May be dropped at any time: it may then be done or not, and the
    /// others are served all the same.
    pub(super) async fn ask(&self, store: &SqlStore, asked: T) -> Result<T::Answer, StoreError> {
        loop {
            let (told, mut hears) = oneshot::channel();
            self.waiting().push(Waiting {
                asked: asked.clone(),
                told,
            });
            let _turn = tokio::select! {
                biased;
                heard = &mut hears => match heard {
                    Ok(answer) => return answer,
                    Err(_) => continue,
                },
                turn = self.turn.lock() => turn,
            };
            // Until it is served: there may be more in front of it than are served at once.
            loop {
                match hears.try_recv() {
                    Ok(answer) => return answer,
                    Err(TryRecvError::Empty) => self.take_turn(store).await,
                    Err(TryRecvError::Closed) => break,
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting<T>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves those in front and tells them.
    async fn take_turn(&self, store: &SqlStore) {
        let (group, told): (Vec<T>, Vec<_>) = {
            let mut waiting = self.waiting();
            let count = waiting.len().min(T::MOST);
            let group = waiting.drain(..count);
            group
                .filter(|waiting| !waiting.told.is_closed())
                .map(|waiting| (waiting.asked, waiting.told))
                .unzip()
        };
        match T::serve(store, &group).await {
            Ok(answers) => {
                for (told, answer) in told.into_iter().zip(answers) {
                    // Nobody may be waiting any more.
                    let _ = told.send(Ok(answer));
                }
            }
            Err(error) if group.len() > 1 && may_be_of_one(&error) => {
                for (asked, told) in group.into_iter().zip(told) {
                    if !told.is_closed() {
                        let alone = T::serve(store, slice::from_ref(&asked)).await;
                        let alone = alone.and_then(|answers| {
                            let only = answers.into_iter().next();
                            only.ok_or(error.clone())
                        });
                        let _ = told.send(alone);
                    }
                }
            }
            Err(error) => {
                for told in told {
                    let _ = told.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Whether one of several may be at fault, so that each is worth a try of its own: a message that is
/// large does not fit on a disk on which the others do.
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
