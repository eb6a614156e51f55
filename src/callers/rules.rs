//! What the rules say, and whom they name.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, SHA256_OUTPUT_LEN, digest},
};
use thiserror::Error;

use crate::closed_list::closed_list;

/// The most callers that rules name: each is a label of metrics, and each secret is compared with for
/// every bearer that is shown.
pub const MAX_CALLERS: usize = 1_000;
/// The longest name of a caller in bytes.
const MAX_NAME_BYTES: usize = 63;
/// The shortest secret that is taken: 24 bytes of chance in base64 are as long.
pub const MIN_BEARER_BYTES: usize = 32;
/// The longest; a longer one that is shown is nobody's, and is not hashed.
pub const MAX_BEARER_BYTES: usize = 4_096;
/// The longest SPIFFE ID in bytes (SPIFFE-ID, 2.3).
const MAX_SPIFFE_BYTES: usize = 2_048;
/// The longest DNS name in bytes (RFC 1035, 2.3.4).
const MAX_DNS_BYTES: usize = 253;

/// What callers are called whom no rule names.
pub const ANYONE: &str = "anyone";
/// What callers are called who show a bearer that is nobody's, or who show two callers' names.
pub const UNRECOGNIZED: &str = "unrecognized";

closed_list! {
    /// What rules are about. Health checks and reflection are not.
    GuardedRpc {
        /// `VerifySession`.
        VerifySession = "VerifySession",
        /// `BatchVerifySession`.
        BatchVerifySession = "BatchVerifySession",
        /// `CheckOrgPermission`.
        CheckOrgPermission = "CheckOrgPermission",
        /// `BatchCheckOrgPermission`.
        BatchCheckOrgPermission = "BatchCheckOrgPermission",
        /// `SyncUser`.
        SyncUser = "SyncUser",
        /// `GetUser`.
        GetUser = "GetUser",
        /// `WatchUsers`.
        WatchUsers = "WatchUsers",
        /// `ExchangeAssertion`.
        ExchangeAssertion = "ExchangeAssertion",
        /// `ExplainDecision`.
        ExplainDecision = "ExplainDecision",
        /// `Check` of Envoy's external authorization.
        Check = "Check",
    }
}

impl GuardedRpc {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rpc| rpc.name() == name)
    }
}

/// Some of the RPCs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpcSet(u16);

impl RpcSet {
    /// All of them.
    pub fn all() -> Self {
        GuardedRpc::ALL.into_iter().collect()
    }

    /// Whether it is one of them.
    pub const fn has(self, rpc: GuardedRpc) -> bool {
        self.0 & (1 << rpc as u16) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<GuardedRpc> for RpcSet {
    fn from_iter<T: IntoIterator<Item = GuardedRpc>>(rpcs: T) -> Self {
        Self(rpcs.into_iter().fold(0, |set, rpc| set | 1 << rpc as u16))
    }
}

impl fmt::Display for RpcSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        if *self == Self::all() {
            return f.write_str("every RPC");
        }
        let names = GuardedRpc::ALL.into_iter().filter(|rpc| self.has(*rpc));
        f.write_str(&names.map(GuardedRpc::name).collect::<Vec<_>>().join(", "))
    }
}

/// What a caller may do. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// What it may call.
    pub rpcs: RpcSet,
    /// Whether it may ask about a user whom it names by `user_id`, without a token of that user.
    pub any_user: bool,
}

/// How much a caller may ask of this replica; `None` is as much as anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are worked on at once.
    pub max_concurrent_calls: Option<u32>,
    /// Calls in a second, on the average; a second's worth may come at once. At least one.
    pub max_calls_per_second: Option<u32>,
}

/// The SHA-256 of a bearer secret: rules hold no secret, and all digests are of one length, which a
/// comparison in constant time takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretDigest([u8; SHA256_OUTPUT_LEN]);

impl SecretDigest {
    /// Of a secret.
    pub fn of(secret: &[u8]) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(bytes)
    }
}

/// A digest of a secret that is no random one would help to guess it.
impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(…)")
    }
}

/// A caller as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// In logs and metrics: ASCII letters, digits, `-`, `_` and `.`.
    pub name: Arc<str>,
    /// SPIFFE IDs: URIs that its certificate may have.
    pub spiffe: Vec<Box<str>>,
    /// DNS names that its certificate may have.
    pub dns: Vec<Box<str>>,
    /// Secrets that it may show.
    pub secrets: Vec<SecretDigest>,
    /// What it may do.
    pub rights: Rights,
    /// How much.
    pub limits: Limits,
}

