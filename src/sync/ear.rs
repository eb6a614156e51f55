//! One ear for the whole process: how far each instance's feed has come.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Clock;
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{Heard, Position, Store, StoreError},
};

/// How often the positions are read, whatever is heard: a connection can die without a word, and on
/// SQLite nobody says what another process has written. One small question for all instances.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);
/// An answer that takes longer is none.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// The pause after the listener said that it lost something.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// Hears how far each instance's feed has come: at once where the store says so, else within
/// half a second by looking.
pub struct Ear {
    store: Arc<dyn Store>,
    clock: Clock,
    reached: Mutex<HashMap<InstanceName, watch::Sender<Position>>>,
    /// Something may have been missed.
    missed: Notify,
    listens: AtomicBool,
    /// When the last look began that was answered, in Unix milliseconds.
    looked_at: AtomicI64,
    deaf: AtomicBool,
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").finish_non_exhaustive()
    }
}

impl Ear {
    /// At `store`; it hears while [`Self::listen`] runs.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        let now = clock().unix_millis();
        Self {
            store,
            clock,
            reached: Mutex::default(),
            missed: Notify::new(),
            listens: AtomicBool::new(false),
            looked_at: AtomicI64::new(now),
            deaf: AtomicBool::new(false),
        }
    }

    /// How far an instance's feed has come, and each change of that. A hint when to read: whoever
    /// reads the feed goes by what it says.
    pub fn hear(&self, instance: &InstanceName) -> watch::Receiver<Position> {
        let mut reached = self.reached();
        match reached.get(instance) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(Position::START);
                reached.insert(instance.clone(), sender);
                // What it is now.
                self.missed.notify_one();
                receiver
            }
        }
    }

    /// Whether changes are heard as they come; else they are found by looking.
    pub fn listens(&self) -> bool {
        self.listens.load(Relaxed)
    }

    /// Up to when the positions are known for certain.
    pub fn heard_until(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.looked_at.load(Relaxed))
    }

    /// Listens and looks until the stop.
    pub async fn listen(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = self.follow_the_listener() => {}
            () = self.look_now_and_then() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow_the_listener(&self) {
        loop {
            match self.store.listen().await {
                Ok(mut listener) => {
                    self.listens.store(true, Relaxed);
                    loop {
                        match listener.next().await {
                            Heard::Reached(instance, position) => {
                                self.listens.store(true, Relaxed);
                                self.tell(&instance, position);
                            }
                            // The listener mends itself.
                            Heard::Lost { cause } => self.lost(&cause).await,
                        }
                    }
                }
                Err(error) => self.lost(&error.to_string()).await,
            }
        }
    }

    async fn lost(&self, cause: &str) {
        if self.listens.swap(false, Relaxed) {
            info!(cause, "changes may have been missed; the feed is looked at");
        }
        self.missed.notify_one();
        sleep(LOST_PAUSE).await;
    }

    async fn look_now_and_then(&self) {
        loop {
            let looked_at = (self.clock)();
            let found = timeout(LOOK_WITHIN, self.store.positions()).await;
            match found.unwrap_or_else(|_| Err(slow())) {
                Ok(positions) => {
                    for (instance, position) in positions {
                        self.tell(&instance, position);
                    }
                    self.looked_at.store(looked_at.unix_millis(), Relaxed);
                    if self.deaf.swap(false, Relaxed) {
                        info!("the feed of changes can be read again");
                    }
                }
                Err(error) if !self.deaf.swap(true, Relaxed) => warn!(
                    %error,
                    "the feed of changes cannot be read: what other replicas take in is not heard of"
                ),
                Err(_) => {}
            }
            tokio::select! {
                () = sleep(LOOK_INTERVAL) => {}
                () = self.missed.notified() => {}
            }
        }
    }

    fn tell(&self, instance: &InstanceName, position: Position) {
        if let Some(sender) = self.reached().get(instance) {
            sender.send_if_modified(|known| {
                let moves = *known != position;
                *known = position;
                moves
            });
        }
    }

    fn reached(&self) -> MutexGuard<'_, HashMap<InstanceName, watch::Sender<Position>>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slow() -> StoreError {
    StoreError::Unavailable {
        cause: format!("no answer within {LOOK_WITHIN:?}"),
    }
}
