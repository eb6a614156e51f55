//! The use cases: what the doors ask, answered from keys and caches.
//!
//! Called by `door` and `cli`. May not touch any transport, and Clerk and the store only through
//! the traits of the rooms above. Holds verifications, never decisions: what depends on the caller
//! or on the clock is judged at every use.

mod instances;
mod token_cache;
mod verify_session;

pub use self::instances::{DuplicateIssuer, Instance, Instances};
pub use self::token_cache::{TokenCache, TokenCacheStats};
pub use self::verify_session::{CannotTell, Question, Verdict, Verified, Verifier, VerifierStats};
