//! Keeps the mirror true: brings in what Clerk says, now and whenever it tells; and tells others.
//!
//! Called by the doors and by `server`. Knows Clerk and the store through `mirror`'s traits only;
//! which of two things that were said stands is for `mirror` to say.

mod closed_list;
mod ear;
mod inbox;
mod revocations;
mod sync_user;
mod watch;

pub use self::ear::Ear;
pub use self::inbox::{DeliveryOutcome, EventClass, Inbox, InboxStats, Inboxes, NotTaken, Taken};
pub use self::revocations::follow_revocations;
pub use self::sync_user::{SyncError, SyncOutcome, SyncUser, Synced, UserSync};
pub use self::watch::{
    ChangeKind, InvalidToken, NotOpened, WatchChange, WatchEnd, WatchEndCause, WatchLimits,
    WatchMessage, WatchScope, WatchStats, Watches, Watching,
};

use std::sync::Arc;

use crate::identity::Timestamp;

/// Reads the time.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
