//! deploy/traefik through a real Traefik. No registry that the tests may use has one, so that it does not
//! run by itself: `TRAEFIK=/path/to/traefik cargo test --test it -- --ignored traefik`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::scene::{Addresses, Scene};
use crate::{paths::corpus, support::eventually};

const CONFIGURATION: &str = include_str!("../../../deploy/traefik/traefik.yaml");
const DYNAMIC: &str = include_str!("../../../deploy/traefik/dynamic.yaml");

fn run(binary: &Path, folder: &Path, addresses: &Addresses) -> Command {
    let proxy = addresses.proxy.to_string();
    let dynamic = folder.join("dynamic.yaml");
    let text = CONFIGURATION
        .replace("127.0.0.1:8000", &proxy)
        .replace("dynamic.yaml", dynamic.to_str().expect("text"));
    let file = folder.join("traefik.yaml");
    std::fs::write(&file, text).expect("written");
    std::fs::write(&dynamic, addresses.put_into(DYNAMIC)).expect("written");
    let mut command = Command::new(binary);
    command
        .arg(format!("--configFile={}", file.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    command
}

/// It listens before it has read its routes.
async fn has_routes(scene: &Scene) {
    let answers = async || scene.raw("/public", &[]).await.status != 404;
    eventually("Traefik has its routes", answers).await;
}

#[tokio::test]
#[ignore = "TRAEFIK=PATH names a Traefik to run"]
async fn traefik_serves_what_the_policy_allows_and_nothing_else() {
    let binary = std::env::var_os("TRAEFIK").map(PathBuf::from);
    let binary = binary.expect("TRAEFIK names a Traefik");
    let scene = Scene::start(|folder, to| run(&binary, folder, to)).await;
    has_routes(&scene).await;

    let asked = scene
        .assert_removes_every_spelling_and_passes_refusals_on(200)
        .await;
    scene.assert_shuts_without_the_service(500).await;
    let scene = Scene::start_with(corpus::POLICY, |folder, to| run(&binary, folder, to)).await;
    has_routes(&scene).await;
    let lines = scene.assert_holds_the_corpus().await;
    println!(
        "traefik: {} requests, each as the policy says",
        asked + lines
    );
}
