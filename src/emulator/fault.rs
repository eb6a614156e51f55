//! What the offline Clerk can be told to do wrong, and where.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What requests are counted by, and what faults hit. The control addresses are of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Key sets, of the Frontend and of the Backend API.
    Jwks,
    /// `/v1/users`, but for their memberships.
    Users,
    /// `/v1/organizations`, but for their memberships.
    Organizations,
    /// Memberships of an organization, of a user and of the instance.
    Memberships,
    /// `/v1/organization_roles`.
    Roles,
    /// `/v1/organization_permissions`.
    Permissions,
    /// `/v1/sessions`.
    Sessions,
    /// Where machine tokens are verified.
    MachineTokens,
    /// Where a browser's handshake is fetched.
    Handshakes,
    /// `/v1/sign_in_tokens`.
    SignInTokens,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Jwks,
        Self::Users,
        Self::Organizations,
        Self::Memberships,
        Self::Roles,
        Self::Permissions,
        Self::Sessions,
        Self::MachineTokens,
        Self::Handshakes,
        Self::SignInTokens,
    ];
}

/// What goes wrong with requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Answer only after this many milliseconds, whatever else happens.
    #[serde(default)]
    pub slow_milliseconds: u64,
    /// In place of the right answer.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// For this many requests; without it, until changed.
    #[serde(default)]
    pub times: Option<u64>,
    /// The `Retry-After` of `rate_limited`; 1 where absent.
    #[serde(default)]
    pub retry_after_seconds: Option<u64>,
}

/// One wrong answer. What was asked for is not done, but for `wrong_content_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection breaks without an answer.
    Down,
    /// Status 500.
    ServerError,
    /// Status 429 with `Retry-After`.
    RateLimited,
    /// Status 200 with a body that is not JSON.
    Garbage,
    /// Status 200 with JSON that is something else.
    WrongContent,
    /// Status 200 with the right body under the wrong content type.
    WrongContentType,
    /// Status 200 with a key set without keys, whatever was asked for.
    NoKeys,
    /// Status 200 with a body without end.
    Endless,
    /// A redirect to another address of this instance.
    Redirect,
}

impl Faults {
    /// This fault, until changed.
    pub fn always(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::default()
        }
    }

    /// Slow, until changed.
    pub fn slow(milliseconds: u64) -> Self {
        Self {
            slow_milliseconds: milliseconds,
            ..Self::default()
        }
    }

    /// Refused for being too many, with this `Retry-After`, until changed.
    pub fn rate_limited(retry_after_seconds: u64) -> Self {
        Self {
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::always(Fault::RateLimited)
        }
    }

    /// The faults for one request; those that were for so many requests wear out.
    fn next(&mut self) -> Self {
        match &mut self.times {
            Some(0) => *self = Self::default(),
            Some(left) => *left -= 1,
            None => {}
        }
        self.clone()
    }
}

/// What goes wrong where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct FaultPlan {
    /// Where an endpoint has none of its own.
    #[serde(flatten)]
    pub(super) everywhere: Faults,
    pub(super) endpoints: BTreeMap<Endpoint, Faults>,
}

impl FaultPlan {
    /// The faults for one request to `endpoint`.
    pub(super) fn next(&mut self, endpoint: Endpoint) -> Faults {
        let faults = self.endpoints.get_mut(&endpoint);
        faults.unwrap_or(&mut self.everywhere).next()
    }
}
