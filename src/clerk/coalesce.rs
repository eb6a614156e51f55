//! Equal questions that are under way are asked once.
//!
//! A question is a flight, and those who wait for it are its passengers: whichever is polled moves
//! it on, it lives as long as one of them does, and one that leaves does not harm the others. For
//! each key there is at most one flight under way and one waiting behind it.

use std::{
    collections::HashMap,
    hash::Hash,
    pin::Pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

// Unit tests run this very code under shuttle, which decides at each lock who goes on.
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};

use futures_util::{
    FutureExt,
    future::{Shared, WeakShared},
};
#[cfg(test)]
use shuttle::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::mirror::{Ask, DirectoryError, Join};

/// The longest that anybody waits, whatever they ask for.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60 * 60);
/// When it is worth asking again after a wait without an answer.
const RETRY_AFTER_SILENCE: Duration = Duration::from_secs(1);

/// An answer, shared by all who asked the same.
pub(super) type Answer<T> = Result<T, DirectoryError>;
type Boxed<T> = Pin<Box<dyn Future<Output = Answer<T>> + Send>>;

/// Questions by key.
pub(super) struct Coalescer<K, T> {
    lines: Arc<Lines<K, T>>,
    joined: AtomicU64,
}

/// The flights of all keys. The lock is never held while a flight is polled or dropped: both come
/// back here.
struct Lines<K, T>(Mutex<Inner<K, T>>);

struct Inner<K, T> {
    by_key: HashMap<K, Line<T>>,
    next_number: u64,
}

struct Line<T> {
    under_way: Flight<T>,
    /// Starts when the one under way has ended.
    behind: Option<Flight<T>>,
}

struct Flight<T> {
    number: u64,
    /// Dead once nobody waits for it.
    answer: WeakShared<Boxed<T>>,
    errand: Arc<Errand>,
    ended: CancellationToken,
}

/// What a flight and those who wait for it share.
pub(super) struct Errand(Mutex<ErrandInner>);

struct ErrandInner {
    sent: bool,
    /// The latest that any of them waits for.
    deadline: Instant,
    /// What is to be said if no answer comes in time.
    last: Option<DirectoryError>,
}

/// Takes a flight out of its line when it ends, with an answer or without.
struct Landing<K: Hash + Eq, T> {
    lines: Arc<Lines<K, T>>,
    key: K,
    number: u64,
    ended: CancellationToken,
}

/// A question that nobody else asks at the same time, as long as there is patience.
pub(super) async fn alone<T>(
    patience: Duration,
    ask: impl AsyncFnOnce(Arc<Errand>) -> Answer<T>,
) -> Answer<T> {
    let deadline = Instant::now() + patience.min(LONGEST_PATIENCE);
    let errand = Arc::new(Errand::until(deadline));
    timeout_at(deadline, ask(Arc::clone(&errand)))
        .await
        .unwrap_or_else(|_| Err(errand.silence(patience)))
}

/// A place in a flight.
struct Seat<T: Clone> {
    answer: Shared<Boxed<T>>,
    errand: Arc<Errand>,
    joined: bool,
}

