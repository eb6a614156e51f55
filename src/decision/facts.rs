use crate::{
    identity::{Actor, FactorAges, ScopedSlugs, Session, Texts},
    mirror::{Membership, Standing},
};

/// What is known, for one decision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What only a token says; `None` where no token was asked about.
    pub token: Option<TokenFacts<'a>>,
    /// The user's place in the organization that is asked about.
    pub membership: MembershipFacts<'a>,
}

/// What only a token says.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// The user's features, and those of the active organization.
    pub features: &'a ScopedSlugs,
    /// The user's plans, and those of the active organization.
    pub plans: &'a ScopedSlugs,
    /// Whether the organization that is asked about is the one that the token speaks of.
    pub speaks_of_organization: bool,
    /// How long ago factors were verified.
    pub factor_ages: Option<FactorAges>,
    /// Who acts in the user's place.
    pub actor: Option<&'a Actor>,
}

impl<'a> TokenFacts<'a> {
    /// Of a session; `speaks_of_organization` is for the caller to say, who knows what is asked.
    pub fn of(session: &'a Session, speaks_of_organization: bool) -> Self {
        Self {
            features: &session.features,
            plans: &session.plans,
            speaks_of_organization,
            factor_ages: session.factor_ages,
            actor: session.actor.as_deref(),
        }
    }
}

/// The user's place in the organization that is asked about.
#[derive(Clone, Copy, Debug)]
pub enum MembershipFacts<'a> {
    /// The decision is about no organization: none was named, and none is active.
    NoOrganization,
    /// The user is not in it.
    NotAMember,
    /// The user is in it.
    Member {
        /// The role, with `org:`; a token may have none.
        role: Option<&'a str>,
        /// What the role permits, with `org:`.
        permissions: &'a Texts,
        /// Further permissions of the role that were looked up apart.
        of_role: Option<&'a Texts>,
        /// Whether the user may act.
        standing: Standing,
    },
}

impl<'a> MembershipFacts<'a> {
    /// What a session says of its active organization.
    pub fn of_session(session: &'a Session) -> Self {
        match session.organization.as_deref() {
            None => Self::NoOrganization,
            Some(organization) => Self::Member {
                role: organization.role.as_deref(),
                permissions: &organization.permissions,
                of_role: None,
                // Of a user who is banned Clerk ends the sessions: a token says nothing of it.
                standing: Standing::Good,
            },
        }
    }

    /// What a membership says; `of_role` are permissions that were looked up apart.
    pub fn of_membership(membership: &'a Membership, of_role: Option<&'a Texts>) -> Self {
        Self::Member {
            role: Some(&membership.role),
            permissions: &membership.permissions,
            of_role,
            standing: membership.standing,
        }
    }
}
