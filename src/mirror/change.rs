use super::{EntityKind, Standing};
use crate::identity::{OrganizationId, SessionId, Timestamp, UserId};

/// A place in an instance's feed of changes. They grow by one with each change, in the order in
/// which changes become visible: whoever has read up to one misses nothing by going on behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(i64);

impl Position {
    /// Before the first change.
    pub const START: Self = Self(0);

    /// From its number; below zero is [`Self::START`].
    pub const fn new(number: i64) -> Self {
        Self(if number < 0 { 0 } else { number })
    }

    /// Its number.
    pub const fn number(self) -> i64 {
        self.0
    }
}

/// An entry of the feed. What an entity is now has to be read; the feed holds no content, so that
/// nothing of a deleted user stays in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub position: Position,
    /// What happened.
    pub event: ChangeEvent,
    /// When, by Clerk's clock.
    pub at: Timestamp,
    /// When we wrote it down.
    pub recorded_at: Timestamp,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeEvent {
    /// A user is there, or is different.
    UserChanged(UserId),
    /// A user is gone, or is known not to be.
    UserDeleted(UserId),
    /// Tokens of the user that were issued before the time are denied.
    UserRevoked(UserId, Timestamp, RevocationCause),
    /// An organization is there, or is different.
    OrganizationChanged(OrganizationId),
    /// An organization is gone, or is known not to be; its memberships have entries of their own.
    OrganizationDeleted(OrganizationId),
    /// A membership is there, or is different.
    MembershipChanged(OrganizationId, UserId),
    /// A membership is gone, or is known not to be.
    MembershipDeleted(OrganizationId, UserId),
    /// A session will never be valid again.
    SessionEnded(SessionId),
    /// What a role permits is different, of any role where it is not known which. No change of its
    /// members follows.
    RoleChanged(Option<Box<str>>),
}

impl ChangeEvent {
    /// The kind of entity whose content it is about, for those who keep copies.
    pub const fn entity_kind(&self) -> Option<EntityKind> {
        match self {
            Self::UserChanged(_) | Self::UserDeleted(_) => Some(EntityKind::User),
            Self::OrganizationChanged(_) | Self::OrganizationDeleted(_) => {
                Some(EntityKind::Organization)
            }
            Self::MembershipChanged(..) | Self::MembershipDeleted(..) => {
                Some(EntityKind::Membership)
            }
            Self::UserRevoked(..) | Self::SessionEnded(_) | Self::RoleChanged(_) => None,
        }
    }
}

/// A part of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedPage {
    /// What follows the position that was asked for, in order; empty at the end.
    Changes(Vec<Change>),
    /// The changes behind that position are no longer kept: start with a snapshot.
    Gone {
        /// The oldest position from which one can go on.
        oldest: Position,
    },
}

/// Why a user's tokens are denied. Of several at one time the greatest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationCause {
    /// The user was banned.
    Banned,
    /// The identity provider took the user out of service.
    Deprovisioned,
    /// The user was deleted.
    Deleted,
}

impl RevocationCause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Banned, Self::Deprovisioned, Self::Deleted];

    /// `banned`, `deprovisioned` or `deleted`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Deprovisioned => "deprovisioned",
            Self::Deleted => "deleted",
        }
    }

    /// Why a user of this standing may not act; `None` where the user may.
    pub const fn of(standing: Standing) -> Option<Self> {
        match standing {
            Standing::Good => None,
            Standing::Banned => Some(Self::Banned),
            Standing::Deprovisioned => Some(Self::Deprovisioned),
        }
    }
}

/// What denies tokens that verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Every token that names the session.
    Session {
        /// The session.
        session: SessionId,
        /// When it ended, by the event.
        at: Timestamp,
    },
    /// Tokens of the user that were issued before the time.
    User {
        /// Whose.
        user: UserId,
        /// A whole second.
        not_before: Timestamp,
        /// Why.
        cause: RevocationCause,
    },
}
