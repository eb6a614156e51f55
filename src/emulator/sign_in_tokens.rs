//! Tickets: made by a back end, redeemed once for a session.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use super::ids::{new_id, random_id};

/// A ticket.
#[derive(Clone, Debug)]
pub(super) struct SignInToken {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) user: String,
    pub(super) organization: Option<String>,
    /// Unix milliseconds, like all times here.
    pub(super) created_at: i64,
    pub(super) expires_at: i64,
    accepted: bool,
}

/// The tickets of an instance, by their text. Held only for a moment, never across I/O.
#[derive(Default)]
pub(super) struct SignInTokens(RwLock<BTreeMap<String, SignInToken>>);

impl SignInTokens {
    /// Makes one; the user is there.
    pub(super) fn make(
        &self,
        user: &str,
        organization: Option<&str>,
        now: i64,
        lifetime_seconds: i64,
    ) -> SignInToken {
        let made = SignInToken {
            id: new_id("sit_"),
            token: format!("ticket{}{}", random_id(), random_id()),
            user: user.to_owned(),
            organization: organization.map(str::to_owned),
            created_at: now,
            expires_at: now + lifetime_seconds * 1_000,
            accepted: false,
        };
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(made.token.clone(), made.clone());
        made
    }

    /// Redeems one: good once, and until it expires.
    pub(super) fn redeem(&self, text: &str, now: i64) -> Option<SignInToken> {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let found = tokens.get_mut(text);
        let found = found.filter(|found| !found.accepted && now < found.expires_at)?;
        found.accepted = true;
        Some(found.clone())
    }
}
