//! The one table of settings, and their texts before they are checked.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt, fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use ipnet::IpNet;

use super::{
    DatabaseSettings, DecisionLogPlace, EnvironmentVariables, ListenAddr, LogFormat, Problem,
    Shown, database, masked, shown_file, value,
};

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// The environment variable.
    pub name: &'static str,
    /// The flag, without dashes. A secret has a flag for its file only: a command line is seen by
    /// others.
    pub flag: &'static str,
    /// Used where nothing is given.
    pub default: Option<&'static str>,
    /// Whether it is a secret: masked, and also read from the file that `<name>_FILE` names.
    pub secret: bool,
    /// What it means.
    pub help: &'static str,
}

const fn variable(
    name: &'static str,
    flag: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Variable {
    Variable {
        name,
        flag,
        default,
        secret: false,
        help,
    }
}

const fn secret(name: &'static str, flag: &'static str, help: &'static str) -> Variable {
    Variable {
        name,
        flag,
        default: None,
        secret: true,
        help,
    }
}

/// All settings.
pub const VARIABLES: &[Variable] = &[
    variable(
        "CLERK_PUBLISHABLE_KEY",
        "publishable-key",
        None,
        "The Clerk instance's publishable key: says its issuer, where its keys are, and the names of its cookies",
    ),
    secret(
        "CLERK_SECRET_KEY",
        "secret-key-file",
        "The Clerk instance's secret key; with it the keys come from the Backend API, and memberships can be looked up",
    ),
    secret(
        "CLERK_JWT_KEY",
        "jwt-key-file",
        "The Clerk instance's public key as PEM; with it nothing is fetched",
    ),
    variable(
        "CLERK_API_URL",
        "api-url",
        Some("https://api.clerk.com"),
        "Where Clerk's Backend API is",
    ),
    variable(
        "CLERK_AUTHZ_API_BUDGET",
        "api-budget",
        None,
        "Requests in ten seconds that this replica may send to the Backend API: Clerk's limit divided by the number of replicas, less a margin; without it 900 for a production key and 90 for a development key",
    ),
    variable(
        "CLERK_AUTHZ_API_TIMEOUT",
        "api-timeout",
        Some("3s"),
        "How long one request to the Backend API may take",
    ),
    variable(
        "CLERK_AUTHORIZED_PARTIES",
        "authorized-parties",
        None,
        "Origins of which the token's azp must be one, between commas, such as https://app.example.com",
    ),
    variable(
        "CLERK_AUDIENCES",
        "audiences",
        None,
        "Audiences of which the token's aud must name one where it has an aud, between commas",
    ),
    variable(
        "CLERK_AUTHZ_ISSUER",
        "issuer",
        None,
        "The issuer of the tokens, where it does not follow from the publishable key",
    ),
    variable(
        "CLERK_AUTHZ_JWKS_URL",
        "jwks-url",
        None,
        "Where the keys are, where it does not follow from the other settings",
    ),
    variable(
        "CLERK_AUTHZ_INSTANCES",
        "instances",
        None,
        "A TOML file with several Clerk instances, in place of the variables for one; read again when it changes",
    ),
    variable(
        "CLERK_AUTHZ_STATE_DIR",
        "state-dir",
        None,
        "A directory in which the keys survive a restart; without it they are kept in the database, where there is one",
    ),
    secret(
        "CLERK_AUTHZ_DATABASE_URL",
        "database-url-file",
        "The database: sqlite:///PATH for one replica, postgres://USER:PASSWORD@HOST/NAME for many; the keys survive a restart in it",
    ),
    secret(
        "CLERK_WEBHOOK_SIGNING_SECRET",
        "webhook-signing-secret-file",
        "The signing secret of the Clerk instance's webhook endpoint, or several between commas during a rotation; needs CLERK_AUTHZ_DATABASE_URL",
    ),
    variable(
        "CLERK_AUTHZ_POLICY",
        "policy",
        None,
        "The route policy, a YAML file, by which requests are authorized for Envoy and other proxies; read again when it changes",
    ),
    variable(
        "CLERK_AUTHZ_SHADOW_POLICY",
        "shadow-policy",
        None,
        "A policy that is tried beside it: where it would decide otherwise is counted and logged",
    ),
    variable(
        "CLERK_AUTHZ_FORWARD_AUTH_FROM",
        "forward-auth-from",
        None,
        "Addresses and networks of the proxies that may ask /forward-auth, between commas, such as 10.0.0.5,fd00::/8; without it nobody may",
    ),
    variable(
        "CLERK_AUTHZ_FORWARD_AUTH_SOCKET",
        "forward-auth-socket",
        None,
        "A Unix socket on which /forward-auth is answered to whoever can open it (mode 0660)",
    ),
    variable(
        "CLERK_AUTHZ_UPSTREAM_ASSERTIONS",
        "upstream-assertions",
        None,
        "The upstream for which an assertion of who sends a request is made where its route names none, as the assertion's aud; needs CLERK_AUTHZ_POLICY and CLERK_AUTHZ_DATABASE_URL, where the keys are kept",
    ),
    variable(
        "CLERK_AUTHZ_UPSTREAM_ISSUER",
        "upstream-issuer",
        Some("clerk-authz"),
        "The iss of upstream assertions; of two deployments that one upstream hears, give each its own",
    ),
    variable(
        "CLERK_AUTHZ_UPSTREAM_KEY_ROTATION",
        "upstream-key-rotation",
        Some("30d"),
        "How long a key signs upstream assertions before the next one does, from 1 day to 1 year",
    ),
    variable(
        "CLERK_AUTHZ_UPSTREAM_CACHE_BYTES",
        "upstream-cache-bytes",
        Some("8MiB"),
        "The size of the cache of upstream assertions, each of which is handed out for 15 seconds; 0 switches it off",
    ),
    variable(
        "CLERK_AUTHZ_HANDSHAKE",
        "handshake",
        Some("off"),
        "Whether browsers with an expired or unsettled session cookie are sent to Clerk for another (the handshake), where they ask for a page that the policy would answer with 401: on or off. Needs a policy, and of an instance the publishable key, the secret key and authorized parties",
    ),
    variable(
        "CLERK_AUTHZ_INBOX_RETENTION",
        "inbox-retention",
        Some("30d"),
        "How long the ids of webhook messages are known, and what was deleted; longer than Clerk may send again",
    ),
    variable(
        "CLERK_AUTHZ_RECONCILE_AT",
        "reconcile-at",
        Some("03:00"),
        "When all of Clerk is compared with the mirror and the mirror mended, each day, UTC; off for never. Needs a database and a secret key",
    ),
    variable(
        "CLERK_AUTHZ_REVOCATION_MEMORY",
        "revocation-memory",
        Some("24h"),
        "How long it is remembered what ended and who is out, up to 7 days; where there are webhooks, Clerk is asked about the session of a token that lives longer",
    ),
    variable(
        "CLERK_AUTHZ_KEYS_REFRESH",
        "keys-refresh",
        Some("60s"),
        "From one fetch of the keys to the next; a removed key dies within this",
    ),
    variable(
        "CLERK_AUTHZ_KEYS_COOLDOWN",
        "keys-cooldown",
        Some("5s"),
        "At least this long between two fetches that tokens with an unknown kid cause",
    ),
    variable(
        "CLERK_AUTHZ_KEYS_MAX_STALENESS",
        "keys-max-staleness",
        Some("7d"),
        "How long keys are used while their source is down",
    ),
    variable(
        "CLERK_AUTHZ_CACHE_BYTES",
        "cache-bytes",
        Some("64MiB"),
        "The size of the cache of verified tokens; 0 switches it off",
    ),
    variable(
        "CLERK_AUTHZ_MEMBERSHIP_MAX_AGE",
        "membership-max-age",
        Some("60s"),
        "How long a membership that Clerk was asked for is remembered; a change shows within this",
    ),
    variable(
        "CLERK_AUTHZ_MACHINE_TOKEN_MAX_AGE",
        "machine-token-max-age",
        Some("60s"),
        "How long it is remembered that Clerk calls an opaque machine token good; a revocation shows within this. That it is not good, for 10 seconds at most",
    ),
    variable(
        "CLERK_AUTHZ_MIRROR_MAX_AGE",
        "mirror-max-age",
        Some("60s"),
        "How long after the mirror last knew a membership for certain it answers in Clerk's place; 0s: never",
    ),
    variable(
        "CLERK_AUTHZ_MEMBERSHIP_NEGATIVE_MAX_AGE",
        "membership-negative-max-age",
        Some("10s"),
        "How long it is remembered that somebody is not a member, or that there is no such organization",
    ),
    variable(
        "CLERK_AUTHZ_MEMBERSHIP_CACHE_BYTES",
        "membership-cache-bytes",
        Some("32MiB"),
        "The size of the memory of memberships; 0 switches it off",
    ),
    variable(
        "CLERK_AUTHZ_GRPC_ADDR",
        "grpc-addr",
        Some("127.0.0.1:50051"),
        "Where gRPC is answered: an address and a port, or unix:PATH for a Unix socket (mode 0660)",
    ),
    variable(
        "CLERK_AUTHZ_CALLERS",
        "callers",
        None,
        "A TOML file that says who may call which RPC over gRPC, and how much; read again when it changes. Without it everybody may who can connect: that must be nobody but this machine, or whoever has a certificate of CLERK_AUTHZ_TLS_CLIENT_CA",
    ),
    variable(
        "CLERK_AUTHZ_HTTP_ADDR",
        "http-addr",
        Some("127.0.0.1:8080"),
        "Where /metrics, /livez, /readyz, /forward-auth, /.well-known/jwks.json and Clerk's webhooks are answered",
    ),
    variable(
        "CLERK_AUTHZ_TLS_CERT",
        "tls-cert",
        None,
        "The certificate of gRPC and HTTP, a PEM file with those between it and an authority behind it; with CLERK_AUTHZ_TLS_KEY both speak TLS alone. Read again when it changes",
    ),
    variable(
        "CLERK_AUTHZ_TLS_KEY",
        "tls-key",
        None,
        "The file of that certificate's private key, as PEM; read again when it changes",
    ),
    variable(
        "CLERK_AUTHZ_TLS_CLIENT_CA",
        "tls-client-ca",
        None,
        "A PEM file of authorities: who asks over gRPC must show a certificate that one of them signed. HTTP asks for none. Read again when it changes",
    ),
    variable(
        "CLERK_AUTHZ_DRAIN_PAUSE",
        "drain-pause",
        Some("5s"),
        "How long everything is answered after SIGTERM, while health checks say that the service leaves; 0s: not at all",
    ),
    variable(
        "CLERK_AUTHZ_DRAIN_TIMEOUT",
        "drain-timeout",
        Some("11s"),
        "How long calls in flight have to end after that pause, and on a connection that is too old; then they are cut off",
    ),
    variable(
        "CLERK_AUTHZ_MAX_CONNECTION_AGE",
        "max-connection-age",
        Some("30m"),
        "How old a gRPC connection may get, give or take a tenth, before its client is told to make a new one, which balances anew; 0s: without end",
    ),
    variable(
        "CLERK_AUTHZ_CLOCK_SKEW",
        "clock-skew",
        Some("5s"),
        "How far the clocks of Clerk and of this machine may differ",
    ),
    variable(
        "CLERK_AUTHZ_LOG",
        "log",
        Some("info"),
        "What is logged: error, warn, info, debug, trace, or a filter such as clerk_authz=debug",
    ),
    variable(
        "CLERK_AUTHZ_LOG_FORMAT",
        "log-format",
        Some("text"),
        "How log lines look: text or json",
    ),
    variable(
        "CLERK_AUTHZ_DECISION_LOG",
        "decision-log",
        Some("off"),
        "Where each decision is recorded as a line of JSON: off, stdout, or the path of a file",
    ),
    variable(
        "CLERK_AUTHZ_DECISION_LOG_SAMPLE",
        "decision-log-sample",
        Some("1"),
        "Which part of what is allowed is recorded, from 0 to 1; what is denied always is",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "otel-exporter-otlp-endpoint",
        None,
        "The OpenTelemetry collector that gets traces and logs, such as http://127.0.0.1:4317; without it nothing is sent",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "otel-exporter-otlp-protocol",
        Some("grpc"),
        "How it is spoken with: grpc",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "otel-exporter-otlp-certificate",
        None,
        "A PEM file with certificates to trust in the collector's TLS, beside the machine's own",
    ),
    secret(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "otel-exporter-otlp-headers-file",
        "Headers that the collector is shown with each request, its credential among them: NAME=VALUE between commas, values in percent-encoding, such as authorization=Bearer%20TOKEN",
    ),
    variable(
        "OTEL_SERVICE_NAME",
        "otel-service-name",
        None,
        "As which the service shows itself in traces; without it service.name of OTEL_RESOURCE_ATTRIBUTES, else clerk-authz",
    ),
    variable(
        "OTEL_TRACES_SAMPLER",
        "otel-traces-sampler",
        Some("parentbased_always_on"),
        "Which calls are traced: always_on, always_off, traceidratio, or one of these with parentbased_ before it, which heeds the caller",
    ),
    variable(
        "OTEL_TRACES_SAMPLER_ARG",
        "otel-traces-sampler-arg",
        None,
        "Which part of the calls the ratio samplers trace, from 0 to 1; without it all",
    ),
    variable(
        "OTEL_SDK_DISABLED",
        "otel-sdk-disabled",
        Some("false"),
        "true sends nothing, whatever else is set",
    ),
];

/// The flags: one for each setting.
#[derive(Clone, Debug, Default)]
pub struct SettingsArgs(BTreeMap<&'static str, String>);

impl SettingsArgs {
    /// Gives a setting as its flag would; for tests and for commands that know better.
    pub fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.0.insert(variable, value.into());
    }

    /// What a flag gives.
    pub fn get(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(String::as_str)
    }
}

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        VARIABLES.iter().fold(command, |command, variable| {
            let default = variable.default.map(|text| format!(" [default: {text}]"));
            let of_file = if variable.secret {
                " (a file that holds it)"
            } else {
                ""
            };
            let help = format!(
                "{}{of_file} [env: {}]{}",
                variable.help,
                variable.name,
                default.unwrap_or_default()
            );
            let value_name = if variable.secret { "FILE" } else { "VALUE" };
            command.arg(
                Arg::new(variable.flag)
                    .long(variable.flag)
                    .value_name(value_name)
                    .help(help)
                    .help_heading("Settings"),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = VARIABLES.iter().filter_map(|variable| {
            Some((
                variable.name,
                matches.get_one::<String>(variable.flag)?.clone(),
            ))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    Environment,
    Flag,
    File,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Environment => "environment",
            Self::Flag => "flag",
            Self::File => "file",
        })
    }
}

/// The texts of all settings.
pub(super) struct Raw(BTreeMap<&'static str, (String, Origin)>);

/// The largest file that a secret is read from, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

impl Raw {
    pub(super) fn read(
        args: &SettingsArgs,
        environment: &EnvironmentVariables,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut raw = BTreeMap::new();
        for variable in VARIABLES {
            if let Some(found) = find(variable, args, environment, problems) {
                raw.insert(variable.name, found);
            }
        }
        for (name, value) in environment {
            if !name.starts_with("CLERK_AUTHZ_") || is_service_link(name, value) {
                continue;
            }
            let is_known = |variable: &Variable| {
                variable.name == name
                    || variable.secret && name.strip_suffix("_FILE") == Some(variable.name)
            };
            if !VARIABLES.iter().any(is_known) {
                problems.push(Problem::new(name, unknown(name)));
            }
        }
        Self(raw)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|(text, _)| text.clone())
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|(_, origin)| *origin != Origin::Default)
    }

    /// What a message is about: the flag where the value came from it, else the variable.
    pub(super) fn subject(&self, name: &str) -> String {
        let by_flag = self
            .0
            .get(name)
            .is_some_and(|(_, origin)| *origin == Origin::Flag);
        match VARIABLES.iter().find(|variable| variable.name == name) {
            Some(variable) if by_flag => format!("--{}", variable.flag),
            _ => name.to_owned(),
        }
    }

    pub(super) fn shown(&self) -> Vec<Shown> {
        let shown = VARIABLES.iter().map(|variable| {
            let found = self.0.get(variable.name);
            Shown {
                name: variable.name,
                value: found.map(|(text, _)| {
                    if variable.secret {
                        masked(text)
                    } else {
                        text.clone()
                    }
                }),
                origin: found.map_or(Origin::Default, |(_, origin)| *origin),
            }
        });
        shown.collect()
    }

    /// A problem with the value of `name`.
    pub(super) fn wrong(&self, name: &str, expected: impl fmt::Display) -> Problem {
        let found = self.text(name).unwrap_or_default();
        Problem::new(
            self.subject(name),
            format!("is {found:?}; expected {expected}"),
        )
    }

    /// `seconds` are the bounds. What is wrong is reported and read as the lower bound.
    pub(super) fn duration(
        &self,
        name: &str,
        seconds: RangeInclusive<u64>,
        problems: &mut Vec<Problem>,
    ) -> Duration {
        let [least, most] = [*seconds.start(), *seconds.end()].map(Duration::from_secs);
        self.duration_within(name, least..=most, problems)
    }

    /// As [`Self::duration`], with bounds below a second too.
    pub(super) fn duration_within(
        &self,
        name: &str,
        bounds: RangeInclusive<Duration>,
        problems: &mut Vec<Problem>,
    ) -> Duration {
        let (least, most) = (*bounds.start(), *bounds.end());
        match self.text(name).as_deref().map(value::duration) {
            Some(Some(duration)) if bounds.contains(&duration) => duration,
            Some(Some(_)) => {
                let bounds = format!("from {} to {}", value::shown(least), value::shown(most));
                problems.push(self.wrong(name, bounds));
                least
            }
            Some(None) | None => {
                problems.push(self.wrong(name, "a duration with a unit, such as \"5s\""));
                least
            }
        }
    }

    /// What is wrong is said without any part of the address, which may hold a password.
    pub(super) fn database(
        &self,
        name: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<DatabaseSettings> {
        match database::parse(&self.text(name)?) {
            Ok(database) => Some(database),
            Err(expected) => {
                let text = format!("is not a database's address; expected {expected}");
                problems.push(Problem::new(self.subject(name), text));
                None
            }
        }
    }

    pub(super) fn bytes(&self, name: &str, problems: &mut Vec<Problem>) -> u64 {
        self.text(name)
            .as_deref()
            .and_then(value::bytes)
            .unwrap_or_else(|| {
                problems.push(self.wrong(name, "a size with a unit, such as \"64MiB\", or 0"));
                0
            })
    }

    /// `None` where it is not given, or wrong.
    pub(super) fn count(
        &self,
        name: &str,
        bounds: RangeInclusive<u32>,
        problems: &mut Vec<Problem>,
    ) -> Option<u32> {
        let count = value::count(&self.text(name)?, &bounds);
        if count.is_none() {
            problems.push(self.wrong(name, value::shown_bounds(&bounds)));
        }
        count
    }

    /// Minutes after midnight; `None` for never.
    pub(super) fn time_of_day(&self, name: &str, problems: &mut Vec<Problem>) -> Option<u32> {
        let text = self.text(name)?;
        if text == "off" {
            return None;
        }
        let minutes = value::time_of_day(&text);
        if minutes.is_none() {
            problems.push(self.wrong(
                name,
                "a time of the day in UTC such as \"03:00\", or \"off\"",
            ));
        }
        minutes
    }

    pub(super) fn address(&self, name: &str, problems: &mut Vec<Problem>) -> SocketAddr {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| {
                problems.push(self.wrong(
                    name,
                    "an IP address and a port, such as \"127.0.0.1:50051\"",
                ));
                SocketAddr::from(([127, 0, 0, 1], 0))
            })
    }

    /// As [`Self::address`], or a Unix socket.
    pub(super) fn listen_addr(&self, name: &str, problems: &mut Vec<Problem>) -> ListenAddr {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| {
                problems.push(self.wrong(
                    name,
                    "an IP address and a port, such as \"127.0.0.1:50051\", or a Unix socket, such \
                     as \"unix:/run/clerk-authz/grpc.sock\" (a path of at most 107 bytes)",
                ));
                ListenAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
            })
    }

    /// A list of networks; an address is one of its own.
    pub(super) fn networks(&self, name: &str, problems: &mut Vec<Problem>) -> Vec<IpNet> {
        let texts = value::list(&self.text(name).unwrap_or_default());
        let network = |text: &String| {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse().ok().or_else(address)
        };
        let networks: Vec<IpNet> = texts.iter().filter_map(network).collect();
        if networks.len() != texts.len() {
            let expected = "addresses and networks between commas, such as \"10.0.0.5,fd00::/8\"";
            problems.push(self.wrong(name, expected));
        }
        networks
    }

    pub(super) fn log(&self, name: &str, problems: &mut Vec<Problem>) -> String {
        let filter = self.text(name).unwrap_or_default();
        if !value::is_log_filter(&filter) {
            let expected = "error, warn, info, debug, trace, or a filter such as \
                            \"clerk_authz=debug\"";
            problems.push(self.wrong(name, expected));
        }
        filter
    }

    pub(super) fn decision_log(&self, name: &str, problems: &mut Vec<Problem>) -> DecisionLogPlace {
        match self.text(name).as_deref() {
            Some("off") => DecisionLogPlace::Off,
            Some("stdout") => DecisionLogPlace::Stdout,
            // Else a slip of the pen would make a file of that name.
            Some(path) if path.contains('/') => DecisionLogPlace::File(path.into()),
            _ => {
                let expected = "\"off\", \"stdout\", or a file's path with a \"/\" in it";
                problems.push(self.wrong(name, expected));
                DecisionLogPlace::Off
            }
        }
    }

    /// The name of an upstream, or of who vouches to it.
    pub(super) fn party(&self, name: &str, problems: &mut Vec<Problem>) -> Option<Box<str>> {
        let text = self.text(name)?;
        let is_of_one = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
        if text.len() > 255 || !text.bytes().all(is_of_one) || text == "none" {
            let expected = "1 to 255 letters, digits, and any of \"-._~:/\", and not \"none\"";
            problems.push(self.wrong(name, expected));
            return None;
        }
        Some(text.into())
    }

    /// A part of a whole.
    pub(super) fn part(&self, name: &str, problems: &mut Vec<Problem>) -> f64 {
        let part = self.text(name).and_then(|text| text.parse().ok());
        match part {
            Some(part) if (0.0..=1.0).contains(&part) => part,
            _ => {
                problems.push(self.wrong(name, "a number from 0 to 1, such as \"0.1\""));
                1.0
            }
        }
    }

    /// `on` or `off`.
    pub(super) fn switch(&self, name: &str, problems: &mut Vec<Problem>) -> bool {
        match self.text(name).as_deref() {
            Some("on") => true,
            Some("off") => false,
            _ => {
                problems.push(self.wrong(name, "\"on\" or \"off\""));
                false
            }
        }
    }

    pub(super) fn log_format(&self, name: &str, problems: &mut Vec<Problem>) -> LogFormat {
        match self.text(name).as_deref() {
            Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            _ => {
                problems.push(self.wrong(name, "\"text\" or \"json\""));
                LogFormat::Text
            }
        }
    }
}

