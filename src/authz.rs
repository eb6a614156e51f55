//! The use cases: what the doors ask, answered from keys and caches.
//!
//! Called by `door` and `cli`. May not touch any transport, and Clerk and the store only through
//! the traits of the rooms above. Holds verifications, never decisions: what depends on the caller
//! or on the clock is judged at every use.

mod asking;
mod authorize_request;
mod check_org_permission;
mod exchange_assertion;
mod fact_cache;
mod instances;
mod lookups;
mod machine_lookups;
mod memberships;
mod revocations;
mod session_lookups;
mod token_cache;
mod verify_session;

pub use self::asking::Source;
pub use self::authorize_request::{
    Authorization, Bearer, BrowserAnswer, CookiesOnTheWayBack, Gatekeeper, HandshakeOutcome,
    Headers, Identity, Outcome, Person, ProxiedRequest, Refused, ShadowStats, rehearse,
};
pub use self::check_org_permission::{
    Checker, Consistency, Decision, OrgAnswer, OrgQuestion, OrganizationRef, Subject, Unanswerable,
};
pub use self::exchange_assertion::{
    Exchange, ExchangeAnswer, Exchanger, Left, NoAnswer, TICKET_LIFETIME, Ticket,
};
pub use self::fact_cache::FactCacheStats;
pub use self::instances::{DuplicateIssuer, IdentityProvider, Instance, InstanceSerial, Instances};
pub use self::lookups::Lookups;
pub use self::machine_lookups::{MachineLookups, MachineSettings};
pub use self::memberships::{AskMirror, ComparedAt, MembershipSettings, Memberships};
pub use self::revocations::{RevocationStats, Revocations};
pub use self::session_lookups::SessionLookups;
pub use self::token_cache::{TokenCache, TokenCacheStats};
pub use self::verify_session::{
    CannotTell, Question, Verdict, Verified, VerifiedMachine, Verifier, VerifierStats,
};
