//! The service against an empty call, over real connections, on one core: `make load`.
//!
//! Each figure is a ratio within one run, or stands beside what it is compared with. The server is
//! pinned to core 0; this process, the offline Clerk in it and h2load have the other. CPU time is
//! the server process's own, as the kernel counts it in nanoseconds.

mod allow;
mod checks;
mod client;
mod empty;
mod envoy;
mod machine;
mod mirror;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the tests' own; they use more of it"
)]
#[path = "../../tests/it/support/postgres.rs"]
mod postgres;
mod process;
mod proxy;
mod revocations;
mod table;
mod telemetry;
mod tls;
mod verification;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clerk_authz::{
    emulator::{Emulator, Instance, TokenSpec, World},
    identity::Timestamp,
};

use self::{
    client::Client,
    process::{Server, free_port},
    table::say,
};

/// The binary's: the empty call is to differ in nothing else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long PostgreSQL may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Interleaved rounds, of which the median counts.
const ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |index: usize| arguments.get(index).map_or("", |argument| argument);
    match argument(1) {
        "serve-allow" => allow::serve(
            argument(2).parse().expect("an address"),
            argument(3).as_ref(),
        ),
        "serve-collector" => {
            on_one_thread(telemetry::serve(argument(2).parse().expect("an address")))
        }
        "serve-empty" => empty::serve(argument(2).parse().expect("an address")),
        "flood" => on_one_thread(client::flood(
            argument(2).parse().expect("an address"),
            argument(3),
            argument(4),
        )),
        "storm" => on_one_thread(client::storm(
            argument(2).parse().expect("an address"),
            argument(3),
            argument(4),
        )),
        // `cargo test --benches` must not start a measurement.
        _ if arguments.iter().any(|argument| argument == "--bench") => on_one_thread(measure()),
        _ => {}
    }
}

fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work);
}

/// What is measured, and what it is measured against.
struct Bench {
    /// This program, for processes of its own.
    this: String,
    binary: String,
    instance: Arc<Instance>,
    environment: Vec<(&'static str, String)>,
    addr: SocketAddr,
    http_addr: SocketAddr,
    empty: Server,
    empty_client: Client,
    /// Keeps the snapshot of the keys.
    _state: tempfile::TempDir,
}

impl Bench {
    async fn prepare(instance: Arc<Instance>) -> Self {
        let binary = std::env::var("LOAD_BINARY").expect("LOAD_BINARY: use `make load`");
        let this = std::env::current_exe().expect("this program");
        let this = this.to_str().expect("UTF-8").to_owned();
        let (empty_addr, addr, http_addr) = (free_port(), free_port(), free_port());
        let arguments = ["serve-empty", &empty_addr.to_string()];
        let empty = Server::start(&this, &arguments, &[], empty_addr);
        empty.accepts().await;
        let state = tempfile::tempdir().expect("a directory");
        let issuer = instance.issuer().as_str().to_owned();
        let environment = vec![
            (
                "CLERK_PUBLISHABLE_KEY",
                instance.publishable_key().as_str().to_owned(),
            ),
            ("CLERK_AUTHZ_ISSUER", issuer.clone()),
            (
                "CLERK_AUTHORIZED_PARTIES",
                "http://localhost:3000".to_owned(),
            ),
            ("CLERK_SECRET_KEY", instance.secret_key()),
            ("CLERK_API_URL", issuer),
            // What is remembered stays for the whole run.
            ("CLERK_AUTHZ_MEMBERSHIP_MAX_AGE", "1h".to_owned()),
            (
                "CLERK_AUTHZ_STATE_DIR",
                state.path().to_str().expect("UTF-8").to_owned(),
            ),
            ("CLERK_AUTHZ_GRPC_ADDR", addr.to_string()),
            ("CLERK_AUTHZ_HTTP_ADDR", http_addr.to_string()),
        ];
        Self {
            this,
            binary,
            instance,
            environment,
            addr,
            http_addr,
            empty_client: Client::connect(empty_addr).await,
            empty,
            _state: state,
        }
    }

    fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// With these variables on top.
    fn serve_with(&self, more: &[(&str, &str)]) -> Server {
        self.serve_at(self.addr, more)
    }

    /// At another address, which the variables name too.
    fn serve_at(&self, addr: SocketAddr, more: &[(&str, &str)]) -> Server {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(more.iter().copied())
            .collect();
        Server::start(&self.binary, &["serve"], &environment, addr)
    }

    /// At ports of its own.
    fn serve_apart(&self, more: &[(&str, &str)]) -> Server {
        let (addr, http) = (free_port(), free_port().to_string());
        let grpc = addr.to_string();
        let own = [
            ("CLERK_AUTHZ_GRPC_ADDR", &*grpc),
            ("CLERK_AUTHZ_HTTP_ADDR", &*http),
        ];
        self.serve_at(addr, &[&own, more].concat())
    }

    /// A token that lives as long as the run.
    fn mint(&self, change: impl FnOnce(&mut TokenSpec)) -> String {
        let mut spec = TokenSpec::session("user_alice").in_organization("acme");
        spec.lifetime_seconds = Some(3_600);
        change(&mut spec);
        self.instance.mint(&spec).expect("a token")
    }
}

async fn measure() {
    let clock = Arc::new(|| Timestamp::from(SystemTime::now()));
    let clerk = Emulator::start(World::default_world(), ([127, 0, 0, 1], 0).into(), clock).await;
    let clerk = clerk.expect("an offline Clerk");
    let bench = Bench::prepare(Arc::clone(&clerk.instances()[0])).await;

    let mut rows = Vec::new();
    // `LOAD_ONLY` leaves the others out.
    let only = std::env::var("LOAD_ONLY").ok();
    if only.as_deref() == Some("envoy") {
        envoy::measure(&bench).await;
        clerk.stop().await;
        return;
    }
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if is_wanted("calls") {
        say("start");
        let start = verification::start(&bench).await;
        let service = bench.serve();
        service.accepts().await;
        rows.extend(verification::measure(&bench, &service, start).await);
        rows.extend(checks::measure(&bench, &service).await);
    }
    if is_wanted("machine") {
        rows.extend(machine::measure(&bench).await);
    }
    if is_wanted("proxy") {
        rows.extend(proxy::measure(&bench).await);
    }
    if is_wanted("revocations") {
        rows.extend(revocations::measure(&bench).await);
    }
    if is_wanted("telemetry") {
        rows.extend(telemetry::measure(&bench).await);
    }
    if is_wanted("tls") {
        rows.extend(tls::measure(&bench).await);
    }
    if is_wanted("mirror") {
        rows.extend(mirror::measure(&bench).await);
    }
    table::print(&rows);
    clerk.stop().await;
}
