//! What can be known of Clerk's world beside what tokens say: users, memberships, organizations,
//! roles, and what was deleted, ended or revoked.
//!
//! Called by `authz`, which decides how fresh a fact must be, and by `sync`, which keeps the copy.
//! [`Directory`] is what Clerk's API is asked through, [`EventReader`] reads what it tells; [`Store`] is our
//! own copy. [`Head`] holds the
//! rules by which one thing that was said beats another. Pure: no I/O, no clock, no JSON.

mod change;
mod directory;
mod effect;
mod entities;
mod event;
mod inbox;
mod listing;
mod membership;
pub mod ordering;
mod sightings;
mod sign_in;
mod store;

pub use self::change::{Change, ChangeEvent, FeedPage, Position, Revocation, RevocationCause};
pub use self::directory::{
    Answered, Ask, Asking, Credentials, Directory, DirectoryError, DirectoryStats,
    HandshakeCookies, Join, MachineAnswer, MachineRecord, MembershipAnswer, RequestOutcome,
    SessionAnswer, UserDirectory, WholeMembership,
};
pub use self::effect::{Applied, Effect, Fact, FactOutcome, MAX_FACTS};
pub use self::entities::{
    Digest, EmailAddress, Entity, EntityKind, MirroredMembership, MirroredOrganization, SessionEnd,
    User,
};
pub use self::event::{Concern, EventReader, UnreadableEvent};
pub use self::inbox::{
    ClaimId, Claimed, Failed, InboxEntry, InboxFilter, InboxState, Next, Received,
};
pub use self::listing::{ListPage, Listing, PageStart, WholeEntity};
pub use self::membership::{Membership, OrganizationRecord, Standing};
pub use self::ordering::{Content, Head, Incoming, Origin, Write};
pub use self::sightings::{Looked, Sighting, Sightings};
pub use self::sign_in::{Doing, Person, PersonKey, SignInTicket, SignIns};
pub use self::store::{
    Checkpoint, Coordination, FEED_ID_CHECKPOINT, Feed, Heard, Inbox, KnownMembership, Lease,
    Listener, MembershipKey, Mirror, Retention, Seen, Store, StoreError, StoreStats, Storing,
    Upkeep, UserKey, Versioned,
};
