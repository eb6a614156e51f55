//! The offline Clerk's addresses: the keys as Clerk serves them, and control addresses of our own.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State, rejection::JsonRejection},
    http::{StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Endpoint, Fault, Faults, Instance, MintError, RateLimit, TokenSpec,
    api::{self, error, not_found},
    frontend, identity_provider,
    requests::TooMany,
    webhooks,
};

/// What the Backend API here is about.
const TOPICS: &str = "jwks, users, organizations, memberships, roles, permissions, sessions, machine tokens, sign-in tokens";

#[derive(Clone)]
struct Here {
    instance: Arc<Instance>,
    all: Arc<Vec<Arc<Instance>>>,
}

pub(super) fn router(instance: Arc<Instance>, all: Vec<Arc<Instance>>) -> Router {
    let api = api::router(&instance);
    let webhooks = webhooks::router(Arc::clone(&instance));
    let frontend = frontend::router(&instance);
    let identity_provider = identity_provider::router(&instance);
    Router::new()
        .route("/", get(guide))
        .route("/.well-known/jwks.json", get(frontend_jwks))
        .route("/_emulator/world", get(world))
        .route("/_emulator/token", get(token))
        .route("/_emulator/tokens", post(tokens))
        .route("/_emulator/tokens/{id}", delete(revoke_token))
        .route("/_emulator/keys/rotate", post(rotate))
        .route("/_emulator/keys/{key_id}", delete(remove_key))
        .route(
            "/_emulator/faults",
            get(faults).put(set_faults).delete(clear_faults),
        )
        .route(
            "/_emulator/rate_limit",
            put(set_rate_limit).delete(end_rate_limit),
        )
        .route("/_emulator/stats", get(stats).delete(reset_stats))
        .fallback(not_found)
        .with_state(Here {
            instance,
            all: Arc::new(all),
        })
        .merge(api)
        .merge(webhooks)
        .merge(frontend)
        .merge(identity_provider)
        .layer(middleware::from_fn(only_from_here))
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

async fn guide(State(here): State<Here>) -> String {
    let addresses: Vec<String> = here
        .all
        .iter()
        .map(|instance| format!("  {:<12} {}", instance.name(), instance.issuer()))
        .collect();
    format!(
        "The offline Clerk of clerk-authz. Instances:\n{}\n\n\
         GET    /.well-known/jwks.json         keys, as the Frontend API\n\
         GET    /sign-in?redirect_url=…        a page to sign in on, in a browser\n\
         GET    /v1/client/handshake           Clerk's handshake, for browsers\n\
         *      /v1/…                          the Backend API (secret key {}), of\n\
         {:38} {TOPICS}\n\
         POST   /v1/client/sign_ins            signs in with a ticket, as the Frontend API\n\
         GET    /_emulator/identity_provider/assertion?user=…  what an identity provider says\n\
         GET    /_emulator/token?user=…        a token as text\n\
         POST   /_emulator/tokens              a token from a description, as JSON\n\
         DELETE /_emulator/tokens/{{id}}       revokes an opaque token\n\
         GET    /_emulator/world               who lives here\n\
         POST   /_emulator/keys/rotate         a new key; ?remove_old=true&same_key_id=true\n\
         DELETE /_emulator/keys/{{kid}}          takes a key out of the set\n\
         PUT    /_emulator/faults              what goes wrong; GET shows it, DELETE ends it\n\
         PUT    /_emulator/rate_limit          how much the API answers; DELETE ends it\n\
         PUT    /_emulator/webhooks            who is told of changes; GET shows it, DELETE ends it\n\
         GET    /_emulator/webhooks/messages   what was sent; POST …/{{id}}/replay sends it again\n\
         GET    /_emulator/stats               how often it was asked; DELETE counts anew\n",
        addresses.join("\n"),
        here.instance.secret_key(),
        "",
    )
}

async fn frontend_jwks(State(here): State<Here>, uri: Uri) -> Response {
    let instance = &here.instance;
    instance.frontend_requests.fetch_add(1, Ordering::Relaxed);
    let faults = instance.next_faults(Endpoint::Jwks);
    api::failing(&faults, &uri, || Json(instance.jwks()).into_response()).await
}

impl Instance {
    /// A request to the Backend API came.
    pub(super) fn count(&self, endpoint: Endpoint) {
        match endpoint {
            Endpoint::Jwks => {
                self.backend_requests.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.requests.came(endpoint, (self.clock)()),
        }
    }

    pub(super) fn within_limit(&self) -> Result<(), TooMany> {
        self.requests.pass((self.clock)())
    }

    /// The faults for this request.
    pub(super) fn next_faults(&self, endpoint: Endpoint) -> Faults {
        let mut plan = self.faults.write().unwrap_or_else(PoisonError::into_inner);
        plan.next(endpoint)
    }
}

async fn world(State(here): State<Here>) -> Json<Value> {
    let instances: Vec<Value> = here
        .all
        .iter()
        .map(|instance| {
            let (users, organizations) = instance.directory().as_seed();
            json!({
                "name": instance.name(),
                "issuer": instance.issuer().as_str(),
                "publishable_key": instance.publishable_key().as_str(),
                "secret_key": instance.secret_key(),
                "public_key_pem": instance.public_key_pem(),
                "users": users,
                "organizations": organizations,
                "webhooks": instance.webhooks(),
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
    opaque: bool,
    subject: Option<String>,
    /// With spaces between.
    scopes: Option<String>,
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
        opaque: query.opaque,
        subject: query.subject,
        scopes: query
            .scopes
            .map(|scopes| scopes.split_whitespace().map(str::to_owned).collect()),
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
        Ok(token) if spec.opaque_kind().is_some() => {
            Json(json!({ "token": token, "id": here.instance.machine_token_id(&token) }))
                .into_response()
        }
        Ok(token) => {
            let cookie = here.instance.cookie(&token);
            Json(json!({ "jwt": token, "cookie": cookie })).into_response()
        }
        Err(error) => mint_error(&error),
    }
}

async fn revoke_token(State(here): State<Here>, Path(id): Path<String>) -> Response {
    if here.instance.revoke_machine_token(&id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        error(
            StatusCode::NOT_FOUND,
            "resource_not_found",
            "no opaque token with this id",
        )
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

async fn faults(State(here): State<Here>) -> Json<Value> {
    Json(json!(here.instance.fault_plan()))
}

/// Faults, everywhere or at one endpoint.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsAt {
    endpoint: Option<Endpoint>,
    #[serde(default)]
    slow_milliseconds: u64,
    fault: Option<Fault>,
    times: Option<u64>,
    retry_after_seconds: Option<u64>,
}

async fn set_faults(
    State(here): State<Here>,
    given: Result<Json<FaultsAt>, JsonRejection>,
) -> Response {
    let given = match given {
        Ok(Json(given)) => given,
        Err(rejection) => return bad_request(&rejection.body_text()),
    };
    let faults = Faults {
        slow_milliseconds: given.slow_milliseconds,
        fault: given.fault,
        times: given.times,
        retry_after_seconds: given.retry_after_seconds,
    };
    match given.endpoint {
        Some(endpoint) => here.instance.set_faults_for(endpoint, faults),
        None => here.instance.set_faults(faults),
    }
    Json(here.instance.fault_plan()).into_response()
}

async fn clear_faults(State(here): State<Here>) -> StatusCode {
    here.instance.clear_faults();
    StatusCode::NO_CONTENT
}

async fn set_rate_limit(
    State(here): State<Here>,
    limit: Result<Json<RateLimit>, JsonRejection>,
) -> Response {
    match limit {
        Ok(Json(limit)) => {
            here.instance.set_rate_limit(Some(limit));
            Json(limit).into_response()
        }
        Err(rejection) => bad_request(&rejection.body_text()),
    }
}

async fn end_rate_limit(State(here): State<Here>) -> StatusCode {
    here.instance.set_rate_limit(None);
    StatusCode::NO_CONTENT
}

async fn stats(State(here): State<Here>) -> Json<Value> {
    let instance = &here.instance;
    let by_endpoint: BTreeMap<Endpoint, u64> = Endpoint::ALL
        .into_iter()
        .map(|endpoint| (endpoint, instance.api_requests(endpoint)))
        .collect();
    Json(json!({
        "jwks_requests": instance.jwks_requests(),
        "requests": by_endpoint,
        "total": instance.api_requests_total(),
        "peaks": instance.api_peaks(),
        "rate_limit": instance.requests.limit(),
        "webhooks": instance.webhook_stats(),
    }))
}

async fn reset_stats(State(here): State<Here>) -> StatusCode {
    here.instance.reset_counts();
    StatusCode::NO_CONTENT
}
