//! The Clerk instances whose tokens are verified, found by exact issuer.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;

use super::Revocations;
use crate::{
    assertion::Provider,
    credential::{CookieNames, Cookies},
    identity::{InstanceName, Issuer, PublishableKey, Session},
    keys::Keyring,
    mirror::{Directory, SignIns, UserDirectory},
};

/// Tells the instances of one run apart, also two of one name before and after a reload: what was
/// learnt with the secret key of one never answers for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceSerial(u64);

impl InstanceSerial {
    /// One that was not given out before.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An identity provider of an instance: its rules and its keys.
#[derive(Debug)]
pub struct IdentityProvider {
    /// What is asked of its assertions.
    pub rules: Provider,
    /// Its keys.
    pub keyring: Arc<Keyring>,
}

/// One Clerk instance: its rules and its keys, shared with no other.
pub struct Instance {
    /// Which one, of those whose memberships are remembered; the same where only other settings than
    /// those of its Backend API are new.
    pub serial: InstanceSerial,
    /// Under which it is configured.
    pub name: InstanceName,
    /// The `iss` of its tokens.
    pub issuer: Issuer,
    /// Names its cookies; without it none are read.
    pub publishable_key: Option<PublishableKey>,
    /// Of which `azp` must be one; empty asks nothing.
    pub authorized_parties: Vec<Arc<str>>,
    /// Of which `aud` must name one, where there is one; empty asks nothing.
    pub audiences: Vec<Arc<str>>,
    /// Its keys.
    pub keyring: Arc<Keyring>,
    /// Clerk's own knowledge of it; `None` without a secret key.
    pub directory: Option<Arc<dyn Directory>>,
    /// The same, of whole users.
    pub user_directory: Option<Arc<dyn UserDirectory>>,
    /// Clerk, for who signs in elsewhere; `None` without a secret key.
    pub sign_ins: Option<Arc<dyn SignIns>>,
    /// Whose users it lets in, each by another name.
    pub providers: Vec<Arc<IdentityProvider>>,
    /// What is known beside what tokens say; `None` without a database.
    pub revocations: Option<Arc<Revocations>>,
    /// Whether Clerk tells when something ends. Where it does not, a token is believed for as long as
    /// it lives.
    pub has_webhooks: bool,
}

impl Instance {
    /// Where tokens that live long are not believed by themselves: what ends is told, and is
    /// forgotten in time.
    pub(super) fn forgets(&self) -> Option<&Revocations> {
        self.revocations.as_deref().filter(|_| self.has_webhooks)
    }

    /// The identity provider with this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<IdentityProvider>> {
        let mut providers = self.providers.iter();
        providers.find(|provider| provider.rules.name.as_str() == name)
    }

    /// Replaces what is the same text in most of the instance's tokens by one that they share, since
    /// many sessions are kept in memory.
    pub(super) fn share_texts(&self, session: &mut Session) {
        session.issuer = self.issuer.clone();
        if let Some(party) = &mut session.authorized_party
            && let Some(shared) = self.authorized_parties.iter().find(|each| *each == party)
        {
            *party = Arc::clone(shared);
        }
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .finish()
    }
}

/// Two instances have one issuer, so that a token would not tell which it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("instances \"{first}\" and \"{second}\" have the same issuer")]
pub struct DuplicateIssuer {
    /// The one that stands first.
    pub first: InstanceName,
    /// The other.
    pub second: InstanceName,
}

/// All configured instances.
#[derive(Debug, Default)]
pub struct Instances {
    all: Vec<Arc<Instance>>,
    by_issuer: HashMap<Issuer, Arc<Instance>>,
    cookie_names: Vec<CookieNames>,
}

impl Instances {
    /// Fails when two have the same issuer.
    pub fn new(all: Vec<Arc<Instance>>) -> Result<Self, DuplicateIssuer> {
        let mut by_issuer: HashMap<Issuer, Arc<Instance>> = HashMap::new();
        for instance in &all {
            if let Some(first) = by_issuer.insert(instance.issuer.clone(), Arc::clone(instance)) {
                return Err(DuplicateIssuer {
                    first: first.name.clone(),
                    second: instance.name.clone(),
                });
            }
        }
        let cookie_names = all
            .iter()
            .filter(|instance| !instance.authorized_parties.is_empty())
            .filter_map(|instance| instance.publishable_key.as_ref().map(CookieNames::new))
            .collect();
        Ok(Self {
            all,
            by_issuer,
            cookie_names,
        })
    }

    /// All, in the order of the settings.
    pub fn all(&self) -> &[Arc<Instance>] {
        &self.all
    }

    /// The instance that a request names: by `name`, or the only one where the name is empty.
    pub fn named(&self, name: &str) -> Option<&Arc<Instance>> {
        match (&self.all[..], name) {
            ([only], "") => Some(only),
            (all, name) => all.iter().find(|instance| instance.name.as_str() == name),
        }
    }

    /// The instance whose issuer is exactly `issuer`.
    pub fn by_issuer(&self, issuer: &str) -> Option<&Arc<Instance>> {
        self.by_issuer.get(issuer)
    }

    /// Whose cookies are read.
    pub fn cookies(&self) -> Cookies<'_> {
        match &self.cookie_names[..] {
            [] => Cookies::Off,
            names => Cookies::Of(names),
        }
    }
}
