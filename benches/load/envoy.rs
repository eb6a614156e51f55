//! What a request costs through the real Envoy: `scripts/envoy-cost.sh`.
//!
//! Envoy and the authorizer share core 0. Envoy answers by itself, so that no upstream is measured.

mod config;
mod pace;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

use clerk_authz::settings::ListenAddr;
use envoy_types::{
    ext_authz::v3::pb::CheckResponse,
    pb::envoy::service::auth::v3::authorization_client::AuthorizationClient,
};
use prost::Message;

use self::{
    config::{ExtAuthz, Filter, config},
    pace::Browser,
};
use crate::{
    Bench,
    client::h2load_get,
    process::{Server, free_port},
    proxy::{policy, question},
    table::{median, percentile, say},
};

/// Interleaved rounds, of which the median counts.
const ROUNDS: usize = 5;
/// Requests of a round, after as many for warmth once.
const REQUESTS: usize = 15_000;
/// The pace is that at which Envoy and clerk-authz by TCP take this part of their core; `LOAD_PACE` sets
/// one against the highest rate instead. Requests that come one by one wake both processes each, which
/// many at once share: at half of the highest rate the core may be full.
const OF_THE_CORE: f64 = 0.5;
/// Where the search for it begins, against the highest rate, and how many rounds it takes.
const FIRST_PACE: f64 = 0.15;
const SEARCH_ROUNDS: usize = 4;
/// Rounds at a pace.
const PACED_ROUNDS: usize = 7;
/// Requests of a round at a pace, behind some that are not measured.
const PACED_REQUESTS: usize = 6_000;
const FIRST_REQUESTS: usize = 500;

/// Envoy with one filter, and who answers it.
struct SetUp<'s> {
    name: &'static str,
    envoy: Server,
    authorizer: Option<&'s Server>,
    _config: tempfile::NamedTempFile,
    /// Microseconds of CPU a request: Envoy's, the authorizer's.
    cpu: (Vec<f64>, Vec<f64>),
    rates: Vec<f64>,
    /// At the pace: microseconds of CPU a request of both, and latencies.
    paced_cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl<'s> SetUp<'s> {
    async fn start(name: &'static str, filter: Filter, authorizer: Option<&'s Server>) -> Self {
        let addr = free_port();
        let file = tempfile::Builder::new().suffix(".yaml").tempfile();
        let file = file.expect("a file");
        std::fs::write(file.path(), config(addr, &filter)).expect("written");
        let binary = std::env::var("LOAD_ENVOY").expect("LOAD_ENVOY: use scripts/envoy-cost.sh");
        let path = file.path().to_str().expect("text");
        let arguments = [
            "-c",
            path,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
        ];
        let envoy = Server::start(&binary, &arguments, &[], addr);
        envoy.accepts_within(30).await;
        Self {
            name,
            envoy,
            authorizer,
            _config: file,
            cpu: (Vec::new(), Vec::new()),
            rates: Vec::new(),
            paced_cpu: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
        }
    }

    fn busy(&self) -> (f64, f64) {
        let of = |server: &Server| server.cpu().as_secs_f64() * 1e6;
        (of(&self.envoy), self.authorizer.map_or(0.0, of))
    }

    fn round(&mut self, token: &str) {
        let before = self.busy();
        let rate = h2load_get(REQUESTS, self.envoy.addr(), token);
        let after = self.busy();
        self.rates.push(rate);
        self.cpu.0.push((after.0 - before.0) / REQUESTS as f64);
        self.cpu.1.push((after.1 - before.1) / REQUESTS as f64);
    }

    async fn paced_round(&mut self, token: &str, rate: f64) {
        let browser = Browser::connect(self.envoy.addr(), token).await;
        // What a new connection takes would be a hundredth of all.
        for _ in 0..FIRST_REQUESTS {
            assert_eq!(browser.ask().await, 200);
        }
        let before = self.busy();
        let mut latencies = browser.latencies(rate, PACED_REQUESTS).await;
        let after = self.busy();
        let both = after.0 + after.1 - before.0 - before.1;
        self.paced_cpu.push(both / PACED_REQUESTS as f64);
        self.p50.push(percentile(&mut latencies, 0.50));
        self.p99.push(percentile(&mut latencies, 0.99));
    }

    /// The requests a second at which it takes its part of the core.
    async fn half_load(&mut self, token: &str) -> f64 {
        let mut rate = self.figures().rate * FIRST_PACE;
        for _ in 0..SEARCH_ROUNDS {
            self.paced_round(token, rate).await;
            let busy = self.paced_cpu.last().expect("a round") * 1e-6 * rate;
            say(&format!(
                "{rate:.0} requests a second take {busy:.2} of the core"
            ));
            rate *= OF_THE_CORE / busy;
        }
        for figures in [&mut self.paced_cpu, &mut self.p50, &mut self.p99] {
            figures.clear();
        }
        rate
    }

    fn figures(&self) -> Figures {
        Figures {
            envoy: median(self.cpu.0.clone()),
            authorizer: median(self.cpu.1.clone()),
            rate: median(self.rates.clone()),
        }
    }
}

