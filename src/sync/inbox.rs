//! Messages on their way from the sender into the mirror: taken in, applied, and forgotten in time.
//!
//! A message is on the disk before its sender hears so ([`Inboxes::receive`]). Workers apply what
//! waits, each message in one transaction with its "done" ([`Inboxes::work`]). What fails is tried
//! again, later and later; what cannot be read, and what failed too often, goes to the poison list
//! for people to look at.

mod apply;
mod intake;
mod stats;
mod upkeep;
mod work;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use self::{intake::Senders, stats::Counters};
pub use self::{
    intake::{NotTaken, Taken},
    stats::{DeliveryOutcome, EventClass, InboxStats},
};
use super::{Clock, Ear};
use crate::{
    identity::{InstanceName, Timestamp},
    mirror::{EventReader, Store},
    webhook::SigningSecret,
};

/// One instance's inbox: where its messages arrive.
pub struct Inbox {
    instance: InstanceName,
    /// Any of them; without one nobody can send.
    secrets: Vec<SigningSecret>,
    senders: Senders,
    counters: Counters,
    /// There may be something to do.
    wake: Notify,
}

impl Inbox {
    /// Of `instance`, for whoever has one of `secrets`.
    pub fn new(instance: InstanceName, secrets: Vec<SigningSecret>) -> Self {
        Self {
            instance,
            senders: Senders::new(secrets.len()),
            secrets,
            counters: Counters::default(),
            wake: Notify::new(),
        }
    }

    /// Whose.
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// With which its messages are signed.
    pub fn secrets(&self) -> &[SigningSecret] {
        &self.secrets
    }

    /// Counts how a delivery ended.
    pub fn count(&self, outcome: DeliveryOutcome) {
        self.counters.count(outcome);
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("instance", &self.instance)
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

/// The inboxes of all instances, in one store.
pub struct Inboxes {
    store: Arc<dyn Store>,
    ear: Arc<Ear>,
    reader: Arc<dyn EventReader>,
    clock: Clock,
    /// How long the ids of messages are kept.
    retention: Duration,
    all: ArcSwap<HashMap<InstanceName, Arc<Inbox>>>,
    health: upkeep::Health,
    unknown: intake::UnknownTypes,
}

impl fmt::Debug for Inboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inboxes")
            .field("all", &self.all.load())
            .finish_non_exhaustive()
    }
}

impl Inboxes {
    /// In `store`, at which `ear` hears, with what `reader` reads; message ids are kept for
    /// `retention`.
    pub fn new(
        store: Arc<dyn Store>,
        ear: Arc<Ear>,
        reader: Arc<dyn EventReader>,
        retention: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            ear,
            reader,
            clock,
            retention,
            all: ArcSwap::default(),
            health: upkeep::Health::default(),
            unknown: intake::UnknownTypes::default(),
        }
    }

    /// These, in place of what was there.
    pub fn set(&self, inboxes: impl IntoIterator<Item = Arc<Inbox>>) {
        let all = inboxes
            .into_iter()
            .map(|inbox| (inbox.instance.clone(), inbox));
        self.all.store(Arc::new(all.collect()));
    }

    /// The one at which an instance's messages arrive; `None` where nobody can send any.
    pub fn of(&self, instance: &str) -> Option<Arc<Inbox>> {
        let all = self.all.load();
        let inbox = all.get(instance)?;
        (!inbox.secrets.is_empty()).then(|| Arc::clone(inbox))
    }

    /// By the clock of the service.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Whether the store answered when it was last asked.
    pub fn store_answers(&self) -> bool {
        self.health.answers()
    }
}
