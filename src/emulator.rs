//! An offline Clerk: one or more instances on this machine, with keys, people and tokens, for trying
//! things out and for tests, ours and other people's. docs/emulator.md is its manual.
//!
//! Shares `identity` with the service and nothing else: it must not judge with the code that it
//! judges. Behind the feature `emulator`, which release builds leave out.

mod api;
pub mod directory;
mod fault;
mod frontend;
mod http;
mod identity_provider;
mod ids;
mod machine_tokens;
mod mint;
mod objects;
mod requests;
mod sign_in_tokens;
mod signing_key;
mod webhooks;
mod world;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::api::{Operation, operations};
pub use self::directory::Directory;
use self::fault::FaultPlan;
pub use self::fault::{Endpoint, Fault, Faults};
use self::frontend::Handshakes;
use self::identity_provider::IdentityProviderKeys;
pub use self::identity_provider::{AssertionSpec, CLIENT_ID};
use self::machine_tokens::MachineTokens;
use self::mint::Mint;
pub use self::mint::{FactorAges, Kind, MintError, TokenSpec};
use self::requests::Requests;
pub use self::requests::{Peaks, RateLimit};
use self::sign_in_tokens::SignInTokens;
use self::signing_key::SigningKey;
use self::webhooks::Webhooks;
pub use self::webhooks::{
    InvalidWebhooks, NoReplay, TimestampUnit, WebhookAttempt, WebhookMessage, WebhookSettings,
    WebhookStats, new_secret as new_webhook_secret,
};
pub use self::world::{InstanceSeed, InvalidWorld, Member, OrganizationSeed, UserSeed, World};
use crate::identity::{Environment, Issuer, PublishableKey, Timestamp};

/// What every secret key of a development instance here starts with, and none of Clerk's.
pub const SECRET_KEY_PREFIX: &str = "sk_test_emulator";
/// The same of a production instance.
pub const PRODUCTION_SECRET_KEY_PREFIX: &str = "sk_live_emulator";

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The emulator could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The port cannot be had.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Not an address of this machine: the emulator hands out tokens to whoever asks.
    #[error("{0} is not a loopback address; the emulator hands out tokens to whoever asks")]
    NotLoopback(IpAddr),
    /// A key cannot be made.
    #[error("cannot make an RSA key")]
    Key,
    /// Nothing can be sent.
    #[error("cannot make an HTTP client for webhooks: {0}")]
    Client(reqwest::Error),
}

