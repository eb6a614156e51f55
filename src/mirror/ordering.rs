//! Which of several things that were said about one entity stands, in whatever order they arrive.
//!
//! Nothing is ever weighed by when it arrived. A [`Head`] keeps, of all that was said, the newest of
//! each kind: content, deletion, confirmation. Each of these only moves forward, so the order of
//! arrival does not matter, and neither do repetitions. `docs/mirror.md` has the rules in words.

use std::time::Duration;

use super::Digest;
use crate::identity::Timestamp;

/// An event's time below this is in seconds, above it in milliseconds: Clerk's guide shows
/// milliseconds, the examples of its schema seconds.
const SECONDS_BELOW: i64 = 100_000_000_000;

/// A deletion whose time is in seconds may have been this much later.
const WHOLE_SECOND: Duration = Duration::from_secs(1);

/// How far Clerk's clock, of versions, and ours, of answers, may be apart.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// Who said it.
///
/// Ordered by what wins between two that have one version: an answer of the API over an event, and
/// of two answers the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A webhook's event.
    Event,
    /// An answer of Clerk's API.
    Api {
        /// When the question was sent.
        as_of: Timestamp,
    },
}

/// What comes in about one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// This is what it is.
    Content {
        /// Clerk's `updated_at`, or the event's time where there is none.
        version: Timestamp,
        /// Who says so.
        origin: Origin,
        /// Of everything that counts as a difference.
        digest: Digest,
    },
    /// An event: it was deleted.
    Deleted {
        /// The event's time: a deletion has no other.
        at: Timestamp,
    },
    /// An answer of the API: there is no such thing.
    Absent {
        /// When the question was sent.
        as_of: Timestamp,
    },
}

/// What is known of one entity, as far as ordering goes. [`Default`] is "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The newest version that anybody showed, also when its content is gone since.
    pub version: Option<Timestamp>,
    /// The content of that version; `None` once a deletion has taken it.
    pub content: Option<Content>,
    /// The newest event of deletion.
    pub deleted_at: Option<Timestamp>,
    /// When the API last said that there is no such thing.
    pub absent_at: Option<Timestamp>,
    /// The newest version that the API showed.
    pub confirmed: Option<Timestamp>,
    /// When the API last showed it.
    pub seen_at: Option<Timestamp>,
}

/// The content that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Who said it.
    pub origin: Origin,
    /// What it says.
    pub digest: Digest,
    /// Two that nothing puts in an order differ: Clerk has to be asked.
    pub doubtful: bool,
}

/// What became of something that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is there now, and was not before.
    Created,
    /// It is newer than what was there.
    Updated,
    /// It says what is known.
    Unchanged,
    /// Something newer is known.
    Stale,
    /// It was there and is no more.
    Deleted,
    /// It is not there and was not before; the tombstone stands.
    Tombstoned,
    /// It is newer than the tombstone; it waits until the API confirms that it exists.
    HeldBack,
}

impl Write {
    /// Whether readers see a difference.
    pub const fn is_visible(self) -> bool {
        match self {
            Self::Created | Self::Updated | Self::Deleted => true,
            Self::Unchanged | Self::Stale | Self::Tombstoned | Self::HeldBack => false,
        }
    }
}

impl Head {
    /// Whether it is there, for readers.
    pub fn is_live(&self) -> bool {
        self.content.is_some() && !self.is_dead()
    }

    /// Whether a tombstone stands: a deletion that the API has not contradicted since.
    pub fn is_dead(&self) -> bool {
        self.died_at().is_some()
    }

    /// The time of the tombstone, where one stands.
    pub fn died_at(&self) -> Option<Timestamp> {
        self.deletion().max(self.absence())
    }

    /// Whether it has ended since `before`, also where nobody knew of it, or has ended again: what
    /// tokens say of it counts no more.
    pub fn has_ended_since(&self, before: &Self) -> bool {
        self.is_dead() && (!before.is_dead() || self.deleted_at > before.deleted_at)
    }

    /// The newest deletion, unless the API showed a newer version: both are Clerk's clock.
    fn deletion(&self) -> Option<Timestamp> {
        self.deleted_at.filter(|at| Some(*at) >= self.confirmed)
    }

    /// The API's newest "no", unless it said "yes" later: both are ours.
    fn absence(&self) -> Option<Timestamp> {
        self.absent_at.filter(|at| Some(*at) >= self.seen_at)
    }

    /// Whether only Clerk can tell how it is.
    pub fn wants_look_up(&self) -> bool {
        match self.content {
            Some(content) => content.doubtful || self.is_dead(),
            // It exists, and its newest content went with a deletion that did not last.
            None => self.version.is_some() && !self.is_dead(),
        }
    }