struct Figures {
    envoy: f64,
    authorizer: f64,
    rate: f64,
}

impl Figures {
    fn both(&self) -> f64 {
        self.envoy + self.authorizer
    }
}

/// The service, by TCP or on a socket.
async fn ours(bench: &Bench, policy: &Path, at: &ListenAddr) -> Server {
    let http = free_port();
    let service = bench.serve_at(
        http,
        &[
            ("CLERK_AUTHZ_POLICY", policy.to_str().expect("text")),
            ("CLERK_AUTHZ_GRPC_ADDR", &at.to_string()),
            ("CLERK_AUTHZ_HTTP_ADDR", &http.to_string()),
        ],
    );
    // HTTP is answered once gRPC is.
    service.accepts().await;
    service
}

/// Who allows everything with this answer.
async fn allowing(bench: &Bench, addr: SocketAddr, answer: &CheckResponse) -> Server {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), answer.encode_to_vec()).expect("written");
    let path = file.path().to_str().expect("text");
    let arguments = ["serve-allow", &addr.to_string(), path];
    let server = Server::start(&bench.this, &arguments, &[], addr);
    server.accepts().await;
    server
}

pub(crate) async fn measure(bench: &Bench) {
    let token = bench.mint(|_| {});
    let policy = policy(10);
    let folder = tempfile::tempdir().expect("a folder");
    let (tcp, floor_addr, metadata_addr) = (free_port(), free_port(), free_port());
    let socket = ListenAddr::Unix(folder.path().join("grpc.sock"));
    let by_tcp = ours(bench, policy.path(), &tcp.into()).await;
    let by_socket = ours(bench, policy.path(), &socket).await;
    let mut answer = answer(tcp, &token).await;
    let with_metadata = allowing(bench, metadata_addr, &answer).await;
    answer.dynamic_metadata = None;
    let floor = allowing(bench, floor_addr, &answer).await;

    let issuer = bench.instance.issuer().as_str().to_owned();
    let jwks = reqwest::get(format!("{issuer}/.well-known/jwks.json")).await;
    let jwks = jwks.expect("keys").text().await.expect("text");
    let jwt = |is_cached| Filter::Jwt {
        issuer: issuer.clone(),
        jwks: jwks.clone(),
        is_cached,
    };
    let asked = |addr: SocketAddr| ExtAuthz::of(addr.into());
    let mut set_ups = Vec::new();
    for (name, filter, authorizer) in [
        ("Envoy bare", Filter::None, None),
        (
            "the floor",
            Filter::ExtAuthz(asked(floor_addr)),
            Some(&floor),
        ),
        ("`jwt_authn`", jwt(false), None),
        ("`jwt_authn`, cached", jwt(true), None),
        (
            "clerk-authz by TCP",
            Filter::ExtAuthz(asked(tcp)),
            Some(&by_tcp),
        ),
        (
            "clerk-authz by socket",
            Filter::ExtAuthz(ExtAuthz::of(socket)),
            Some(&by_socket),
        ),
    ] {
        set_ups.push(SetUp::start(name, filter, authorizer).await);
    }
    measure_cpu(&mut set_ups, &token);
    let pace = match std::env::var("LOAD_PACE") {
        Ok(part) => set_ups[4].figures().rate * part.parse::<f64>().expect("a number"),
        Err(_) => set_ups[4].half_load(&token).await,
    };
    say(&format!("latencies at {pace:.0} requests a second"));
    for _ in 0..PACED_ROUNDS {
        for set_up in &mut set_ups {
            set_up.paced_round(&token, pace).await;
        }
    }
    print_set_ups(&set_ups, pace);
    drop(set_ups);

    let few = r#"{"allowed_headers": {"patterns": [{"exact": "authorization"}, {"exact": "cookie"},
        {"exact": "content-type"}, {"exact": "accept"}, {"exact": "sec-fetch-dest"}]}}"#;
    let mut settings = Vec::new();
    for (name, asked, authorizer) in [
        ("as shipped, without the access log", asked(tcp), &by_tcp),
        (
            "`allowed_headers`: the five of docs/envoy.md",
            ExtAuthz {
                settings: few,
                ..asked(tcp)
            },
            &by_tcp,
        ),
        (
            "`encode_raw_headers: false`",
            ExtAuthz {
                raw_headers: false,
                ..asked(tcp)
            },
            &by_tcp,
        ),
        (
            "no timeout (`0s`)",
            ExtAuthz {
                timeout: "0s",
                ..asked(tcp)
            },
            &by_tcp,
        ),
        (
            "`include_peer_certificate`, the client without one",
            ExtAuthz {
                settings: r#"{"include_peer_certificate": true}"#,
                ..asked(tcp)
            },
            &by_tcp,
        ),
        (
            "the access log of the shipped file",
            ExtAuthz {
                access_log: true,
                ..asked(tcp)
            },
            &by_tcp,
        ),
        ("the floor", asked(floor_addr), &floor),
        (
            "the floor, with our dynamic metadata",
            asked(metadata_addr),
            &with_metadata,
        ),
    ] {
        settings.push(SetUp::start(name, Filter::ExtAuthz(asked), Some(authorizer)).await);
    }
    measure_cpu(&mut settings, &token);
    print_settings(&settings);
}

