//! The offline Clerk's addresses: the keys as Clerk serves them, and control addresses of our own.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Faults, Instance, MintError, TokenSpec};

#[derive(Clone)]
struct Here {
    instance: Arc<Instance>,
    all: Arc<Vec<Arc<Instance>>>,
}

pub(super) fn router(instance: Arc<Instance>, all: Vec<Arc<Instance>>) -> Router {
    Router::new()
        .route("/", get(guide))
        .route("/.well-known/jwks.json", get(frontend_jwks))
        .route("/v1/jwks", get(backend_jwks))
        .route("/_emulator/world", get(world))
        .route("/_emulator/token", get(token))
        .route("/_emulator/tokens", post(tokens))
        .route("/_emulator/keys/rotate", post(rotate))
        .route("/_emulator/keys/{key_id}", delete(remove_key))
        .route(
            "/_emulator/faults",
            get(faults).put(set_faults).delete(clear_faults),
        )
        .route("/_emulator/stats", get(stats))
        .fallback(not_found)
        .layer(middleware::from_fn(only_from_here))
        .with_state(Here {
            instance,
            all: Arc::new(all),
        })
}

/// A page in a browser must not reach the emulator under a name of its own (DNS rebinding).
async fn only_from_here(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let name = host.map_or("", |host| {
        host.rsplit_once(':').map_or(host, |(name, _)| name)
    });
    // A connection under HTTP/2 says it in the address.
    let name = request.uri().host().unwrap_or(name);
    if matches!(name, "127.0.0.1" | "localhost" | "[::1]") {
        next.run(request).await
    } else {
        error(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "the emulator answers to 127.0.0.1 and localhost only",
        )
    }
}

/// Clerk's form of an error.
fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({
        "errors": [{ "code": code, "message": message, "long_message": message }],
        "clerk_trace_id": "emulator",
    });
    (status, Json(body)).into_response()
}

async fn not_found() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "resource_not_found",
        "no such address; GET / lists them",
    )
}

async fn guide(State(here): State<Here>) -> String {
    let addresses: Vec<String> = here
        .all
        .iter()
        .map(|instance| format!("  {:<12} {}", instance.name(), instance.issuer()))
        .collect();
    format!(
        "The offline Clerk of clerk-authz. Instances:\n{}\n\n\
         GET    /.well-known/jwks.json         keys, as the Frontend API\n\
         GET    /v1/jwks                       keys, as the Backend API (secret key {})\n\
         GET    /_emulator/token?user=…        a token as text\n\
         POST   /_emulator/tokens              a token from a description, as JSON\n\
         GET    /_emulator/world               who lives here\n\
         POST   /_emulator/keys/rotate         a new key; ?remove_old=true&same_key_id=true\n\
         DELETE /_emulator/keys/{{kid}}          takes a key out of the set\n\
         PUT    /_emulator/faults              what goes wrong; GET shows it, DELETE ends it\n\
         GET    /_emulator/stats               how often keys were asked for\n",
        addresses.join("\n"),
        here.instance.secret_key()
    )
}

async fn frontend_jwks(State(here): State<Here>) -> Response {
    here.instance
        .frontend_requests
        .fetch_add(1, Ordering::Relaxed);
    jwks(&here.instance).await
}

async fn backend_jwks(State(here): State<Here>, headers: HeaderMap) -> Response {
    here.instance
        .backend_requests
        .fetch_add(1, Ordering::Relaxed);
    let expected = format!("Bearer {}", here.instance.secret_key());
    if headers
        .get(header::AUTHORIZATION)
        .is_none_or(|given| *given != *expected)
    {
        return error(
            StatusCode::UNAUTHORIZED,
            "clerk_key_invalid",
            "The provided Clerk Secret Key is invalid.",
        );
    }
    jwks(&here.instance).await
}

async fn jwks(instance: &Instance) -> Response {
    let faults = instance.next_faults();
    if faults.slow_milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(faults.slow_milliseconds)).await;
    }
    let right = instance.jwks();
    let as_json = [(header::CONTENT_TYPE, "application/json")];
    match faults.fault {
        None => Json(right).into_response(),
        Some(Fault::Down) => {
            let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("down"))]);
            let length = [(header::CONTENT_LENGTH, "1000")];
            (as_json, length, Body::from_stream(broken)).into_response()
        }
        Some(Fault::ServerError) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "told to fail",
        ),
        Some(Fault::RateLimited) => {
            let mut response = error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "told to");
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
            response
        }
        Some(Fault::Garbage) => (as_json, "{\"keys\": [{").into_response(),
        Some(Fault::WrongContent) => Json(json!({ "object": "something else" })).into_response(),
        Some(Fault::WrongContentType) => {
            ([(header::CONTENT_TYPE, "text/html")], right.to_string()).into_response()
        }
        Some(Fault::NoKeys) => Json(json!({ "keys": [] })).into_response(),
        Some(Fault::Endless) => {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 8192]));
            let endless = stream::repeat_with(chunk);
            (as_json, Body::from_stream(endless)).into_response()
        }
        Some(Fault::Redirect) => (
            StatusCode::FOUND,
            [(header::LOCATION, "/.well-known/jwks.json?again")],
        )
            .into_response(),
    }
}