    /// Takes what came in.
    pub fn take(&mut self, incoming: Incoming) -> Write {
        let before = *self;
        match incoming {
            Incoming::Content {
                version,
                origin,
                digest,
            } => self.take_content(version, origin, digest),
            Incoming::Deleted { at } => {
                self.deleted_at = self.deleted_at.max(Some(at));
                self.doubt_a_close_deletion(at);
            }
            Incoming::Absent { as_of } => self.absent_at = self.absent_at.max(Some(as_of)),
        }
        self.bury(match incoming {
            // A version about as old as our "no" may be younger than it: that is asked about. The
            // next answer settles it.
            Incoming::Content {
                origin: Origin::Event,
                ..
            }
            | Incoming::Deleted { .. } => CLOCKS_APART,
            Incoming::Content {
                origin: Origin::Api { .. },
                ..
            }
            | Incoming::Absent { .. } => Duration::ZERO,
        });
        self.verdict(&before, incoming)
    }

    fn take_content(&mut self, version: Timestamp, origin: Origin, digest: Digest) {
        if let Origin::Api { as_of } = origin {
            self.confirmed = self.confirmed.max(Some(version));
            self.seen_at = self.seen_at.max(Some(as_of));
        }
        if Some(version) < self.version {
            return;
        }
        let fresh = Content {
            origin,
            digest,
            doubtful: false,
        };
        let held = self.content.filter(|_| self.version == Some(version));
        self.version = Some(version);
        self.content = Some(match held {
            None => fresh,
            Some(held) if origin > held.origin => fresh,
            Some(held) if origin == held.origin && digest != held.digest => Content {
                doubtful: true,
                ..held
            },
            Some(held) => held,
        });
    }

    /// A deletion in whole seconds may be younger than a version inside that second.
    fn doubt_a_close_deletion(&mut self, at: Timestamp) {
        let may_be_later = at.unix_millis() % 1_000 == 0
            && self
                .confirmed
                .is_some_and(|confirmed| confirmed > at && confirmed.since(at) < WHOLE_SECOND);
        if let Some(content) = self.content.as_mut().filter(|_| may_be_later) {
            content.doubtful = true;
        }
    }

    /// A deletion takes the content that is not newer than it.
    fn bury(&mut self, clocks_apart: Duration) {
        let absent = self.absence().map(|at| at.minus(clocks_apart));
        let died_at = self.deletion().max(absent);
        if died_at.is_some_and(|at| self.version <= Some(at)) {
            self.content = None;
        }
    }

    fn verdict(&self, before: &Self, incoming: Incoming) -> Write {
        match (before.is_live(), self.is_live()) {
            (false, true) => return Write::Created,
            (true, false) => return Write::Deleted,
            (true, true) | (false, false) => {}
        }
        match incoming {
            Incoming::Content {
                version, digest, ..
            } => {
                let is_held = |head: &Self| {
                    head.version == Some(version)
                        && head.content.is_some_and(|content| content.digest == digest)
                };
                match (self.is_live(), is_held(before), is_held(self)) {
                    (true, true, true) => Write::Unchanged,
                    (true, false, true) => Write::Updated,
                    (true, ..) => Write::Stale,
                    (false, _, true) => Write::HeldBack,
                    (false, _, false) if self.is_dead() => Write::Tombstoned,
                    (false, _, false) => Write::Stale,
                }
            }
            Incoming::Deleted { .. } | Incoming::Absent { .. } if !self.is_dead() => Write::Stale,
            Incoming::Deleted { .. } | Incoming::Absent { .. } if self == before => {
                Write::Unchanged
            }
            Incoming::Deleted { .. } | Incoming::Absent { .. } => Write::Tombstoned,
        }
    }
}

/// The time of an event, whichever unit its `timestamp` is in. One in seconds is the start of that
/// second, so that it never beats a version inside it.
pub fn event_time(timestamp: i64) -> Timestamp {
    if timestamp < SECONDS_BELOW {
        Timestamp::from_unix_seconds(timestamp)
    } else {
        Timestamp::from_unix_millis(timestamp)
    }
}

/// The "not before" of a revocation at `at`: rounded up to the next second, since a token's `iat`
/// has no finer unit. A token issued before it is denied.
pub fn not_before(at: Timestamp) -> Timestamp {
    let seconds = at.unix_seconds();
    let up = i64::from(at.unix_millis().rem_euclid(1_000) != 0);
    Timestamp::from_unix_seconds(seconds.saturating_add(up))
}

#[cfg(test)]
mod tests;
