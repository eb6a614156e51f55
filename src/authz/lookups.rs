//! What one batch has asked: equal questions of it are asked once, however fresh their answers must
//! be, since they were all asked at one moment.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use futures_util::future::{FutureExt, Shared};

use crate::{
    identity::Texts,
    mirror::{
        Answered, DirectoryError, MachineAnswer, MembershipAnswer, OrganizationRecord,
        SessionAnswer,
    },
};

/// A question under way.
pub(super) type Asked<V> =
    Pin<Box<dyn Future<Output = Result<Answered<V>, DirectoryError>> + Send>>;

/// The questions of one batch.
#[derive(Debug, Default)]
pub struct Lookups {
    pub(super) memberships: Once<super::memberships::MembershipKey, MembershipAnswer>,
    pub(super) slugs: Once<super::memberships::SlugKey, Option<OrganizationRecord>>,
    pub(super) roles: Once<super::memberships::RoleKey, Option<Texts>>,
    pub(super) machine_tokens: Once<super::machine_lookups::MachineKey, MachineAnswer>,
    pub(super) sessions: Once<super::session_lookups::SessionKey, SessionAnswer>,
}

/// Answers by question.
pub(super) struct Once<K, V>(Mutex<HashMap<K, Shared<Asked<V>>>>);

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> std::fmt::Debug for Once<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Once")
    }
}

impl<K: Hash + Eq, V: Clone> Once<K, V> {
    /// The answer to `key`, asked by `ask` if nobody did. May be dropped at any time: the others go
    /// on.
    pub(super) async fn get(
        &self,
        key: K,
        ask: impl FnOnce() -> Asked<V>,
    ) -> Result<Answered<V>, DirectoryError> {
        let shared = {
            let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            asked.entry(key).or_insert_with(|| ask().shared()).clone()
        };
        shared.await
    }
}
