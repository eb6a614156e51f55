//! Settings from flags, environment and files: read once, checked whole, with every problem
//! reported at once.
//!
//! Called by `cli` and `server`. Knows `identity`, and the rules that it reads; reads no clock and opens no connection.

mod callers;
mod database;
mod exposure;
mod instances;
mod listen_addr;
mod otlp;
mod problems;
mod providers;
mod toml_text;
mod value;
mod variables;

use std::{
    collections::BTreeMap, ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration,
};

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use self::callers::load_callers;
pub use self::database::DatabaseSettings;
pub use self::exposure::Exposure;
pub use self::instances::{lacking_database, lacking_for_handshakes, load_instances};
pub use self::listen_addr::{ListenAddr, NotAnAddress};
pub use self::otlp::OtlpSettings;
pub use self::problems::{Problem, Problems};
pub use self::providers::{ProviderKeys, ProviderSettings};
use self::variables::{Origin, Raw};
pub use self::variables::{SettingsArgs, VARIABLES, Variable};
use crate::{
    callers::Rules,
    identity::{Environment, InstanceName, Issuer, PublishableKey},
};

/// The environment, as a map, so that tests need not change the process's own.
pub type EnvironmentVariables = BTreeMap<String, OsString>;

/// The process's environment. A name that is not UTF-8 cannot be one of ours.
pub fn process_environment() -> EnvironmentVariables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect()
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where decisions are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionLogPlace {
    /// Nowhere.
    Off,
    /// On standard output.
    Stdout,
    /// At the end of a file.
    File(PathBuf),
}

/// How keys are kept fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysSettings {
    /// From one fetch to the next.
    pub refresh: Duration,
    /// Between two fetches for an unknown `kid`.
    pub cooldown: Duration,
    /// The greatest age of keys in use.
    pub max_staleness: Duration,
}

/// How long memberships are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipsSettings {
    /// The size of the memory; 0 is off.
    pub cache_bytes: u64,
    /// How old a membership may be.
    pub max_age: Duration,
    /// How old it may be that there is none.
    pub negative_max_age: Duration,
    /// How old what the mirror says of one may be; zero where it is not asked.
    pub mirror_max_age: Duration,
}

/// Files of TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates; `None` where none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// How it is vouched to upstreams who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The upstream of routes that name none.
    pub default_audience: Option<Box<str>>,
    /// Who vouches.
    pub issuer: Box<str>,
    /// How long a key signs.
    pub rotation: Duration,
    /// The size of the cache of assertions; 0 is off.
    pub cache_bytes: u64,
}

/// How connections and the process come to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long everything is answered after the service said that it leaves.
    pub pause: Duration,
    /// How long calls in flight have to end after that; also those of a connection that is too old.
    pub timeout: Duration,
    /// How old a gRPC connection may get; `None` is without end.
    pub max_connection_age: Option<Duration>,
}

/// Where an instance's keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// This PEM; nothing is fetched.
    Pinned(String),
    /// A JWKS document.
    Jwks {
        /// Its address.
        url: Url,
        /// The secret key, for the Backend API.
        authorization: Option<SecretString>,
    },
}

/// How an instance's Backend API is asked.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Its address, without `/v1`.
    pub url: Url,
    /// The instance's secret key.
    pub secret_key: SecretString,
    /// Requests in ten seconds that this replica may send.
    pub budget: u32,
}

/// One Clerk instance.
#[derive(Clone, Debug)]
pub struct InstanceSettings {
    /// Under which it is configured.
    pub name: InstanceName,
    /// The `iss` of its tokens.
    pub issuer: Issuer,
    /// Names its cookies.
    pub publishable_key: Option<PublishableKey>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// How its Backend API is asked; `None` without a secret key.
    pub api: Option<ApiSettings>,
    /// Of which `azp` must be one.
    pub authorized_parties: Vec<String>,
    /// Of which `aud` must name one.
    pub audiences: Vec<String>,
    /// With any of which its webhooks may be signed; several during a rotation, none without
    /// webhooks.
    pub webhook_secrets: Vec<SecretString>,
    /// Whose users it lets in.
    pub providers: Vec<ProviderSettings>,
}

