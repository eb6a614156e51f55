//! `/forward-auth`: who is heard, what is told, and what nginx and Caddy make of it.

mod caddy;
mod door;
mod nginx;
mod scene;
mod traefik;

use std::net::SocketAddr;

use reqwest::Response;

use crate::support::http_client;

/// The request that a proxy asks about.
pub struct Original<'a> {
    pub method: &'a str,
    pub host: &'a str,
    pub uri: &'a str,
    pub proto: &'a str,
}

impl<'a> Original<'a> {
    pub fn get(uri: &'a str) -> Self {
        Self {
            method: "GET",
            host: "app.example.com",
            uri,
            proto: "https",
        }
    }

    pub fn headers(&self) -> [(&'static str, &'a str); 4] {
        [
            ("x-forwarded-method", self.method),
            ("x-forwarded-host", self.host),
            ("x-forwarded-uri", self.uri),
            ("x-forwarded-proto", self.proto),
        ]
    }
}

pub async fn ask(addr: SocketAddr, original: &Original<'_>, more: &[(&str, &str)]) -> Response {
    let mut request = http_client().get(format!("http://{addr}/forward-auth"));
    for (name, value) in original.headers().iter().chain(more) {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

pub async fn status(addr: SocketAddr, original: &Original<'_>, more: &[(&str, &str)]) -> u16 {
    ask(addr, original, more).await.status().as_u16()
}

/// The routes of these tests.
pub const POLICY: &str = r#"version: 1
sign_in: {url: "https://accounts.example.com/sign-in", return_to: ["https://app.example.com", "http://localhost"]}
routes:
  - {name: public, path: /public, access: public}
  - {name: mine, path: /mine/**, access: signed_in}
  - {name: page, path: /page, access: signed_in, browser: sign_in}
  - {name: admin, path: /admin, access: {role: admin}}
  - {name: post, path: /posts, methods: [POST], access: signed_in}
  - {name: payout, path: /payout, access: {reverification: strict}}
  - {name: other, path: "/o/{id}", access: {role: admin}, organization: "{id}"}
"#;
