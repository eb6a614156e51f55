//! The real Envoy, with `deploy/envoy/envoy.yaml` and other ports.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use clerk_authz::settings::ListenAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use crate::support::{PATIENCE, eventually, get};

const CONFIG: &str = include_str!("../../../deploy/envoy/envoy.yaml");
const REPLICAS: &str = include_str!("../../../deploy/envoy/envoy-replicas.yaml");
const PAGE: &str = include_str!("../../../docs/envoy.md");
const TRACING: &str = include_str!("../../../docs/tracing.md");

/// Where the shipped file finds clerk-authz.
const AUTHZ_ENDPOINT: &str =
    "- endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 50051 } } }";

/// How Envoy is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetUp {
    /// As shipped.
    Shipped,
    /// Without what Envoy itself does about paths and headers: nothing but clerk-authz protects.
    Bare,
    /// As shipped, with a route for `/me` alone.
    SomeRoutes,
    /// As shipped for several replicas; the second is here.
    Replicas(SocketAddr),
    /// As shipped, and clerk-authz sees some headers only.
    AllowedHeaders,
    /// As shipped, with a route for `/me/reports` that asks for more than the policy.
    Narrowed,
    /// As shipped, and the collector here hears of so many requests of a hundred.
    Traced(SocketAddr, u8),
}

