//! Ids as Clerk makes them: a prefix, then letters and digits. Unique, not secret.

use std::hash::{BuildHasher, RandomState};

/// How long Clerk's ids are after their prefix.
const LENGTH: usize = 27;

pub(super) fn new_id(prefix: &str) -> String {
    let random = random_id();
    format!("{prefix}{}", &random[..LENGTH])
}

/// 32 letters and digits.
pub(super) fn random_id() -> String {
    (0..2)
        .map(|part| format!("{:016x}", RandomState::new().hash_one(part)))
        .collect()
}
