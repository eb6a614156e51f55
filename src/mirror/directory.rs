use std::{fmt, future::Future, pin::Pin, time::Duration};

use thiserror::Error;

use super::{Membership, MirroredMembership, MirroredOrganization, OrganizationRecord, User};
use crate::{
    histogram::Recorded,
    identity::{
        CustomClaims, MachineSubject, OpaqueToken, OrganizationId, OrganizationSlug, SessionId,
        Texts, Timestamp, UserId,
    },
};

/// An answer on its way. May be dropped at any time: a question that nobody waits for any more is
/// given up.
pub type Asking<'a, T> =
    Pin<Box<dyn Future<Output = Result<Answered<T>, DirectoryError>> + Send + 'a>>;

/// An answer, and how old it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    /// What Clerk said.
    pub value: T,
    /// When the question was sent: the answer shows all that had happened before.
    pub as_of: Timestamp,
}

/// Clerk's own knowledge of one instance, asked now. Each question costs one request at most, unless
/// it has to be repeated after a fault; equal questions under way are asked once ([`Join`]).
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    /// The membership of one user in one organization: a question for exactly one, never a list.
    fn membership<'a>(
        &'a self,
        organization: &'a OrganizationId,
        user: &'a UserId,
        ask: Ask,
    ) -> Asking<'a, MembershipAnswer>;

    /// The organization that has this slug now; `None` when there is none.
    fn organization_by_slug<'a>(
        &'a self,
        slug: &'a OrganizationSlug,
        ask: Ask,
    ) -> Asking<'a, Option<OrganizationRecord>>;

    /// What a role permits, system permissions included; `None` when there is no such role. `role`
    /// has exactly one `org:`, and so have the permissions.
    fn role_permissions<'a>(&'a self, role: &'a str, ask: Ask) -> Asking<'a, Option<Texts>>;

    /// Whether a session is live.
    fn session<'a>(&'a self, session: &'a SessionId, ask: Ask) -> Asking<'a, SessionAnswer>;

    /// What an opaque token is. Whoever sends a request chooses the token, so that such questions take
    /// less of what may be asked than others.
    fn machine_token<'a>(&'a self, token: &'a OpaqueToken, ask: Ask) -> Asking<'a, MachineAnswer>;

    /// The cookies that Clerk keeps for a browser under this nonce; `None` where it keeps none, or no more.
    /// Whoever sends a request chooses the nonce, as with [`Self::machine_token`].
    fn handshake<'a>(&'a self, nonce: &'a str, ask: Ask) -> Asking<'a, Option<HandshakeCookies>>;

    /// Whether Clerk accepts our credentials, as far as is known.
    fn credentials(&self) -> Credentials;

    /// Its numbers, for metrics.
    fn stats(&self) -> DirectoryStats;
}

/// Clerk's own knowledge of users, whole: for the mirror. The same promises as [`Directory`].
pub trait UserDirectory: fmt::Debug + Send + Sync + 'static {
    /// A user; `None` when there is no such user, or no more.
    fn user<'a>(&'a self, user: &'a UserId, ask: Ask) -> Asking<'a, Option<User>>;

    /// All memberships of a user, page by page. A user without any has none; one whom Clerk does
    /// not know has none either.
    fn memberships_of<'a>(&'a self, user: &'a UserId, ask: Ask)
    -> Asking<'a, Vec<WholeMembership>>;
}

/// A membership with the organization that Clerk sends along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeMembership {
    /// The membership.
    pub membership: MirroredMembership,
    /// Its organization.
    pub organization: MirroredOrganization,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How long the caller waits at most. A wait or a repetition that would end later is not begun:
    /// the answer is then the fault itself.
    pub patience: Duration,
    /// Which equal question may answer this one.
    pub join: Join,
}

/// Which equal question that is under way may answer this one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Any. What it answers may be as old as that question.
    Any,
    /// Only one that was sent after this one was asked, so that the answer shows all that had
    /// happened before.
    SentAfter,
}

