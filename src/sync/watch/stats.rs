//! What is counted, by instance and by closed lists.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{WatchChange, WatchEnd};
use crate::{closed_list::closed_list, identity::InstanceName};

closed_list! {
    /// What messages tell.
    ChangeKind {
        /// A user.
        User = "user",
        /// That a user is gone.
        UserDeleted = "user_deleted",
        /// A membership.
        Membership = "membership",
        /// That a membership is gone.
        MembershipDeleted = "membership_deleted",
        /// That a snapshot is whole.
        SnapshotComplete = "snapshot_complete",
        /// Nothing.
        Heartbeat = "heartbeat",
    }
}

impl ChangeKind {
    pub(super) const fn of(change: &WatchChange) -> Self {
        match change {
            WatchChange::User(_) => Self::User,
            WatchChange::UserDeleted(_) => Self::UserDeleted,
            WatchChange::Membership(_) => Self::Membership,
            WatchChange::MembershipDeleted(..) => Self::MembershipDeleted,
            WatchChange::SnapshotComplete => Self::SnapshotComplete,
            WatchChange::Heartbeat => Self::Heartbeat,
        }
    }
}

closed_list! {
    /// Why watches ended.
    WatchEndCause {
        /// The other side left.
        Left = "left",
        /// What followed was no longer kept.
        Expired = "expired",
        /// Messages were not taken in time.
        TooSlow = "too_slow",
        /// The service ends.
        Draining = "draining",
        /// The store did not answer.
        StoreUnavailable = "store_unavailable",
    }
}

impl WatchEndCause {
    pub(super) const fn of(ended: Option<&WatchEnd>) -> Self {
        match ended {
            None => Self::Left,
            Some(WatchEnd::Expired) => Self::Expired,
            Some(WatchEnd::TooSlow) => Self::TooSlow,
            Some(WatchEnd::Draining) => Self::Draining,
            Some(WatchEnd::Store(_)) => Self::StoreUnavailable,
        }
    }
}

/// Of one instance, since this process began.
#[derive(Debug, Default)]
pub(super) struct InstanceCounters {
    open: AtomicU64,
    messages: [AtomicU64; ChangeKind::ALL.len()],
    ended: [AtomicU64; WatchEndCause::ALL.len()],
}

impl InstanceCounters {
    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn count(&self, kind: ChangeKind) {
        self.messages[kind as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn count_end(&self, cause: WatchEndCause) {
        self.ended[cause as usize].fetch_add(1, Relaxed);
    }
}

/// Of every instance that was ever watched: as many as were ever configured.
#[derive(Default)]
pub(super) struct Counters(Mutex<BTreeMap<InstanceName, Arc<InstanceCounters>>>);

impl Counters {
    pub(super) fn of(&self, instance: &InstanceName) -> Arc<InstanceCounters> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(instance.clone()).or_default())
    }

    pub(super) fn stats(&self) -> Vec<(InstanceName, WatchStats)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|(instance, counters)| (instance.clone(), WatchStats::of(counters)))
            .collect()
    }
}

/// Counts of one instance's watches since this process began.
#[derive(Clone, Debug)]
pub struct WatchStats {
    /// Watches that are open now.
    pub open: u64,
    /// Messages, by what they tell.
    pub messages: Vec<(ChangeKind, u64)>,
    /// Watches that ended, by why.
    pub ended: Vec<(WatchEndCause, u64)>,
}

impl WatchStats {
    fn of(counters: &InstanceCounters) -> Self {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let messages = ChangeKind::ALL.into_iter();
        let ended = WatchEndCause::ALL.into_iter();
        Self {
            open: load(&counters.open),
            messages: messages
                .map(|kind| (kind, load(&counters.messages[kind as usize])))
                .collect(),
            ended: ended
                .map(|cause| (cause, load(&counters.ended[cause as usize])))
                .collect(),
        }
    }
}
