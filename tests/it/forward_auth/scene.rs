//! A real proxy with a file of deploy/, in front of an application that tells what it received.

use std::{net::SocketAddr, path::Path};

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

/// Where everybody listens.
pub struct Addresses {
    pub proxy: SocketAddr,
    pub authz: SocketAddr,
    pub app: SocketAddr,
}

impl Addresses {
    /// The configuration with these in place of the shipped ones.
    pub fn put_into(&self, configuration: &str) -> String {
        configuration
            .replace("127.0.0.1:8080", &self.authz.to_string())
            .replace("127.0.0.1:3000", &self.app.to_string())
    }
}

pub struct Scene {
    pub fixture: Fixture,
    pub proxy: Child,
    pub addr: SocketAddr,
    _files: (PolicyFile, tempfile::TempDir),
}

/// An answer of the proxy's.
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Scene {
    /// With the proxy that `run` starts, which keeps its files in the folder.
    pub async fn start(run: impl FnOnce(&Path, &Addresses) -> Command) -> Self {
        let policy = PolicyFile::of(POLICY);
        let fixture = Fixture::start_with(&[
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
        ])
        .await;
        let app = TcpListener::bind(loopback()).await.expect("a port");
        let addresses = Addresses {
            proxy: SocketAddr::from(([127, 0, 0, 1], free_port().await)),
            authz: fixture.service.http_addr(),
            app: app.local_addr().expect("an address"),
        };
        tokio::spawn(async move {
            axum::serve(app, Router::new().fallback(received))
                .await
                .expect("it serves");
        });
        let folder = tempfile::tempdir().expect("a folder");
        let proxy = run(folder.path(), &addresses)
            .kill_on_drop(true)
            .spawn()
            .expect("it runs");
        let addr = addresses.proxy;
        eventually("the proxy answers", async || {
            TcpStream::connect(addr).await.is_ok()
        })
        .await;
        Self {
            fixture,
            proxy,
            addr,
            _files: (policy, folder),
        }
    }

    /// A request as these bytes.
    pub async fn raw(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
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
        Answer {
            status: status.expect("a status"),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn bearer(&self, spec: &TokenSpec) -> String {
        format!("Bearer {}", self.fixture.mint(spec))
    }

    pub fn admin(&self) -> String {
        self.bearer(&TokenSpec::session("user_alice").in_organization("acme"))
    }

    /// Of a user without an organization.
    pub fn alone(&self) -> String {
        self.bearer(&TokenSpec::session("user_alice"))
    }

    /// That the application hears who asks, and from nobody else.
    pub async fn assert_names_who_asks(&self, spoofed: &[&str]) {
        let admin = self.admin();
        let mut headers = vec![
            ("authorization", &*admin),
            // What the proxy is to say itself.
            ("x-forwarded-uri", "/public"),
            ("x-forwarded-host", "other.example.com"),
            ("x-forwarded-method", "POST"),
        ];
        headers.extend(spoofed.iter().map(|name| (*name, "mallory")));
        let Answer { status, body, .. } = self.raw("/admin?a=%2F", &headers).await;
        assert_eq!(status, 200, "{body}");
        let seen = json_in(&body);
        assert_eq!(seen["path"], "/admin?a=%2F");
        assert_eq!(seen["headers"]["x-clerk-user-id"], "user_alice");
        assert_eq!(seen["headers"]["x-clerk-org-id"], "org_acme");
        assert_eq!(seen["headers"]["x-clerk-org-role"], "org:admin");
        assert!(seen["headers"].get("x-clerk-actor-id").is_none(), "{seen}");
        let headers = seen["headers"].as_object().expect("headers");
        let mut identity = headers.iter().filter(|(name, _)| name.contains("clerk"));
        assert!(identity.all(|(_, value)| value != "mallory"), "{seen}");
    }

    /// That each request is answered as the policy says; how many there were.
    pub async fn assert_follows_the_policy(&self) -> usize {
        let (admin, alone) = (self.admin(), self.alone());
        let requests = [
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
        ];
        for (target, authorization, code) in requests {
            let headers: Vec<_> = authorization
                .iter()
                .map(|value| ("authorization", &***value))
                .collect();
            let Answer { status, head, body } = self.raw(target, &headers).await;
            assert_eq!(status, code, "{target}: {head}");
            assert_eq!(body.contains("\"path\""), code == 200, "{target}: {body}");
            for (header, of) in [("www-authenticate: bearer", 401), ("retry-after: ", 503)] {
                let has = head.contains(&format!("\r\n{header}"));
                assert_eq!(has, code == of, "{target}: {head}");
            }
        }
        let Answer { status, head, .. } = self.raw("/page?x=1", &[("accept", "text/html")]).await;
        assert_eq!(status, 302, "{head}");
        let sign_in = "https://accounts.example.com/sign-in?redirect_url=http%3a%2f%2flocalhost%2fpage%3fx%3d1";
        let location = format!("\r\nlocation: {sign_in}\r\n");
        assert!(head.contains(&location), "{head}");
        requests.len() + 1
    }

    /// That nothing is served without clerk-authz, but answered with this.
    pub async fn assert_shuts_without_the_service(mut self, code: u16) {
        self.fixture.service.stop().await;
        let mut stream = TcpStream::connect(self.addr).await.expect("connects");
        let request = "GET /public HTTP/1.1\r\nhost: app.example.com\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
        self.fixture.clerk.stop().await;
        self.proxy.kill().await.expect("ended");
    }
}

/// The object in a body, which may come in chunks.
pub fn json_in(body: &str) -> Value {
    let start = body.find('{').expect("JSON");
    let end = body.rfind('}').expect("JSON");
    serde_json::from_str(&body[start..=end]).expect("JSON")
}
