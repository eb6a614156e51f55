//! Wrong answers, to order.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::json;

use super::Problem;
use crate::emulator::{Fault, Faults, requests::TooMany};

/// The wrong answer of `faults`, or the right one; late, when they say so.
pub(in crate::emulator) async fn failing(
    faults: &Faults,
    uri: &Uri,
    right: impl FnOnce() -> Response,
) -> Response {
    if faults.slow_milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(faults.slow_milliseconds)).await;
    }
    let as_json = [(header::CONTENT_TYPE, "application/json")];
    match faults.fault {
        None => right(),
        Some(Fault::Down) => {
            let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("down"))]);
            let length = [(header::CONTENT_LENGTH, "1000")];
            (as_json, length, Body::from_stream(broken)).into_response()
        }
        Some(Fault::ServerError) => Problem::told_to_fail().into_response(),
        Some(Fault::RateLimited) => Problem::too_many(TooMany {
            retry_after_seconds: faults.retry_after_seconds.unwrap_or(1),
        })
        .into_response(),
        Some(Fault::Garbage) => (as_json, "{\"keys\": [{").into_response(),
        Some(Fault::WrongContent) => Json(json!({ "object": "something else" })).into_response(),
        Some(Fault::WrongContentType) => {
            let mut response = right();
            let html = HeaderValue::from_static("text/html");
            response.headers_mut().insert(header::CONTENT_TYPE, html);
            response
        }
        Some(Fault::NoKeys) => Json(json!({ "keys": [] })).into_response(),
        Some(Fault::Endless) => {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 8192]));
            let endless = stream::repeat_with(chunk);
            (as_json, Body::from_stream(endless)).into_response()
        }
        Some(Fault::Redirect) => {
            let elsewhere = format!("{}?again", uri.path());
            (StatusCode::FOUND, [(header::LOCATION, elsewhere)]).into_response()
        }
    }
}
