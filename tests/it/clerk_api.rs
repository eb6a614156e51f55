//! The offline Clerk's Backend API: each answer by Clerk's own schemas, and what these do not say:
//! pages, filters, cursors, errors, limits.

mod changes;
mod limits;
mod lists;
pub mod openapi;
mod refusals;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use clerk_authz::{
    emulator::{Directory, Emulator, Instance, Operation, World, operations},
    identity::Timestamp,
};
use reqwest::header::HeaderMap;
use serde_json::Value;

use self::openapi::OpenApi;
use crate::support::{http_client, loopback};

/// An offline Clerk whose clock the test moves, and a client that believes no answer before it has
/// looked at its schema.
struct Api {
    clerk: Emulator,
    now: Arc<Mutex<Timestamp>>,
    openapi: OpenApi,
    operations: BTreeMap<&'static str, Operation>,
    client: reqwest::Client,
    /// Which operations answered with what they are for.
    covered: Mutex<BTreeSet<&'static str>>,
}

/// An answer whose schema is right.
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    async fn start() -> Self {
        let now = Arc::new(Mutex::new(Timestamp::from_unix_seconds(1_790_000_000)));
        let shown = Arc::clone(&now);
        let clock = Arc::new(move || *shown.lock().expect("a time"));
        let clerk = Emulator::start(World::default_world(), loopback(), clock).await;
        Self {
            clerk: clerk.expect("an offline Clerk"),
            now,
            openapi: OpenApi::load(),
            operations: operations().into_iter().map(|it| (it.id, it)).collect(),
            client: http_client(),
            covered: Mutex::default(),
        }
    }

    fn instance(&self) -> &Instance {
        &self.clerk.instances()[0]
    }

    fn directory(&self) -> &Directory {
        self.instance().directory()
    }

    fn pass_millis(&self, millis: i64) {
        let mut now = self.now.lock().expect("a time");
        *now = Timestamp::from_unix_millis(now.unix_millis() + millis);
    }

    /// `rest` is what follows the operation's path with these ids in it: a query.
    async fn call(&self, id: &str, ids: &[&str], rest: &str, body: Option<Value>) -> Answered {
        let operation = self.operations.get(id).expect("an operation");
        let mut path = String::new();
        let mut ids = ids.iter();
        for segment in operation.path.split('/').skip(1) {
            path.push('/');
            path.push_str(match segment.starts_with('{') {
                true => ids.next().expect("an id for each"),
                false => segment,
            });
        }
        let url = format!("http://{}{path}{rest}", self.instance().addr());
        let mut request = self
            .client
            .request(operation.method.clone(), url)
            .bearer_auth(self.instance().secret_key());
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.expect("a body");
        let body: Value = serde_json::from_str(&text).expect("JSON");
        let schema = self.openapi.answer(id, status);
        let wrong: Vec<String> = schema
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{id} {status}: {wrong:#?}\n{body:#}");
        if status < 300 {
            self.covered.lock().expect("a set").insert(operation.id);
        }
        Answered {
            status,
            headers,
            body,
        }
    }

    async fn good(&self, id: &str, ids: &[&str], rest: &str, body: Option<Value>) -> Value {
        let answered = self.call(id, ids, rest, body).await;
        assert_eq!(answered.status, 200, "{id} {rest}: {}", answered.body);
        answered.body
    }

    async fn get(&self, id: &str, ids: &[&str], rest: &str) -> Value {
        self.good(id, ids, rest, None).await
    }

    /// Status, code and named parameter of an error.
    async fn refused(
        &self,
        id: &str,
        ids: &[&str],
        rest: &str,
        body: Option<Value>,
    ) -> (u16, String, String) {
        let answered = self.call(id, ids, rest, body).await;
        let trace = answered.body["clerk_trace_id"].as_str().unwrap_or_default();
        assert!(!trace.is_empty(), "{id} {rest}: no trace id");
        let error = &answered.body["errors"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            answered.status,
            text(&error["code"]),
            text(&error["meta"]["param_name"]),
        )
    }
}

fn ids(list: &Value) -> Vec<&str> {
    let list = list.as_array().or(list["data"].as_array()).expect("a list");
    list.iter()
        .map(|it| it["id"].as_str().expect("an id"))
        .collect()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {object}"))
}

/// A refusal that names its parameter.
fn wrong(code: &str, parameter: &str) -> (u16, String, String) {
    (422, code.to_owned(), parameter.to_owned())
}

/// What a token says, unverified.
fn claims(jwt: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = jwt.split('.').nth(1).expect("a payload");
    let bytes = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("claims")
}