impl InstanceSettings {
    /// Whether nothing differs, secrets included.
    pub fn same_as(&self, other: &Self) -> bool {
        self.same_keys(other)
            && self.same_api(other)
            && self.publishable_key == other.publishable_key
            && self.authorized_parties == other.authorized_parties
            && self.audiences == other.audiences
            && self.same_webhooks(other)
            && self.providers == other.providers
    }

    /// Whether it is the same instance with keys from the same place, secrets included.
    pub fn same_keys(&self, other: &Self) -> bool {
        let secret = |secret: &Option<SecretString>| {
            secret
                .as_ref()
                .map(|secret| secret.expose_secret().to_owned())
        };
        let from_same_place = match (&self.keys, &other.keys) {
            (KeySource::Pinned(a), KeySource::Pinned(b)) => a == b,
            (
                KeySource::Jwks {
                    url: a,
                    authorization: secret_a,
                },
                KeySource::Jwks {
                    url: b,
                    authorization: secret_b,
                },
            ) => a == b && secret(secret_a) == secret(secret_b),
            (KeySource::Pinned(_), KeySource::Jwks { .. })
            | (KeySource::Jwks { .. }, KeySource::Pinned(_)) => false,
        };
        from_same_place && self.name == other.name && self.issuer == other.issuer
    }

