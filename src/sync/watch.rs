//! Users for whoever keeps a copy of them: a snapshot, then changes, each with a token behind which
//! one can go on.
//!
//! Called by the gRPC door. A watch is a task that reads the store page by page and hands on what it
//! read through a short channel; at its end it waits for whoever takes. It keeps nothing else: where
//! it stands is in the token (`cursor`), and what follows is in the store (`reading`). So any replica
//! goes on with any token. Watches that have caught up share what they read (`slices`).

mod cursor;
mod reading;
mod slices;
mod stats;

use std::{fmt, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    cursor::{Cursor, Unusable},
    reading::Reading,
    slices::Slices,
    stats::{Counters, InstanceCounters},
};
pub use self::{
    cursor::{InvalidToken, WatchScope},
    stats::{ChangeKind, WatchEndCause, WatchStats},
};
use super::{Clock, Ear};
use crate::{
    identity::{InstanceName, OrganizationId, UserId},
    mirror::{MirroredMembership, Position, Seen, Store, StoreError, User},
};

/// Messages between a watch and whoever takes them. At it the watch waits.
const BACKLOG: usize = 16;
/// From one look at the feed's end to the next, at least: what changes meanwhile is read at once.
const GATHER: Duration = Duration::from_millis(20);

/// What watches may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// Watches that are open at once, of all instances. At it a further one is refused.
    pub max_open: usize,
    /// The longest silence; then a heartbeat is sent.
    pub heartbeat: Duration,
    /// How long a watch waits for its messages to be taken; then it ends.
    pub patience: Duration,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            max_open: 1_000,
            heartbeat: Duration::from_secs(15),
            patience: Duration::from_secs(10),
        }
    }
}

/// One message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchMessage {
    /// What is told.
    pub change: WatchChange,
    /// Behind which one goes on.
    pub resume_token: String,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchChange {
    /// A user is there, or is different.
    User(Arc<Seen<User>>),
    /// A user is gone.
    UserDeleted(UserId),
    /// A membership is there, or is different.
    Membership(Arc<Seen<MirroredMembership>>),
    /// A membership is gone.
    MembershipDeleted(OrganizationId, UserId),
    /// All that there was has been told.
    SnapshotComplete,
    /// There is nothing to tell.
    Heartbeat,
}

/// A watch cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotOpened {
    /// The token is not one for this watch.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// As many are open as may be.
    #[error("as many watches are open as may be")]
    TooMany,
    /// It would end at once.
    #[error(transparent)]
    Ended(#[from] WatchEnd),
}

