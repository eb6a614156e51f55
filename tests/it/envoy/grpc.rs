//! A gRPC upstream through Envoy, called from Python: each kind of denial is a status of gRPC's.

use std::path::Path;

use clerk_authz::emulator::{Fault, Faults, TokenSpec};
use tokio::{net::TcpListener, process::Command};
use tokio_stream::wrappers::TcpListenerStream;

use super::{Gate, SetUp, proxy::Envoy};
use crate::support::loopback;

/// What Python saw of a call: the status, and the reason in its details.
async fn call(envoy: &Envoy, method: &str, authorization: &str) -> (String, String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new(root.join(".venv/bin/python"))
        .arg(root.join("tests/it/envoy/call.py"))
        .args([&envoy.addr.to_string(), method, authorization])
        .kill_on_drop(true)
        .output();
    let ran = run.await.expect("Python in .venv: run `make setup`");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let mut words = said.trim().splitn(3, ' ').map(ToOwned::to_owned);
    let mut next = || words.next().unwrap_or_else(|| panic!("{ran:?}"));
    (next(), next(), next())
}

/// An upstream of gRPC's, with a policy that knows its methods, behind this gate's Envoy.
async fn grpc_upstream() -> std::net::SocketAddr {
    let listener = TcpListener::bind(loopback()).await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    addr
}

#[tokio::test]
async fn a_client_of_grpc_sees_statuses_with_reasons() {
    let gate = Gate::start(SetUp::Shipped).await;
    let authz = gate.fixture.service.grpc_addr();
    let envoy = Envoy::start(SetUp::Shipped, authz, grpc_upstream().await).await;
    let expired = TokenSpec {
        expired: true,
        ..TokenSpec::session("user_alice")
    };
    let expired = format!("Bearer {}", gate.fixture.mint(&expired));
    let bob = gate.bearer(TokenSpec::session("user_bob").in_organization("acme"));

    for (method, authorization, status, reason) in [
        ("Check", &*bob, "OK", "-"),
        ("Check", "", "UNAUTHENTICATED", "TOKEN_MISSING"),
        ("Check", &*expired, "UNAUTHENTICATED", "TOKEN_EXPIRED"),
        ("Watch", &*bob, "PERMISSION_DENIED", "ROLE_MISMATCH"),
    ] {
        let (got, details, message) = call(&envoy, method, authorization).await;
        assert_eq!((&*got, &*details), (status, reason), "{method}: {message}");
        assert!(reason == "-" || message.starts_with(reason), "{message}");
    }
    drop(envoy);
    gate.stop().await;

    let gate = Gate::start_with(SetUp::Shipped, Faults::always(Fault::Down)).await;
    let authz = gate.fixture.service.grpc_addr();
    let envoy = Envoy::start(SetUp::Shipped, authz, grpc_upstream().await).await;
    let (status, details, message) = call(&envoy, "Check", &gate.alice()).await;
    assert_eq!(
        (&*status, &*details),
        ("UNAVAILABLE", "KEYS_UNAVAILABLE"),
        "{message}"
    );
    drop(envoy);
    gate.stop().await;
}