/// A running offline Clerk.
pub struct Emulator {
    instances: Vec<Arc<Instance>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How often an instance was asked for its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct JwksRequests {
    /// At the Frontend API's address.
    pub frontend: u64,
    /// At the Backend API's address.
    pub backend: u64,
}

/// One Clerk instance of the emulator.
pub struct Instance {
    seed: InstanceSeed,
    directory: Directory,
    addr: SocketAddr,
    issuer: Issuer,
    publishable_key: PublishableKey,
    clock: Clock,
    /// The last signs. Held only for a moment, never across I/O.
    keys: RwLock<Vec<Arc<SigningKey>>>,
    faults: RwLock<FaultPlan>,
    requests: Requests,
    frontend_requests: AtomicU64,
    backend_requests: AtomicU64,
    webhooks: Arc<Webhooks>,
    machine_tokens: MachineTokens,
    handshakes: Handshakes,
    sign_in_tokens: SignInTokens,
    identity_provider_keys: IdentityProviderKeys,
}

impl Emulator {
    /// Starts every instance of `world`: the first at `addr`, the others at ports of their own
    /// beside it. Port 0 takes any.
    pub async fn start(world: World, addr: SocketAddr, clock: Clock) -> Result<Self, StartError> {
        if !addr.ip().is_loopback() {
            return Err(StartError::NotLoopback(addr.ip()));
        }
        let mut instances = Vec::with_capacity(world.instances.len());
        let mut listeners = Vec::with_capacity(world.instances.len());
        for (index, seed) in world.instances.into_iter().enumerate() {
            let addr = if index == 0 {
                addr
            } else {
                SocketAddr::new(addr.ip(), 0)
            };
            let listener = TcpListener::bind(addr).await;
            let listener = listener.map_err(|source| StartError::Listen { addr, source })?;
            let addr = listener
                .local_addr()
                .map_err(|source| StartError::Listen { addr, source })?;
            instances.push(Arc::new(Instance::new(seed, addr, Arc::clone(&clock))?));
            listeners.push(listener);
        }
        let emulator = Self {
            instances,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for (listener, instance) in listeners.into_iter().zip(&emulator.instances) {
            let client = webhooks::client().map_err(StartError::Client)?;
            let (webhooks, stop) = (Arc::clone(&instance.webhooks), emulator.stop.clone());
            emulator
                .tasks
                .spawn(async move { webhooks.send_all(client, stop).await });
            let router = http::router(Arc::clone(instance), emulator.instances.clone());
            let stop = emulator.stop.clone().cancelled_owned();
            emulator.tasks.spawn(async move {
                // Serving ends only by the stop.
                let _ = axum::serve(listener, router)
                    .with_graceful_shutdown(stop)
                    .await;
            });
        }
        emulator.tasks.close();
        Ok(emulator)
    }

    /// All instances, in the order of the world.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// The instance with this name.
    pub fn instance(&self, name: &str) -> Option<&Arc<Instance>> {
        self.instances
            .iter()
            .find(|instance| instance.seed.name == name)
    }

    /// Stops serving.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Instance {
    fn new(seed: InstanceSeed, addr: SocketAddr, clock: Clock) -> Result<Self, StartError> {
        // The loopback address stands for the Frontend API's host.
        let host = match addr.ip() {
            IpAddr::V4(_) => addr.to_string(),
            IpAddr::V6(_) => format!("{}:{}", Ipv4Addr::LOCALHOST, addr.port()),
        };
        let environment = match seed.production {
            true => Environment::Production,
            false => Environment::Development,
        };
        let key = SigningKey::generate(&seed.key_id).ok_or(StartError::Key)?;
        let not_loopback = |_| StartError::NotLoopback(addr.ip());
        let webhooks = Arc::new(Webhooks::new(&seed.key_id, Arc::clone(&clock)));
        Ok(Self {
            issuer: format!("http://{host}")
                .parse()
                .map_err(|_| StartError::NotLoopback(addr.ip()))?,
            publishable_key: PublishableKey::for_host(environment, &host).map_err(not_loopback)?,
            directory: Directory::of(&seed, Arc::clone(&clock), Arc::clone(&webhooks)),
            seed,
            addr,
            clock,
            keys: RwLock::new(vec![Arc::new(key)]),
            faults: RwLock::default(),
            requests: Requests::default(),
            frontend_requests: AtomicU64::new(0),
            backend_requests: AtomicU64::new(0),
            webhooks,
            machine_tokens: MachineTokens::default(),
            handshakes: Handshakes::default(),
            sign_in_tokens: SignInTokens::default(),
            identity_provider_keys: IdentityProviderKeys::default(),
        })
    }

    /// Its name in the world.
    pub fn name(&self) -> &str {
        &self.seed.name
    }

    /// Who was in it at the start.
    pub fn seed(&self) -> &InstanceSeed {
        &self.seed
    }

    /// Who is in it now, and where it is changed.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The `iss` of its tokens, and the base of its Frontend and Backend API.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Its publishable key.
    pub fn publishable_key(&self) -> &PublishableKey {
        &self.publishable_key
    }

    /// Its secret key. Opens nothing but this emulator.
    pub fn secret_key(&self) -> String {
        let prefix = match self.seed.production {
            true => PRODUCTION_SECRET_KEY_PREFIX,
            false => SECRET_KEY_PREFIX,
        };
        format!("{prefix}{}", self.seed.name)
    }

    /// The public key that signs now, as PEM.
    pub fn public_key_pem(&self) -> String {
        self.signing_key()
            .map(|key| key.public_pem())
            .unwrap_or_default()
    }

    /// Makes a token.
    pub fn mint(&self, spec: &TokenSpec) -> Result<String, MintError> {
        if let Some(kind) = spec.opaque_kind() {
            let token = mint::opaque(kind, spec, &self.directory, (self.clock)())?;
            return Ok(self.machine_tokens.issue(token));
        }
        if spec.opaque {
            return Err(MintError::NeverOpaque);
        }
        let key = match spec.forged {
            true => SigningKey::of_a_stranger(&self.seed.key_id).map(Arc::new),
            false => self.signing_key(),
        };
        let key = key.ok_or(MintError::NoKey)?;
        let mint = Mint {
            directory: &self.directory,
            issuer: self.issuer.as_str(),
            authorized_party: &self.seed.authorized_party,
            key: &key,
            now: (self.clock)(),
        };
        mint.token(spec)
    }

    /// The id of an opaque token, by which it is known and revoked; no secret.
    pub fn machine_token_id(&self, token: &str) -> Option<String> {
        self.machine_tokens.id(token)
    }

    /// Revokes an opaque token, by itself or by its id; false when there is none.
    pub fn revoke_machine_token(&self, token_or_id: &str) -> bool {
        self.machine_tokens.revoke(token_or_id)
    }

    /// The value of a `cookie` header with the token under Clerk's names, with and without suffix.
    pub fn cookie(&self, token: &str) -> String {
        let suffix = self.publishable_key.cookie_suffix();
        let changed_at = (self.clock)().unix_seconds() - 3_600;
        format!(
            "__session={token}; __client_uat={changed_at}; __session_{suffix}={token}; \
             __client_uat_{suffix}={changed_at}"
        )
    }

    /// Makes a new signing key and returns its `kid`. The old ones stay in the set unless
    /// `remove_old`; the `kid` changes unless `same_key_id`.
    pub fn rotate_key(&self, remove_old: bool, same_key_id: bool) -> Result<String, MintError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let key_id = if same_key_id {
            self.seed.key_id.clone()
        } else {
            static ROTATIONS: AtomicU64 = AtomicU64::new(2);
            format!(
                "{}{}",
                self.seed.key_id,
                ROTATIONS.fetch_add(1, Ordering::Relaxed)
            )
        };
        let key = SigningKey::generate(&key_id).ok_or(MintError::NoKey)?;
        if remove_old {
            keys.clear();
        }
        keys.retain(|old| old.key_id() != key_id);
        keys.push(Arc::new(key));
        Ok(key_id)
    }

