//! Builds the rooms from the settings, starts them in order, drains them in reverse.
//!
//! Called by `cli` and by tests. The only place that knows every room; it holds no rule.

mod callers;
mod database;
mod decisions;
mod drain;
mod inboxes;
mod instances;
mod listening;
mod looks;
mod metrics;
mod mirror;
mod policies;
mod providers;
mod revocations;
mod socket;
mod tls;
mod upstreams;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

pub(crate) use self::instances::backend_api;
use self::{
    callers::CallerRules,
    drain::Ending,
    inboxes::InboxSet,
    instances::{InstanceReloads, InstanceSet},
    listening::Listening,
    metrics::Sources,
    mirror::MirrorKeepers,
    policies::Policies,
    revocations::RevocationSet,
    tls::ReloadedTls,
};
use crate::{
    authz::{
        Checker, Exchanger, Instances, MachineLookups, MachineSettings, MembershipSettings,
        SessionLookups, TokenCache, Verifier,
    },
    door::{
        ListenerLimits,
        answer::Vouching,
        grpc::{self, AuthzDoor, ExtAuthzDoor, HealthReport},
        http,
    },
    identity::Timestamp,
    keys::{self, Clock, JwksSource, SelfTestFailed},
    mirror::StoreError,
    settings::{DrainSettings, ListenAddr, Problems, Settings},
    store::SqlStore,
    sync::{Ear, UserSync, WatchLimits, Watches},
    telemetry::{lines::Lines, metrics::Exporter},
    upstream_assertion::KeysUnusable,
};

/// gRPC calls that are worked on at once; a further one is answered `RESOURCE_EXHAUSTED`. Those that
/// wait for Clerk are limited before (`authz::memberships`), so that they never take all of them.
pub const MAX_CALLS: usize = 8_192;

/// What the service takes on at once. No setting: tests lower it to see what happens there.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// [`MAX_CALLS`].
    pub max_calls: usize,
    /// Of watches, which are no calls that end.
    pub watches: WatchLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_calls: MAX_CALLS,
            watches: WatchLimits::default(),
        }
    }
}

/// How long the first fetch of the keys may hold up the start, so that a service whose keys can be
/// had is ready with its first answer. Longer, and it starts without: not serving, but reachable.
const FIRST_KEYS_WITHIN: Duration = Duration::from_millis(1_500);

/// `PRI * HTTP/2.0` and what follows it (RFC 9113, 3.4). Until it is there, HTTP/2 itself has no limit.
const HTTP2_PREFACE_BYTES: usize = 24;
const GRPC_CONNECTIONS: ListenerLimits = ListenerLimits {
    max_connections: 8_192,
    opening_bytes: HTTP2_PREFACE_BYTES,
    opening_within: Duration::from_secs(10),
    max_age: None,
};
const HTTP_CONNECTIONS: ListenerLimits = ListenerLimits {
    max_connections: 256,
    opening_bytes: 1,
    opening_within: Duration::from_secs(5),
    max_age: Some(Duration::from_secs(120)),
};
/// The same where proxies ask there, too: many at once, over connections that they keep.
const PROXY_CONNECTIONS: ListenerLimits = ListenerLimits {
    max_connections: 8_192,
    max_age: Some(Duration::from_secs(3_600)),
    ..HTTP_CONNECTIONS
};

