//! What is counted, by closed lists.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Inbox;
use crate::{
    closed_list::closed_list, identity::Timestamp, mirror::InboxState, webhook::EventType,
};

closed_list! {
    /// How a delivery ended.
    DeliveryOutcome {
        /// It is new, and safe.
        Accepted = "accepted",
        /// It was taken before.
        Duplicate = "duplicate",
        /// Another content type than JSON.
        UnsupportedMediaType = "unsupported_media_type",
        /// The body is too large.
        TooLarge = "too_large",
        /// The body did not come in time, or not whole.
        TooSlow = "too_slow",
        /// Headers, time or envelope are not as they must be.
        Malformed = "malformed",
        /// No signature is of a secret.
        WrongSignature = "wrong_signature",
        /// It is of another Clerk instance.
        OtherInstance = "other_instance",
        /// Too many were on their way at once.
        Overloaded = "overloaded",
        /// It could not be written.
        StoreUnavailable = "store_unavailable",
    }
}

closed_list! {
    /// What events are about.
    EventClass {
        /// Users.
        User = "user",
        /// Sessions.
        Session = "session",
        /// Organizations.
        Organization = "organization",
        /// Memberships.
        Membership = "membership",
        /// Roles and permissions.
        Role = "role",
        /// Known, and about nothing that is mirrored.
        Other = "other",
        /// Not known to this version.
        Unknown = "unknown",
    }
}

impl EventClass {
    /// Of a type.
    pub fn of(event_type: &EventType) -> Self {
        if matches!(event_type, EventType::Unknown(_)) {
            return Self::Unknown;
        }
        match event_type.name().split('.').next() {
            Some("user") => Self::User,
            Some("session") => Self::Session,
            Some("organization") => Self::Organization,
            Some("organizationMembership") => Self::Membership,
            Some("role" | "permission") => Self::Role,
            Some(_) | None => Self::Other,
        }
    }
}

/// Of one inbox, since this process began.
#[derive(Debug, Default)]
pub(super) struct Counters {
    deliveries: [AtomicU64; DeliveryOutcome::ALL.len()],
    applied: [AtomicU64; EventClass::ALL.len()],
    ignored: [AtomicU64; EventClass::ALL.len()],
    failures: AtomicU64,
    poisoned: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, outcome: DeliveryOutcome) {
        self.deliveries[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn applied(&self, event_type: &EventType) {
        self.applied[EventClass::of(event_type) as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn ignored(&self, event_type: &EventType) {
        self.ignored[EventClass::of(event_type) as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(super) fn poisoned(&self) {
        self.poisoned.fetch_add(1, Relaxed);
    }
}

/// Counts of one inbox: those of this process since it began, and what was last seen in the store.
#[derive(Clone, Debug)]
pub struct InboxStats {
    /// Deliveries, by how they ended.
    pub deliveries: Vec<(DeliveryOutcome, u64)>,
    /// Messages that this process applied.
    pub applied: Vec<(EventClass, u64)>,
    /// Messages that this process took and that have no effect.
    pub ignored: Vec<(EventClass, u64)>,
    /// Tries that failed and are made again.
    pub failures: u64,
    /// Messages that this process put on the poison list.
    pub poisoned: u64,
    /// Messages in the store by state; empty until they were counted.
    pub depth: Vec<(InboxState, u64)>,
    /// When the oldest message came that waits.
    pub oldest_waiting: Option<Timestamp>,
}

impl Inbox {
    pub(super) fn stats(
        &self,
        depth: Vec<(InboxState, u64)>,
        oldest_waiting: Option<Timestamp>,
    ) -> InboxStats {
        let counters = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let classes = |counts: &[AtomicU64]| {
            let all = EventClass::ALL.into_iter();
            all.map(|class| (class, read(&counts[class as usize])))
                .collect()
        };
        let outcomes = DeliveryOutcome::ALL.into_iter();
        InboxStats {
            deliveries: outcomes
                .map(|outcome| (outcome, read(&counters.deliveries[outcome as usize])))
                .collect(),
            applied: classes(&counters.applied),
            ignored: classes(&counters.ignored),
            failures: read(&counters.failures),
            poisoned: read(&counters.poisoned),
            depth,
            oldest_waiting,
        }
    }
}