/// What Clerk says of a membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipAnswer {
    /// There is one.
    Member(Membership),
    /// The user is not in the organization, or there is no such user.
    NotAMember,
    /// There is no such organization.
    NoOrganization,
}

/// What Clerk says of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAnswer {
    /// It is active, or pending.
    Live {
        /// Whose it is.
        user_id: UserId,
    },
    /// It ended, expired or was given up, or there is no such session: Clerk removes old ones.
    Over,
}

/// Values of `set-cookie`, as Clerk wants a browser to have them; a session token is among them.
/// `Debug` shows how many.
#[derive(Clone, PartialEq, Eq)]
pub struct HandshakeCookies(pub Vec<Box<str>>);

impl fmt::Debug for HandshakeCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandshakeCookies({})", self.0.len())
    }
}

/// What Clerk says of an opaque token.
#[derive(Clone, Debug, PartialEq)]
pub enum MachineAnswer {
    /// It is good.
    Good(Box<MachineRecord>),
    /// It was revoked.
    Revoked,
    /// It has expired, or is not active.
    Expired,
    /// There is no such token.
    Unknown,
}

/// An opaque token as Clerk knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineRecord {
    /// Its id; no secret.
    pub id: Box<str>,
    /// For whom it stands.
    pub subject: MachineSubject,
    /// The OAuth client that holds it.
    pub client_id: Option<Box<str>>,
    /// What it is for.
    pub scopes: Texts,
    /// What the application added to it.
    pub claims: Option<CustomClaims>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// No answer; never to be taken for "no".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DirectoryError {
    /// Clerk cannot be reached, fails, or answers with what cannot be read.
    #[error("Clerk's API is unavailable: {cause}")]
    Unavailable {
        /// What went wrong, without any part of a body or a secret.
        cause: String,
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// Clerk's limit, or our own below it, is reached.
    #[error("the rate limit of Clerk's API is reached")]
    RateLimited {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// Clerk refuses our secret key: a fault of the configuration.
    #[error("Clerk refuses the secret key: {cause}")]
    CredentialsRefused {
        /// Clerk's error code and trace id.
        cause: String,
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// Clerk calls the question malformed.
    #[error("Clerk refuses the question: {cause}")]
    Rejected {
        /// Clerk's error code.
        cause: String,
    },
}

/// Whether Clerk accepts the secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// No answer so far said anything about the key.
    Unknown,
    /// The last answer that said something accepted it.
    Accepted,
    /// The last answer that said something refused it.
    Refused,
}

/// How a request to Clerk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestOutcome {
    /// With an answer.
    Found,
    /// With the answer that there is no such thing.
    NotFound,
    /// The secret key was refused.
    CredentialsRefused,
    /// The question was refused.
    Rejected,
    /// Clerk's rate limit.
    RateLimited,
    /// No answer, a server's fault, or an answer that cannot be read.
    Unavailable,
}

impl RequestOutcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Found,
        Self::NotFound,
        Self::CredentialsRefused,
        Self::Rejected,
        Self::RateLimited,
        Self::Unavailable,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::CredentialsRefused => "credentials_refused",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Numbers of a [`Directory`] since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectoryStats {
    /// Requests by class of endpoint and by outcome; every pair stands there.
    pub requests: Vec<(&'static str, RequestOutcome, u64)>,
    /// How long requests took, by class of endpoint.
    pub durations: Vec<(&'static str, Recorded)>,
    /// Questions that an equal one under way answered.
    pub joined: u64,
    /// Questions that were not sent because our own budget, a pause that Clerk asked for, or the
    /// circuit breaker forbade it.
    pub held_back: u64,
    /// Requests that the budget allows at this moment.
    pub budget_left: f64,
    /// Whether the circuit breaker is open: Clerk failed so often that it is left alone for a while.
    pub breaker_open: bool,
}
