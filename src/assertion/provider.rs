//! What is asked of the assertions of one identity provider.

use std::time::Duration;

use crate::identity::{ProviderName, SigningAlgorithms};

/// An identity provider of an instance, and what is asked of what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Under which it is configured.
    pub name: ProviderName,
    /// The `iss` of its assertions, exactly.
    pub issuer: Box<str>,
    /// Of which `aud` must name one: whose sign-ins there are believed. Never empty.
    pub client_ids: Vec<Box<str>>,
    /// With what it may sign. Never empty.
    pub algorithms: SigningAlgorithms,
    /// How the user is found.
    pub find_by: FindBy,
    /// Who must have shown a second factor.
    pub second_factor: SecondFactor,
    /// Values of `amr` that each stand for a second factor.
    pub amr: Vec<Box<str>>,
    /// Values of `acr` that each stand for one.
    pub acr: Vec<Box<str>>,
    /// How long ago the user may have signed in there; `None` does not ask.
    pub max_sign_in_age: Option<Duration>,
    /// Whether each sign-in begins with a nonce.
    pub nonce: Nonce,
    /// Whether Clerk is given a user where it has none.
    pub create_users: bool,
}

/// How the user of an assertion is found at Clerk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindBy {
    /// By an account that the user has connected: its provider at Clerk, such as `oauth_google`, and
    /// `sub`.
    ExternalAccount(Box<str>),
    /// `sub` is the user's `external_id`.
    ExternalId,
    /// By an address that both sides have verified, of one of these domains, in lower case.
    VerifiedEmail(Vec<Box<str>>),
}

/// Who must have shown a second factor at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondFactor {
    /// Everybody.
    Required,
    /// Who has enrolled one at Clerk.
    IfEnrolled,
    /// Nobody.
    Off,
}

/// Whether an assertion needs a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// Always.
    Required,
    /// Where either side has one.
    Optional,
}
