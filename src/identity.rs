//! Whom and what the service speaks of: ids, sessions, organizations, instants.
//!
//! Every room uses these types; they know no wire format and no I/O. Text from outside becomes one
//! of them once, at the door, so that inside there are no strings with rules attached.

mod address;
mod id;
mod machine;
mod publishable_key;
mod session;
mod signing;
mod texts;
mod timestamp;

pub use self::address::{is_of_this_machine, is_safe_address};
pub use self::id::{
    InstanceId, InstanceName, InvalidId, Issuer, KeyId, MessageId, OrganizationId,
    OrganizationSlug, ProviderName, SessionId, UserId, is_clerk_id,
};
pub use self::machine::{
    Machine, MachineSubject, MachineType, OpaqueToken, TokenDigest, TokenForm, TokenType,
    TokenTypes,
};
pub use self::publishable_key::{Environment, InvalidPublishableKey, PublishableKey};
pub use self::session::{
    Actor, CustomClaims, FactorAge, FactorAges, Organization, Scope, ScopedSlug, ScopedSlugs,
    Session, SessionStatus,
};
pub use self::signing::{SigningAlgorithm, SigningAlgorithms};
pub use self::texts::Texts;
pub(crate) use self::texts::TextsBuilder;
pub use self::timestamp::Timestamp;