impl<K, T> Coalescer<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            lines: Arc::new(Lines(Mutex::new(Inner {
                by_key: HashMap::new(),
                next_number: 0,
            }))),
            joined: AtomicU64::new(0),
        }
    }

    /// Waits, as long as there is patience, for the answer of a flight that may be joined, or of a
    /// new one that `start` makes. May be dropped at any time.
    pub(super) async fn ask<F>(
        &self,
        key: K,
        ask: Ask,
        start: impl FnOnce(Arc<Errand>) -> F + Send + 'static,
    ) -> Answer<T>
    where
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let deadline = Instant::now() + ask.patience.min(LONGEST_PATIENCE);
        let seat = self.seat(key, ask.join, deadline, start);
        if seat.joined {
            self.joined.fetch_add(1, Ordering::Relaxed);
        }
        timeout_at(deadline, seat.answer)
            .await
            .unwrap_or_else(|_| Err(seat.errand.silence(ask.patience)))
    }

    /// Questions that another's flight answered.
    pub(super) fn joined(&self) -> u64 {
        self.joined.load(Ordering::Relaxed)
    }

    fn seat<F>(
        &self,
        key: K,
        join: Join,
        deadline: Instant,
        start: impl FnOnce(Arc<Errand>) -> F + Send + 'static,
    ) -> Seat<T>
    where
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let mut inner = self.lines.lock();
        let line = inner.by_key.get(&key);
        let flights = line.map(|line| [Some(&line.under_way), line.behind.as_ref()]);
        for flight in flights.into_iter().flatten().flatten() {
            if let Some(seat) = flight.join(join, deadline) {
                return seat;
            }
        }
        let before = line.map(|line| line.under_way.ended.clone());
        let number = inner.next_number;
        inner.next_number += 1;
        let errand = Arc::new(Errand::until(deadline));
        let ended = CancellationToken::new();
        let landing = Landing {
            lines: Arc::clone(&self.lines),
            key: key.clone(),
            number,
            ended: ended.clone(),
        };
        let own = Arc::clone(&errand);
        let boxed: Boxed<T> = Box::pin(async move {
            let _landing = landing;
            if let Some(before) = before {
                before.cancelled().await;
            }
            start(own).await
        });
        let answer = boxed.shared();
        let flight = Flight {
            number,
            answer: answer.downgrade().expect("it was not polled yet"),
            errand: Arc::clone(&errand),
            ended,
        };
        match inner.by_key.get_mut(&key) {
            // One that stood there is dead: the living are joined above.
            Some(line) => line.behind = Some(flight),
            None => {
                let line = Line {
                    under_way: flight,
                    behind: None,
                };
                inner.by_key.insert(key, line);
            }
        }
        Seat {
            answer,
            errand,
            joined: false,
        }
    }
}

impl<T: Clone> Flight<T> {
    /// A place in it, where `join` permits and somebody still waits for it.
    fn join(&self, join: Join, deadline: Instant) -> Option<Seat<T>> {
        let mut errand = self.errand.lock();
        let permitted = match join {
            Join::Any => true,
            Join::SentAfter => !errand.sent,
        };
        let answer = permitted.then(|| self.answer.upgrade()).flatten()?;
        errand.deadline = errand.deadline.max(deadline);
        Some(Seat {
            answer,
            errand: Arc::clone(&self.errand),
            joined: true,
        })
    }
}

impl Errand {
    fn until(deadline: Instant) -> Self {
        Self(Mutex::new(ErrandInner {
            sent: false,
            deadline,
            last: None,
        }))
    }

    /// What is said when no answer came in time.
    fn silence(&self, patience: Duration) -> DirectoryError {
        let last = self.lock().last.clone();
        last.unwrap_or_else(|| DirectoryError::Unavailable {
            cause: format!("no answer within {patience:?}"),
            retry_after: RETRY_AFTER_SILENCE,
        })
    }

    /// The question leaves now: who asks from now on may want a later answer.
    pub(super) fn sent(&self) {
        self.lock().sent = true;
    }

    /// The latest that anybody waits for.
    pub(super) fn deadline(&self) -> Instant {
        self.lock().deadline
    }

    /// What is to be said if no answer comes in time.
    pub(super) fn note(&self, last: DirectoryError) {
        self.lock().last = Some(last);
    }

    fn lock(&self) -> MutexGuard<'_, ErrandInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let mut inner = self.lines.lock();
        if let Some(line) = inner.by_key.get_mut(&self.key) {
            if line.under_way.number == self.number {
                match line.behind.take() {
                    Some(behind) => line.under_way = behind,
                    None => {
                        inner.by_key.remove(&self.key);
                    }
                }
            } else if matches!(&line.behind, Some(behind) if behind.number == self.number) {
                line.behind = None;
            }
        }
        drop(inner);
        self.ended.cancel();
    }
}

impl<K, T> Lines<K, T> {
    fn lock(&self) -> MutexGuard<'_, Inner<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
