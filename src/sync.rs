//! Keeps the mirror true: brings in what Clerk says, now and whenever it tells; and tells others.
//!
//! Called by the doors and by `server`. Knows Clerk and the store through `mirror`'s traits only;
//! which of two things that were said stands is for `mirror` to say.

mod ear;
mod inbox;
mod listings;
mod reconcile;
mod revocations;
mod settle;
mod sync_user;
mod watch;

use std::sync::Arc;

pub use self::ear::Ear;
pub use self::inbox::{DeliveryOutcome, EventClass, Inbox, InboxStats, Inboxes, NotTaken, Taken};
pub use self::listings::{InstanceListing, Listings};
pub use self::reconcile::{
    Drift, DriftCount, KindReport, LastRun, Nightly, NightlyStats, OnProgress, ReconcileAt,
    ReconcileError, ReconcileJob, ReconcileProgress, ReconcileStage, Reconciler, Report,
    RunOutcome,
};
pub use self::revocations::follow_revocations;
pub use self::settle::{LookUpOutcome, Settler};
pub use self::sync_user::{SyncError, SyncOutcome, SyncUser, Synced, UserSync};
pub use self::watch::{
    ChangeKind, InvalidToken, NotOpened, WatchChange, WatchEnd, WatchEndCause, WatchLimits,
    WatchMessage, WatchScope, WatchStats, Watches, Watching,
};
use crate::identity::Timestamp;

/// Reads the time.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A name for this process among those that take leases, made up at each call.
pub fn process_holder() -> String {
    format!("{:016x}", fastrand::u64(..))
}