/// What the service answers to the question: that the request may go on.
pub(crate) async fn answer(addr: SocketAddr, token: &str) -> CheckResponse {
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{addr}"));
    let channel = endpoint.expect("an address").connect().await;
    let mut client = AuthorizationClient::new(channel.expect("a connection"));
    let answer = client.check(question(token)).await.expect("an answer");
    let answer = answer.into_inner();
    assert_eq!(
        answer.status.as_ref().map(|status| status.code),
        Some(0),
        "{answer:?}"
    );
    answer
}

fn measure_cpu(set_ups: &mut [SetUp<'_>], token: &str) {
    for set_up in &mut *set_ups {
        say(set_up.name);
        h2load_get(REQUESTS, set_up.envoy.addr(), token);
    }
    for round in 1..=ROUNDS {
        say(&format!("round {round} of {ROUNDS}"));
        for set_up in &mut *set_ups {
            set_up.round(token);
        }
    }
}

fn print_set_ups(set_ups: &[SetUp<'_>], pace: f64) {
    let mut out = io::stdout().lock();
    let floor = set_ups[1].figures().both();
    let bare = (
        median(set_ups[0].p50.clone()),
        median(set_ups[0].p99.clone()),
    );
    let _ = writeln!(out, "the pace: {pace:.0} requests a second\n");
    let _ = writeln!(
        out,
        "| | Envoy | authorizer | both, of the floor | requests/s | both, at the pace | added there: p50 | p99 |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for set_up in set_ups {
        let figures = set_up.figures();
        let (p50, p99) = (median(set_up.p50.clone()), median(set_up.p99.clone()));
        let _ = writeln!(
            out,
            "| {} | {:.1} µs | {:.1} µs | {:.2}× | {:.0} | {:.1} µs | {:.0} µs | {:.0} µs |",
            set_up.name,
            figures.envoy,
            figures.authorizer,
            figures.both() / floor,
            figures.rate,
            median(set_up.paced_cpu.clone()),
            p50 - bare.0,
            p99 - bare.1,
        );
    }
    let _ = writeln!(
        out,
        "\nbare at that pace: p50 {:.0} µs, p99 {:.0} µs\n",
        bare.0, bare.1
    );
}

fn print_settings(set_ups: &[SetUp<'_>]) {
    let mut out = io::stdout().lock();
    let _ = writeln!(
        out,
        "| setting | Envoy | authorizer | both |\n|---|---|---|---|"
    );
    for set_up in set_ups {
        let figures = set_up.figures();
        let _ = writeln!(
            out,
            "| {} | {:.1} µs | {:.1} µs | {:.1} µs |",
            set_up.name,
            figures.envoy,
            figures.authorizer,
            figures.both(),
        );
    }
}
