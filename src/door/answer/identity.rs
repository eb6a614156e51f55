//! The headers that tell an upstream who sends a request, and those that only pretend to.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};
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
const DECISION_ID: HeaderName = HeaderName::from_static("x-clerk-decision-id");

/// All that are set.
pub static IDENTITY_HEADERS: [HeaderName; 11] = [
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

/// The names to take out of a request that has these, where `set` takes the place of others: every
/// name of ours that is not set, and every spelling of one.
pub fn to_remove<'a>(
    names: impl Iterator<Item = &'a str>,
    set: &[(HeaderName, HeaderValue)],
) -> Vec<String> {
    let is_set = |name: &str| set.iter().any(|(known, _)| known == name);
    let mut removed: Vec<String> = IDENTITY_HEADERS
        .iter()
        .map(HeaderName::as_str)
        .chain(names.filter(|name| is_identity_header(name)))
        // Proxies compare in lower case, and remove after they have set.
        .map(str::to_ascii_lowercase)
        .filter(|name| !is_set(name))
        .collect();
    removed.sort_unstable();
    removed.dedup();
    removed
}

/// The headers about whoever sends a request.
pub(super) fn headers(
    identity: Option<&Identity>,
    decision_id: &str,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(IDENTITY_HEADERS.len());
    let mut set = |name: HeaderName, value: Option<&str>| {
        let value = value.map(|value| utf8_percent_encode(value, ENCODED).to_string());
        // What is encoded is visible ASCII.
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.push((name, value));
        }
    };
    set(DECISION_ID, Some(decision_id));
    let identity = match identity {
        None => return headers,
        Some(Identity::Machine(verified)) => {
            let machine = &verified.machine;
            let subject = match machine.subject {
                MachineSubject::Machine(_) => MACHINE_ID,
                MachineSubject::User(_) => USER_ID,
                MachineSubject::Organization(_) => ORG_ID,
            };
            set(subject, Some(machine.subject.as_str()));
            set(CLIENT_ID, machine.client_id.as_deref());
            if let Some(value) = list(&machine.scopes) {
                headers.push((SCOPES, value));
            }
            return headers;
        }
        Some(Identity::Person(person)) => person,
    };
    let session = &identity.verified.session;
    set(USER_ID, Some(session.user_id.as_str()));
    set(SESSION_ID, Some(session.session_id.as_str()));
    set(
        ACTOR_ID,
        session.actor.as_deref().map(|actor| &*actor.subject),
    );
    set(ORG_ID, identity.organization_id().map(|id| id.as_str()));
    set(ORG_SLUG, identity.organization_slug());
    set(ORG_ROLE, identity.role());
    let permissions = identity.permissions();
    if let Some(value) = permissions.and_then(list) {
        headers.push((ORG_PERMISSIONS, value));
    }
    headers
}

/// With commas between; `None` where there is nothing to say, or too much.
fn list(texts: &Texts) -> Option<HeaderValue> {
    let mut list = String::new();
    for text in texts.iter() {
        let comma = if list.is_empty() { "" } else { "," };
        write!(list, "{comma}{}", utf8_percent_encode(text, ENCODED)).ok()?;
        if list.len() > MAX_LIST_BYTES {
            return None;
        }
    }
    HeaderValue::try_from(list)
        .ok()
        .filter(|list| !list.is_empty())
}
