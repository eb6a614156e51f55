use std::{fmt, time::Duration};

use super::{
    Asking, Entity, EntityKind, Fact, MirroredMembership, MirroredOrganization, Origin, User,
};
use crate::identity::{Timestamp, UserId};

/// Everything at Clerk, whole: page by page, and one by one. For work that nobody waits for.
pub trait Listing: fmt::Debug + Send + Sync + 'static {
    /// A page of a kind, those that were made first before the others. `None` when the user behind
    /// whom it begins is no more.
    fn page<'a>(
        &'a self,
        kind: EntityKind,
        from: PageStart<'a>,
        patience: Duration,
    ) -> Asking<'a, Option<ListPage>>;

    /// How many users there are.
    fn count_users(&self, patience: Duration) -> Asking<'_, u64>;

    /// One entity; `None` when there is no such thing, or no more. A question for exactly one.
    fn entity<'a>(
        &'a self,
        entity: &'a Entity,
        patience: Duration,
    ) -> Asking<'a, Option<WholeEntity>>;
}

/// Where a page begins. Users have a place to go on from, which does not move; organizations and
/// memberships only have a number, before which something may be deleted meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart<'a> {
    /// Behind this user; from the first without one.
    Behind(Option<&'a UserId>),
    /// So many from the first.
    Offset(u64),
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// In Clerk's order.
    pub entities: Vec<WholeEntity>,
    /// How many there are in all, where the list says so.
    pub total: Option<u64>,
    /// Whether nothing is behind it.
    pub is_last: bool,
}

/// An entity with everything that is mirrored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WholeEntity {
    /// A user.
    User(Box<User>),
    /// An organization.
    Organization(Box<MirroredOrganization>),
    /// A membership.
    Membership(Box<MirroredMembership>),
}

impl WholeEntity {
    /// The most of one page.
    pub const PAGE: usize = 500;

    /// Which.
    pub fn entity(&self) -> Entity {
        match self {
            Self::User(user) => Entity::User(user.id.clone()),
            Self::Organization(organization) => Entity::Organization(organization.id.clone()),
            Self::Membership(mirrored) => Entity::Membership(
                mirrored.membership.organization.id.clone(),
                mirrored.membership.user_id.clone(),
            ),
        }
    }

    /// As an answer of the API to a question that was sent then.
    pub fn into_fact(self, as_of: Timestamp) -> Fact {
        let origin = Origin::Api { as_of };
        match self {
            Self::User(user) => Fact::User(user, origin),
            Self::Organization(organization) => Fact::Organization(organization, origin),
            Self::Membership(membership) => Fact::Membership(membership, origin),
        }
    }
}