/// The service could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The cryptography does not work as it must.
    #[error(transparent)]
    SelfTest(#[from] SelfTestFailed),
    /// An instance cannot be used as it is configured.
    #[error(transparent)]
    Settings(#[from] Problems),
    /// The database cannot be used.
    #[error("CLERK_AUTHZ_DATABASE_URL is {address:?}; {source}")]
    Database {
        /// Its value, without the password.
        address: String,
        /// Why not.
        source: StoreError,
    },
    /// A route policy cannot be used.
    #[error("{variable} is {}; {cause}", .file.display())]
    Policy {
        /// The setting.
        variable: &'static str,
        /// Its value.
        file: PathBuf,
        /// Everything that is wrong with it.
        cause: String,
    },
    /// There is no key to vouch to upstreams with.
    #[error(transparent)]
    AssertionKeys(#[from] KeysUnusable),
    /// A file of TLS cannot be used.
    #[error("{variable} is {}; {cause}", .file.display())]
    Tls {
        /// The setting.
        variable: &'static str,
        /// Its value.
        file: PathBuf,
        /// Why not.
        cause: String,
    },
    /// The decision log cannot be written.
    #[error("CLERK_AUTHZ_DECISION_LOG is {place:?}; it cannot be written: {source}")]
    DecisionLog {
        /// Its value.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// A port, or a socket, cannot be had.
    #[error("{variable} is {addr}; cannot listen there: {source}")]
    Listen {
        /// The setting.
        variable: &'static str,
        /// Its value.
        addr: ListenAddr,
        /// Why not.
        source: io::Error,
    },
    /// A socket that is not one of gRPC cannot be had.
    #[error("{variable} is {}; cannot listen there: {source}", .path.display())]
    Socket {
        /// The setting.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn memberships(settings: &Settings) -> MembershipSettings {
    let memberships = &settings.memberships;
    MembershipSettings {
        max_bytes: memberships.cache_bytes,
        max_age: memberships.max_age,
        negative_max_age: memberships.negative_max_age,
        ..MembershipSettings::default()
    }
}

fn machines(settings: &Settings, clock: &Clock) -> MachineLookups {
    let max_age = settings.machine_token_max_age;
    let machines = MachineSettings::beside(&memberships(settings), max_age);
    MachineLookups::new(machines, Arc::clone(clock))
}

/// The clock of the machine.
pub fn system_clock() -> Clock {
    Arc::new(|| Timestamp::from(std::time::SystemTime::now()))
}

/// A service that runs.
pub struct Running {
    grpc_addr: ListenAddr,
    http_addr: SocketAddr,
    verifier: Arc<Verifier>,
    health: Arc<HealthReport>,
    ending: Ending,
    drain: DrainSettings,
    doors: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    /// Closed last: what ends before may still write.
    store: Option<SqlStore>,
    decisions: Option<Lines>,
}

/// The use cases without doors, for one-off questions.
pub struct Asker {
    /// Decides and verifies as the service does.
    pub checker: Arc<Checker>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Asker {
    /// For the settings' instances; with `source`, all keys come from there.
    pub async fn start(
        settings: &Settings,
        clock: Clock,
        source: Option<Arc<dyn JwksSource>>,
    ) -> Result<Self, StartError> {
        keys::self_test()?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        // One question neither needs the database nor migrates it.
        let snapshots = database::snapshots(settings, None);
        let mut set = InstanceSet::new(
            settings,
            snapshots,
            Arc::clone(&clock),
            stop.clone(),
            tasks.clone(),
        );
        if let Some(source) = source {
            set = set.with_source(source);
        }
        let instances = set.apply(&settings.instances).await?;
        // Nothing is asked twice.
        let machines = machines(settings, &clock);
        let verifier = Verifier::new(instances, TokenCache::new(0), settings.clock_skew);
        let verifier = Arc::new(verifier.with_machine_lookups(machines));
        first_keys(&verifier.instances(), &clock).await;
        Ok(Self {
            checker: Arc::new(Checker::new(verifier, memberships(settings), clock)),
            stop,
            tasks,
        })
    }

    /// Ends what works in the background.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts the service. It answers when this returns; whether it is ready is for health checks.
pub async fn start(settings: &Settings, clock: Clock) -> Result<Running, StartError> {
    start_under(Limits::default(), settings, clock).await
}

/// As [`start`], under other limits.
pub async fn start_under(
    limits: Limits,
    settings: &Settings,
    clock: Clock,
) -> Result<Running, StartError> {
    settings.check_exposure()?;
    keys::self_test()?;
    let ending = Ending::default();
    let stop = ending.background.clone();
    let tasks = TaskTracker::new();

    let store = database::open(settings).await?;
    let snapshots = database::snapshots(settings, store.as_ref());
    let mut set = InstanceSet::new(
        settings,
        snapshots,
        Arc::clone(&clock),
        stop.clone(),
        tasks.clone(),
    );
    let ear = store
        .as_ref()
        .map(|store| Arc::new(Ear::new(Arc::new(store.clone()), Arc::clone(&clock))));
    let inboxes = store
        .as_ref()
        .zip(ear.as_ref())
        .map(|(store, ear)| database::inboxes(settings, store, ear, Arc::clone(&clock)));
    if let Some(inboxes) = &inboxes {
        set = set.with_inboxes(InboxSet::new(
            Arc::clone(inboxes),
            stop.clone(),
            tasks.clone(),
        ));
    }
    let keepers = store
        .as_ref()
        .map(|store| MirrorKeepers::new(settings, store, &clock));
    if let Some(keepers) = &keepers {
        set = set.with_listings(Arc::clone(&keepers.listings));
    }
    if let Some((store, ear)) = store.as_ref().zip(ear.as_ref()) {
        set = set.with_revocations(RevocationSet::new(
            Arc::new(store.clone()),
            Arc::clone(ear),
            settings.revocation_memory,
            Arc::clone(&clock),
            stop.clone(),
            tasks.clone(),
        ));
    }
    let instances = set.apply(&settings.instances).await?;
    let cache = TokenCache::new(settings.cache_bytes);
    let lookups = SessionLookups::new(memberships(settings), Arc::clone(&clock));
    let mut verifier = Verifier::new(instances, cache, settings.clock_skew)
        .with_session_lookups(lookups)
        .with_machine_lookups(machines(settings, &clock));
    if let Some(store) = &store {
        verifier = verifier.with_uses(Arc::new(store.clone()));
    }
    let verifier = Arc::new(verifier);
    let health = Arc::new(HealthReport::new(
        Arc::clone(&verifier),
        Arc::clone(&clock),
        ending.leaving.clone(),
    ));

    let tls = ReloadedTls::load(settings, &clock)?.map(Arc::new);
    let grpc = Listening::at(
        "CLERK_AUTHZ_GRPC_ADDR",
        &settings.grpc_addr,
        GRPC_CONNECTIONS,
        tls.as_ref().map(|tls| tls.doors().grpc.clone()),
    )
    .await?;
    let http = Listening::at(
        "CLERK_AUTHZ_HTTP_ADDR",
        &settings.http_addr.into(),
        match &settings.forward_auth_from[..] {
            [] => HTTP_CONNECTIONS,
            [..] => PROXY_CONNECTIONS,
        },
        tls.as_ref().map(|tls| tls.doors().http.clone()),
    )
    .await?;
    let http_addr = http.addr.tcp().unwrap_or(settings.http_addr);

    first_keys(&verifier.instances(), &clock).await;
    health.start().await;
    tasks.spawn(grpc::report_health(Arc::clone(&health), stop.clone()));
    if let Some(tls) = &tls {
        tasks.spawn(Arc::clone(tls).reload_on_change(stop.clone()));
    }
    if let Some(ear) = &ear {
        tasks.spawn(Arc::clone(ear).listen(stop.clone()));
    }
    if let Some(inboxes) = &inboxes {
        tasks.spawn(Arc::clone(inboxes).keep_up(stop.clone()));
    }
    if let Some(keepers) = &keepers {
        keepers.start(&stop, &tasks);
    }
    let instance_reloads = settings.instances_file.clone().map(|file| {
        let reloads = Arc::<InstanceReloads>::default();
        tasks.spawn(set.reload_on_change(file, Arc::clone(&verifier), Arc::clone(&reloads)));
        reloads
    });

    let mut checker = Checker::new(
        Arc::clone(&verifier),
        memberships(settings),
        Arc::clone(&clock),
    );
    if let Some((store, keepers)) = store.as_ref().zip(keepers.as_ref()) {
        let max_age = settings.memberships.mirror_max_age;
        checker = checker.with_mirror(MirrorKeepers::ask(store), keepers.compared_at(), max_age);
    }
    let checker = Arc::new(checker);
    let assertions = upstreams::assertions(settings, store.as_ref(), &clock);
    let policies = Policies::load(settings, Arc::clone(&checker), assertions.clone())?;
    let policies = policies.map(Arc::new);
    if let Some(policies) = &policies {
        policies.prepare_first_keys().await?;
        tasks.spawn(Arc::clone(policies).reload_on_change(stop.clone()));
    }
    if let Some(assertions) = &assertions {
        tasks.spawn(Arc::clone(assertions).keep(stop.clone()));
    }
    let vouching = Vouching::with(assertions.clone());
    let users = store.clone().map(|store| UserSync::new(Arc::new(store)));
    let watches = store.clone().zip(ear.clone()).map(|(store, ear)| {
        Arc::new(Watches::new(
            Arc::new(store),
            ear,
            limits.watches,
            Arc::clone(&clock),
            ending.closing.clone(),
            tasks.clone(),
        ))
    });
    let (decision_log, decisions) = decisions::open(settings)?;
    let caller_rules = CallerRules::of(settings).map(Arc::new);
    let mut door = AuthzDoor::new(
        Arc::clone(&checker),
        users,
        watches.clone(),
        Arc::clone(&clock),
        decision_log.clone(),
    );
    if let Some(store) = &store {
        let exchanger = Exchanger::new(Arc::new(store.clone()), settings.clock_skew);
        door = door.with_exchanger(Arc::new(exchanger));
    }
    if let Some(rules) = &caller_rules {
        door = door.with_callers(Arc::clone(rules.callers()));
        tasks.spawn(Arc::clone(rules).reload_on_change(stop.clone()));
    }
    let ext_authz = policies.as_ref().map(|policies| {
        let gatekeeper = Arc::clone(policies.gatekeeper());
        let decisions = decision_log.clone();
        ExtAuthzDoor::new(gatekeeper, Arc::clone(&clock), door.calls(), decisions)
            .with_vouching(vouching.clone())
    });
    let forward_auth = policies.as_ref().map(|policies| {
        let gatekeeper = Arc::clone(policies.gatekeeper());
        let decisions = decision_log.clone();
        http::ForwardAuthDoor::new(gatekeeper, Arc::clone(&clock), door.calls(), decisions)
            .with_vouching(vouching.clone())
    });
    let peers = http::Peers::Of(settings.forward_auth_from.clone().into());
    let socket = settings.forward_auth_socket.as_deref();
    let socket = socket
        .map(|path| Listening::for_forward_auth(path, PROXY_CONNECTIONS))
        .transpose()?;
    let exporter = Exporter::new(metrics::source(Sources {
        checker,
        calls: door.calls(),
        decisions: decisions.as_ref().map(|lines| Box::new(lines.stats()) as _),
        store: store.clone(),
        inboxes: inboxes.clone(),
        keepers: keepers.clone(),
        ear: ear.clone(),
        watches,
        policies: policies.clone(),
        assertions: assertions.clone(),
        tls,
        callers: caller_rules,
        instance_reloads,
        clock,
    }));
    let grpc_addr = grpc.addr;
    let calls = door.calls();
    let mut doors = vec![
        tokio::spawn({
            let (health, closing) = (Arc::clone(&health), ending.closing.clone());
            let limits = grpc::ServeLimits {
                max_calls: limits.max_calls,
                age: drain::connection_age(&settings.drain),
            };
            async move {
                let served =
                    grpc::serve(grpc.listener, door, ext_authz, health, limits, closing).await;
                if let Err(error) = served {
                    error!(%error, "the gRPC door ended");
                }
                drop(grpc.file);
            }
        }),
        tokio::spawn({
            let (health, closing) = (Arc::clone(&health), ending.closing.clone());
            let render: http::RenderMetrics = Arc::new(move |format| match format {
                http::MetricsFormat::OpenMetrics => exporter.render(),
                http::MetricsFormat::Prometheus => exporter.render_prometheus(),
            });
            let forward_auth = (forward_auth.clone(), peers);
            async move {
                let stop = closing.cancelled_owned();
                let nightly = keepers.map(|keepers| keepers.nightly);
                let mirror = http::MirrorParts {
                    inboxes,
                    nightly,
                    assertions,
                };
                let served = http::serve(
                    http.listener,
                    health,
                    render,
                    mirror,
                    forward_auth,
                    calls,
                    stop,
                )
                .await;
                if let Err(error) = served {
                    error!(%error, "the HTTP door ended");
                }
            }
        }),
    ];
    if let Some((socket, door)) = socket.zip(forward_auth) {
        let stop = ending.closing.clone().cancelled_owned();
        doors.push(tokio::spawn(async move {
            if let Err(error) = http::serve_socket(socket.listener, door, stop).await {
                error!(%error, "the socket of /forward-auth ended");
            }
            drop(socket.file);
        }));
    }
    info!(grpc = %grpc_addr, http = %http_addr, "listening");
    Ok(Running {
        grpc_addr,
        http_addr,
        verifier,
        health,
        ending,
        drain: settings.drain,
        doors,
        tasks,
        store,
        decisions,
    })
}

/// Waits until every instance has keys, but not for long.
async fn first_keys(instances: &Instances, clock: &Clock) {
    let all = async {
        for instance in instances.all() {
            let mut changes = instance.keyring.changes();
            while !instance.keyring.is_usable(clock()) && changes.changed().await.is_ok() {}
        }
    };
    if timeout(FIRST_KEYS_WITHIN, all).await.is_err() {
        warn!("going on without all keys: tokens cannot be told until they are there");
    }
}

impl Running {
    /// Where gRPC is answered.
    pub fn grpc_addr(&self) -> &ListenAddr {
        &self.grpc_addr
    }

    /// Where HTTP is answered.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Verifies as the doors do.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// What health checks are told.
    pub fn health(&self) -> &Arc<HealthReport> {
        &self.health
    }
}