/// Why rules cannot be. Nothing of a secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// More than [`MAX_CALLERS`].
    #[error("has {0} callers; expected at most {MAX_CALLERS}")]
    TooMany(usize),
    /// A name that is none.
    #[error(
        "name is {0:?}; expected 1 to {MAX_NAME_BYTES} ASCII letters, digits, \"-\", \"_\" and \".\""
    )]
    Name(Arc<str>),
    /// A name that is taken by us.
    #[error("name is {0:?}, which stands for callers whom no rule names; expected another")]
    ReservedName(Arc<str>),
    /// A name of two callers.
    #[error("name is {0:?}, as that of another caller; expected one of its own")]
    NameOfAnother(Arc<str>),
    /// Nothing that it could show.
    #[error("has nothing to be recognized by; expected spiffe, dns or bearer_files")]
    Unrecognizable,
    /// Nothing that it may do.
    #[error("rpcs is empty, so that it may call nothing; name some, or leave the caller out")]
    Useless,
    /// No SPIFFE ID.
    #[error(
        "spiffe has {0:?}; expected a SPIFFE ID without a pattern, such as \
         \"spiffe://example.org/ns/prod/sa/billing\""
    )]
    Spiffe(Box<str>),
    /// No DNS name.
    #[error(
        "dns has {0:?}; expected a host's name without a pattern, such as \"billing.internal\""
    )]
    Dns(Box<str>),
    /// A certificate's name of two callers.
    #[error("{0:?} is a name of caller {1:?} too; expected it at one of them")]
    IdentityOfAnother(Box<str>, Arc<str>),
    /// A secret of two callers.
    #[error("bearer_files has the secret of caller {0:?}; give each a secret of its own")]
    SecretOfAnother(Arc<str>),
}

/// A `Bearer` that a call shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// None.
    Missing,
    /// This.
    Secret(&'a [u8]),
    /// Several, or something that is no bearer.
    Unreadable,
}

/// What a call shows of its caller. The names are those of a certificate that was verified.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// URIs.
    pub uris: &'a [Box<str>],
    /// DNS names.
    pub dns_names: &'a [Box<str>],
    /// The secret.
    pub bearer: Bearer<'a>,
}

/// Whom a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Somebody whom no rule names.
    Anyone,
    /// The caller of this index.
    Named(usize),
}

/// Why it cannot be said whom a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unrecognized {
    /// The bearer is nobody's.
    Bearer,
    /// Two callers' names are shown.
    Several,
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    anyone: Rights,
    callers: Vec<Caller>,
    /// Indices of callers.
    uris: HashMap<Box<str>, usize>,
    /// Likewise, by names in lower case.
    dns_names: HashMap<Box<str>, usize>,
}

