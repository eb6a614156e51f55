//! Clients: calls as raw frames over one connection, and h2load.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::proxy::{HEADERS, PATH};
use bytes::{Bytes, BytesMut};
use clerk_authz::door::grpc::proto::{self, verify_session_request::Credential};
use futures_util::{StreamExt, stream::FuturesUnordered};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

pub(crate) const VERIFY: &str = "/clerkauthz.v1.AuthzService/VerifySession";
pub(crate) const BATCH: &str = "/clerkauthz.v1.AuthzService/BatchVerifySession";
pub(crate) const CHECK: &str = "/clerkauthz.v1.AuthzService/CheckOrgPermission";
pub(crate) const GET_USER: &str = "/clerkauthz.v1.AuthzService/GetUser";
pub(crate) const BATCH_CHECK: &str = "/clerkauthz.v1.AuthzService/BatchCheckOrgPermission";

/// Envoy's.
pub(crate) const CHECK_OF_ENVOY: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Calls of one h2load round.
pub(crate) const CALLS: usize = 60_000;

pub(crate) fn framed(message: &impl Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(encoded.len() + 5);
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(&u32::try_from(encoded.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(&encoded);
    frame.freeze()
}

pub(crate) fn about(token: &str) -> proto::VerifySessionRequest {
    proto::VerifySessionRequest {
        credential: Some(Credential::Token(token.to_owned())),
        ..Default::default()
    }
}

/// A client over one connection, with calls as raw frames.
#[derive(Clone)]
pub(crate) struct Client {
    send: h2::client::SendRequest<Bytes>,
    authority: String,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        Self::over(stream, addr.to_string()).await
    }

    pub(crate) async fn connect_to_socket(path: &Path) -> Self {
        let stream = UnixStream::connect(path).await.expect("connects");
        Self::over(stream, "localhost".to_owned()).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        authority: String,
    ) -> Self {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(stream)
            .await
            .expect("a handshake");
        tokio::spawn(connection);
        Self { send, authority }
    }

    /// The gRPC status.
    pub(crate) async fn call(&self, path: &str, frame: Bytes) -> String {
        self.call_within(path, frame, None).await
    }

    /// The gRPC status of a call that says how long it waits.
    async fn call_within(&self, path: &str, frame: Bytes, patience: Option<Duration>) -> String {
        let mut send = self.send.clone().ready().await.expect("open");
        let mut request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(patience) = patience {
            request = request.header("grpc-timeout", format!("{}m", patience.as_millis()));
        }
        let request = request.body(()).expect("a request");
        let (response, mut body) = send.send_request(request, false).expect("sent");
        body.send_data(frame, true).expect("sent");
        let response = response.await.expect("answered");
        let status = |headers: &http::HeaderMap| {
            headers
                .get("grpc-status")
                .map(|status| status.to_str().unwrap_or("?").to_owned())
        };
        if let Some(status) = status(response.headers()) {
            return status;
        }
        let mut body = response.into_body();
        while let Some(chunk) = body.data().await {
            let length = chunk.expect("data").len();
            body.flow_control()
                .release_capacity(length)
                .expect("released");
        }
        let trailers = body.trailers().await.expect("trailers");
        trailers
            .and_then(|trailers| status(&trailers))
            .unwrap_or_default()
    }

    /// All frames, `width` at a time; all must be answered with `expected`.
    pub(crate) async fn drive(&self, path: &str, frames: &[Bytes], width: usize, expected: &str) {
        let mut waiting = FuturesUnordered::new();
        let mut frames = frames.iter();
        loop {
            while waiting.len() < width {
                let Some(frame) = frames.next() else { break };
                waiting.push(self.call(path, frame.clone()));
            }
            match waiting.next().await {
                Some(status) => assert_eq!(status, expected, "{path}"),
                None => return,
            }
        }
    }
}

/// Calls per second by h2load.
pub(crate) fn h2load(addr: SocketAddr, path: &str, body: &Path) -> f64 {
    h2load_calls(CALLS, addr, path, body)
}

/// As [`h2load`], with so many calls.
pub(crate) fn h2load_calls(calls: usize, addr: SocketAddr, path: &str, body: &Path) -> f64 {
    h2load_at(calls, &format!("http://{addr}{path}"), body)
}

/// As [`h2load`], over TLS, whatever the certificate.
pub(crate) fn h2load_over_tls(addr: SocketAddr, path: &str, body: &Path) -> f64 {
    h2load_at(CALLS, &format!("https://{addr}{path}"), body)
}

fn h2load_at(calls: usize, url: &str, body: &Path) -> f64 {
    let output = Command::new("taskset")
        .args(["-c", "1", "h2load", "-n", &calls.to_string()])
        .args(["-c", "4", "-m", "50", "-t", "1", "-d"])
        .arg(body)
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .arg(url)
        .output()
        .expect("h2load");
    rate(&output.stdout)
}

/// Requests per second by h2load: a browser's, with this token.
pub(crate) fn h2load_get(requests: usize, addr: SocketAddr, token: &str) -> f64 {
    let headers = HEADERS.iter().flat_map(|(name, value)| {
        let header = format!("{name}: {value}");
        ["-H".to_owned(), header]
    });
    let output = Command::new("taskset")
        .args(["-c", "1", "h2load", "-n", &requests.to_string()])
        .args(["-c", "4", "-m", "10", "-t", "1"])
        .args(headers)
        .args(["-H", &format!("authorization: Bearer {token}")])
        .arg(format!("http://{addr}{PATH}"))
        .output()
        .expect("h2load");
    rate(&output.stdout)
}

/// Of a run in which nothing failed.
fn rate(output: &[u8]) -> f64 {
    let text = String::from_utf8_lossy(output);
    assert!(text.contains("0 failed, 0 errored"), "{text}");
    assert!(text.contains(" 0 4xx, 0 5xx"), "{text}");
    let line = text
        .lines()
        .find(|line| line.starts_with("finished in"))
        .expect("a closing line");
    let rate = line
        .split(", ")
        .nth(1)
        .and_then(|part| part.split(' ').next());
    rate.expect("a rate").parse().expect("a number")
}

/// A file with one frame, as h2load takes it.
pub(crate) fn body_file(frame: &Bytes) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), frame).expect("written");
    file
}

