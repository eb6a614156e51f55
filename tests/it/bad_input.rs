//! Hostile input at the gRPC door: it answers or refuses, memory stays bounded, nothing panics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clerk_authz::{
    emulator::{Faults, TokenSpec},
    server::Limits,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::support::{
    Fixture, Reason, about, about_http, assert_denied,
    directory::TestClock,
    grpc_port, offline_clerk,
    raw::{framed, raw},
    settings_for,
};

const PATH: &str = "/clerkauthz.v1.AuthzService/VerifySession";

/// Sees every panic of this process.
fn panics() -> &'static AtomicBool {
    static SEEN: AtomicBool = AtomicBool::new(false);
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Only the library's own code: a failing test panics too.
            if info
                .location()
                .is_some_and(|at| at.file().starts_with("src/"))
            {
                SEEN.store(true, Ordering::SeqCst);
            }
            before(info);
        }));
    });
    &SEEN
}

async fn still_answers(fixture: &Fixture) {
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    assert!(
        fixture.verify(&token).await.is_ok(),
        "a good call after bad ones"
    );
    assert!(!panics().load(Ordering::SeqCst), "something panicked");
}

#[tokio::test]
async fn malformed_messages_are_refused() {
    panics();
    let fixture = Fixture::start().await;
    let large = framed(&vec![b'a'; 5_000_000]);
    for (what, body) in [
        ("not protobuf", framed(b"\xff\xff\xff\xff")),
        ("a field that is cut", framed(&[0x0a, 0x7f, b'a'])),
        (
            "a token that is not UTF-8",
            framed(&[0x0a, 0x02, 0xff, 0xfe]),
        ),
        ("a wrong wire type", framed(&[0x09, 1, 2, 3, 4, 5, 6, 7, 8])),
        ("no message", Vec::new()),
        ("a frame that is cut", vec![0, 0, 0, 1]),
        ("a length that lies", vec![0, 0xff, 0xff, 0xff, 0xff, b'a']),
        ("a compression that nobody agreed on", {
            let mut body = framed(b"\x0a\x01a");
            body[0] = 1;
            body
        }),
        ("five megabytes", large),
    ] {
        let status = raw(&fixture, PATH, &[], body).await;
        assert_ne!(status, "0", "{what}");
        assert_ne!(
            status, "16",
            "{what}: a malformed request is not a denied token"
        );
    }
    assert_eq!(
        raw(&fixture, PATH, &[], framed(b"\x0a\x01a")).await,
        "16",
        "the nearest whole one"
    );
    still_answers(&fixture).await;
    fixture.stop().await;
}

