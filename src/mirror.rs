//! What can be known of Clerk's world beside what tokens say: memberships, organizations, roles.
//!
//! Called by `authz`, which decides how fresh a fact must be; [`Directory`] is what Clerk's API is
//! asked through. Pure: no I/O, no clock, no JSON.

mod directory;
mod membership;

pub use self::directory::{
    Answered, Ask, Asking, Credentials, Directory, DirectoryError, DirectoryStats, Join,
    MembershipAnswer, RequestOutcome,
};
pub use self::membership::{Membership, OrganizationRecord, Standing};