/// A file with many frames, for a flood.
pub(crate) fn frames_file(frames: &[Bytes]) -> tempfile::NamedTempFile {
    body_file(&Bytes::from(frames.concat()))
}

fn split(mut frames: Bytes) -> Vec<Bytes> {
    let mut split = Vec::new();
    while let Some(length) = frames.get(1..5) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        split.push(frames.split_to(5 + length as usize));
    }
    split
}

/// The last rate that a flood said, in calls per second; none is nought.
pub(crate) fn last_rate(said: &[u8]) -> f64 {
    let said = String::from_utf8_lossy(said);
    said.lines()
        .last()
        .map_or(0.0, |rate| rate.parse().expect("a number"))
}

/// Ten calls a millisecond that are refused or answered, until this process is ended; says its rate
/// now and then.
pub(crate) async fn flood(addr: SocketAddr, path: &str, file: &str) {
    const EACH_MILLISECOND: usize = 10;
    let frames = split(std::fs::read(file).expect("frames").into());
    let client = Client::connect(addr).await;
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let (start, mut sent) = (Instant::now(), 0_usize);
    // Bounded, should nobody end it.
    while sent < 1_000_000 {
        tick.tick().await;
        let some = &frames[sent % (frames.len() - EACH_MILLISECOND)..][..EACH_MILLISECOND];
        let calls = some.iter().map(|frame| client.call(path, frame.clone()));
        let statuses = futures_util::future::join_all(calls).await;
        assert!(
            statuses
                .iter()
                .all(|status| status != "0" || path != VERIFY),
            "{statuses:?}"
        );
        sent += EACH_MILLISECOND;
        if sent.is_multiple_of(1_000) {
            say_rate(sent, start);
        }
    }
}

/// How long a call of a storm waits for its answer.
const STORM_PATIENCE: Duration = Duration::from_secs(1);
/// Calls of a storm that are open at once; one more is not sent.
const STORM_OPEN: usize = 2_000;
/// Connections of a storm: a server bounds the calls of each.
const STORM_CONNECTIONS: usize = 10;

/// A call a millisecond, whether those before it are answered or not, until this process is ended;
/// says now and then how many a second were answered.
pub(crate) async fn storm(addr: SocketAddr, path: &str, file: &str) {
    let frames = split(std::fs::read(file).expect("frames").into());
    let clients = (0..STORM_CONNECTIONS).map(|_| Client::connect(addr));
    let clients = futures_util::future::join_all(clients).await;
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let mut open = FuturesUnordered::new();
    let (start, mut sent, mut answered) = (Instant::now(), 0_usize, 0_usize);
    // Bounded, should nobody end it.
    while answered < 1_000_000 {
        tokio::select! {
            _ = tick.tick(), if open.len() < STORM_OPEN => {
                let (client, frame) = (&clients[sent % clients.len()], &frames[sent % frames.len()]);
                open.push(client.call_within(path, frame.clone(), Some(STORM_PATIENCE)));
                sent += 1;
            }
            Some(status) = open.next() => {
                assert_ne!(status, "0", "Clerk answers");
                answered += 1;
                if answered.is_multiple_of(100) {
                    say_rate(answered, start);
                }
            }
        }
    }
}

fn say_rate(calls: usize, since: Instant) {
    let rate = calls as f64 / since.elapsed().as_secs_f64();
    let _ = writeln!(io::stdout(), "{rate:.0}");
}
