use std::{fmt, str::FromStr};

use thiserror::Error;

use super::Reverification;
use crate::identity::{Scope, ScopedSlugs};

/// The longest name of a permission, role, feature or plan in bytes: as long as a token can hold.
const MAX_NAME_BYTES: usize = 16 * 1024;

/// What must hold, all of it. What is absent is not asked; where nothing is asked nothing is allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirement {
    /// The role must permit this.
    pub permission: Option<Permission>,
    /// The role must be this one.
    pub role: Option<Role>,
    /// The user or the organization must have this feature.
    pub feature: Option<Entitlement>,
    /// The user or the organization must have this plan.
    pub plan: Option<Entitlement>,
    /// A factor must have been verified recently enough.
    pub reverification: Option<Reverification>,
    /// Whether somebody may act in the user's place. A restriction: it asks nothing by itself.
    pub impersonation: Impersonation,
}

/// Whether somebody may act in the user's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Impersonation {
    /// An impersonator has what the user has.
    #[default]
    Allowed,
    /// An impersonator is denied.
    Denied,
}

impl Requirement {
    /// Whether nothing is asked that could be allowed.
    pub fn asks_nothing(&self) -> bool {
        !self.asks_of_membership()
            && self.feature.is_none()
            && self.plan.is_none()
            && self.reverification.is_none()
    }

    /// Whether it takes the user's membership in an organization to answer.
    pub fn asks_of_membership(&self) -> bool {
        self.permission.is_some() || self.role.is_some()
    }

    /// What only a token says, by the field's name; `None` where it can be answered without one.
    pub fn token_only(&self) -> Option<&'static str> {
        self.entitlement().or(if self.reverification.is_some() {
            Some("reverification")
        } else if self.impersonation == Impersonation::Denied {
            Some("allow_impersonation")
        } else {
            None
        })
    }

    /// The feature or plan that is asked, by the field's name: facts that are as old as the token.
    pub fn entitlement(&self) -> Option<&'static str> {
        if self.feature.is_some() {
            Some("feature")
        } else if self.plan.is_some() {
            Some("plan")
        } else {
            None
        }
    }
}

/// A name that asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// It is empty.
    #[error("is empty; leave it out to ask nothing")]
    Empty,
    /// It is too long.
    #[error("is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// Its scope is neither an organization's nor a user's.
    #[error("has a scope that is not known; expected a slug, \"org:SLUG\" or \"user:SLUG\"")]
    Scope,
}

fn checked(text: &str) -> Result<&str, InvalidName> {
    match text.len() {
        0 => Err(InvalidName::Empty),
        1..=MAX_NAME_BYTES => Ok(text),
        _ => Err(InvalidName::TooLong),
    }
}

/// Clerk takes `admin`, `org:admin` and `org:org:admin` for the same question
/// (`@clerk/shared`, `authorization.ts`, `prefixWithOrg`).
fn without_prefixes(text: &str) -> &str {
    text.trim_start_matches("org:")
}

/// A permission, such as `org:invoices:create`; the prefix may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    bare: Box<str>,
}

impl Permission {
    /// Whether it is one of Clerk's own (`org:sys_…`), which no token carries.
    pub fn is_system(&self) -> bool {
        self.bare.starts_with("sys_")
    }

    /// Whether `held` is this permission. Held permissions have exactly one prefix; the SDK does not
    /// normalise them, and so neither do we.
    pub fn is(&self, held: &str) -> bool {
        held.strip_prefix("org:") == Some(&*self.bare)
    }
}

/// Whether a held permission is one of Clerk's own.
pub fn is_system_permission(held: &str) -> bool {
    held.starts_with("org:sys_")
}

/// A role, such as `org:admin`; the prefix may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    bare: Box<str>,
}

impl Role {
    /// Whether `held` is this role.
    pub fn is(&self, held: &str) -> bool {
        without_prefixes(held) == &*self.bare
    }
}

macro_rules! prefixed_name {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let bare = without_prefixes(checked(text)?).into();
                Ok(Self { bare })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "org:{}", self.bare)
            }
        }
    };
}

prefixed_name!(Permission);
prefixed_name!(Role);

/// A feature or a plan: `SLUG` of either scope, `org:SLUG` or `user:SLUG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// `None` is either.
    scope: Option<Scope>,
    slug: Box<str>,
}

impl Entitlement {
    /// Whether the organization's list may answer.
    pub fn asks_organization(&self) -> bool {
        self.scope != Some(Scope::User)
    }

    /// Whether it stands in `held` under a scope of which `believed` is true.
    pub fn is_in(&self, held: &ScopedSlugs, believed: impl Fn(Scope) -> bool) -> bool {
        held.iter().any(|each| {
            *each.slug == *self.slug
                && self.scope.is_none_or(|scope| scope == each.scope)
                && believed(each.scope)
        })
    }
}

impl FromStr for Entitlement {
    type Err = InvalidName;

    /// As the SDK reads it (`checkForFeatureOrPlan`): the scopes have several spellings, what follows
    /// a second colon does not count, and `org:` alone asks for the slug `org`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut pieces = checked(text)?.split(':');
        let first = pieces.next().unwrap_or_default();
        let Some(second) = pieces.next() else {
            return Ok(Self {
                scope: None,
                slug: first.into(),
            });
        };
        let scope = match first {
            "o" | "org" | "organization" => Scope::Organization,
            "u" | "user" => Scope::User,
            _ => return Err(InvalidName::Scope),
        };
        let slug = if second.is_empty() { first } else { second };
        Ok(Self {
            scope: Some(scope),
            slug: slug.into(),
        })
    }
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            None => f.write_str(&self.slug),
            Some(Scope::Organization) => write!(f, "org:{}", self.slug),
            Some(Scope::User) => write!(f, "user:{}", self.slug),
        }
    }
}
