use std::fmt;

use crate::identity::{MessageId, Timestamp};

/// A message as it was received, its signature checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    /// The sender's id.
    pub id: MessageId,
    /// The type, such as `user.updated`.
    pub event_type: Box<str>,
    /// What it is about. Messages with the same are applied one after the other; without one, in any
    /// order.
    pub entity: Option<Box<str>>,
    /// The event's time.
    pub at: Timestamp,
    /// The body as it came; `None` for what must not be kept. Such a message is done at once.
    pub body: Option<Vec<u8>>,
}

/// Bodies hold names and addresses.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.id)
            .field("event_type", &self.event_type)
            .field("body_bytes", &self.body.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// A worker's hold on one message. It ends with its lease: whoever claims the message then holds
/// another one, and this one can do nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId {
    /// The message's place in the inbox.
    pub sequence: i64,
    /// Which claim of it this is.
    pub fence: i64,
}

/// A message to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// With which it is applied, or given back.
    pub claim: ClaimId,
    /// How often it has been tried, this time included; from 1 again after it was put back by hand.
    pub attempt: u32,
    /// What was received.
    pub message: Received,
    /// When.
    pub received_at: Timestamp,
}

/// What comes after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another try, not before this time.
    TryAt(Timestamp),
    /// No more: it goes to the poison list, and those behind it go on.
    Poison,
}

/// How the attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why, for people; never a part of the body.
    pub cause: Box<str>,
    /// What comes next.
    pub next: Next,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InboxState {
    /// To be applied, perhaps not yet.
    Waiting,
    /// A worker has it.
    Claimed,
    /// Applied, ignored or dropped; its id is kept, its body is not.
    Done,
    /// It failed too often.
    Poison,
}

impl InboxState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Claimed, Self::Done, Self::Poison];

    /// Its name in lists and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Claimed => "claimed",
            Self::Done => "done",
            Self::Poison => "poison",
        }
    }
}

/// A message in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// Its place in the inbox.
    pub sequence: i64,
    /// The sender's id.
    pub id: MessageId,
    /// The type.
    pub event_type: Box<str>,
    /// What it is about.
    pub entity: Option<Box<str>>,
    /// Where it stands.
    pub state: InboxState,
    /// How often it has been tried.
    pub attempts: u32,
    /// When it came.
    pub received_at: Timestamp,
    /// When it is tried next, where it waits.
    pub next_attempt_at: Timestamp,
    /// Why the last attempt failed.
    pub failure: Option<Box<str>>,
}

/// Which messages a list shows, in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxFilter {
    /// In this state.
    pub state: InboxState,
    /// Behind this place; 0 from the start.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}
