//! The harness: an offline Clerk and the service in this process, and clients for both.

pub mod authority;
pub mod conformance;
pub mod database;
pub mod directory;
pub mod frames;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod receiver;
pub mod secrets;
pub mod twins;
pub mod upstream;
pub mod webhook;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clerk_authz::{
    door::grpc::proto::{
        self, authz_service_client::AuthzServiceClient, verify_session_request::Credential,
    },
    emulator::{Emulator, Instance, TokenSpec, World},
    identity::Timestamp,
    server::{self, Limits, Running},
    settings::{EnvironmentVariables, ListenAddr, Settings, SettingsArgs},
};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt;

pub use clerk_authz::reason::Reason;

/// The longest that a test waits for a condition.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// An offline Clerk with the world of docs/emulator.md.
pub async fn offline_clerk() -> Emulator {
    offline_clerk_of(World::default_world()).await
}

pub async fn offline_clerk_of(world: World) -> Emulator {
    secrets::look_at_logs();
    let clock = Arc::new(|| Timestamp::from(std::time::SystemTime::now()));
    Emulator::start(world, loopback(), clock)
        .await
        .expect("an offline Clerk")
}

/// The settings for the emulator's first instance, with these on top.
pub fn settings_for(clerk: &Emulator, more: &[(&str, &str)]) -> Settings {
    let instance = &clerk.instances()[0];
    let mut variables = vec![
        ("CLERK_PUBLISHABLE_KEY", instance.publishable_key().as_str()),
        ("CLERK_AUTHZ_ISSUER", instance.issuer().as_str()),
        ("CLERK_AUTHORIZED_PARTIES", "http://localhost:3000"),
    ];
    variables.extend(more);
    settings(&variables)
}

/// The same with Clerk's API, its webhooks, and the database at `url`.
pub fn settings_on(clerk: &Emulator, url: &str, more: &[(&str, &str)]) -> Settings {
    let instance = &clerk.instances()[0];
    let (key, api) = (instance.secret_key(), instance.issuer().to_string());
    let mut variables = vec![
        ("CLERK_SECRET_KEY", &*key),
        ("CLERK_API_URL", &*api),
        ("CLERK_AUTHZ_DATABASE_URL", url),
        ("CLERK_WEBHOOK_SIGNING_SECRET", webhook::SECRET),
    ];
    variables.extend(more);
    settings_for(clerk, &variables)
}

pub fn settings(variables: &[(&str, &str)]) -> Settings {
    let mut environment: EnvironmentVariables = [
        ("CLERK_AUTHZ_GRPC_ADDR", "127.0.0.1:0"),
        ("CLERK_AUTHZ_HTTP_ADDR", "127.0.0.1:0"),
        // Or what a test sees would depend on the time of the day.
        ("CLERK_AUTHZ_RECONCILE_AT", "off"),
        // Nobody balances over what is tested; tests of the end set their own.
        ("CLERK_AUTHZ_DRAIN_PAUSE", "0s"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.into()))
    .collect();
    for (name, value) in variables {
        environment.insert((*name).to_owned(), value.into());
    }
    Settings::load(&SettingsArgs::default(), &environment).expect("good settings")
}

/// The service and the Clerk that it asks.
pub struct Fixture {
    pub clerk: Emulator,
    pub service: Running,
    pub client: AuthzServiceClient<Channel>,
}

impl Fixture {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(more: &[(&str, &str)]) -> Self {
        let clerk = offline_clerk().await;
        let settings = settings_for(&clerk, more);
        Self::start_on(clerk, &settings).await
    }

    pub async fn start_on(clerk: Emulator, settings: &Settings) -> Self {
        let service = server::start(settings, server::system_clock()).await;
        Self::of(clerk, service.expect("it starts")).await
    }

