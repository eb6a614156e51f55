//! deploy/nginx/nginx.conf through a real nginx, with an application that tells what it received.

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use axum::{Json, Router, extract::Request};
use clerk_authz::emulator::TokenSpec;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use super::POLICY;
use crate::{
    policy::PolicyFile,
    support::{Fixture, eventually, loopback},
};

const CONFIGURATION: &str = include_str!("../../../deploy/nginx/nginx.conf");

/// Debian's, as `make setup` unpacks it, or the machine's own.
fn nginx() -> Option<PathBuf> {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/.nginx/usr/sbin/nginx");
    let known = [
        unpacked,
        "/usr/sbin/nginx",
        "/usr/local/bin/nginx",
        "/opt/homebrew/bin/nginx",
    ];
    known
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

async fn received(request: Request) -> Json<Value> {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), json!(value))
    });
    Json(json!({
        "path": request.uri().to_string(),
        "headers": headers.collect::<serde_json::Map<_, _>>(),
    }))
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind(loopback()).await.expect("a port");
    listener.local_addr().expect("an address").port()
}

struct Scene {
    fixture: Fixture,
    nginx: Child,
    addr: SocketAddr,
    _files: (PolicyFile, tempfile::TempDir),
}

impl Scene {
    async fn start(binary: PathBuf) -> Self {
        let policy = PolicyFile::of(POLICY);
        let fixture = Fixture::start_with(&[
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
        ])
        .await;
        let app = TcpListener::bind(loopback()).await.expect("a port");
        let app_addr = app.local_addr().expect("an address");
        tokio::spawn(async move {
            axum::serve(app, Router::new().fallback(received))
                .await
                .expect("it serves");
        });
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port().await));
        let folder = tempfile::tempdir().expect("a folder");
        let prefix = folder.path().display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("    {name}_temp_path {prefix}/{name};\n"))
            .collect();
        let text = CONFIGURATION
            .replace("127.0.0.1:8080", &fixture.service.http_addr().to_string())
            .replace("127.0.0.1:3000", &app_addr.to_string())
            .replace("127.0.0.1:8000", &addr.to_string())
            .replace(
                "worker_processes auto;",
                &format!("worker_processes 1;\npid {prefix}/pid;"),
            )
            .replace(
                "http {\n",
                &format!("http {{\n    access_log off;\n{temporary}"),
            );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).expect("written");
        let nginx = Command::new(binary)
            .args([
                "-p",
                &prefix,
                "-e",
                "stderr",
                "-g",
                "daemon off; master_process off;",
            ])
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("it runs");
        eventually("nginx answers", async || {
            TcpStream::connect(addr).await.is_ok()
        })
        .await;
        Self {
            fixture,
            nginx,
            addr,
            _files: (policy, folder),
        }
    }

    /// A request as these bytes: status line and headers, and the body.
    async fn raw(&self, target: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        // A browser may be sent back to loopback over plain HTTP.
        let mut request =
            format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = TcpStream::connect(self.addr).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (
            status.expect("a status"),
            head.to_lowercase(),
            body.to_owned(),
        )
    }
}

#[tokio::test]
async fn nginx_serves_what_the_policy_allows_and_nothing_else() {
    let Some(binary) = nginx() else {
        println!(
            "skipped: nginx is not installed; `make setup` unpacks Debian's where there is apt"
        );
        return;
    };
    let mut scene = Scene::start(binary).await;
    let fixture = &scene.fixture;
    let bearer = |spec: &TokenSpec| format!("Bearer {}", fixture.mint(spec));
    let admin = bearer(&TokenSpec::session("user_alice").in_organization("acme"));
    let alone = bearer(&TokenSpec::session("user_alice"));

    let spoofed = [
        ("authorization", &*admin),
        ("x-clerk-user-id", "user_root"),
        ("x-clerk-actor-id", "user_root"),
        ("X-CLERK-ORG-ID", "org_root"),
        ("x_clerk_user_id", "user_root"),
        ("x-clerk_org-role", "root"),
        ("x.clerk.user.id", "user_root"),
        // What nginx is to say itself.
        ("x-forwarded-uri", "/public"),
        ("x-forwarded-host", "other.example.com"),
        ("x-forwarded-method", "POST"),
    ];
    let (status, _, body) = scene.raw("/admin?a=%2F", &spoofed).await;
    assert_eq!(status, 200, "{body}");
    let start = body.find('{').expect("JSON");
    let end = body.rfind('}').expect("JSON");
    let seen: Value = serde_json::from_str(&body[start..=end]).expect("JSON");
    assert_eq!(seen["path"], "/admin?a=%2F");
    assert_eq!(seen["headers"]["x-clerk-user-id"], "user_alice");
    assert_eq!(seen["headers"]["x-clerk-org-id"], "org_acme");
    assert_eq!(seen["headers"]["x-clerk-org-role"], "org:admin");
    assert!(seen["headers"].get("x-clerk-actor-id").is_none(), "{seen}");
    let identity = seen["headers"]
        .as_object()
        .expect("headers")
        .iter()
        .filter(|(name, _)| name.contains("clerk"));
    assert!(
        identity
            .clone()
            .all(|(_, value)| !value.to_string().contains("root")),
        "{seen}"
    );

    let mut asked = 1;
    for (target, authorization, code) in [
        ("/public", None, 200),
        ("/mine/a", None, 401),
        ("/mine/a", Some(&alone), 200),
        ("/admin", Some(&alone), 403),
        ("/nothing", Some(&admin), 403),
        ("/mine/%2e%2e/admin", Some(&alone), 403),
        ("/mine/..%2fadmin", Some(&alone), 403),
        ("/mine/a;b", Some(&alone), 403),
        ("/mine//a", Some(&alone), 403),
        ("//admin", Some(&alone), 403),
        ("/o/org_other", Some(&alone), 503),
    ] {
        let headers: Vec<_> = authorization
            .iter()
            .map(|value| ("authorization", &***value))
            .collect();
        let (status, head, body) = scene.raw(target, &headers).await;
        assert_eq!(status, code, "{target}: {head}");
        assert_eq!(body.contains("\"path\""), code == 200, "{target}: {body}");
        assert_eq!(
            head.contains("\r\nwww-authenticate: bearer"),
            code == 401,
            "{target}: {head}"
        );
        assert_eq!(
            head.contains("\r\nretry-after: "),
            code == 503,
            "{target}: {head}"
        );
        asked += 1;
    }
    let (status, head, _) = scene.raw("/page?x=1", &[("accept", "text/html")]).await;
    assert_eq!(status, 302, "{head}");
    let sign_in =
        "https://accounts.example.com/sign-in?redirect_url=http%3a%2f%2flocalhost%2fpage%3fx%3d1";
    assert!(
        head.contains(&format!("\r\nlocation: {sign_in}\r\n")),
        "{head}"
    );
    // The inner location is nobody's.
    let (status, ..) = scene
        .raw("/_clerk_authz", &[("authorization", &admin)])
        .await;
    assert_eq!(status, 404);

    // Without clerk-authz nothing is served.
    let Fixture { service, clerk, .. } = scene.fixture;
    service.stop().await;
    let mut stream = TcpStream::connect(scene.addr).await.expect("connects");
    let request = "GET /public HTTP/1.1\r\nhost: app.example.com\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    clerk.stop().await;
    scene.nginx.kill().await.expect("ended");
    println!("nginx: {} requests, each as the policy says", asked + 3);
}
