//! A message: an event in its envelope, its signature, and what became of it.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Endpoint, TimestampUnit, events::Event};
use crate::{emulator::ids::new_id, identity::Timestamp};

/// One attempt to deliver a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookAttempt {
    /// Its `svix-timestamp`, Unix seconds.
    pub attempted_at: i64,
    /// What the endpoint answered; `None` where it did not, or not in time.
    pub status: Option<u16>,
}

/// A message, and what became of it so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookMessage {
    /// `msg_…`, the same for each attempt and replay.
    #[serde(serialize_with = "text")]
    pub id: Arc<str>,
    /// Such as `user.updated`.
    pub event_type: String,
    /// The bytes that are signed and sent.
    #[serde(serialize_with = "text")]
    pub body: Arc<str>,
    /// Is never sent, unless somebody replays it.
    pub lost: bool,
    /// Is sent twice.
    pub doubled: bool,
    /// In their order.
    pub attempts: Vec<WebhookAttempt>,
}

fn text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl WebhookMessage {
    pub(super) fn new(event: Event, unit: TimestampUnit, instance_id: &str) -> Self {
        let at = Timestamp::from_unix_millis(event.at);
        let body = json!({
            "object": "event",
            "type": event.event_type,
            "timestamp": match unit {
                TimestampUnit::Milliseconds => at.unix_millis(),
                TimestampUnit::Seconds => at.unix_seconds(),
            },
            "instance_id": instance_id,
            "event_attributes": {
                "http_request": { "client_ip": "127.0.0.1", "user_agent": "clerk-authz emulator" },
            },
            "data": event.data,
        });
        Self {
            id: new_id("msg_").into(),
            event_type: event.event_type,
            body: body.to_string().into(),
            lost: false,
            doubled: false,
            attempts: Vec::new(),
        }
    }
}

/// `svix-signature`: one entry for each secret.
pub(super) fn signatures(endpoint: &Endpoint, id: &str, seconds: i64, body: &str) -> String {
    let signed = format!("{id}.{seconds}.{body}");
    let entries = endpoint.keys.iter().map(|key| {
        let tag = hmac::sign(key, signed.as_bytes());
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    });
    entries.collect::<Vec<_>>().join(" ")
}
