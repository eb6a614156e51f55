//! deploy/nginx/nginx.conf through a real nginx.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::scene::{Addresses, Scene};
use crate::paths::corpus;

const CONFIGURATION: &str = include_str!("../../../deploy/nginx/nginx.conf");

const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.nginx/usr/sbin/nginx");
const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/.nginx/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so"
);

/// Debian's, as `make setup` unpacks it, or the machine's own.
fn nginx() -> Option<PathBuf> {
    let known = [
        UNPACKED,
        "/usr/sbin/nginx",
        "/usr/local/bin/nginx",
        "/opt/homebrew/bin/nginx",
    ];
    known
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// With the lines for the module of Debian's that takes headers away by their prefix, or without.
fn run(binary: &Path, module: Option<&str>, folder: &Path, addresses: &Addresses) -> Command {
    let prefix = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {prefix}/{name};\n"))
        .collect();
    let configuration = match module {
        None => CONFIGURATION.to_owned(),
        Some(module) => CONFIGURATION
            .replace("#more: ", "")
            .replace("modules/ngx_http_headers_more_filter_module.so", module),
    };
    let text = addresses
        .put_into(&configuration)
        .replace("127.0.0.1:8000", &addresses.proxy.to_string())
        .replace(
            "worker_processes auto;",
            &format!("worker_processes 1;\npid {prefix}/pid;"),
        )
        .replace(
            "http {\n",
            &format!("http {{\n    access_log off;\n{temporary}"),
        );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(binary);
    command
        .arg("-p")
        .arg(folder)
        .args(["-e", "stderr", "-g", "daemon off; master_process off;"])
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::inherit());
    command
}

#[tokio::test]
async fn nginx_serves_what_the_policy_allows_and_nothing_else() {
    let Some(binary) = nginx() else {
        println!(
            "skipped: nginx is not installed; `make setup` unpacks Debian's where there is apt"
        );
        return;
    };
    let scene = Scene::start(|folder, to| run(&binary, None, folder, to)).await;

    let spoofed = [
        "x-clerk-user-id",
        "x-clerk-actor-id",
        "x-clerk-machine-id",
        "x-clerk-client-id",
        "x-clerk-scopes",
        "x-clerk-authz-assertion",
        "X-CLERK-ORG-ID",
        "x_clerk_user_id",
        "x-clerk_org-role",
        "x.clerk.user.id",
    ];
    scene.assert_names_who_asks(&spoofed).await;
    let asked = scene.assert_follows_the_policy(403).await;
    // The inner location is nobody's.
    let admin = scene.admin();
    let inner = scene
        .raw("/_clerk_authz", &[("authorization", &admin)])
        .await;
    assert_eq!(inner.status, 404);
    scene.assert_shuts_without_the_service(503).await;

    if binary.starts_with(UNPACKED) && Path::new(MODULE).exists() {
        let scene = Scene::start(|folder, to| run(&binary, Some(MODULE), folder, to)).await;
        let more = [&spoofed[..], &["x-clerk-anything"]].concat();
        scene.assert_names_who_asks(&more).await;
        scene.assert_shuts_without_the_service(503).await;
    } else {
        println!("skipped: nginx with headers-more: it is not unpacked beside nginx");
    }
    let scene =
        Scene::start_with(corpus::POLICY, |folder, to| run(&binary, None, folder, to)).await;
    let lines = scene.assert_holds_the_corpus().await;
    println!(
        "nginx: {} requests, each as the policy says",
        asked + 3 + lines
    );
}
