//! Envoy's `Check`, without Envoy.

use std::{fmt::Write, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use envoy_types::{
    ext_authz::v3::pb::{CheckRequest, HeaderValue},
    pb::envoy::{
        config::core::v3::{
            Address, HeaderMap, SocketAddress, address, socket_address::PortSpecifier,
        },
        service::auth::v3::{
            AttributeContext,
            attribute_context::{HttpRequest, Peer, Request},
        },
    },
    pb::google::protobuf::Timestamp,
};
use prost::Message;

use crate::{
    Bench, ROUNDS,
    client::{CHECK_OF_ENVOY, Client, framed},
    empty::TAKES,
    envoy,
    process::{Server, free_port},
    table::{Row, median, say},
};

/// Calls of a round.
const CALLS: usize = 20_000;

/// A policy with so many routes; [`PATH`] is of one with a requirement, the last.
pub(crate) fn policy(routes: usize) -> tempfile::NamedTempFile {
    let mut text = "version: 1\nroutes:\n".to_owned();
    for route in 1..routes {
        let line =
            format!("  - {{name: r{route}, path: \"/r{route}/{{id}}/**\", access: signed_in}}\n");
        text.push_str(&line);
    }
    let _ = writeln!(
        text,
        "  - {{name: invoices, path: /invoices/**, access: {{permission: \"org:invoices:create\"}}}}"
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

/// What is asked for.
pub(crate) const PATH: &str = "/invoices/42?expand=lines";

/// What a browser's script sends, but for its token.
pub(crate) const HEADERS: [(&str, &str); 9] = [
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9,de;q=0.8"),
    ("origin", "http://localhost:3000"),
    ("referer", "http://localhost:3000/invoices"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
];

fn peer(port: u32) -> Peer {
    let address = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(address)),
        }),
        ..Peer::default()
    }
}

/// As Envoy asks with `encode_raw_headers`.
pub(crate) fn question(token: &str) -> CheckRequest {
    let bearer = format!("Bearer {token}");
    let own = [
        (":authority", "app.example"),
        (":path", PATH),
        (":method", "GET"),
        (":scheme", "http"),
        ("authorization", &*bearer),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "5e1f9dd1-3a4e-4b7e-9d4d-0d2f7f3c9a11"),
    ];
    let headers = own
        .into_iter()
        .chain(HEADERS)
        .map(|(key, value)| HeaderValue {
            key: key.to_owned(),
            value: String::new(),
            raw_value: value.as_bytes().to_vec(),
        });
    let http = HttpRequest {
        id: "1234567890123456789".to_owned(),
        method: "GET".to_owned(),
        host: "app.example".to_owned(),
        path: PATH.to_owned(),
        scheme: "http".to_owned(),
        protocol: "HTTP/2".to_owned(),
        size: -1,
        header_map: Some(HeaderMap {
            headers: headers.collect(),
        }),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(51_432)),
            destination: Some(peer(10_000)),
            request: Some(Request {
                time: Some(Timestamp {
                    seconds: 1_800_000_000,
                    nanos: 123_456_789,
                }),
                http: Some(http),
            }),
            ..AttributeContext::default()
        }),
    }
}

/// A call whose message is as long as this one.
fn as_long_as(frame: &Bytes) -> Bytes {
    let length = (0..frame.len())
        .rev()
        .find(|length| vec![b'a'; *length].encoded_len() + 5 <= frame.len());
    framed(&vec![b'a'; length.expect("an empty one fits")])
}

struct Asked {
    service: Server,
    /// Where there is no socket.
    addr: SocketAddr,
    client: Client,
    _policy: tempfile::NamedTempFile,
}

impl Asked {
    async fn start(bench: &Bench, routes: usize, socket: Option<PathBuf>) -> Self {
        let policy = policy(routes);
        let (addr, http) = (free_port(), free_port());
        let at = match &socket {
            Some(path) => format!("unix:{}", path.display()),
            None => addr.to_string(),
        };
        // HTTP is answered once gRPC is.
        let service = bench.serve_at(
            http,
            &[
                ("CLERK_AUTHZ_POLICY", policy.path().to_str().expect("text")),
                ("CLERK_AUTHZ_GRPC_ADDR", &at),
                ("CLERK_AUTHZ_HTTP_ADDR", &http.to_string()),
            ],
        );
        service.accepts().await;
        let client = match &socket {
            Some(path) => Client::connect_to_socket(path).await,
            None => Client::connect(addr).await,
        };
        Self {
            service,
            addr,
            client,
            _policy: policy,
        }
    }

    async fn cpu(&self, frames: &[Bytes]) -> f64 {
        let service = &self.service;
        service
            .cpu_per_call(&self.client, CHECK_OF_ENVOY, frames)
            .await
    }
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    say("Envoy's Check");
    let folder = tempfile::tempdir().expect("a folder");
    let few = Asked::start(bench, 10, None).await;
    let many = Asked::start(bench, 10_000, None).await;
    let socket = folder.path().join("grpc.sock");
    let on_socket = Asked::start(bench, 10, Some(socket)).await;
    let token = bench.mint(|_| {});
    for asked in [&few, &many] {
        envoy::answer(asked.addr, &token).await;
    }
    let frames = vec![framed(&question(&token)); CALLS];
    let empty_frames = vec![as_long_as(&frames[0]); CALLS];
    // The token is verified, the memory allocated.
    for asked in [&few, &many, &on_socket] {
        asked.cpu(&frames).await;
    }
    let mut cpu: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let empty = &bench.empty;
        let empty = empty.cpu_per_call(&bench.empty_client, TAKES, &empty_frames);
        cpu[0].push(empty.await);
        for (of, asked) in cpu[1..].iter_mut().zip([&few, &many, &on_socket]) {
            of.push(asked.cpu(&frames).await);
        }
    }
    let [empty, few, many, on_socket] = cpu.map(median);
    let bytes = frames[0].len();
    vec![
        Row {
            figure: "`Check` of Envoy, the token cached: CPU per call against an empty call that takes as many bytes",
            measured: format!(
                "{:.2}× ({few:.1} µs; empty {empty:.1} µs; {bytes} bytes)",
                few / empty
            ),
            target: "≤ 1.5×".into(),
            reached: few / empty <= 1.5,
        },
        Row {
            figure: "the same by a policy of 10,000 routes against one of 10",
            measured: format!("{:.2}× ({many:.1} of {few:.1} µs)", many / few),
            target: "≤ 1.05×".into(),
            reached: many / few <= 1.05,
        },
        Row {
            figure: "the same on a Unix socket against TCP",
            measured: format!("{:.2}× ({on_socket:.1} of {few:.1} µs)", on_socket / few),
            target: "stated".into(),
            reached: true,
        },
    ]
}
