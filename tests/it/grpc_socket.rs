//! gRPC on a Unix socket, as a sidecar is asked.

use std::{
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use axum::serve::Listener;
use clerk_authz::{
    door::{GuardedListener, ListenerLimits},
    emulator::{Emulator, TokenSpec},
    server::{self, Running},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::support::{Fixture, PATIENCE, client, offline_clerk, settings_for};

/// A folder with room for a socket.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("grpc.sock")
    }

    /// As the setting names it.
    fn addr(&self) -> String {
        format!("unix:{}", self.path().display())
    }

    async fn serve(&self, clerk: &Emulator) -> Result<Running, String> {
        let settings = settings_for(clerk, &[("CLERK_AUTHZ_GRPC_ADDR", &self.addr())]);
        let started = server::start(&settings, server::system_clock()).await;
        started.map_err(|error| error.to_string())
    }
}

async fn health(arguments: &[&str], addr: &str) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .arg("health")
        .args(arguments)
        .env("CLERK_AUTHZ_GRPC_ADDR", addr)
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs")
}

#[tokio::test]
async fn calls_and_health_checks_are_answered_on_it() {
    let place = Place::new();
    // Left by a service that was killed.
    drop(std::os::unix::net::UnixListener::bind(place.path()).expect("bound"));
    let addr = place.addr();
    let fixture = Fixture::start_with(&[("CLERK_AUTHZ_GRPC_ADDR", &addr)]).await;

    assert_eq!(fixture.service.grpc_addr().to_string(), addr);
    let mode = std::fs::metadata(place.path())
        .expect("there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o660);
    let token = fixture.mint(&TokenSpec::session("user_alice"));
    let session = fixture.verify(&token).await.expect("accepted");
    assert_eq!(session.user_id, "user_alice");
    fixture.verify("junk").await.expect_err("denied");
    // By the variable, by the flag, and with the three slashes of an absolute path.
    let absolute = format!("unix://{}", place.path().display());
    for (arguments, variable) in [
        (&[][..], &*addr),
        (&["--addr", &addr], "127.0.0.1:1"),
        (&["--service", "liveness"], &absolute),
    ] {
        let told = health(arguments, variable).await;
        assert_eq!(told.status.code(), Some(0), "{arguments:?}: {told:?}");
        assert_eq!(told.stdout, b"SERVING\n", "{arguments:?}");
    }

    fixture.stop().await;
    assert!(!place.path().exists(), "removed at the end");
    let told = health(&[], &addr).await;
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(said.starts_with(&addr), "{said}");
    let told = health(&[], "unix:").await;
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(said.contains("expected a path behind \"unix:\""), "{said}");
}

#[tokio::test]
async fn what_lives_or_is_no_socket_is_not_replaced() {
    let (place, clerk) = (Place::new(), offline_clerk().await);
    let refused = format!(
        "CLERK_AUTHZ_GRPC_ADDR is {}; cannot listen there: ",
        place.addr()
    );

    std::fs::write(place.path(), "somebody's").expect("written");
    let error = place.serve(&clerk).await.err().expect("refused");
    assert!(error.starts_with(&refused), "{error}");
    assert_eq!(std::fs::read(place.path()).expect("there"), b"somebody's");
    std::fs::remove_file(place.path()).expect("removed");

    let service = place.serve(&clerk).await.expect("it starts");
    let error = place.serve(&clerk).await.err().expect("refused");
    assert!(error.starts_with(&refused), "{error}");
    client(service.grpc_addr()).await;

    service.stop().await;
    clerk.stop().await;
}

/// A service that ends late must not take its successor's socket with it.
#[tokio::test]
async fn a_successor_keeps_its_socket() {
    let (place, clerk) = (Place::new(), offline_clerk().await);
    let old = place.serve(&clerk).await.expect("it starts");
    std::fs::remove_file(place.path()).expect("removed");
    let new = place.serve(&clerk).await.expect("it starts");

    old.stop().await;

    let kind = std::fs::metadata(place.path()).expect("there").file_type();
    assert!(kind.is_socket());
    client(new.grpc_addr()).await;
    new.stop().await;
    assert!(!place.path().exists());
    clerk.stop().await;
}

fn limited(path: &Path, limits: ListenerLimits) -> GuardedListener {
    GuardedListener::over(UnixListener::bind(path).expect("bound"), limits)
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_one_that_leaves_makes_room() {
    let place = Place::new();
    let limits = ListenerLimits {
        max_connections: 1,
        opening_bytes: 1,
        opening_within: PATIENCE,
        max_age: None,
    };
    let mut listener = limited(&place.path(), limits);
    let connect = async || UnixStream::connect(place.path()).await.expect("connects");

    let _first = connect().await;
    let (held, peer) = listener.accept().await;
    assert_eq!(peer, None);
    let mut second = connect().await;
    let waiting = tokio::spawn(async move { listener.accept().await });
    let end = tokio::time::timeout(PATIENCE, second.read(&mut [0])).await;
    assert_eq!(end.expect("closed").expect("an end"), 0);
    drop(held);

    let mut third = connect().await;
    third.write_all(b"x").await.expect("sent");
    let (mut held, _) = waiting.await.expect("accepted");
    let mut read = [0];
    held.read_exact(&mut read).await.expect("read");
    assert_eq!(&read, b"x");
}

#[tokio::test]
async fn a_connection_that_says_too_little_ends() {
    let place = Place::new();
    let limits = ListenerLimits {
        max_connections: 1,
        opening_bytes: 3,
        opening_within: Duration::from_millis(20),
        max_age: None,
    };
    let mut listener = limited(&place.path(), limits);
    let mut stream = UnixStream::connect(place.path()).await.expect("connects");
    stream.write_all(b"PR").await.expect("sent");
    let (mut held, _) = listener.accept().await;

    let mut said = Vec::new();
    let end = tokio::time::timeout(PATIENCE, held.read_to_end(&mut said)).await;

    let error = end.expect("it ends").expect_err("by its limit");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(said, b"PR");
}