impl Rules {
    /// Of these callers, and of anyone else; all faults come back at once, each with the index of the
    /// caller that it is about.
    pub fn new(anyone: Rights, callers: Vec<Caller>) -> Result<Self, Vec<(Option<usize>, Fault)>> {
        let mut faults = Vec::new();
        if callers.len() > MAX_CALLERS {
            return Err(vec![(None, Fault::TooMany(callers.len()))]);
        }
        let mut names = HashMap::new();
        let mut secrets: HashMap<SecretDigest, usize> = HashMap::new();
        let (mut uris, mut dns_names) = (HashMap::new(), HashMap::new());
        for (index, caller) in callers.iter().enumerate() {
            let mut found = own_faults(caller);
            if names.insert(&caller.name, index).is_some() {
                found.push(Fault::NameOfAnother(caller.name.clone()));
            }
            let spiffe = caller.spiffe.iter().map(|id| (id.clone(), true));
            let dns = caller.dns.iter();
            let dns = dns.map(|name| (name.to_ascii_lowercase().into_boxed_str(), false));
            for (identity, is_uri) in spiffe.chain(dns) {
                let of_all = if is_uri { &mut uris } else { &mut dns_names };
                match of_all.entry(identity) {
                    Entry::Vacant(free) => {
                        free.insert(index);
                    }
                    Entry::Occupied(taken) if *taken.get() != index => {
                        let other = callers[*taken.get()].name.clone();
                        found.push(Fault::IdentityOfAnother(taken.key().clone(), other));
                    }
                    Entry::Occupied(_) => {}
                }
            }
            for secret in &caller.secrets {
                match secrets.entry(*secret) {
                    Entry::Vacant(free) => {
                        free.insert(index);
                    }
                    Entry::Occupied(taken) if *taken.get() != index => {
                        let other = callers[*taken.get()].name.clone();
                        found.push(Fault::SecretOfAnother(other));
                    }
                    Entry::Occupied(_) => {}
                }
            }
            faults.extend(found.into_iter().map(|fault| (Some(index), fault)));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            anyone,
            callers,
            uris,
            dns_names,
        })
    }

    /// What callers may do whom no rule names.
    pub fn anyone(&self) -> Rights {
        self.anyone
    }

    /// Those whom rules name.
    pub fn callers(&self) -> &[Caller] {
        &self.callers
    }

    pub(super) fn who(&self, shown: &Shown<'_>) -> Result<Who, Unrecognized> {
        let mut found = match shown.bearer {
            Bearer::Missing => None,
            Bearer::Secret(secret) => Some(self.of_secret(secret).ok_or(Unrecognized::Bearer)?),
            Bearer::Unreadable => return Err(Unrecognized::Bearer),
        };
        let of_uris = shown.uris.iter().map(|uri| self.uris.get(uri));
        let of_dns = shown.dns_names.iter().map(|name| self.of_dns(name));
        for index in of_uris.chain(of_dns).flatten() {
            if *found.get_or_insert(*index) != *index {
                return Err(Unrecognized::Several);
            }
        }
        Ok(found.map_or(Who::Anyone, Who::Named))
    }

    fn of_dns(&self, name: &str) -> Option<&usize> {
        // Nearly all are in lower case already.
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.dns_names.get(&*name.to_ascii_lowercase());
        }
        self.dns_names.get(name)
    }

    /// Every secret is compared with, whichever is found: time says nothing of them.
    fn of_secret(&self, secret: &[u8]) -> Option<usize> {
        if !(MIN_BEARER_BYTES..=MAX_BEARER_BYTES).contains(&secret.len()) {
            return None;
        }
        let shown = SecretDigest::of(secret);
        let mut found = None;
        for (index, caller) in self.callers.iter().enumerate() {
            for known in &caller.secrets {
                if verify_slices_are_equal(&known.0, &shown.0).is_ok() {
                    found = Some(index);
                }
            }
        }
        found
    }

    pub(super) fn rights(&self, who: Who) -> Rights {
        match who {
            Who::Anyone => self.anyone,
            Who::Named(index) => self.callers[index].rights,
        }
    }

    pub(super) fn name(&self, who: Who) -> &str {
        match who {
            Who::Anyone => ANYONE,
            Who::Named(index) => &self.callers[index].name,
        }
    }

    pub(super) fn limits(&self, who: Who) -> Limits {
        match who {
            Who::Anyone => Limits::default(),
            Who::Named(index) => self.callers[index].limits,
        }
    }
}

fn own_faults(caller: &Caller) -> Vec<Fault> {
    let mut found = Vec::new();
    let name = &caller.name;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_good) {
        found.push(Fault::Name(name.clone()));
    }
    if [ANYONE, UNRECOGNIZED].contains(&&**name) {
        found.push(Fault::ReservedName(name.clone()));
    }
    if caller.rights.rpcs.is_empty() {
        found.push(Fault::Useless);
    }
    if caller.spiffe.is_empty() && caller.dns.is_empty() && caller.secrets.is_empty() {
        found.push(Fault::Unrecognizable);
    }
    let bad = caller.spiffe.iter().filter(|id| !is_spiffe_id(id));
    found.extend(bad.cloned().map(Fault::Spiffe));
    let bad = caller.dns.iter().filter(|name| !is_dns_name(name));
    found.extend(bad.cloned().map(Fault::Dns));
    found
}

/// SPIFFE-ID, 2: a trust domain in lower case and a path of plain segments.
fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return false;
    };
    let (domain, path) = rest
        .split_once('/')
        .map_or((rest, None), |(d, p)| (d, Some(p)));
    let of_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let of_path = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(of_path);
    text.len() <= MAX_SPIFFE_BYTES
        && !domain.is_empty()
        && domain.bytes().all(of_domain)
        && path.is_none_or(|path| path.split('/').all(is_segment))
}

fn is_dns_name(text: &str) -> bool {
    let of_label = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let is_label = |s: &str| (1..=63).contains(&s.len()) && s.bytes().all(of_label);
    text.len() <= MAX_DNS_BYTES && text.split('.').all(is_label)
}
