use std::{fmt, sync::Arc, time::Duration};

use super::{Ambiguities, HostPattern, PathPattern};
use crate::{decision::Requirement, identity::TokenTypes};

/// A route: which requests it is about, and what it asks of them.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name; no two have the same.
    pub name: Box<str>,
    /// Where it stands in the file, from 1.
    pub line: u64,
    /// On these hosts; empty is any.
    pub hosts: Vec<HostPattern>,
    /// With these methods; empty is any.
    pub methods: Vec<Box<str>>,
    /// On these paths.
    pub path: PathPattern,
    /// Who gets through.
    pub access: Access,
    /// The types of token that are accepted.
    pub accepts: TokenTypes,
    /// What a machine's token must have, each of them.
    pub scopes: Vec<Box<str>>,
    /// In which organization what is required must hold; `None` is the session's active one.
    pub organization: Option<OrganizationFrom>,
    /// How old facts about the membership may be.
    pub freshness: RouteFreshness,
    /// What is answered when it cannot be told.
    pub on_cannot_tell: OnCannotTell,
    /// What somebody who is not signed in gets who asks for a document.
    pub browser: Browser,
    /// To which upstream its requests go, as far as an assertion is for one.
    pub upstream: Upstream,
    /// Ambiguities of a path that this route puts up with.
    pub permits: Ambiguities,
}

/// Who gets through.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    /// Everybody. A credential that is there must be good all the same, unless it is ignored.
    Public {
        /// Credentials are not looked at, and nobody is named to the upstream.
        ignores_credentials: bool,
    },
    /// Whoever is signed in.
    SignedIn {
        /// Not somebody who acts in a user's place.
        denies_impersonation: bool,
    },
    /// Nobody.
    Denied,
    /// For whom all of this holds.
    Required(Requirement),
}

/// Where the organization is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrganizationFrom {
    /// In this variable of the path, by id or slug.
    Variable(Box<str>),
    /// In this header, by id or slug; lower-case.
    Header(Box<str>),
}

/// How old facts about a membership may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteFreshness {
    /// What is at hand.
    #[default]
    MinimizeLatency,
    /// Nothing older.
    MaxStaleness(Duration),
    /// Clerk is asked.
    FullyConsistent,
}

/// What is answered when it cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCannotTell {
    /// 503.
    #[default]
    Deny,
    /// As somebody who is not signed in; for public routes only.
    Allow,
}

/// What somebody who is not signed in gets who asks for a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Browser {
    /// 401, like everybody else.
    #[default]
    Unauthorized,
    /// A redirect to the sign-in page, with the address to come back to.
    SignIn,
}

/// For which upstream the assertion is that goes with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// For that of the settings, where they name one.
    #[default]
    Default,
    /// For this one.
    Named(Arc<str>),
    /// For none: no assertion is made.
    None,
}

/// Whether it can be the audience of an assertion: what stands unchanged in a configuration file, in
/// JSON and in an address.
pub(super) fn is_upstream_name(name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    (1..=255).contains(&name.len()) && name.bytes().all(is_name)
}

impl Route {
    /// Whether it is about this method.
    pub fn has_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|known| **known == *method)
    }

    /// Whether it is about this host.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|known| known.matches(host))
    }

    /// Whether each request of `other` is one of these.
    pub fn includes(&self, other: &Self) -> bool {
        let has_hosts = self.hosts.is_empty()
            || !other.hosts.is_empty()
                && other
                    .hosts
                    .iter()
                    .all(|host| self.hosts.iter().any(|known| known.includes(host)));
        let has_methods = self.methods.is_empty()
            || !other.methods.is_empty()
                && other.methods.iter().all(|method| self.has_method(method));
        has_hosts && has_methods && self.path.includes(&other.path)
    }

    /// Whether a request is one of both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let share_hosts = self.hosts.is_empty()
            || other.hosts.is_empty()
            || self
                .hosts
                .iter()
                .any(|host| other.hosts.iter().any(|known| known.overlaps(host)));
        let share_methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.has_method(method));
        share_hosts && share_methods && self.path.overlaps(&other.path)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (line {})", self.name, self.line)
    }
}
