//! How somebody whom an identity provider vouches for is found at Clerk, and let in.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use secrecy::SecretString;

use super::{Ask, Asking, DirectoryError};
use crate::identity::{OrganizationId, UserId};

/// By what a person is found. Addresses and ids of others stay out of logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum PersonKey {
    /// An account that the user has connected.
    ExternalAccount {
        /// Clerk's name of its provider, such as `oauth_google`.
        provider: Box<str>,
        /// The user's id there.
        provider_user_id: Box<str>,
    },
    /// The id that the customer's own system gave.
    ExternalId(Box<str>),
    /// A verified address.
    Email(Box<str>),
}

impl fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExternalAccount { .. } => "PersonKey::ExternalAccount",
            Self::ExternalId(_) => "PersonKey::ExternalId",
            Self::Email(_) => "PersonKey::Email",
        })
    }
}

/// A user, as far as a sign-in asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// May not sign in, for good.
    pub banned: bool,
    /// May not sign in, for a while.
    pub locked: bool,
    /// Taken out of service by an identity provider.
    pub deprovisioned: bool,
    /// Has a second factor at Clerk.
    pub second_factor: bool,
}

/// What redeems once, at Clerk, for a session of a user. `Debug` prints nothing of it.
#[derive(Clone, Debug)]
pub struct SignInTicket(pub SecretString);

/// A change at Clerk on its way. When it is dropped, or fails with [`DirectoryError::Unavailable`], it
/// may have been done all the same.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, DirectoryError>> + Send + 'a>>;

/// Clerk, for who signs in elsewhere.
pub trait SignIns: fmt::Debug + Send + Sync + 'static {
    /// Whom a key means: all of them, up to so many that it is clear that they are several. An address
    /// means only who has verified it.
    fn people<'a>(&'a self, key: &'a PersonKey, ask: Ask) -> Asking<'a, Vec<Person>>;

    /// Makes the user whom a key means. Who has what would be the new user's is the cause of a rejection;
    /// an external account cannot be made so, and is rejected too.
    fn create<'a>(&'a self, key: &'a PersonKey, patience: Duration) -> Doing<'a, Person>;

    /// Makes a ticket that is good for `lifetime`, and makes an organization active where one is named.
    /// Never asked again by itself where it is not known whether it was made: a ticket that nobody
    /// holds would be one too many. `None` when Clerk has no such user, or no more.
    fn ticket<'a>(
        &'a self,
        user: &'a UserId,
        organization: Option<&'a OrganizationId>,
        lifetime: Duration,
        patience: Duration,
    ) -> Doing<'a, Option<SignInTicket>>;
}