/// Advisory 25 in small: a path that is not a method's is answered by nobody.
#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let fixture = Fixture::start().await;
    for path in [
        "/",
        "/x",
        "/clerkauthz.v1.AuthzService/",
        "/clerkauthz.v1.AuthzService/Nothing",
        "//",
    ] {
        assert_eq!(raw(&fixture, path, &[], framed(b"")).await, "12", "{path}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn huge_headers_are_refused() {
    panics();
    let fixture = Fixture::start().await;
    let value = "a".repeat(200_000);
    let status = raw(&fixture, PATH, &[("x-large", &value)], framed(b"\x0a\x01a")).await;
    assert!(
        status.starts_with("refused") || status == "HTTP 431" || status == "8",
        "{status}"
    );
    still_answers(&fixture).await;
    fixture.stop().await;
}

#[tokio::test]
async fn junk_tokens_are_denied_whatever_they_are() {
    panics();
    let fixture = Fixture::start().await;
    for junk in [
        "a",
        ".",
        "..",
        "...",
        "é.é.é",
        "\0.\0.\0",
        " ",
        "null",
        "{}",
        "Bearer x",
        &"a.".repeat(8_000),
        &"=".repeat(16_384),
        &format!("{}.{}.", "e30", "e30"),
    ] {
        let status = fixture.verify(junk).await.expect_err("denied");
        assert_eq!(status.code(), Code::Unauthenticated, "{junk:?}");
    }
    assert_denied(
        fixture.verify(&"a".repeat(1_000_000)).await,
        Reason::TokenTooLarge,
        "a megabyte",
    );
    let cookies = format!("__session={}; __client_uat=1", "%".repeat(15_000));
    let answer = fixture.ask(about_http(&[], &[&cookies])).await;
    assert_denied(answer, Reason::TokenMalformed, "a cookie of percent signs");
    still_answers(&fixture).await;
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_not_http2_is_closed_and_harms_nobody() {
    panics();
    let fixture = Fixture::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\nxx",
        &[0; 4_096],
    ] {
        let mut stream = TcpStream::connect(grpc_port(&fixture.service))
            .await
            .expect("connects");
        // The other side may close while we still write.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let end =
            tokio::time::timeout(Duration::from_secs(12), stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "left open after {bytes:?}");
    }
    still_answers(&fixture).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_or_does_not_go_on_is_closed() {
    let fixture = Fixture::start().await;
    let (grpc, http) = (grpc_port(&fixture.service), fixture.service.http_addr());
    // Real time is the subject: the limits are ten seconds and five.
    let closed = [(grpc, &b""[..]), (grpc, b"PRI"), (http, b"")].map(|(addr, said)| async move {
        let mut idle = TcpStream::connect(addr).await.expect("connects");
        idle.write_all(said).await.expect("sent");
        // HTTP/2 greets first; then the connection is closed.
        let mut greeting = Vec::new();
        let end = idle.read_to_end(&mut greeting);
        let end = tokio::time::timeout(Duration::from_secs(14), end).await;
        assert!(end.is_ok(), "{addr} left a connection open after {said:?}");
    });
    futures_util::future::join_all(closed).await;
    // One that went through its opening stays.
    still_answers(&fixture).await;
    fixture.stop().await;
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .expect("there");
    let kibibytes: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    kibibytes * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_are_left_open_harm_nobody() {
    panics();
    let fixture = Fixture::start().await;
    let before = resident();
    let mut open = Vec::new();
    for _ in 0..10_000 {
        match TcpStream::connect(grpc_port(&fixture.service)).await {
            Ok(stream) => open.push(stream),
            // No descriptors left in this process: that is enough of them.
            Err(_) => break,
        }
    }
    assert!(open.len() > 400, "only {} connections", open.len());
    still_answers(&fixture).await;
    let used = resident().saturating_sub(before);
    assert!(
        used < 256 << 20,
        "{used} bytes for {} connections",
        open.len()
    );
    println!("{} connections left open: {} KiB", open.len(), used / 1024);
    drop(open);
    still_answers(&fixture).await;
    fixture.stop().await;
}

/// Advisory 24: requests wait for keys, the fetch fails, and nothing panics.
#[tokio::test]
async fn fetches_that_fail_while_requests_wait_panic_nowhere() {
    use clerk_authz::emulator::Fault;
    panics();
    let clock = TestClock::at_now();
    let clerk = offline_clerk().await;
    let settings = settings_for(&clerk, &[("CLERK_AUTHZ_KEYS_COOLDOWN", "1s")]);
    let fixture = Fixture::start_under(Limits::default(), clerk, &settings, &clock).await;
    let faults = [
        Fault::Down,
        Fault::Garbage,
        Fault::ServerError,
        Fault::Endless,
        Fault::WrongContent,
    ];
    for fault in faults {
        // Past the cooldown.
        clock.step(2);
        let slow = Faults {
            slow_milliseconds: 200,
            ..Faults::always(fault)
        };
        fixture.instance().set_faults(slow);
        let spec =
            TokenSpec::session("user_alice").with_header("kid", serde_json::json!("ins_new"));
        let token = fixture.mint(&spec);
        let waiting = (0..50).map(|_| fixture.verify(&token));
        for answer in futures_util::future::join_all(waiting).await {
            let status = answer.expect_err("not known");
            assert_eq!(status.code(), Code::Unavailable, "{fault:?}: {status:?}");
        }
    }
    still_answers(&fixture).await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_junk_kids_makes_few_fetches_and_good_tokens_pass() {
    let fixture = Fixture::start().await;
    let before = fixture.instance().jwks_requests().frontend;
    let good = fixture.mint(&TokenSpec::session("user_alice"));
    let client = Arc::new(fixture.client.clone());
    let mut flood = tokio::task::JoinSet::new();
    for task in 0..8 {
        let client = (*client).clone();
        let spec = TokenSpec::session("user_alice");
        let tokens: Vec<String> = (0..20)
            .map(|n| {
                fixture.mint(
                    &spec
                        .clone()
                        .with_header("kid", serde_json::json!(format!("ins_{task}x{n}"))),
                )
            })
            .collect();
        flood.spawn(async move {
            for round in 0..200 {
                let _ = client
                    .clone()
                    .verify_session(about(&tokens[round % tokens.len()]))
                    .await;
            }
        });
    }
    for _ in 0..200 {
        assert!(fixture.verify(&good).await.is_ok());
    }
    while flood.join_next().await.is_some() {}
    let fetches = fixture.instance().jwks_requests().frontend - before;
    assert!(
        fetches <= 4,
        "{fetches} fetches in a flood of a few seconds"
    );
    fixture.stop().await;
}
