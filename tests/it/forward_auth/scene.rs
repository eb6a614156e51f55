//! A real proxy with a file of deploy/, in front of an application that tells what it received.

use std::{net::SocketAddr, path::Path};

use clerk_authz::emulator::TokenSpec;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use super::POLICY;
use crate::{
    paths::corpus,
    policy::PolicyFile,
    support::{Fixture, database::Place, eventually, loopback, upstream::Upstream},
};

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
    app: Upstream,
    _files: (PolicyFile, tempfile::TempDir, Place),
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
        Self::start_with(POLICY, run).await
    }

    /// With another policy.
    pub async fn start_with(policy: &str, run: impl FnOnce(&Path, &Addresses) -> Command) -> Self {
        let policy = PolicyFile::of(policy);
        let place = Place::sqlite();
        let fixture = Fixture::start_with(&[
            ("CLERK_AUTHZ_POLICY", policy.text()),
            ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
            ("CLERK_AUTHZ_DATABASE_URL", &place.url()),
            ("CLERK_AUTHZ_UPSTREAM_ASSERTIONS", "app"),
        ])
        .await;
        let app = Upstream::start().await;
        let addresses = Addresses {
            proxy: SocketAddr::from(([127, 0, 0, 1], free_port().await)),
            authz: fixture.service.http_addr(),
            app: app.addr,
        };
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
            app,
            _files: (policy, folder, place),
        }
    }

    /// A request for this target, with these header lines.
    pub async fn raw(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        // A browser may be sent back to loopback over plain HTTP.
        let mut request =
            format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.bytes(request.as_bytes()).await.expect("an answer")
    }

    /// What is answered to these bytes; `None` where the connection ends.
    async fn bytes(&self, request: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.addr).await.expect("connects");
        stream.write_all(request).await.expect("written");
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        })
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
        assert!(received_path(&seen) == "/admin?a=%2F", "{seen}");
        let of_all = seen["headers"].as_array().expect("headers").iter();
        let headers: Vec<(String, &str)> = of_all
            .map(|pair| {
                let text = |index: usize| pair[index].as_str().expect("text");
                (text(0).to_ascii_lowercase(), text(1))
            })
            .filter(|(name, _)| name.contains("clerk"))
            .collect();
        assert!(
            headers.iter().all(|(_, value)| *value != "mallory"),
            "{seen}"
        );
        for (name, expected) in [
            ("x-clerk-user-id", &["user_alice"][..]),
            ("x-clerk-org-id", &["org_acme"]),
            ("x-clerk-org-role", &["org:admin"]),
            ("x-clerk-actor-id", &[]),
        ] {
            let named = headers.iter().filter(|(known, _)| known == name);
            let values: Vec<&str> = named.map(|(_, value)| *value).collect();
            assert_eq!(values, expected, "{name}: {seen}");
        }
        let assertions = headers
            .iter()
            .filter(|(name, _)| name == "x-clerk-authz-assertion");
        let assertions: Vec<&str> = assertions.map(|(_, value)| *value).collect();
        let [assertion] = assertions[..] else {
            panic!("one assertion: {seen}");
        };
        assert_eq!(assertion.split('.').count(), 3, "{assertion}");
    }

    /// What holds behind a proxy that takes away every spelling of our names and passes refusals on whole;
    /// how many requests it took.
    pub async fn assert_removes_every_spelling_and_passes_refusals_on(
        &self,
        doubled_slash: u16,
    ) -> usize {
        self.assert_names_who_asks(&[
            "x-clerk-user-id",
            "x-clerk-actor-id",
            "x-clerk-machine-id",
            "x-clerk-client-id",
            "x-clerk-scopes",
            "x-clerk-authz-assertion",
            "X-CLERK-ORG-ID",
            "x-clerk-anything",
            "x_clerk_user_id",
            "X_Clerk-Org_Id",
            "x-clerk_actor-id",
            "x.clerk.user.id",
            "x~clerk!user-id",
        ])
        .await;
        let asked = self.assert_follows_the_policy(doubled_slash).await;
        let refused = self.raw("/mine/a", &[]).await;
        assert_eq!(json_in(&refused.body)["reason"], "TOKEN_MISSING");
        assert!(refused.head.contains("cache-control: no-store"));
        asked + 3
    }

    /// That each request is answered as the policy says, and with this code a doubled slash, which a proxy
    /// may merge before it asks; how many there were.
    pub async fn assert_follows_the_policy(&self, doubled_slash: u16) -> usize {
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
            ("/mine//a", Some(&alone), doubled_slash),
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
            assert_eq!(
                body.contains("request_line"),
                code == 200,
                "{target}: {body}"
            );
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

    /// That for no line of the corpus the application receives what the policy denies, where this scene
    /// has the corpus' policy.
    pub async fn assert_holds_the_corpus(&self) -> usize {
        let lines = corpus::lines();
        for line in &lines {
            let (target, host) = line.target_and_host();
            let head = [
                b"GET ",
                target,
                b" HTTP/1.1\r\nconnection: close\r\nhost: ",
                host,
            ];
            let before = self.app.served();
            let answer = self
                .bytes(&[&head.concat()[..], b"\r\n\r\n"].concat())
                .await;
            let status = answer.as_ref().map_or(0, |answer| answer.status);
            let what = format!("corpus.txt:{}: {status}", line.number);
            let served = self.app.served() - before;
            assert_eq!(served, u64::from(status == 200), "{what}");
            if let Some(answer) = answer.filter(|answer| answer.status == 200) {
                corpus::assert_is_for_everybody(&received_path(&json_in(&answer.body)), &what);
            }
        }
        let served = self.app.served();
        assert!(served > 50, "{served} of {}", lines.len());
        lines.len()
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

/// The target in the request line that the application received.
fn received_path(seen: &Value) -> String {
    let line = seen["request_line"].as_str().expect("a line");
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// The object in a body, which may come in chunks.
pub fn json_in(body: &str) -> Value {
    let start = body.find('{').expect("JSON");
    let end = body.rfind('}').expect("JSON");
    serde_json::from_str(&body[start..=end]).expect("JSON")
}