impl Instance {
    /// The faults for this request; one that was for so many requests wears out.
    fn next_faults(&self) -> Faults {
        let mut faults = self
            .faults
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut faults.times {
            Some(0) => *faults = Faults::default(),
            Some(left) => *left -= 1,
            None => {}
        }
        faults.clone()
    }
}

async fn world(State(here): State<Here>) -> Json<Value> {
    let instances: Vec<Value> = here
        .all
        .iter()
        .map(|instance| {
            json!({
                "name": instance.name(),
                "issuer": instance.issuer().as_str(),
                "publishable_key": instance.publishable_key().as_str(),
                "secret_key": instance.secret_key(),
                "public_key_pem": instance.public_key_pem(),
                "users": instance.seed().users,
                "organizations": instance.seed().organizations,
            })
        })
        .collect();
    Json(json!({ "instances": instances }))
}

/// What can be said of a token in an address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct TokenQuery {
    kind: super::Kind,
    user: Option<String>,
    organization: Option<String>,
    impersonated_by: Option<String>,
    authorized_party: Option<String>,
    lifetime_seconds: Option<i64>,
    expired: bool,
    not_yet_valid: bool,
    pending: bool,
    forged: bool,
}

async fn token(
    State(here): State<Here>,
    query: Result<Query<TokenQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return bad_request(&rejection.body_text()),
    };
    let spec = TokenSpec {
        kind: query.kind,
        user: query.user,
        organization: query.organization,
        impersonated_by: query.impersonated_by,
        authorized_party: query.authorized_party,
        lifetime_seconds: query.lifetime_seconds,
        expired: query.expired,
        not_yet_valid: query.not_yet_valid,
        pending: query.pending,
        forged: query.forged,
        ..TokenSpec::default()
    };
    match here.instance.mint(&spec) {
        Ok(token) => token.into_response(),
        Err(error) => mint_error(&error),
    }
}

async fn tokens(
    State(here): State<Here>,
    spec: Result<Json<TokenSpec>, JsonRejection>,
) -> Response {
    let spec = match spec {
        Ok(Json(spec)) => spec,
        Err(rejection) => return bad_request(&rejection.body_text()),
    };
    match here.instance.mint(&spec) {
        Ok(token) => {
            let cookie = here.instance.cookie(&token);
            Json(json!({ "jwt": token, "cookie": cookie })).into_response()
        }
        Err(error) => mint_error(&error),
    }
}

fn bad_request(message: &str) -> Response {
    error(
        StatusCode::UNPROCESSABLE_ENTITY,
        "form_param_invalid",
        message,
    )
}

fn mint_error(error: &MintError) -> Response {
    bad_request(&error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RotateQuery {
    remove_old: bool,
    same_key_id: bool,
}

async fn rotate(State(here): State<Here>, Query(query): Query<RotateQuery>) -> Response {
    match here
        .instance
        .rotate_key(query.remove_old, query.same_key_id)
    {
        Ok(key_id) => Json(json!({ "kid": key_id })).into_response(),
        Err(error) => mint_error(&error),
    }
}

async fn remove_key(State(here): State<Here>, Path(key_id): Path<String>) -> Response {
    if here.instance.remove_key(&key_id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        error(
            StatusCode::NOT_FOUND,
            "resource_not_found",
            "no key with this kid",
        )
    }
}

async fn faults(State(here): State<Here>) -> Json<Faults> {
    Json(here.instance.faults())
}

async fn set_faults(
    State(here): State<Here>,
    faults: Result<Json<Faults>, JsonRejection>,
) -> Response {
    match faults {
        Ok(Json(faults)) => {
            here.instance.set_faults(faults.clone());
            Json(faults).into_response()
        }
        Err(rejection) => bad_request(&rejection.body_text()),
    }
}

async fn clear_faults(State(here): State<Here>) -> StatusCode {
    here.instance.set_faults(Faults::default());
    StatusCode::NO_CONTENT
}

async fn stats(State(here): State<Here>) -> Json<Value> {
    Json(json!({ "jwks_requests": here.instance.jwks_requests() }))
}
