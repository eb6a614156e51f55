//! The HTTP door: `/livez`, `/readyz`, `/metrics`, Clerk's webhooks, and `/forward-auth` for proxies.

mod forward_auth;
mod webhooks;

use std::{future::Future, io, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use tokio::net::UnixListener;

use self::forward_auth::Peer;
pub use self::forward_auth::{ForwardAuthDoor, Peers};
use super::{GuardedListener, grpc::HealthReport};
use crate::{identity::InstanceName, sync::Inboxes};

/// Writes the metrics as text.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the text of the metrics is.
const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Parts {
    health: Arc<HealthReport>,
    metrics: RenderMetrics,
    /// Where there is a database.
    inboxes: Option<Arc<Inboxes>>,
}

/// Serves until `stop`, then finishes what is in flight.
pub async fn serve(
    listener: GuardedListener,
    health: Arc<HealthReport>,
    metrics: RenderMetrics,
    inboxes: Option<Arc<Inboxes>>,
    forward_auth: (Option<ForwardAuthDoor>, Peers),
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .with_state(Parts {
            health,
            metrics,
            inboxes: inboxes.clone(),
        })
        .merge(webhooks::router(inboxes))
        .merge(forward_auth::router(forward_auth.0, forward_auth.1));
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stop)
        .await
}

/// Answers `/forward-auth`, and nothing else, to whoever reaches the socket, until `stop`.
pub async fn serve_socket(
    listener: UnixListener,
    forward_auth: ForwardAuthDoor,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = forward_auth::router(Some(forward_auth), Peers::All);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
}

async fn livez() -> &'static str {
    "ok\n"
}

/// What `/readyz` says.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    draining: bool,
    /// Names of instances without usable keys.
    waiting_for_keys: Vec<String>,
    /// Names of instances whose secret key Clerk refuses: tokens are verified all the same.
    credentials_refused: Vec<String>,
    /// Whether the database answers; `null` where there is none. Tokens are verified all the same.
    database_answers: Option<bool>,
}

async fn readyz(State(parts): State<Parts>) -> impl IntoResponse {
    let names = |instances: Vec<InstanceName>| -> Vec<String> {
        instances.iter().map(ToString::to_string).collect()
    };
    let waiting_for_keys = names(parts.health.waiting_for());
    let draining = parts.health.is_draining();
    let ready = waiting_for_keys.is_empty() && !draining;
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        code,
        Json(Readiness {
            ready,
            draining,
            waiting_for_keys,
            credentials_refused: names(parts.health.credentials_refused()),
            database_answers: parts.inboxes.map(|inboxes| inboxes.store_answers()),
        }),
    )
}

async fn render_metrics(State(parts): State<Parts>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)],
        (parts.metrics)(),
    )
}
