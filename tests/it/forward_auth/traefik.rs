//! deploy/traefik through a real Traefik, which `scripts/traefik.sh` builds from its source.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::scene::{Addresses, Scene, json_in};
use crate::paths::corpus;

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

#[tokio::test]
#[ignore = "Traefik is built for it: scripts/traefik.sh"]
async fn traefik_serves_what_the_policy_allows_and_nothing_else() {
    let binary = std::env::var_os("TRAEFIK").map(PathBuf::from);
    let binary = binary.expect("TRAEFIK: use scripts/traefik.sh");
    let scene = Scene::start(|folder, to| run(&binary, folder, to)).await;

    scene
        .assert_names_who_asks(&[
            "x-clerk-user-id",
            "x-clerk-actor-id",
            "x-clerk-machine-id",
            "x-clerk-client-id",
            "x-clerk-scopes",
            "X-CLERK-ORG-ID",
            "x-clerk-anything",
            "x_clerk_user_id",
            "X_Clerk-Org_Id",
            "x-clerk_actor-id",
            "x.clerk.user.id",
            "x~clerk!user-id",
        ])
        .await;
    let asked = scene.assert_follows_the_policy().await;
    // Refusals arrive whole.
    let refused = scene.raw("/mine/a", &[]).await;
    assert_eq!(json_in(&refused.body)["reason"], "TOKEN_MISSING");
    assert!(refused.head.contains("cache-control: no-store"));

    scene.assert_shuts_without_the_service(500).await;
    let scene = Scene::start_with(corpus::POLICY, |folder, to| run(&binary, folder, to)).await;
    let lines = scene.assert_holds_the_corpus().await;
    println!(
        "traefik: {} requests, each as the policy says",
        asked + 3 + lines
    );
}
