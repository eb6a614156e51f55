//! The control addresses of webhooks, and the same from Rust.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{InvalidWebhooks, NoReplay, WebhookMessage, WebhookSettings, WebhookStats};
use crate::emulator::{Instance, api::error};

impl Instance {
    /// Tells this endpoint of every change from now on, in place of another. Says the settings with
    /// the secret, which is made up where there is none.
    pub fn set_webhooks(&self, to: WebhookSettings) -> Result<WebhookSettings, InvalidWebhooks> {
        self.webhooks.set(to)
    }

    /// Tells nobody any more; what waits is given up.
    pub fn end_webhooks(&self) {
        self.webhooks.end();
    }

    /// Who is told, and how.
    pub fn webhooks(&self) -> Option<WebhookSettings> {
        self.webhooks.settings()
    }

    /// Waits until every message has been delivered, lost or given up, retries included.
    pub async fn webhooks_idle(&self) {
        self.webhooks.idle().await;
    }

    /// The latest 10,000 messages in the order of their changes, with what became of them.
    pub fn webhook_messages(&self) -> Vec<WebhookMessage> {
        self.webhooks.messages()
    }

    /// How many messages there were, and what became of them.
    pub fn webhook_stats(&self) -> WebhookStats {
        self.webhooks.stats()
    }

    /// Sends a message once more, now, under its id and with a time and signatures of its own. What
    /// was lost can be replayed too.
    pub fn replay(&self, message_id: &str) -> Result<(), NoReplay> {
        self.webhooks.replay(message_id)
    }

    /// Sends an event that no change here leads to, such as `email.created`.
    pub fn send_event(&self, event_type: &str, data: Value) {
        self.webhooks.tell_of(event_type, data);
    }
}

pub(in crate::emulator) fn router(instance: Arc<Instance>) -> Router {
    Router::new()
        .route("/_emulator/webhooks", get(show).put(set).delete(end))
        .route(
            "/_emulator/webhooks/messages",
            get(messages).post(send_event),
        )
        .route("/_emulator/webhooks/messages/{id}/replay", post(replay))
        .with_state(instance)
}

fn invalid(message: &str) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    error(status, "form_param_invalid", message)
}

async fn show(State(instance): State<Arc<Instance>>) -> Json<Value> {
    Json(json!(instance.webhooks()))
}

async fn set(
    State(instance): State<Arc<Instance>>,
    given: Result<Json<WebhookSettings>, JsonRejection>,
) -> Response {
    let settings = match given {
        Ok(Json(settings)) => settings,
        Err(rejection) => return invalid(&rejection.body_text()),
    };
    match instance.set_webhooks(settings) {
        Ok(settings) => Json(settings).into_response(),
        Err(wrong) => invalid(&wrong.to_string()),
    }
}

async fn end(State(instance): State<Arc<Instance>>) -> StatusCode {
    instance.end_webhooks();
    StatusCode::NO_CONTENT
}

async fn messages(State(instance): State<Arc<Instance>>) -> Json<Value> {
    Json(json!(instance.webhook_messages()))
}

/// An event by hand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByHand {
    #[serde(rename = "type")]
    event_type: String,
    data: Value,
}

async fn send_event(
    State(instance): State<Arc<Instance>>,
    given: Result<Json<ByHand>, JsonRejection>,
) -> Response {
    match given {
        Ok(Json(ByHand { event_type, data })) => {
            instance.send_event(&event_type, data);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(rejection) => invalid(&rejection.body_text()),
    }
}

async fn replay(State(instance): State<Arc<Instance>>, Path(id): Path<String>) -> Response {
    match instance.replay(&id) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(NoReplay::Unknown) => {
            let message = NoReplay::Unknown.to_string();
            error(StatusCode::NOT_FOUND, "resource_not_found", &message)
        }
        Err(refused) => invalid(&refused.to_string()),
    }
}