/// A flag beats a variable, and a variable beats the default. An empty variable counts as not set:
/// that is what compose files and charts leave behind.
fn find(
    variable: &Variable,
    args: &SettingsArgs,
    environment: &EnvironmentVariables,
    problems: &mut Vec<Problem>,
) -> Option<(String, Origin)> {
    let mut from_environment = |name: &str| {
        let value = environment.get(name).filter(|value| !value.is_empty())?;
        match value.to_str() {
            Some(text) => Some(text.trim().to_owned()),
            None => {
                problems.push(Problem::new(name, "is not UTF-8; expected text"));
                None
            }
        }
    };
    let given = from_environment(variable.name);
    if !variable.secret {
        let default = || Some((variable.default?.to_owned(), Origin::Default));
        return match (args.get(variable.name), given) {
            (Some(flag), _) => Some((flag.trim().to_owned(), Origin::Flag)),
            (None, Some(text)) => Some((text, Origin::Environment)),
            (None, None) => default(),
        };
    }
    let file_name = format!("{}_FILE", variable.name);
    let file = from_environment(&file_name);
    match (args.get(variable.name), given, file) {
        (None, Some(_), Some(_)) => {
            let text = format!("is set beside {file_name}; set one of them");
            problems.push(Problem::new(variable.name, text));
            None
        }
        (Some(file), ..) => read_secret(&format!("--{}", variable.flag), file, problems),
        (None, Some(text), None) => Some((text, Origin::Environment)),
        (None, None, Some(file)) => read_secret(&file_name, &file, problems),
        (None, None, None) => None,
    }
}

