use super::ordering::not_before;
use super::{
    ClaimId, Digest, Entity, Incoming, MirroredMembership, MirroredOrganization, Origin, Position,
    Revocation, RevocationCause, SessionEnd, User, Write,
};
use crate::identity::{Timestamp, UserId};

/// Something that is said about Clerk's world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What a user is.
    User(Box<User>, Origin),
    /// What an organization is.
    Organization(Box<MirroredOrganization>, Origin),
    /// What a membership is; its user and its organization need not be known.
    Membership(Box<MirroredMembership>, Origin),
    /// An event: it was deleted. With a user or an organization go the memberships.
    Deleted {
        /// What.
        entity: Entity,
        /// The event's time.
        at: Timestamp,
    },
    /// An answer of the API: there is no such thing. With a user or an organization go the
    /// memberships.
    Absent {
        /// What.
        entity: Entity,
        /// When the question was sent.
        as_of: Timestamp,
    },
    /// A session will never be valid again.
    SessionEnded(SessionEnd),
    /// Tokens of the user that were issued before the time are denied.
    UserRevoked {
        /// Whose.
        user: UserId,
        /// A whole second; see [`not_before`](super::ordering::not_before).
        not_before: Timestamp,
        /// Why.
        cause: RevocationCause,
    },
    /// What a role permits is different.
    RoleChanged {
        /// Its key; `None` where it is not known which.
        role: Option<Box<str>>,
        /// The event's time.
        at: Timestamp,
    },
}

impl Fact {
    /// The entity that it is about, and what it says of it; `None` for what is not mirrored.
    pub fn incoming(&self) -> Option<(Entity, Incoming)> {
        let content = |entity, version, origin: &Origin, digest: Digest| {
            let incoming = Incoming::Content {
                version,
                origin: *origin,
                digest,
            };
            Some((entity, incoming))
        };
        match self {
            Self::User(user, origin) => {
                let entity = Entity::User(user.id.clone());
                content(entity, user.updated_at, origin, user.digest())
            }
            Self::Organization(organization, origin) => {
                let entity = Entity::Organization(organization.id.clone());
                content(
                    entity,
                    organization.updated_at,
                    origin,
                    organization.digest(),
                )
            }
            Self::Membership(mirrored, origin) => {
                let membership = &mirrored.membership;
                let entity = Entity::Membership(
                    membership.organization.id.clone(),
                    membership.user_id.clone(),
                );
                content(entity, membership.updated_at, origin, mirrored.digest())
            }
            Self::Deleted { entity, at } => Some((entity.clone(), Incoming::Deleted { at: *at })),
            Self::Absent { entity, as_of } => {
                Some((entity.clone(), Incoming::Absent { as_of: *as_of }))
            }
            Self::SessionEnded(_) | Self::UserRevoked { .. } | Self::RoleChanged { .. } => None,
        }
    }

    /// The user whom an answer of the API puts out, once readers see a difference by `write`: what
    /// an event would have said, had it come. Events carry a fact of their own.
    pub fn puts_out(&self, write: Write) -> Option<Revocation> {
        if !write.is_visible() {
            return None;
        }
        let (user, as_of, cause) = match self {
            Self::User(user, Origin::Api { as_of }) => {
                (&user.id, as_of, RevocationCause::of(user.standing())?)
            }
            Self::Absent {
                entity: Entity::User(user),
                as_of,
            } => (user, as_of, RevocationCause::Deleted),
            _ => return None,
        };
        Some(Revocation::User {
            user: user.clone(),
            not_before: not_before(*as_of),
            cause,
        })
    }
}

/// The most facts of one effect, a user in 1,999 organizations with all of them: others wait for it.
/// More are refused; they may be written in parts, since facts come in any order.
pub const MAX_FACTS: usize = 4_000;

/// What is written in one transaction: all of it, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// In order, at most [`MAX_FACTS`]; none is fine.
    pub facts: Vec<Fact>,
    /// The message of the inbox that is done with it. When the claim was lost meanwhile, nothing is
    /// written.
    pub done: Option<ClaimId>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For each fact, in order.
    pub outcomes: Vec<FactOutcome>,
    /// The last entry of the feed that it made; `None` when readers see no difference.
    pub position: Option<Position>,
}

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactOutcome {
    /// What was written.
    pub write: Write,
    /// Only Clerk can tell how it is; see [`Mirror::to_look_up`](super::Mirror::to_look_up).
    pub look_up: bool,
}