/// A running Envoy; killed when dropped.
pub struct Envoy {
    pub addr: SocketAddr,
    admin: SocketAddr,
    _child: Child,
    _files: tempfile::TempDir,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reason in the body of a denial.
    pub fn reason(&self) -> String {
        self.json()["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The values of a header that the upstream received.
    pub fn received(&self, name: &str) -> Vec<String> {
        let json = self.json();
        let headers = json["headers"].as_array().expect("the upstream's answer");
        let of_it = headers.iter().filter(|pair| pair[0] == name);
        of_it
            .map(|pair| pair[1].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// All names that the upstream received.
    pub fn received_names(&self) -> Vec<String> {
        let json = self.json();
        let headers = json["headers"].as_array().expect("the upstream's answer");
        headers
            .iter()
            .map(|pair| pair[0].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Envoy {
    pub async fn start(set_up: SetUp, authz: impl Into<ListenAddr>, upstream: SocketAddr) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let ports = free_ports();
        let addr = SocketAddr::from(([127, 0, 0, 1], ports[0]));
        let admin = SocketAddr::from(([127, 0, 0, 1], ports[1]));
        let file = files.path().join("envoy.yaml");
        fs::write(&file, config(set_up, addr, admin, &authz.into(), upstream)).expect("written");
        // Several on one machine must not share their memory.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base_id = std::process::id() % 30_000 * 64 + NEXT.fetch_add(1, Relaxed);
        let child = Command::new(binary())
            .arg("-c")
            .arg(&file)
            .args(["--base-id", &base_id.to_string(), "--concurrency", "1"])
            .args(["--log-level", "warning"])
            .stdout(Stdio::null())
            .stderr(fs::File::create(files.path().join("log")).expect("a file"))
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy runs");
        let log = files.path().join("log");
        eventually("Envoy is ready", || async {
            if TcpStream::connect(admin).await.is_err() {
                return false;
            }
            // Its cluster has been checked at least once too.
            let (status, _) = get(admin, "/ready").await;
            status == 200 && TcpStream::connect(addr).await.is_ok()
        })
        .await;
        assert!(log.exists());
        Self {
            addr,
            admin,
            _child: child,
            _files: files,
        }
    }

    /// What the health checks of a cluster's members said last.
    pub async fn health_of(&self, cluster: &str) -> Vec<String> {
        let (_, clusters) = get(self.admin, "/clusters").await;
        let of_it = clusters
            .lines()
            .filter(|line| line.starts_with(&format!("{cluster}::")));
        of_it
            .filter_map(|line| Some(line.split_once("::health_flags::")?.1.to_owned()))
            .collect()
    }

    /// Sends these bytes behind the request line's, on a connection of their own.
    pub async fn raw(&self, request: &[u8]) -> Answer {
        let answer = async {
            let mut stream = TcpStream::connect(self.addr).await.expect("connects");
            stream.write_all(request).await.expect("sent");
            let mut answer = Vec::new();
            // Envoy keeps a connection for a second behind some answers; a reset is an end too.
            while !is_whole(&answer)
                && stream
                    .read_buf(&mut answer)
                    .await
                    .is_ok_and(|read| read > 0)
            {}
            String::from_utf8_lossy(&answer).into_owned()
        };
        let answer = tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_default(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// A request for this target, with these header lines.
    pub async fn ask(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        self.raw(&request(target.as_bytes(), &headers)).await
    }
}

/// Whether an answer with its length has arrived.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// The bytes of a request that closes its connection.
pub fn request(target: &[u8], headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut request = b"GET ".to_vec();
    request.extend(target);
    request.extend(b" HTTP/1.1\r\nconnection: close\r\n");
    let has_host = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"));
    if !has_host {
        request.extend(b"host: app.example\r\n");
    }
    for (name, value) in headers {
        request.extend(name.as_bytes());
        request.extend(b": ");
        request.extend(*value);
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    request
}

/// The shipped file with these ports, and as it is set up.
fn config(
    set_up: SetUp,
    addr: SocketAddr,
    admin: SocketAddr,
    authz: &ListenAddr,
    upstream: SocketAddr,
) -> String {
    let mut config = match set_up {
        SetUp::Replicas(_) => REPLICAS.to_owned(),
        SetUp::Shipped
        | SetUp::Bare
        | SetUp::SomeRoutes
        | SetUp::AllowedHeaders
        | SetUp::Narrowed
        | SetUp::Traced(..) => CONFIG.to_owned(),
    };
    let mut replace = |from: &str, to: &str| {
        assert!(config.contains(from), "the shipped file has no {from:?}");
        config = config.replace(from, to);
    };
    for (shipped, port) in [
        (10_000, addr.port()),
        (9901, admin.port()),
        (9000, upstream.port()),
    ] {
        replace(
            &format!("port_value: {shipped} "),
            &format!("port_value: {port} "),
        );
    }
    match authz {
        ListenAddr::Tcp(authz) => {
            replace(
                "port_value: 50051 ",
                &format!("port_value: {} ", authz.port()),
            );
        }
        ListenAddr::Unix(path) => {
            let endpoint = fenced(PAGE, "pipe:").trim_end();
            let shipped = "/run/clerk-authz/grpc.sock";
            assert!(endpoint.contains(shipped), "{endpoint}");
            let here = endpoint.replace(shipped, &path.display().to_string());
            replace(AUTHZ_ENDPOINT, here.lines().last().expect("an endpoint"));
        }
    }
    match set_up {
        SetUp::Shipped => {}
        SetUp::Replicas(second) => {
            let questions = free_ports()[0];
            replace("port_value: 10001 ", &format!("port_value: {questions} "));
            let second = second.port();
            replace("port_value: 50052 ", &format!("port_value: {second} "));
        }
        SetUp::SomeRoutes => replace("{ prefix: \"/\" }", "{ prefix: \"/me\" }"),
        SetUp::Bare => {
            replace("REJECT_REQUEST\n", "KEEP_UNCHANGED\n");
            replace(
                "headers_with_underscores_action: KEEP_UNCHANGED",
                "headers_with_underscores_action: ALLOW",
            );
            replace("normalize_path: true", "normalize_path: false");
            replace("x[^a-z0-9]clerk[^a-z0-9].*", "nothing");
        }
        SetUp::AllowedHeaders => {
            let indented = indented(fenced(PAGE, "allowed_headers:"), 22);
            replace(
                "                      encode_raw_headers: true\n",
                &format!("                      encode_raw_headers: true\n{indented}"),
            );
        }
        SetUp::Narrowed => {
            let all = "                        - match: { prefix: \"/\" }\n";
            let one = indented(fenced(PAGE, "context_extensions:"), 24);
            replace(all, &format!("{one}{all}"));
        }
        SetUp::Traced(collector, percent) => {
            for (beside, block, by) in [
                ("                stat_prefix: ingress\n", "tracing:", 16),
                (
                    "                      mutations:\n",
                    "remove: traceparent",
                    24,
                ),
                ("  clusters:\n", "- name: collector", 4),
            ] {
                let block = indented(fenced(TRACING, block), by);
                replace(beside, &format!("{beside}{block}"));
            }
            replace(
                "random_sampling: { value: 1 }",
                &format!("random_sampling: {{ value: {percent} }}"),
            );
            replace(
                "port_value: 4317 ",
                &format!("port_value: {} ", collector.port()),
            );
        }
    }
    config
}

fn indented(block: &str, by: usize) -> String {
    let lines = block.lines();
    lines.map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// The block of a page that holds this text.
fn fenced<'p>(page: &'p str, text: &str) -> &'p str {
    let blocks = page.split("```yaml\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("```").next());
    blocks
        .find(|block| block.contains(text))
        .unwrap_or_else(|| panic!("the page has no block with {text}"))
}

fn free_ports() -> [u16; 2] {
    let listeners: [_; 2] =
        std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// The pinned Envoy, from `make setup`.
fn binary() -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib");
    let pythons = fs::read_dir(&venv).into_iter().flatten().flatten();
    pythons
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|binary| binary.exists())
        .expect("Envoy in .venv: run `make setup`")
}