    /// Whether it is the same instance with the same Backend API, secrets included.
    pub fn same_api(&self, other: &Self) -> bool {
        let asked_alike = match (&self.api, &other.api) {
            (Some(a), Some(b)) => {
                a.url == b.url
                    && a.budget == b.budget
                    && a.secret_key.expose_secret() == b.secret_key.expose_secret()
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        asked_alike && self.name == other.name && self.issuer == other.issuer
    }

    /// Whether it is the same instance with the same webhook secrets.
    pub fn same_webhooks(&self, other: &Self) -> bool {
        let exposed = |settings: &Self| {
            let secrets = settings.webhook_secrets.iter();
            let secrets = secrets.map(|secret| secret.expose_secret().to_owned());
            secrets.collect::<Vec<_>>()
        };
        self.name == other.name && exposed(self) == exposed(other)
    }
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one.
    pub instances: Vec<InstanceSettings>,
    /// Where several instances come from; it is looked at while the service runs.
    pub instances_file: Option<PathBuf>,
    /// Where gRPC is answered.
    pub grpc_addr: ListenAddr,
    /// Who may call what over gRPC; `None` is everybody everything.
    pub callers: Option<Rules>,
    /// The file that says it.
    pub callers_file: Option<PathBuf>,
    /// What everybody may ask who can connect.
    pub exposure: Exposure,
    /// Where HTTP is answered.
    pub http_addr: SocketAddr,
    /// Where keys survive a restart.
    pub state_dir: Option<PathBuf>,
    /// Where what is known survives a restart and is shared by replicas.
    pub database: Option<DatabaseSettings>,
    /// The route policy; without one no request is authorized for a proxy.
    pub policy: Option<PathBuf>,
    /// A policy that is tried beside it.
    pub shadow_policy: Option<PathBuf>,
    /// The proxies whose word is taken at `/forward-auth`; empty is nobody's.
    pub forward_auth_from: Vec<IpNet>,
    /// A Unix socket that answers `/forward-auth`.
    pub forward_auth_socket: Option<PathBuf>,
    /// How it is vouched to upstreams who sends a request.
    pub upstream: UpstreamSettings,
    /// Whether browsers with unsettled cookies are sent to Clerk.
    pub handshake: bool,
    /// How long the ids of webhook messages are known, and tombstones.
    pub inbox_retention: Duration,
    /// When the mirror is reconciled each day, in minutes after midnight UTC; `None` for never.
    pub reconcile_at_minutes: Option<u32>,
    /// How long what was revoked is remembered.
    pub revocation_memory: Duration,
    /// How keys are kept fresh.
    pub keys: KeysSettings,
    /// How long one request to the Backend API may take.
    pub api_timeout: Duration,
    /// The size of the token cache; 0 is off.
    pub cache_bytes: u64,
    /// How long memberships are remembered.
    pub memberships: MembershipsSettings,
    /// How long it is remembered that an opaque machine token is good.
    pub machine_token_max_age: Duration,
    /// How far the clocks may differ.
    pub clock_skew: Duration,
    /// TLS of both doors; `None` where they are plain.
    pub tls: Option<TlsSettings>,
    /// How connections and the process end.
    pub drain: DrainSettings,
    /// What is logged, as a filter of `tracing`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where decisions are recorded.
    pub decision_log: DecisionLogPlace,
    /// Of what is allowed this part is recorded, from 0 to 1.
    pub decision_log_sample: f64,
    /// Where traces and logs are sent; `None` for nowhere.
    pub otlp: Option<OtlpSettings>,
    shown: Vec<Shown>,
}

/// A setting as `--print-config` shows it.
#[derive(Clone, Debug)]
struct Shown {
    name: &'static str,
    value: Option<String>,
    origin: Origin,
}

/// Variables that say what the one instance is; the instances' file stands for all of them.
const OF_ONE_INSTANCE: [&str; 10] = [
    "CLERK_PUBLISHABLE_KEY",
    "CLERK_SECRET_KEY",
    "CLERK_JWT_KEY",
    "CLERK_API_URL",
    "CLERK_AUTHZ_API_BUDGET",
    "CLERK_AUTHORIZED_PARTIES",
    "CLERK_AUDIENCES",
    "CLERK_AUTHZ_ISSUER",
    "CLERK_AUTHZ_JWKS_URL",
    "CLERK_WEBHOOK_SIGNING_SECRET",
];

impl Settings {
    /// Reads and checks everything; all problems come back at once.
    pub fn load(args: &SettingsArgs, environment: &EnvironmentVariables) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let raw = Raw::read(args, environment, &mut problems);
        let instances_file = raw.text("CLERK_AUTHZ_INSTANCES").map(PathBuf::from);
        let instances = match &instances_file {
            Some(file) => {
                for name in OF_ONE_INSTANCE.iter().filter(|name| raw.is_given(name)) {
                    problems.push(Problem::new(
                        raw.subject(name),
                        "is set beside CLERK_AUTHZ_INSTANCES; say it in that file, or leave the \
                         file out",
                    ));
                }
                load_instances(file).unwrap_or_else(|found| {
                    problems.extend(found);
                    Vec::new()
                })
            }
            None => instances::from_variables(&raw, &mut problems)
                .into_iter()
                .collect(),
        };
        if !raw.is_given("CLERK_AUTHZ_DATABASE_URL") {
            problems.extend(lacking_database(&instances));
        }
        let keys = KeysSettings {
            refresh: raw.duration("CLERK_AUTHZ_KEYS_REFRESH", 1..=86_400, &mut problems),
            cooldown: raw.duration("CLERK_AUTHZ_KEYS_COOLDOWN", 1..=3_600, &mut problems),
            max_staleness: raw.duration(
                "CLERK_AUTHZ_KEYS_MAX_STALENESS",
                60..=2_592_000,
                &mut problems,
            ),
        };
        let memberships = MembershipsSettings {
            cache_bytes: raw.bytes("CLERK_AUTHZ_MEMBERSHIP_CACHE_BYTES", &mut problems),
            max_age: raw.duration("CLERK_AUTHZ_MEMBERSHIP_MAX_AGE", 1..=3_600, &mut problems),
            negative_max_age: raw.duration(
                "CLERK_AUTHZ_MEMBERSHIP_NEGATIVE_MAX_AGE",
                1..=3_600,
                &mut problems,
            ),
            mirror_max_age: raw.duration("CLERK_AUTHZ_MIRROR_MAX_AGE", 0..=604_800, &mut problems),
        };
        let revocation_memory =
            raw.duration("CLERK_AUTHZ_REVOCATION_MEMORY", 60..=604_800, &mut problems);
        for (shorter, short, longer, long) in [
            (
                "CLERK_AUTHZ_MEMBERSHIP_NEGATIVE_MAX_AGE",
                memberships.negative_max_age,
                "CLERK_AUTHZ_MEMBERSHIP_MAX_AGE",
                memberships.max_age,
            ),
            // Of a change before its memory nobody knows any more.
            (
                "CLERK_AUTHZ_MIRROR_MAX_AGE",
                memberships.mirror_max_age,
                "CLERK_AUTHZ_REVOCATION_MEMORY",
                revocation_memory,
            ),
            (
                "CLERK_AUTHZ_KEYS_COOLDOWN",
                keys.cooldown,
                "CLERK_AUTHZ_KEYS_REFRESH",
                keys.refresh,
            ),
            (
                "CLERK_AUTHZ_KEYS_REFRESH",
                keys.refresh,
                "CLERK_AUTHZ_KEYS_MAX_STALENESS",
                keys.max_staleness,
            ),
        ] {
            if short > long {
                problems.push(Problem::new(
                    raw.subject(shorter),
                    format!(
                        "is longer than {longer}; expected at most {}",
                        value::shown(long)
                    ),
                ));
            }
        }
        if raw.is_given("CLERK_AUTHZ_SHADOW_POLICY") && !raw.is_given("CLERK_AUTHZ_POLICY") {
            problems.push(Problem::new(
                raw.subject("CLERK_AUTHZ_SHADOW_POLICY"),
                "is set without CLERK_AUTHZ_POLICY, beside which it would be tried; set both",
            ));
        }
        if raw.is_given("CLERK_AUTHZ_MIRROR_MAX_AGE") && !raw.is_given("CLERK_AUTHZ_DATABASE_URL") {
            problems.push(Problem::new(
                raw.subject("CLERK_AUTHZ_MIRROR_MAX_AGE"),
                "is set without CLERK_AUTHZ_DATABASE_URL, where the mirror is; set both",
            ));
        }
        for (needed, what) in [
            ("CLERK_AUTHZ_POLICY", "by which requests are let through"),
            ("CLERK_AUTHZ_DATABASE_URL", "where the keys are kept"),
        ] {
            let asked = "CLERK_AUTHZ_UPSTREAM_ASSERTIONS";
            if raw.is_given(asked) && !raw.is_given(needed) {
                let text = format!("is set without {needed}, {what}; set both");
                problems.push(Problem::new(raw.subject(asked), text));
            }
        }
        for variable in [
            "CLERK_AUTHZ_FORWARD_AUTH_FROM",
            "CLERK_AUTHZ_FORWARD_AUTH_SOCKET",
        ] {
            if raw.is_given(variable) && !raw.is_given("CLERK_AUTHZ_POLICY") {
                problems.push(Problem::new(
                    raw.subject(variable),
                    "is set without CLERK_AUTHZ_POLICY, by which it would be answered; set both",
                ));
            }
        }
        let handshake = raw.switch("CLERK_AUTHZ_HANDSHAKE", &mut problems);
        if handshake {
            if !raw.is_given("CLERK_AUTHZ_POLICY") {
                problems.push(Problem::new(
                    raw.subject("CLERK_AUTHZ_HANDSHAKE"),
                    "is on without CLERK_AUTHZ_POLICY, by which browsers would be answered; set both",
                ));
            }
            problems.extend(lacking_for_handshakes(&instances, instances_file.is_some()));
        }
        let callers_file = raw.text("CLERK_AUTHZ_CALLERS").map(PathBuf::from);
        let callers = callers_file.as_deref().and_then(|file| {
            let loaded = load_callers(file);
            loaded.map_err(|found| problems.extend(found)).ok()
        });
        let grpc_addr = raw.listen_addr("CLERK_AUTHZ_GRPC_ADDR", &mut problems);
        let database = raw.database("CLERK_AUTHZ_DATABASE_URL", &mut problems);
        let tls = read_tls(&raw, &mut problems);
        let client_ca = tls.as_ref().and_then(|tls| tls.client_ca.as_deref());
        let exposure = Exposure {
            grpc_is_reachable: !exposure::is_of_this_machine(&grpc_addr),
            callers_are_known: exposure::callers_are_known(callers_file.as_deref(), client_ca),
            has_database: database.is_some(),
        };
        let settings = Self {
            instances,
            instances_file,
            grpc_addr,
            callers,
            callers_file,
            exposure,
            http_addr: raw.address("CLERK_AUTHZ_HTTP_ADDR", &mut problems),
            state_dir: raw.text("CLERK_AUTHZ_STATE_DIR").map(PathBuf::from),
            database,
            policy: raw.text("CLERK_AUTHZ_POLICY").map(PathBuf::from),
            shadow_policy: raw.text("CLERK_AUTHZ_SHADOW_POLICY").map(PathBuf::from),
            forward_auth_from: raw.networks("CLERK_AUTHZ_FORWARD_AUTH_FROM", &mut problems),
            forward_auth_socket: raw
                .text("CLERK_AUTHZ_FORWARD_AUTH_SOCKET")
                .map(PathBuf::from),
            upstream: UpstreamSettings {
                default_audience: raw.party("CLERK_AUTHZ_UPSTREAM_ASSERTIONS", &mut problems),
                issuer: raw
                    .party("CLERK_AUTHZ_UPSTREAM_ISSUER", &mut problems)
                    .unwrap_or_default(),
                rotation: raw.duration(
                    "CLERK_AUTHZ_UPSTREAM_KEY_ROTATION",
                    86_400..=31_622_400,
                    &mut problems,
                ),
                cache_bytes: raw.bytes("CLERK_AUTHZ_UPSTREAM_CACHE_BYTES", &mut problems),
            },
            handshake,
            inbox_retention: raw.duration(
                "CLERK_AUTHZ_INBOX_RETENTION",
                86_400..=31_622_400,
                &mut problems,
            ),
            reconcile_at_minutes: raw.time_of_day("CLERK_AUTHZ_RECONCILE_AT", &mut problems),
            revocation_memory,
            keys,
            api_timeout: raw.duration_within(
                "CLERK_AUTHZ_API_TIMEOUT",
                Duration::from_millis(100)..=Duration::from_secs(30),
                &mut problems,
            ),
            cache_bytes: raw.bytes("CLERK_AUTHZ_CACHE_BYTES", &mut problems),
            memberships,
            machine_token_max_age: raw.duration(
                "CLERK_AUTHZ_MACHINE_TOKEN_MAX_AGE",
                1..=3_600,
                &mut problems,
            ),
            clock_skew: raw.duration("CLERK_AUTHZ_CLOCK_SKEW", 0..=60, &mut problems),
            tls,
            drain: DrainSettings {
                pause: raw.duration("CLERK_AUTHZ_DRAIN_PAUSE", 0..=600, &mut problems),
                timeout: raw.duration("CLERK_AUTHZ_DRAIN_TIMEOUT", 1..=600, &mut problems),
                max_connection_age: Some(raw.duration(
                    "CLERK_AUTHZ_MAX_CONNECTION_AGE",
                    0..=604_800,
                    &mut problems,
                ))
                .filter(|age| !age.is_zero()),
            },
            log: raw.log("CLERK_AUTHZ_LOG", &mut problems),
            log_format: raw.log_format("CLERK_AUTHZ_LOG_FORMAT", &mut problems),
            decision_log: raw.decision_log("CLERK_AUTHZ_DECISION_LOG", &mut problems),
            decision_log_sample: raw.part("CLERK_AUTHZ_DECISION_LOG_SAMPLE", &mut problems),
            otlp: otlp::read(&raw, args, environment, &mut problems),
            shown: raw.shown(),
        };
        let http_addr = settings.http_addr;
        let same = settings.grpc_addr.tcp() == Some(http_addr) && http_addr.port() != 0;
        if same && problems.is_empty() {
            problems.push(Problem::new(
                raw.subject("CLERK_AUTHZ_HTTP_ADDR"),
                format!("is {http_addr}, as CLERK_AUTHZ_GRPC_ADDR; expected another port"),
            ));
        }
        let socket = settings.forward_auth_socket.as_deref();
        if socket.is_some() && settings.grpc_addr.unix() == socket {
            problems.push(Problem::new(
                raw.subject("CLERK_AUTHZ_FORWARD_AUTH_SOCKET"),
                "is the socket of CLERK_AUTHZ_GRPC_ADDR; expected another path",
            ));
        }
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(Problems::new(problems))
        }
    }