    /// The service under these limits, and by this clock.
    pub async fn start_under(
        limits: Limits,
        clerk: Emulator,
        settings: &Settings,
        clock: &directory::TestClock,
    ) -> Self {
        let service = server::start_under(limits, settings, clock.as_clock()).await;
        Self::of(clerk, service.expect("it starts")).await
    }

    async fn of(clerk: Emulator, service: Running) -> Self {
        let client = client(service.grpc_addr()).await;
        Self {
            clerk,
            service,
            client,
        }
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.clerk.instances()[0]
    }

    pub fn mint(&self, spec: &TokenSpec) -> String {
        self.instance().mint(spec).expect("a token")
    }

    pub async fn verify(&self, token: &str) -> Result<proto::Session, Status> {
        self.ask(about(token)).await
    }

    pub async fn ask(
        &self,
        request: proto::VerifySessionRequest,
    ) -> Result<proto::Session, Status> {
        let response = self
            .client
            .clone()
            .verify_session(request)
            .await?
            .into_inner();
        let Some(proto::verify_session_response::Verified::Session(session)) = response.verified
        else {
            panic!("an answer without a session");
        };
        Ok(session)
    }

    pub async fn metrics(&self) -> String {
        get(self.service.http_addr(), "/metrics").await.1
    }

    pub async fn stop(self) {
        self.service.stop().await;
        self.clerk.stop().await;
    }
}

pub async fn client(addr: impl Into<ListenAddr>) -> AuthzServiceClient<Channel> {
    AuthzServiceClient::new(channel(addr).await)
}

pub async fn channel(addr: impl Into<ListenAddr>) -> Channel {
    let target = match addr.into() {
        ListenAddr::Tcp(addr) => format!("http://{addr}"),
        unix @ ListenAddr::Unix(_) => unix.to_string(),
    };
    let endpoint = tonic::transport::Endpoint::try_from(target).expect("a target");
    endpoint.connect().await.expect("a connection")
}

/// Where a service answers gRPC that has a port for it.
pub fn grpc_port(service: &Running) -> SocketAddr {
    service.grpc_addr().tcp().expect("an address of TCP")
}

pub fn about(token: &str) -> proto::VerifySessionRequest {
    proto::VerifySessionRequest {
        credential: Some(Credential::Token(token.to_owned())),
        ..Default::default()
    }
}

pub fn about_http(authorization: &[&str], cookie: &[&str]) -> proto::VerifySessionRequest {
    let own = |values: &[&str]| values.iter().map(ToString::to_string).collect();
    proto::VerifySessionRequest {
        credential: Some(Credential::Http(proto::HttpCredentials {
            authorization: own(authorization),
            cookie: own(cookie),
        })),
        ..Default::default()
    }
}

/// The reason in a status' `ErrorInfo`.
pub fn reason_of(status: &Status) -> String {
    secrets::none_in("an error", &format!("{status:?}"));
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "clerk-authz");
    info.reason.clone()
}

pub fn assert_denied(answer: Result<proto::Session, Status>, reason: Reason, what: &str) {
    let status = answer
        .err()
        .unwrap_or_else(|| panic!("{what}: accepted; expected {reason}"));
    assert_eq!(
        status.code(),
        tonic::Code::Unauthenticated,
        "{what}: {status:?}"
    );
    assert_eq!(reason_of(&status), reason.name(), "{what}");
}

/// A plain HTTP request: status and body.
pub async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let response = http_client()
        .get(format!("http://{addr}{path}"))
        .send()
        .await
        .expect("an answer");
    let status = response.status().as_u16();
    let body = response.text().await.expect("a body");
    if path == "/metrics" {
        secrets::none_in("the metrics", &body);
    }
    (status, body)
}

pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client")
}

/// Waits until `condition` holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    eventually_within(PATIENCE, what, condition).await;
}

/// As [`eventually`], where something takes longer by its nature.
pub async fn eventually_within<F: Future<Output = bool>>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let end = tokio::time::Instant::now() + limit;
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
