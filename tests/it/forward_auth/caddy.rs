//! deploy/caddy/Caddyfile through the real Caddy.

use std::{path::Path, process::Stdio};

use tokio::process::Command;

use super::scene::{Addresses, Scene};
use crate::paths::corpus;

const CONFIGURATION: &str = include_str!("../../../deploy/caddy/Caddyfile");
/// As `make setup` installs it.
const BINARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/caddy");

fn run(folder: &Path, addresses: &Addresses) -> Command {
    let port = addresses.proxy.port();
    let text = addresses
        .put_into(CONFIGURATION)
        .replace("http://:8000", &format!("http://:{port}"));
    let file = folder.join("Caddyfile");
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(BINARY);
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&file)
        // It keeps its state there, and nowhere else.
        .env("HOME", folder)
        .env("XDG_DATA_HOME", folder)
        .env("XDG_CONFIG_HOME", folder)
        .stderr(Stdio::null());
    command
}

#[tokio::test]
async fn caddy_serves_what_the_policy_allows_and_nothing_else() {
    assert!(
        Path::new(BINARY).exists(),
        "Caddy in .venv: run `make setup`"
    );
    let scene = Scene::start(run).await;

    let asked = scene
        .assert_removes_every_spelling_and_passes_refusals_on(403)
        .await;
    scene.assert_shuts_without_the_service(502).await;
    let scene = Scene::start_with(corpus::POLICY, run).await;
    let lines = scene.assert_holds_the_corpus().await;
    println!("caddy: {} requests, each as the policy says", asked + lines);
}
