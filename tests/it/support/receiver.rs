//! An endpoint that takes webhooks and answers as it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::post,
};
use clerk_authz::{
    identity::Timestamp,
    webhook::{self, Delivery, Refused, SigningSecret},
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::loopback;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).expect(name);
        value.to_str().expect("text")
    }

    pub fn id(&self) -> &str {
        self.header("svix-id")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn event_type(&self) -> String {
        self.json()["type"].as_str().expect("a type").to_owned()
    }

    /// What the service says of it, with its clock at the attempt.
    pub fn verify(&self, secret: &str) -> Result<Delivery, Refused> {
        let secret = SigningSecret::parse(&secret.into()).expect("a secret");
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        let seconds = self.header("svix-timestamp").parse().expect("seconds");
        let now = Timestamp::from_unix_seconds(seconds);
        webhook::verify(&[secret], headers, &self.body, now)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Status(u16),
    /// To itself.
    Redirect,
    /// None, ever.
    Silence,
}

#[derive(Clone, Default)]
struct Script {
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

/// Answers 204 behind what it was told to answer.
pub struct Receiver {
    script: Script,
    url: String,
    stop: CancellationToken,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(loopback()).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let script = Script::default();
        let stop = CancellationToken::new();
        let router = Router::new()
            .route("/webhooks/clerk", post(receive))
            .with_state(script.clone());
        let until = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                served = axum::serve(listener, router) => served.expect("it serves"),
                () = until.cancelled() => {}
            }
        });
        Self {
            script,
            url: format!("http://{addr}/webhooks/clerk"),
            stop,
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.answers.lock().expect("answers").extend(answers);
    }

    pub fn received(&self) -> Vec<Received> {
        self.script.received.lock().expect("requests").clone()
    }

    pub fn ids(&self) -> Vec<String> {
        let received = self.received();
        received.iter().map(|it| it.id().to_owned()).collect()
    }

    pub fn event_types(&self) -> Vec<String> {
        self.received().iter().map(Received::event_type).collect()
    }

    pub fn forget(&self) {
        self.script.received.lock().expect("requests").clear();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn receive(State(script): State<Script>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = {
        let mut received = script.received.lock().expect("requests");
        received.push(Received { headers, body });
        script.answers.lock().expect("answers").pop_front()
    };
    match answer.unwrap_or(Answer::Status(204)) {
        Answer::Status(status) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        Answer::Redirect => (StatusCode::FOUND, [(LOCATION, "/webhooks/clerk")]).into_response(),
        Answer::Silence => std::future::pending().await,
    }
}
