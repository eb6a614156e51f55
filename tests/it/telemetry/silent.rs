//! A collector that accepts connections and never answers.

use std::{net::SocketAddr, time::Duration};

use clerk_authz::emulator::TokenSpec;
use futures_util::future::join_all;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{
    calls::value,
    traces::{AT_ONCE, Scene},
};
use crate::support::{about, client, eventually, get, loopback};

/// Two seconds for spans, two for lines, and what the end takes by itself on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(8);

/// What it does with what it is sent.
#[derive(Clone, Copy, Debug)]
enum Silent {
    /// Takes all of it.
    Reads,
    /// Takes none, so that its sender's buffers fill up.
    Holds,
    /// As it reads, where a handshake of TLS is waited for.
    Handshake,
}

impl Silent {
    const ALL: [Self; 3] = [Self::Reads, Self::Holds, Self::Handshake];

    async fn start(self) -> SocketAddr {
        let listener = TcpListener::bind(loopback()).await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                match self {
                    Self::Reads | Self::Handshake => drop(tokio::spawn(read(stream))),
                    Self::Holds => held.push(stream),
                }
            }
        });
        addr
    }

    fn endpoint(self, addr: SocketAddr) -> String {
        match self {
            Self::Reads | Self::Holds => format!("http://{addr}"),
            Self::Handshake => format!("https://{addr}"),
        }
    }
}

async fn read(mut stream: TcpStream) {
    let mut buffer = [0; 4_096];
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// Calls of a client, of which each makes two spans.
const CALLS: u32 = 500;
/// Clients at once, for far more spans than there is room for.
const CLIENTS: u32 = 12;
const QUEUE: u32 = 16;
const EXPORT_WITHIN: Duration = Duration::from_millis(500);
/// What all that is sent may take in memory, with its threads and connections. Up to 1.8 MiB were seen, and
/// 10 MiB with a queue for all of it.
const ROOM_BYTES: u64 = 6 << 20;

/// How long so many calls take, one after the other.
async fn calls(scene: &Scene) -> Duration {
    let token = scene.clerk.instances()[0].mint(&TokenSpec::session("user_alice"));
    let token = token.expect("a token");
    let mut client = client(scene.service.grpc_addr).await;
    let begun = Instant::now();
    for _ in 0..CALLS {
        client
            .verify_session(about(&token))
            .await
            .expect("accepted");
    }
    begun.elapsed()
}

async fn flood(scene: &Scene) {
    join_all((0..CLIENTS).map(|_| calls(scene))).await;
}

async fn items(scene: &Scene, outcome: &str) -> f64 {
    let metrics = get(scene.service.http_addr, "/metrics").await.1;
    let name = format!("clerk_authz_otlp_items_total{{signal=\"traces\",outcome=\"{outcome}\"}}");
    value(&metrics, &name)
}

#[tokio::test]
async fn a_collector_that_never_answers_hurts_nothing_and_is_said_once() {
    let nobody = loopback();
    let without = Scene::start(nobody, &[("OTEL_SDK_DISABLED", "true")]).await;
    flood(&without).await;
    let mut ends = Vec::new();
    for silent in Silent::ALL {
        let addr = silent.start().await;
        let begun = Instant::now();
        let endpoint = silent.endpoint(addr);
        let (queue, within) = (QUEUE.to_string(), EXPORT_WITHIN.as_millis().to_string());
        let more = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", &within),
            ("OTEL_BSP_MAX_QUEUE_SIZE", &queue),
        ];
        let scene = Scene::start(addr, &more).await;
        flood(&scene).await;

        let (alone, took) = (calls(&without).await, calls(&scene).await);

        assert!(
            took < 3 * alone + AT_ONCE,
            "{silent:?}: {took:?}, without {alone:?}"
        );
        let (bytes, alone) = (scene.service.resident(), without.service.resident());
        assert!(
            bytes < alone + ROOM_BYTES,
            "{silent:?}: {bytes} bytes, without {alone}"
        );
        eventually("spans are lost", async || {
            items(&scene, "failed").await > 0.0
        })
        .await;
        let queued = items(&scene, "queued").await;
        assert!((queued - f64::from(2 * (CLIENTS + 1) * CALLS)).abs() < f64::EPSILON);
        assert!(items(&scene, "exported").await.abs() < f64::EPSILON);
        // No more than the queue held was ever tried at once; the others were dropped.
        let tries = begun.elapsed().as_secs_f64() / EXPORT_WITHIN.as_secs_f64() + 1.0;
        let failed = items(&scene, "failed").await;
        assert!(failed <= f64::from(QUEUE) * tries, "{silent:?}: {failed}");
        ends.push(async move {
            let log = scene.service.end().await;
            let lines = log.lines();
            let said = lines.filter(|line| line.contains("collector does not take"));
            // Of spans and of lines.
            assert!((1..=2).contains(&said.count()), "{silent:?}: {log}");
        });
    }
    // Each waits for a while yet: all at once.
    join_all(ends).await;
    without.service.kill().await;
}

/// By itself an export has 10 s.
#[tokio::test]
async fn the_end_does_not_wait_for_a_collector_that_never_answers() {
    let ended = Silent::ALL.map(|silent| async move {
        let addr = silent.start().await;
        let endpoint = silent.endpoint(addr);
        let scene = Scene::start(addr, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)]).await;
        calls(&scene).await;

        let begun = Instant::now();
        scene.service.signal("-TERM");
        let (status, log) = scene.service.ended().await;

        let took = begun.elapsed();
        assert_eq!(status.code(), Some(0), "{silent:?}: {log}");
        assert!(took < ENDS_WITHIN, "{silent:?}: {took:?}");
        assert!(log.contains("stopped"), "{silent:?}: {log}");
    });
    join_all(ended).await;
}
