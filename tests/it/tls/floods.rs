//! Connections that are made to harm. Each ends, and others are answered meanwhile.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{ALICE, Scene};
use crate::support::{
    PATIENCE, about,
    authority::{handshake, tls_client, trusting},
    frames::{CONTINUATION, Frames, GOAWAY, HEADERS, RST_STREAM, frame},
};

/// RFC 9113, 7.
const ENHANCE_YOUR_CALM: u32 = 0xb;
/// RFC 7541, appendix A: `POST`, `https`, `/`.
const REQUEST: [u8; 3] = [0x83, 0x87, 0x84];
const END_HEADERS: u8 = 0x4;
/// The longest that another client's call may take meanwhile, on a busy machine.
const STILL_QUICK: Duration = Duration::from_secs(2);

/// Which port is harmed. HTTP asks nobody for a certificate.
#[derive(Clone, Copy, Debug)]
enum Door {
    Grpc,
    Http,
}

impl Door {
    const BOTH: [Self; 2] = [Self::Grpc, Self::Http];

    fn addr(self, scene: &Scene) -> SocketAddr {
        match self {
            Self::Grpc => scene.grpc(),
            Self::Http => scene.service.http_addr(),
        }
    }

    /// The least that a connection has to open.
    const fn opens_within(self) -> Duration {
        match self {
            Self::Grpc => Duration::from_secs(10),
            Self::Http => Duration::from_secs(5),
        }
    }
}

/// Another client, whose calls are all answered, and quickly.
struct Other {
    door: Door,
    ended: Arc<AtomicBool>,
    calls: JoinHandle<usize>,
}

impl Other {
    async fn on(scene: &Scene, door: Door) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let calls = match door {
            Door::Grpc => {
                let own = scene.clients.client(ALICE);
                let connector = trusting(&scene.authority.pem, Some(&own), &["h2"]);
                let client = tls_client(connector, scene.grpc()).await;
                let (client, token) = (client.expect("connects"), scene.token());
                tokio::spawn(repeated(until, move || {
                    let (mut client, token) = (client.clone(), token.clone());
                    async move {
                        let call = client.verify_session(about(&token));
                        call.await.expect("answered");
                    }
                }))
            }
            Door::Http => {
                let (client, addr) = (scene.https(), scene.service.http_addr());
                tokio::spawn(repeated(until, move || {
                    let asked = client.get(format!("https://{addr}/readyz")).send();
                    async move {
                        let answer = asked.await.expect("answered");
                        assert_eq!(answer.status(), 200);
                        answer.bytes().await.expect("to its end");
                    }
                }))
            }
        };
        Self { door, ended, calls }
    }

    async fn end(self, scene: &Scene) {
        self.ended.store(true, Relaxed);
        assert!(self.calls.await.expect("every call was answered") > 0);
        match self.door {
            Door::Grpc => {
                let own = scene.clients.client(ALICE);
                scene.call(Some(&own)).await.expect("a new connection, too");
            }
            Door::Http => {
                let (status, _) = scene.get("/readyz").await.expect("a new connection, too");
                assert_eq!(status, 200);
            }
        }
    }
}

/// How often it asked.
async fn repeated<F: Future<Output = ()>>(
    until: Arc<AtomicBool>,
    mut ask: impl FnMut() -> F,
) -> usize {
    let mut made = 0;
    while made == 0 || !until.load(Relaxed) {
        timeout(STILL_QUICK, ask()).await.expect("quick");
        made += 1;
    }
    made
}

/// A connection of a client that is trusted, and sends frames by hand.
async fn trusted(scene: &Scene, door: Door) -> Frames<tokio_rustls::client::TlsStream<TcpStream>> {
    let own = scene.clients.client(ALICE);
    let connector = trusting(&scene.authority.pem, Some(&own), &["h2"]);
    let stream = handshake(&connector, door.addr(scene)).await;
    Frames::open(stream.expect("a handshake")).await
}