/// A watch has ended. All that was told before stands, and its last token is good, unless it says
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WatchEnd {
    /// What follows is no longer kept, or the token is of another database: begin anew.
    #[error("what follows the token is no longer kept")]
    Expired,
    /// Messages were not taken in time.
    #[error("messages were not taken in time")]
    TooSlow,
    /// The service ends.
    #[error("the service ends")]
    Draining,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All watches of this process.
pub struct Watches {
    store: Arc<dyn Store>,
    slices: Slices,
    ear: Arc<Ear>,
    clock: Clock,
    limits: WatchLimits,
    places: Arc<Semaphore>,
    counters: Counters,
    /// Ends them all.
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Watches {
    /// Of `store`, at which `ear` hears, until `draining`; their tasks are among `tasks`.
    pub fn new(
        store: Arc<dyn Store>,
        ear: Arc<Ear>,
        limits: WatchLimits,
        clock: Clock,
        draining: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            slices: Slices::new(Arc::clone(&store)),
            store,
            ear,
            clock,
            limits,
            places: Arc::new(Semaphore::new(limits.max_open)),
            counters: Counters::default(),
            draining,
            tasks,
        }
    }

    /// Begins a watch behind `resume_token`, or anew where that is empty.
    pub async fn open(
        self: &Arc<Self>,
        instance: &InstanceName,
        resume_token: &str,
        scope: WatchScope,
    ) -> Result<Watching, NotOpened> {
        if self.draining.is_cancelled() {
            return Err(WatchEnd::Draining.into());
        }
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_| NotOpened::TooMany)?;
        let store = &*self.store;
        let feed = cursor::feed_id(store, instance, (self.clock)()).await;
        let feed = feed.map_err(WatchEnd::Store)?;
        let cursor = if resume_token.is_empty() {
            let newest = store.newest(instance).await.map_err(WatchEnd::Store)?;
            Cursor::before_all(feed, scope, newest)
        } else {
            match Cursor::parse(resume_token, instance, &feed, scope) {
                Ok(cursor) => cursor,
                Err(Unusable::Invalid(invalid)) => return Err(invalid.into()),
                Err(Unusable::Expired) => return Err(WatchEnd::Expired.into()),
            }
        };
        let heard = self.ear.hear(instance);
        let reading = Reading::new(instance.clone(), cursor);
        reading.check(store).await?;

        let counters = self.counters.of(instance);
        let (sender, messages) = mpsc::channel(BACKLOG);
        let (say_end, ended) = oneshot::channel();
        let (watches, told) = (Arc::clone(self), Arc::clone(&counters));
        self.tasks.spawn(async move {
            let ended = watches.run(reading, heard, &sender, &told).await;
            told.count_end(WatchEndCause::of(ended.as_ref()));
            if let Some(ended) = ended {
                // Nobody is there to hear it.
                let _ = say_end.send(ended);
            }
        });
        Ok(Watching {
            messages,
            ended: Some(ended),
            _place: Place::take(permit, counters),
        })
    }

    /// Counts of each instance's watches.
    pub fn stats(&self) -> Vec<(InstanceName, WatchStats)> {
        self.counters.stats()
    }

    /// Tells until the end; `None` when nobody takes any more.
    async fn run(
        &self,
        reading: Reading,
        heard: watch::Receiver<Position>,
        sender: &mpsc::Sender<WatchMessage>,
        counters: &InstanceCounters,
    ) -> Option<WatchEnd> {
        // What is cut off was not told, and follows the last token.
        tokio::select! {
            () = sender.closed() => None,
            () = self.draining.cancelled() => Some(WatchEnd::Draining),
            ended = self.tell(reading, heard, sender, counters) => ended.err(),
        }
    }

    async fn tell(
        &self,
        mut reading: Reading,
        mut heard: watch::Receiver<Position>,
        sender: &mpsc::Sender<WatchMessage>,
        counters: &InstanceCounters,
    ) -> Result<(), WatchEnd> {
        let patience = self.limits.patience;
        let send = async |message: WatchMessage| {
            let kind = ChangeKind::of(&message.change);
            match timeout(patience, sender.send(message)).await {
                Ok(Ok(())) => counters.count(kind),
                // The other side is gone, which `run` sees too.
                Ok(Err(_)) => {}
                Err(_) => return Err(WatchEnd::TooSlow),
            }
            Ok(Instant::now())
        };
        let mut told_at = Instant::now();
        loop {
            heard.mark_unchanged();
            let page = reading.next_page(&*self.store, &self.slices).await?;
            for message in page.messages {
                told_at = send(message).await?;
            }
            if told_at.elapsed() >= self.limits.heartbeat {
                told_at = send(reading.heartbeat()).await?;
            }
            if page.is_last {
                sleep(GATHER).await;
                // It was read a moment too early, for another watch.
                if reading.position() < *heard.borrow() {
                    continue;
                }
                tokio::select! {
                    Ok(()) = heard.changed() => {}
                    () = sleep_until(told_at + self.limits.heartbeat) => {}
                }
            }
        }
    }
}

/// An open watch. Dropped, it ends.
#[derive(Debug)]
pub struct Watching {
    messages: mpsc::Receiver<WatchMessage>,
    ended: Option<oneshot::Receiver<WatchEnd>>,
    _place: Place,
}

impl Watching {
    /// The next message, or why there is none any more, and behind that `None`. May be dropped
    /// half-way.
    pub async fn next(&mut self) -> Option<Result<WatchMessage, WatchEnd>> {
        if let Some(message) = self.messages.recv().await {
            return Some(Ok(message));
        }
        let ended = self.ended.take()?.await;
        // A task that says nothing was ended with the process.
        Some(Err(ended.unwrap_or(WatchEnd::Draining)))
    }
}

/// Among the watches that may be open.
struct Place {
    _permit: OwnedSemaphorePermit,
    counters: Arc<InstanceCounters>,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, counters: Arc<InstanceCounters>) -> Self {
        counters.opened();
        Self {
            _permit: permit,
            counters,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counters.closed();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}
