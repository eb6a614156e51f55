//! `POST /webhooks/clerk/{instance}`: Clerk's webhooks, taken in and applied later.
//!
//! The signature is the only credential here: a user's token or cookie says nothing, and is not
//! looked at. Nothing of a body is in a log or in an answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, BodyDataStream},
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::StreamExt;
use tokio::{sync::Semaphore, time::timeout};
use tracing::{info, warn};

use crate::{
    identity::InstanceName,
    sync::{DeliveryOutcome, Inbox, Inboxes, NotTaken},
    webhook::{self, MAX_BODY_BYTES, Refused},
};

/// How long a body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A body that is too large is read on, and forgotten, up to this and for no longer.
const MAX_DISCARDED_BYTES: usize = 8 * MAX_BODY_BYTES;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);
/// How long a message may take to the disk: less than the sender waits.
const TAKE_WITHIN: Duration = Duration::from_secs(10);
/// Bodies in memory at once. A further delivery is answered 503 and sent again.
const MAX_AT_ONCE: usize = 64;
/// When a sender should come again that cannot be served now, in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

#[derive(Clone)]
struct Parts {
    inboxes: Option<Arc<Inboxes>>,
    turns: Arc<Semaphore>,
}

pub(super) fn router(inboxes: Option<Arc<Inboxes>>) -> Router {
    Router::new()
        .route("/webhooks/clerk", post(receive_default))
        .route("/webhooks/clerk/{instance}", post(receive))
        .with_state(Parts {
            inboxes,
            turns: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        })
}

async fn receive_default(State(parts): State<Parts>, request: Request) -> Response {
    deliver(parts, InstanceName::default_instance().as_str(), request).await
}

async fn receive(
    State(parts): State<Parts>,
    Path(instance): Path<String>,
    request: Request,
) -> Response {
    deliver(parts, &instance, request).await
}

async fn deliver(parts: Parts, instance: &str, request: Request) -> Response {
    let found = parts
        .inboxes
        .and_then(|inboxes| Some((inboxes.of(instance)?, inboxes)));
    let Some((inbox, inboxes)) = found else {
        // Not counted: names from outside are no labels.
        return refusal(
            StatusCode::NOT_FOUND,
            "no instance of this name has a webhook signing secret",
        );
    };
    match take(&inboxes, &inbox, &parts.turns, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(response) => response,
    }
}

/// A message is safe, or the answer says why not.
async fn take(
    inboxes: &Inboxes,
    inbox: &Inbox,
    turns: &Semaphore,
    request: Request,
) -> Result<(), Response> {
    let refuse = |outcome: DeliveryOutcome, status, cause: &str| {
        inbox.count(outcome);
        info!(
            instance = %inbox.instance(), outcome = outcome.name(), cause,
            "a webhook was not taken"
        );
        refusal(status, cause)
    };
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return Err(refuse(
            DeliveryOutcome::UnsupportedMediaType,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type is not application/json",
        ));
    }
    let too_large = || {
        refuse(
            DeliveryOutcome::TooLarge,
            StatusCode::PAYLOAD_TOO_LARGE,
            &Refused::TooLarge.to_string(),
        )
    };
    let Ok(_turn) = turns.try_acquire() else {
        return Err(refuse(
            DeliveryOutcome::Overloaded,
            StatusCode::SERVICE_UNAVAILABLE,
            "too many webhooks are on their way",
        ));
    };
    let body = match read(body).await {
        Ok(body) => body,
        Err(Unread::TooLarge) => return Err(too_large()),
        Err(Unread::TooSlow) => {
            return Err(refuse(
                DeliveryOutcome::TooSlow,
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come whole and in time",
            ));
        }
    };
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let delivery = webhook::verify(inbox.secrets(), headers, &body, inboxes.now());
    let delivery = match delivery {
        Ok(delivery) => delivery,
        Err(refused) => {
            let (outcome, status) = match refused {
                Refused::TooLarge => (DeliveryOutcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE),
                Refused::WrongSignature => {
                    (DeliveryOutcome::WrongSignature, StatusCode::UNAUTHORIZED)
                }
                Refused::Header(_) | Refused::Time(_) | Refused::Envelope(_) => {
                    (DeliveryOutcome::Malformed, StatusCode::BAD_REQUEST)
                }
            };
            return Err(refuse(outcome, status, &refused.to_string()));
        }
    };
    match timeout(TAKE_WITHIN, inboxes.receive(inbox, delivery, &body)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(NotTaken::OtherInstance)) => Err(refusal(
            StatusCode::FORBIDDEN,
            &NotTaken::OtherInstance.to_string(),
        )),
        Ok(Err(NotTaken::Store(error))) => {
            warn!(
                instance = %inbox.instance(), %error,
                "a webhook was not taken, and will be sent again"
            );
            Err(unavailable())
        }
        Err(_) => {
            inbox.count(DeliveryOutcome::StoreUnavailable);
            warn!(
                instance = %inbox.instance(),
                "a webhook was not on the disk within {TAKE_WITHIN:?}, and will be sent again"
            );
            Err(unavailable())
        }
    }
}

/// Why there is no body.
enum Unread {
    TooLarge,
    /// Or not whole.
    TooSlow,
}

async fn read(body: Body) -> Result<Vec<u8>, Unread> {
    let mut parts = body.into_data_stream();
    let reading = async {
        let mut whole = Vec::new();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| Unread::TooSlow)?;
            if whole.len() + part.len() > MAX_BODY_BYTES {
                return Err(Unread::TooLarge);
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole)
    };
    let read = timeout(BODY_WITHIN, reading).await;
    let read = read.unwrap_or(Err(Unread::TooSlow));
    if matches!(read, Err(Unread::TooLarge)) {
        // Who is answered while still writing finds the connection cut, and no answer.
        let _ = timeout(DISCARD_WITHIN, discard(parts)).await;
    }
    read
}

/// Reads on and forgets, but not without end.
async fn discard(mut parts: BodyDataStream) {
    let mut came = 0;
    while let Some(Ok(part)) = parts.next().await {
        came += part.len();
        if came > MAX_DISCARDED_BYTES {
            return;
        }
    }
}

/// Parameters, such as the character set, do not count: JSON is UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    let essence = text.and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn unavailable() -> Response {
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "the message cannot be stored now; send it again",
    )
}

/// One line that says why.
fn refusal(status: StatusCode, cause: &str) -> Response {
    let mut response = (status, format!("{cause}\n")).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = header::HeaderValue::from(RETRY_AFTER_SECONDS);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