    /// What is wrong with serving these settings, where data about others would be open to whoever can
    /// connect. Commands that serve nothing do not ask.
    pub fn check_exposure(&self) -> Result<(), Problems> {
        match self.exposure.problem(&self.grpc_addr, &self.instances) {
            Some(problem) => Err(Problems::new(vec![problem])),
            None => Ok(()),
        }
    }

    /// The database alone, for commands that need nothing else.
    pub fn load_database(
        args: &SettingsArgs,
        environment: &EnvironmentVariables,
    ) -> Result<DatabaseSettings, Problems> {
        const NAME: &str = "CLERK_AUTHZ_DATABASE_URL";
        let mut problems = Vec::new();
        let raw = Raw::read(args, environment, &mut problems);
        problems.clear(); // What is said of other settings is for those who use them.
        let database = raw.database(NAME, &mut problems);
        database.ok_or_else(|| {
            if problems.is_empty() {
                problems.push(Problem::new(NAME, "is not set; set it as for the service"));
            }
            Problems::new(problems)
        })
    }

    /// Every setting with its value and where it came from; secrets are masked.
    pub fn print_config(&self) -> String {
        use fmt::Write;
        let mut text = String::new();
        for Shown {
            name,
            value,
            origin,
        } in &self.shown
        {
            // Writing to a string does not fail.
            let _ = match value {
                Some(value) => writeln!(text, "{name}={value}  # {origin}"),
                None => writeln!(text, "# {name} is not set"),
            };
        }
        for instance in &self.instances {
            let keys = match &instance.keys {
                KeySource::Pinned(_) => "pinned PEM".to_owned(),
                KeySource::Jwks {
                    url,
                    authorization: None,
                } => url.to_string(),
                KeySource::Jwks {
                    url,
                    authorization: Some(_),
                } => {
                    format!("{url}, with the secret key")
                }
            };
            let api = match &instance.api {
                Some(ApiSettings { url, budget, .. }) => {
                    format!("{url}, with the secret key, {budget} requests in 10s at most")
                }
                None => "none, for want of a secret key".to_owned(),
            };
            let webhooks = match instance.webhook_secrets.len() {
                0 => "none".to_owned(),
                1 => "with one secret".to_owned(),
                secrets => format!("with any of {secrets} secrets"),
            };
            let _ = writeln!(
                text,
                "# instance \"{}\": issuer {}, keys from {keys}; Backend API: {api}; webhooks: \
                 {webhooks}",
                instance.name, instance.issuer
            );
            for ProviderSettings { rules, keys } in &instance.providers {
                let (ProviderKeys::Discovery(url) | ProviderKeys::Jwks(url)) = keys;
                let _ = writeln!(
                    text,
                    "# instance \"{}\": identity provider \"{}\": issuer {}, keys for {} from {url}",
                    instance.name, rules.name, rules.issuer, rules.algorithms
                );
            }
        }
        if let Some(rules) = &self.callers {
            text += &callers::shown(rules);
        }
        text
    }
}

