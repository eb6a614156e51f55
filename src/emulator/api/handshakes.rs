//! What a browser's handshake left behind, for the back end to fetch. Clerk's OpenAPI file has the
//! address and says nothing of it; its SDK calls it (`@clerk/backend`, `api/endpoints/ClientApi.ts`).

use axum::http::Method;
use serde_json::json;

use super::{Operation, Problem, operation};
use crate::emulator::Endpoint;

pub(super) fn payload() -> Operation {
    operation(
        "getHandshakePayload",
        Method::GET,
        "/v1/clients/handshake_payload",
        Endpoint::Handshakes,
        |call| {
            let nonce = call.query.text("nonce").unwrap_or_default();
            let found = call.instance.handshakes.take(nonce);
            let directives = found.ok_or_else(|| Problem::not_found("no such nonce"))?;
            Ok(json!({ "directives": directives }))
        },
    )
}
