//! What the offline Clerk can be told to do wrong.

use serde::{Deserialize, Serialize};

/// What goes wrong with requests for keys. The control addresses are never hit.
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
}

/// One wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection breaks without an answer.
    Down,
    /// Status 500.
    ServerError,
    /// Status 429 with `Retry-After: 1`.
    RateLimited,
    /// Status 200 with a body that is not JSON.
    Garbage,
    /// Status 200 with JSON that is not a key set.
    WrongContent,
    /// Status 200 with the right body under the wrong content type.
    WrongContentType,
    /// Status 200 with a key set without keys.
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
}