/// Reads until the other side closes.
async fn closed(stream: &mut TcpStream) {
    let mut buffer = [0; 1_024];
    let reading = async { while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
    timeout(PATIENCE, reading).await.expect("it is closed");
}

/// The first record of a handshake, as a client sends it.
async fn client_hello(scene: &Scene) -> Vec<u8> {
    let (mut here, there) = tokio::io::duplex(16 * 1_024);
    let connector = trusting(&scene.authority.pem, None, &["h2"]);
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let connecting = tokio::spawn(async move { connector.connect(name, there).await.map(drop) });
    let mut hello = vec![0; 4_096];
    let count = here.read(&mut hello).await.expect("it begins");
    hello.truncate(count);
    connecting.abort();
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_place_of_a_handshake_ends_its_own_connection_alone() {
    let scene = Scene::start().await;
    let hello = client_hello(&scene).await;
    let mut flipped = hello.clone();
    flipped[5] ^= 0xff;
    for door in Door::BOTH {
        let other = Other::on(&scene, door).await;
        for round in 0..100_u8 {
            for bytes in [
                &[round; 512][..],
                b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                &flipped,
            ] {
                let stream = TcpStream::connect(door.addr(&scene)).await;
                let mut stream = stream.expect("it accepts");
                // It may have closed already.
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                closed(&mut stream).await;
            }
            // Cut off somewhere in its middle.
            let stream = TcpStream::connect(door.addr(&scene)).await;
            let mut stream = stream.expect("it accepts");
            let cut = hello.len() * usize::from(round) / 100;
            stream.write_all(&hello[..cut]).await.expect("sent");
            stream.shutdown().await.expect("ended");
            closed(&mut stream).await;
        }
        other.end(&scene).await;
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_never_done_end_and_hold_nobody_up() {
    const SLOW: usize = 50;
    let scene = Scene::start().await;
    let others = join_all(Door::BOTH.map(|door| Other::on(&scene, door))).await;
    let hello = client_hello(&scene).await;
    let slow = Door::BOTH.into_iter().flat_map(|door| {
        let (addr, hello) = (door.addr(&scene), hello.clone());
        (0..SLOW).map(move |index| {
            let hello = hello.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let stream = TcpStream::connect(addr).await.expect("it accepts");
                let (mut read, mut write) = stream.into_split();
                // Some say nothing, some a byte at a time.
                let speaking = tokio::spawn(async move {
                    for byte in hello.into_iter().take(if index % 2 == 0 { 0 } else { 200 }) {
                        if write.write_all(&[byte]).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    std::future::pending::<()>().await;
                });
                let mut buffer = [0; 64];
                while read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                speaking.abort();
                (door, begun.elapsed())
            })
        })
    });
    for slow in slow.collect::<Vec<_>>() {
        let closed = timeout(PATIENCE, slow).await.expect("it is closed");
        let (door, took) = closed.expect("no panic");
        assert!(
            took >= door.opens_within(),
            "{door:?}: closed early: {took:?}"
        );
    }
    for other in others {
        other.end(&scene).await;
    }
    scene.stop().await;
}

/// CVE-2023-44487: streams that are opened and reset, and cost the server what they cost the client not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_its_connection() {
    let scene = Scene::start().await;
    let flood: Vec<u8> = (0..5_000_u32)
        .flat_map(|index| {
            let stream = 2 * index + 1;
            [
                frame(HEADERS, END_HEADERS, stream, &REQUEST),
                // CANCEL
                frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
            ]
        })
        .flatten()
        .collect();

    for door in Door::BOTH {
        let other = Other::on(&scene, door).await;
        let mut frames = trusted(&scene, door).await;

        // It may be closed before all is taken.
        let _ = frames.send(&flood).await;

        let end = frames.next_of(GOAWAY).await.expect("it is told why");
        assert_eq!(end.number(4), ENHANCE_YOUR_CALM, "{door:?}");
        assert!(frames.next_of(GOAWAY).await.is_none(), "it is closed");
        other.end(&scene).await;
    }
    scene.stop().await;
}

/// CVE-2024-27316 and its kin: a header list that never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_continuations_ends_its_connection() {
    const MOST: usize = 10_000;
    let scene = Scene::start().await;
    // Literals that are not indexed (RFC 7541, 6.2.2): `a`, of 126 bytes.
    let field = [&[0, 1, b'a', 126][..], &[b'a'; 126]].concat();
    let fields = field.repeat(100);
    for door in Door::BOTH {
        let other = Other::on(&scene, door).await;
        let mut frames = trusted(&scene, door).await;
        let begin = frame(HEADERS, 0, 1, &REQUEST);
        frames.send(&begin).await.expect("it takes it");

        let mut sent = 0;
        while sent < MOST {
            let next = frame(CONTINUATION, 0, 1, &fields);
            if frames.send(&next).await.is_err() {
                break;
            }
            sent += 1;
        }

        assert!(sent < MOST, "{door:?}: it took {sent} continuations");
        other.end(&scene).await;
    }
    scene.stop().await;
}

/// The same over HTTP/1.1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_an_end_ends_its_connection() {
    const MOST: usize = 10_000;
    let scene = Scene::start().await;
    let other = Other::on(&scene, Door::Http).await;
    let connector = trusting(&scene.authority.pem, None, &["http/1.1"]);
    let stream = handshake(&connector, Door::Http.addr(&scene)).await;
    let mut stream = stream.expect("a handshake");
    let begin = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n";
    stream.write_all(begin).await.expect("it takes it");

    let line = format!("a: {}\r\n", "a".repeat(10_000));
    let mut sent = 0;
    let sending = async {
        while sent < MOST && stream.write_all(line.as_bytes()).await.is_ok() {
            sent += 1;
        }
    };
    let ended = timeout(PATIENCE, sending).await;

    ended.expect("it is closed");
    assert!(sent < MOST, "it took {sent} lines");
    other.end(&scene).await;
    scene.stop().await;
}