/// `None` where there is none, or something of it is missing.
fn read_tls(raw: &Raw, problems: &mut Vec<Problem>) -> Option<TlsSettings> {
    const CERTIFICATE: &str = "CLERK_AUTHZ_TLS_CERT";
    const KEY: &str = "CLERK_AUTHZ_TLS_KEY";
    const CLIENT_CA: &str = "CLERK_AUTHZ_TLS_CLIENT_CA";
    let file = |name| raw.text(name).map(PathBuf::from);
    for (given, missing, what) in [
        (CERTIFICATE, KEY, "the certificate's private key"),
        (KEY, CERTIFICATE, "the key's certificate"),
        (CLIENT_CA, CERTIFICATE, "a certificate of its own"),
    ] {
        if raw.is_given(given) && !raw.is_given(missing) {
            let text = format!("is set without {missing}, {what}; set both");
            problems.push(Problem::new(raw.subject(given), text));
        }
    }
    Some(TlsSettings {
        certificate: file(CERTIFICATE)?,
        key: file(KEY)?,
        client_ca: file(CLIENT_CA),
    })
}

/// A secret as it may be shown: its public prefix.
fn masked(secret: &str) -> String {
    if secret.contains("://") {
        return database::shown(secret);
    }
    for prefix in ["sk_live_", "sk_test_", "whsec_", "live_", "test_"] {
        if secret.starts_with(prefix) {
            return format!("{prefix}…");
        }
    }
    "…".to_owned()
}

/// A secret's file as it may be shown: whoever put the secret itself there must not find it in a log.
fn shown_file(file: &str) -> String {
    let is_secret = [
        "sk_live_",
        "sk_test_",
        "whsec_",
        "postgres://",
        "postgresql://",
    ]
    .iter()
    .any(|prefix| file.starts_with(prefix));
    // The headers of a collector have one of these in them, and hardly any path has.
    if is_secret || file.contains(['=', ' ']) {
        masked(file)
    } else {
        file.to_owned()
    }
}

/// Whether a secret key and a publishable key are of one kind, as far as they say.
fn secret_key_environment(secret: &str) -> Option<Environment> {
    if secret.starts_with("sk_live_") || secret.starts_with("live_") {
        Some(Environment::Production)
    } else if secret.starts_with("sk_test_") || secret.starts_with("test_") {
        Some(Environment::Development)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