fn read_secret(subject: &str, file: &str, problems: &mut Vec<Problem>) -> Option<(String, Origin)> {
    let mut wrong = |text: String| {
        let shown = shown_file(file);
        problems.push(Problem::new(subject, format!("is {shown:?}; {text}")));
        None
    };
    match fs::metadata(file) {
        Ok(metadata) if metadata.len() > MAX_SECRET_BYTES => {
            return wrong(format!(
                "expected a file of at most {MAX_SECRET_BYTES} bytes"
            ));
        }
        Ok(_) => {}
        Err(error) => return wrong(format!("the file cannot be read: {error}")),
    }
    match fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => wrong("the file is empty".to_owned()),
        Ok(text) => Some((text.trim().to_owned(), Origin::File)),
        Err(error) => wrong(format!("the file cannot be read: {error}")),
    }
}

/// Whether Kubernetes made the variable for a Service called `clerk-authz`, as it does in every pod
/// beside it (Kubernetes, "Discovering services", environment variables).
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let (Some(rest), Some(value)) = (name.strip_prefix("CLERK_AUTHZ_"), value.to_str()) else {
        return false;
    };
    let is_address = |text: &str| {
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    };
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    match rest {
        "PORT" => return is_address(value),
        "SERVICE_HOST" => return true,
        "SERVICE_PORT" => return is_port(value),
        _ => {}
    }
    if let Some(port_name) = rest.strip_prefix("SERVICE_PORT_") {
        return !port_name.is_empty() && is_port(value);
    }
    let mut parts = rest.split('_');
    let is_of_port = parts.next() == Some("PORT")
        && parts.next().is_some_and(is_port)
        && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
    is_of_port
        && match (parts.next(), parts.next()) {
            (None, _) => is_address(value),
            (Some("PORT" | "PROTO" | "ADDR"), None) => true,
            (Some(_), _) => false,
        }
}

fn unknown(name: &str) -> String {
    let known = VARIABLES.iter().map(|variable| variable.name);
    match nearest(name, known) {
        Some(nearest) => format!("is not a setting; did you mean {nearest}?"),
        None => "is not a setting of this version; see docs/settings.md".to_owned(),
    }
}

/// The known name that is most like `name`, if one is.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(likeness, known)| *likeness >= ALIKE || is_one_slip(name, known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// Of short names one letter is more than a fifth.
fn is_one_slip(name: &str, known: &str) -> bool {
    name.len() >= 3 && strsim::damerau_levenshtein(name, known) == 1
}