    /// Takes a key out of the set; false when there was none. The last that is left signs.
    pub fn remove_key(&self, key_id: &str) -> bool {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let before = keys.len();
        keys.retain(|key| key.key_id() != key_id);
        keys.len() < before
    }

    /// What goes wrong from now on, wherever an endpoint has no faults of its own.
    pub fn set_faults(&self, faults: Faults) {
        self.change_faults(|plan| plan.everywhere = faults);
    }

    /// What goes wrong at one endpoint from now on, whatever goes wrong elsewhere.
    pub fn set_faults_for(&self, endpoint: Endpoint, faults: Faults) {
        self.change_faults(|plan| {
            plan.endpoints.insert(endpoint, faults);
        });
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.change_faults(|plan| *plan = FaultPlan::default());
    }

    /// What goes wrong now, wherever an endpoint has no faults of its own.
    pub fn faults(&self) -> Faults {
        self.change_faults(|plan| plan.everywhere.clone())
    }

    fn fault_plan(&self) -> FaultPlan {
        self.change_faults(|plan| plan.clone())
    }

    fn change_faults<T>(&self, change: impl FnOnce(&mut FaultPlan) -> T) -> T {
        change(&mut self.faults.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many requests the Backend API answers in how many seconds; `None` is any number, which
    /// is how it starts. Key sets are not limited.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.requests.set_limit(limit);
    }

    /// How often an endpoint was asked, whatever it answered.
    pub fn api_requests(&self, endpoint: Endpoint) -> u64 {
        match endpoint {
            Endpoint::Jwks => {
                let JwksRequests { frontend, backend } = self.jwks_requests();
                frontend + backend
            }
            _ => self.requests.count(endpoint),
        }
    }

    /// How often the Backend API was asked, key sets aside.
    pub fn api_requests_total(&self) -> u64 {
        Endpoint::ALL
            .into_iter()
            .filter(|endpoint| *endpoint != Endpoint::Jwks)
            .map(|endpoint| self.requests.count(endpoint))
            .sum()
    }

    /// The most that the Backend API was asked within a second and within ten, key sets aside.
    pub fn api_peaks(&self) -> Peaks {
        self.requests.peaks()
    }

    /// Counts from nought again.
    pub fn reset_counts(&self) {
        self.requests.reset();
        self.frontend_requests.store(0, Ordering::Relaxed);
        self.backend_requests.store(0, Ordering::Relaxed);
        self.webhooks.reset();
    }

    /// How often its keys were asked for, faults included.
    pub fn jwks_requests(&self) -> JwksRequests {
        JwksRequests {
            frontend: self.frontend_requests.load(Ordering::Relaxed),
            backend: self.backend_requests.load(Ordering::Relaxed),
        }
    }

    fn signing_key(&self) -> Option<Arc<SigningKey>> {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .cloned()
    }

    /// The key set as a JWKS document.
    fn jwks(&self) -> serde_json::Value {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        serde_json::json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests;
