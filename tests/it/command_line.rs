//! The commands, as the binary that people run.

use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clerk_authz::emulator::Emulator;
use tokio::net::TcpListener;

use crate::support::{loopback, offline_clerk};

/// An address that counts who connects, and answers nobody.
async fn counting() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(loopback()).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (url, count)
}

async fn check(clerk: &Emulator, api_url: &str, more: &[&str]) -> Output {
    let instance = &clerk.instances()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, file) = (
        folder.path().join("secret"),
        folder.path().join("instances"),
    );
    std::fs::write(&secret, instance.secret_key()).expect("written");
    let text = format!(
        "[[instance]]\nname = \"a\"\nissuer = \"{}\"\njwt_key = \"\"\"\n{}\"\"\"\n\
         api_url = \"{api_url}\"\nsecret_key_file = {secret:?}\n",
        instance.issuer(),
        instance.public_key_pem()
    );
    std::fs::write(&file, text).expect("written");
    tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"))
        .args([
            "check",
            "--user",
            "user_alice",
            "--organization",
            "org_acme",
        ])
        .args(["--role", "org:admin"])
        .args(more)
        .env("CLERK_AUTHZ_INSTANCES", &file)
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs")
}

#[tokio::test]
async fn a_check_that_is_offline_opens_no_connection() {
    let clerk = offline_clerk().await;
    let (api_url, connections) = counting().await;

    let offline = check(&clerk, &api_url, &["--offline"]).await;

    assert_eq!(offline.status.code(), Some(2), "cannot tell: {offline:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 0, "{offline:?}");

    let online = check(&clerk, &api_url, &[]).await;
    assert_eq!(online.status.code(), Some(2), "cannot tell: {online:?}");
    assert_ne!(connections.load(Ordering::SeqCst), 0, "{online:?}");
    clerk.stop().await;
}

#[tokio::test]
async fn the_version_says_from_what_it_was_built_and_when_is_not_in_it() {
    let said = async |flag| {
        let mut run = tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-authz"));
        let output = run.arg(flag).output().await.expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };

    let short = format!("clerk-authz {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(said("-V").await, short);

    let long = said("--version").await;
    let lines: Vec<_> = long.strip_prefix(&short).expect(&long).lines().collect();
    let names: Vec<_> = lines
        .iter()
        .map(|line| line.split_once(": ").expect("a name and a value"))
        .collect();
    let [revision, compiler, target, emulator] = names[..] else {
        panic!("{long}");
    };
    // Of a release only, or where GIT_REVISION is set.
    assert_eq!(revision.0, "revision");
    assert!(compiler.0 == "compiler" && compiler.1.starts_with("rustc 1."));
    assert!(target.0 == "target" && target.1.contains(std::env::consts::ARCH));
    assert_eq!(emulator, ("emulator", "yes"), "tests are with it");
}
