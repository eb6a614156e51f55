//! `/.well-known/jwks.json`: the public halves of the keys that sign upstream assertions.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use crate::upstream_assertion::{Assertions, KEYS_MAX_AGE};

/// Answers anybody: what is published is public.
pub(super) fn router(assertions: Option<Arc<Assertions>>) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(key_set))
        .with_state(assertions)
}

async fn key_set(State(assertions): State<Option<Arc<Assertions>>>) -> Response {
    match assertions.and_then(|assertions| assertions.key_set()) {
        Some(keys) => {
            let max_age = format!("public, max-age={}", KEYS_MAX_AGE.as_secs());
            let headers = [
                (CONTENT_TYPE, "application/jwk-set+json"),
                (CACHE_CONTROL, &max_age),
            ];
            (headers, keys).into_response()
        }
        None => {
            let why = "no upstream assertions are made; name an upstream in the route policy, or set \
                       CLERK_AUTHZ_UPSTREAM_ASSERTIONS\n";
            let headers = [(CACHE_CONTROL, "no-store")];
            (StatusCode::NOT_FOUND, headers, why).into_response()
        }
    }
}
