//! Machine tokens, over HTTP: verified, and nothing else.

use axum::http::Method;

use super::{Answer, Call, Operation, Problem, operation};
use crate::emulator::{Endpoint, machine_tokens::OpaqueKind};

pub(super) fn operations() -> Vec<Operation> {
    let on = |id, path, run| operation(id, Method::POST, path, Endpoint::MachineTokens, run);
    vec![
        on("verifyM2MToken", "/v1/m2m_tokens/verify", |call| {
            verify(call, OpaqueKind::M2m, &["token"])
        }),
        on(
            "verifyOAuthAccessToken",
            "/v1/oauth_applications/access_tokens/verify",
            // The second is the deprecated name of the first.
            |call| verify(call, OpaqueKind::Oauth, &["access_token", "secret"]),
        ),
        on("verifyApiKey", "/v1/api_keys/verify", |call| {
            verify(call, OpaqueKind::ApiKey, &["secret"])
        }),
    ]
}

/// The token stands under one of these names.
fn verify(call: &mut Call<'_>, kind: OpaqueKind, names: &[&str]) -> Answer {
    let mut text = None;
    for name in names {
        let found = call.form.text(name)?.value();
        text = text.or(found.filter(|text| !text.is_empty()));
    }
    call.form.finish()?;
    let Some(text) = text else {
        return Err(Problem::missing(names.first().unwrap_or(&"token")));
    };
    let now_seconds = call.directory().now() / 1_000;
    let found = call
        .instance
        .machine_tokens
        .verify(kind, &text, now_seconds);
    // Of a token nothing is repeated.
    found.ok_or_else(|| Problem::not_found("no such token"))
}
