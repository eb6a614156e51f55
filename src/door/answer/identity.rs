//! The headers that tell an upstream who sends a request, and those that only pretend to.

use std::borrow::Cow;

use http::HeaderName;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{
    authz::Identity,
    identity::{MachineSubject, Texts},
};

const USER_ID: HeaderName = HeaderName::from_static("x-clerk-user-id");
const SESSION_ID: HeaderName = HeaderName::from_static("x-clerk-session-id");
const ORG_ID: HeaderName = HeaderName::from_static("x-clerk-org-id");
const ORG_SLUG: HeaderName = HeaderName::from_static("x-clerk-org-slug");
const ORG_ROLE: HeaderName = HeaderName::from_static("x-clerk-org-role");
const ORG_PERMISSIONS: HeaderName = HeaderName::from_static("x-clerk-org-permissions");
const ACTOR_ID: HeaderName = HeaderName::from_static("x-clerk-actor-id");
const MACHINE_ID: HeaderName = HeaderName::from_static("x-clerk-machine-id");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-clerk-client-id");
const SCOPES: HeaderName = HeaderName::from_static("x-clerk-scopes");
const ASSERTION: HeaderName = HeaderName::from_static("x-clerk-authz-assertion");
const DECISION_ID: HeaderName = HeaderName::from_static("x-clerk-decision-id");

/// All that are set.
pub static IDENTITY_HEADERS: [HeaderName; 12] = [
    USER_ID,
    SESSION_ID,
    ORG_ID,
    ORG_SLUG,
    ORG_ROLE,
    ORG_PERMISSIONS,
    ACTOR_ID,
    MACHINE_ID,
    CLIENT_ID,
    SCOPES,
    ASSERTION,
    DECISION_ID,
];

/// What all of them start with, and nothing else that reaches an upstream.
const PREFIX: &str = "x-clerk-";

/// The longest list of permissions, or of scopes, in bytes: servers take about 8 KiB in a header. A longer one is
/// left out, so that an upstream sees none instead of some.
const MAX_LIST_BYTES: usize = 7 * 1024;

/// What would end a value, or a member of the list, and what says that something is encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%').add(b',');

/// Whether some server takes the name for one that starts with `x-clerk-`: WSGI and CGI see no
/// difference between `-` and `_`, PHP none between these and other signs, and none sees case.
pub fn is_identity_header(name: &str) -> bool {
    name.len() >= PREFIX.len()
        && name.bytes().zip(PREFIX.bytes()).all(|(byte, expected)| {
            match byte.is_ascii_alphanumeric() {
                true => byte.to_ascii_lowercase() == expected,
                false => expected == b'-',
            }
        })
}

/// The headers that tell an upstream who sends a request: of each name of [`IDENTITY_HEADERS`] the
/// value that takes the place of every other, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders<'a>([Option<Cow<'a, str>>; IDENTITY_HEADERS.len()]);

impl<'a> IdentityHeaders<'a> {
    /// About whoever sends a request that was decided about under this id.
    pub(super) fn of(
        identity: Option<&'a Identity>,
        assertion: Option<&'a str>,
        decision_id: &'a str,
    ) -> Self {
        let decision_id = Some(encoded(decision_id));
        // A JWT is letters, digits, `-`, `_` and `.`.
        let assertion = assertion.map(Cow::Borrowed);
        // In the order of the names.
        match identity {
            None => Self([
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                assertion,
                decision_id,
            ]),
            Some(Identity::Person(person)) => {
                let session = &person.verified.session;
                let actor = session.actor.as_deref();
                Self([
                    Some(encoded(session.user_id.as_str())),
                    Some(encoded(session.session_id.as_str())),
                    person.organization_id().map(|id| encoded(id.as_str())),
                    person.organization_slug().map(encoded),
                    person.role().map(encoded),
                    person.permissions().and_then(list).map(Cow::Owned),
                    actor.map(|actor| encoded(&actor.subject)),
                    None,
                    None,
                    None,
                    assertion,
                    decision_id,
                ])
            }
            Some(Identity::Machine(verified)) => {
                let machine = &verified.machine;
                let subject = Some(encoded(machine.subject.as_str()));
                let (user_id, organization_id, machine_id) = match machine.subject {
                    MachineSubject::User(_) => (subject, None, None),
                    MachineSubject::Organization(_) => (None, subject, None),
                    MachineSubject::Machine(_) => (None, None, subject),
                };
                Self([
                    user_id,
                    None,
                    organization_id,
                    None,
                    None,
                    None,
                    None,
                    machine_id,
                    machine.client_id.as_deref().map(encoded),
                    list(&machine.scopes).map(Cow::Owned),
                    assertion,
                    decision_id,
                ])
            }
        }
    }

    /// With these values, in the order of the names.
    #[cfg(test)]
    pub(in crate::door) const fn with(
        values: [Option<Cow<'a, str>>; IDENTITY_HEADERS.len()],
    ) -> Self {
        Self(values)
    }

    /// Those that are set: visible ASCII.
    pub fn set(&self) -> impl Iterator<Item = (&'static HeaderName, &str)> {
        let named = IDENTITY_HEADERS.iter().zip(&self.0);
        named.filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// The names to take out of a request that has these: every name of ours that is not set, and every
    /// spelling of one.
    pub fn to_remove<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<Cow<'static, str>> {
        let unset = IDENTITY_HEADERS.iter().zip(&self.0);
        let unset = unset.filter_map(|(name, value)| value.is_none().then_some(name.as_str()));
        let mut removed: Vec<Cow<'static, str>> = unset.map(Cow::Borrowed).collect();
        for name in names.filter(|name| is_identity_header(name)) {
            // Proxies compare in lower case, and remove after they have set.
            let name = name.to_ascii_lowercase();
            let is_ours = IDENTITY_HEADERS.iter().any(|known| *known == *name);
            if !is_ours {
                removed.push(Cow::Owned(name));
            }
        }
        removed.sort_unstable();
        removed.dedup();
        removed
    }
}

fn encoded(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, ENCODED).into()
}

/// With commas between; `None` where there is nothing to say, or too much.
fn list(texts: &Texts) -> Option<String> {
    let mut list = String::new();
    for text in texts.iter() {
        if !list.is_empty() {
            list.push(',');
        }
        list.extend(utf8_percent_encode(text, ENCODED));
        if list.len() > MAX_LIST_BYTES {
            return None;
        }
    }
    Some(list).filter(|list| !list.is_empty())
}
