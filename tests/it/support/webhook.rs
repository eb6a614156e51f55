//! Messages as Clerk sends them, signed.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::http_client;

pub const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
pub const NEXT_SECRET: &str = "whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE=";

/// A message before it is signed.
#[derive(Clone)]
pub struct Message {
    pub id: String,
    pub body: String,
    pub secret: &'static str,
    pub content_type: &'static str,
}

impl Message {
    pub fn new(id: &str, event_type: &str, data: &Value) -> Self {
        let body = json!({
            "object": "event", "type": event_type, "timestamp": 1_899_999_999_000_i64,
            "instance_id": "ins_1", "data": data,
        });
        Self::raw(id, body.to_string())
    }

    pub fn raw(id: &str, body: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            body: body.into(),
            secret: SECRET,
            content_type: "application/json",
        }
    }

    pub fn signed_with(mut self, secret: &'static str) -> Self {
        self.secret = secret;
        self
    }

    /// `svix-timestamp` now, and the signature over it.
    pub fn signature(&self) -> (String, String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.expect("after 1970").as_secs().to_string();
        let key = self.secret.strip_prefix("whsec_").expect("a secret");
        let key = STANDARD.decode(key).expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signed = format!("{}.{seconds}.{}", self.id, self.body);
        let tag = hmac::sign(&key, signed.as_bytes());
        (seconds, format!("v1,{}", STANDARD.encode(tag.as_ref())))
    }

    /// The request, to be changed before it is sent.
    pub fn request(&self, addr: SocketAddr, path: &str) -> RequestBuilder {
        self.request_by(&http_client(), addr, path)
    }

    /// As [`Self::request`], by a client that keeps its connections.
    pub fn request_by(&self, client: &Client, addr: SocketAddr, path: &str) -> RequestBuilder {
        let (seconds, signature) = self.signature();
        client
            .post(format!("http://{addr}{path}"))
            .header("content-type", self.content_type)
            .header("svix-id", &self.id)
            .header("svix-timestamp", seconds)
            .header("svix-signature", signature)
            .body(self.body.clone())
    }

    pub async fn send(&self, addr: SocketAddr) -> Response {
        let request = self.request(addr, "/webhooks/clerk");
        request.send().await.expect("an answer")
    }

    pub async fn status(&self, addr: SocketAddr) -> u16 {
        self.send(addr).await.status().as_u16()
    }
}

/// `User` as far as it is read.
pub fn user_data(id: &str, first_name: &str, updated_at: i64) -> Value {
    json!({
        "id": id, "object": "user", "first_name": first_name, "banned": false,
        "email_addresses": [], "created_at": 1, "updated_at": updated_at,
    })
}

pub fn user_updated(message: &str, id: &str, first_name: &str, updated_at: i64) -> Message {
    Message::new(
        message,
        "user.updated",
        &user_data(id, first_name, updated_at),
    )
}
