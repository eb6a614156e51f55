//! A browser, a door, and the offline Clerk behind it.

use std::{collections::BTreeMap, net::SocketAddr};

use clerk_authz::{
    authz::CookiesOnTheWayBack,
    emulator::{Emulator, Instance, TokenSpec, World},
    identity::Environment,
};

use crate::{
    envoy::proxy::{Envoy, SetUp},
    policy::PolicyFile,
    support::{Fixture, offline_clerk_of, settings_for, upstream::Upstream},
};

const POLICY: &str = "
version: 1
sign_in: {url: \"https://accounts.example/sign-in\", return_to: [\"http://localhost:3000\"]}
routes:
  - {name: page, path: /page/**, access: signed_in}
  - {name: admin, path: /admin, access: {role: admin}}
  - {name: door, path: /door, access: signed_in, browser: sign_in}
  - {name: assets, path: /assets/**, access: public, credentials: ignored}
  - {name: home, path: /, access: public}
";

/// The origin that the browser sees.
pub const ORIGIN: &str = "http://localhost:3000";

/// How the browser's requests are asked about.
pub enum Door {
    /// At `/forward-auth`, as Caddy and Traefik ask.
    ForwardAuth(SocketAddr),
    /// By a real Envoy with an upstream.
    Envoy {
        envoy: Box<Envoy>,
        _upstream: Upstream,
    },
}

pub struct Scene {
    pub fixture: Fixture,
    pub door: Door,
    _policy: PolicyFile,
}

/// What a browser hears.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let found = self.headers.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| &**value).collect()
    }

    pub fn location(&self) -> String {
        self.header("location").expect("a location").to_owned()
    }

    /// Why, in the SDK's words.
    pub fn told(&self) -> (&str, &str) {
        let of = |name| self.header(name).unwrap_or_default();
        (of("x-clerk-auth-status"), of("x-clerk-auth-reason"))
    }
}

impl Scene {
    pub async fn start(environment: Environment, way: CookiesOnTheWayBack) -> Self {
        Self::start_with(environment, way, &[("CLERK_AUTHZ_HANDSHAKE", "on")]).await
    }

    pub async fn start_with(
        environment: Environment,
        way: CookiesOnTheWayBack,
        more: &[(&str, &str)],
    ) -> Self {
        let mut world = World::default_world();
        world.instances[0].production = environment == Environment::Production;
        let clerk = offline_clerk_of(world).await;
        let policy = PolicyFile::of(POLICY);
        let (key, api) = (
            clerk.instances()[0].secret_key(),
            clerk.instances()[0].issuer().to_string(),
        );
        let settings = [
            &[
                ("CLERK_AUTHZ_POLICY", policy.text()),
                ("CLERK_AUTHZ_FORWARD_AUTH_FROM", "127.0.0.1"),
                ("CLERK_AUTHORIZED_PARTIES", ORIGIN),
                ("CLERK_SECRET_KEY", &key),
                ("CLERK_API_URL", &api),
            ],
            more,
        ]
        .concat();
        let settings = settings_for(&clerk, &settings);
        let fixture = Fixture::start_on(clerk, &settings).await;
        let door = match way {
            CookiesOnTheWayBack::ByRedirect => Door::ForwardAuth(fixture.service.http_addr()),
            CookiesOnTheWayBack::Set => {
                let upstream = Upstream::start().await;
                let authz = fixture.service.grpc_addr().clone();
                let envoy = Envoy::start(SetUp::Shipped, authz, upstream.addr).await;
                Door::Envoy {
                    envoy: Box::new(envoy),
                    _upstream: upstream,
                }
            }
        };
        Self {
            fixture,
            door,
            _policy: policy,
        }
    }

    pub fn clerk(&self) -> &Emulator {
        &self.fixture.clerk
    }

    pub fn instance(&self) -> &Instance {
        &self.clerk().instances()[0]
    }

    /// A browser that alice signed in with a while ago: its session token has expired.
    pub fn browser_of_alice(&self) -> Browser {
        let mut browser = Browser::new();
        browser.cookies = self.stale_cookies();
        browser
    }

    fn stale_cookies(&self) -> BTreeMap<String, String> {
        let directory = self.instance().directory();
        let session = directory.create_session("user_alice", Some("org_acme"));
        let session = session.expect("she lives there");
        let spec = TokenSpec {
            session: Some(session.id),
            expired: true,
            authorized_party: Some(ORIGIN.to_owned()),
            ..TokenSpec::session("user_alice").in_organization("acme")
        };
        let token = self.instance().mint(&spec).expect("a token");
        [
            ("__session", token),
            ("__client_uat", "1000000000".to_owned()),
            ("__clerk_db_jwt", "dvb_alices".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    pub async fn stop(self) {
        self.fixture.stop().await;
    }
}

/// A browser, as far as it matters: it keeps cookies, and follows where it is told to.
pub struct Browser {
    client: reqwest::Client,
    pub cookies: BTreeMap<String, String>,
    /// Beside `sec-fetch-dest: document`.
    pub headers: Vec<(&'static str, String)>,
    /// In place of `document`.
    pub destination: &'static str,
}

impl Browser {
    pub fn new() -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self {
            client,
            cookies: BTreeMap::new(),
            headers: Vec::new(),
            destination: "document",
        }
    }

    /// Asks for a page at the door.
    pub async fn open(&mut self, scene: &Scene, target: &str) -> Answer {
        let mut request = match &scene.door {
            Door::ForwardAuth(addr) => self
                .client
                .get(format!("http://{addr}/forward-auth"))
                .header("x-forwarded-method", "GET")
                .header("x-forwarded-host", "localhost:3000")
                .header("x-forwarded-proto", "http")
                .header("x-forwarded-uri", target),
            Door::Envoy { envoy, .. } => self
                .client
                .get(format!("http://{}{target}", envoy.addr))
                .header("host", "localhost:3000"),
        };
        request = request.header("sec-fetch-dest", self.destination);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        self.send(request).await
    }

    /// Asks the offline Clerk.
    pub async fn visit(&mut self, location: &str) -> Answer {
        let request = self.client.get(location);
        self.send(request).await
    }

    async fn send(&mut self, mut request: reqwest::RequestBuilder) -> Answer {
        let cookies = self.cookies.iter();
        let cookies: Vec<String> = cookies
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let headers: Vec<(String, String)> = answer
            .headers()
            .iter()
            .map(|(name, value)| {
                let value = value.to_str().expect("ASCII");
                (name.as_str().to_owned(), value.to_owned())
            })
            .collect();
        let answer = Answer {
            status,
            headers,
            body: answer.text().await.expect("a body"),
        };
        for cookie in answer.all("set-cookie") {
            let pair = cookie.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a cookie");
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// To Clerk and back: the target with which the browser comes back to the door.
    pub async fn follow_to_clerk(&mut self, sent: &Answer) -> String {
        assert_eq!(sent.status, 307, "{sent:?}");
        let back = self.visit(&sent.location()).await;
        assert_eq!(back.status, 307, "{back:?}");
        let location = back.location();
        let target = location.strip_prefix(ORIGIN);
        target.expect("it comes back to the door").to_owned()
    }
}
