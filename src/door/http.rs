//! The HTTP door: `/livez`, `/readyz`, `/metrics`, Clerk's webhooks, `/forward-auth` for proxies, and
//! `/.well-known/jwks.json` for the services behind them.

mod counted;
mod forward_auth;
mod jwks;
mod webhooks;

use std::{collections::BTreeMap, future::Future, io, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use self::forward_auth::Peer;
pub use self::forward_auth::{ForwardAuthDoor, Peers};
use super::{
    GuardedListener,
    grpc::{CallStats, HealthReport},
};
use crate::{
    identity::InstanceName,
    mirror::EntityKind,
    sync::{Drift, Inboxes, LastRun, Nightly},
    upstream_assertion::Assertions,
};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format, version 0.0.4, which `promtool check metrics` and older scrapers
    /// read.
    Prometheus,
}

impl MetricsFormat {
    /// OpenMetrics, unless only the other is asked for.
    fn asked(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(header::ACCEPT).into_iter();
        let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
        let names = |name| accept.iter().any(|value| value.contains(name));
        if names("text/plain") && !names("application/openmetrics-text") {
            Self::Prometheus
        } else {
            Self::OpenMetrics
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes the metrics as text.
pub type RenderMetrics = Arc<dyn Fn(MetricsFormat) -> String + Send + Sync>;

#[derive(Clone)]
struct Parts {
    health: Arc<HealthReport>,
    metrics: RenderMetrics,
    mirror: MirrorParts,
}

/// What there is where there is a database.
#[derive(Clone, Default)]
pub struct MirrorParts {
    /// Where webhooks are taken in.
    pub inboxes: Option<Arc<Inboxes>>,
    /// What knows of the last reconciliations.
    pub nightly: Option<Arc<Nightly>>,
    /// Who vouches to upstreams, and with which keys.
    pub assertions: Option<Arc<Assertions>>,
}

/// Serves until `stop`, then finishes what is in flight.
pub async fn serve(
    listener: GuardedListener,
    health: Arc<HealthReport>,
    metrics: RenderMetrics,
    mirror: MirrorParts,
    forward_auth: (Option<ForwardAuthDoor>, Peers),
    calls: Arc<CallStats>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let webhooks = webhooks::router(mirror.inboxes.clone());
    let jwks = jwks::router(mirror.assertions.clone());
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .with_state(Parts {
            health: Arc::clone(&health),
            metrics,
            mirror,
        })
        .merge(webhooks)
        .merge(jwks)
        .merge(forward_auth::router(forward_auth.0, forward_auth.1))
        .layer(middleware::from_fn_with_state(health, last_answer))
        .layer(middleware::from_fn_with_state(calls, counted::counted));
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stop)
        .await
}

/// Answers `/forward-auth`, and nothing else, to whoever reaches the socket, until `stop`.
pub async fn serve_socket(
    listener: GuardedListener,
    forward_auth: ForwardAuthDoor,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let calls = forward_auth.calls();
    let router = forward_auth::router(Some(forward_auth), Peers::All)
        .layer(middleware::from_fn_with_state(calls, counted::counted));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
}

/// A connection of HTTP/1.1 has no way to say that it takes no further request, but with an answer.
/// Said while there is time, a proxy does not send one into a connection that is being closed.
async fn last_answer(
    State(health): State<Arc<HealthReport>>,
    request: Request,
    next: Next,
) -> Response {
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut answer = next.run(request).await;
    if is_http1 && health.is_draining() {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
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
    /// The last reconciliation of each instance that was ever reconciled, whichever replica made it.
    reconciliations: Vec<Reconciliation>,
}

/// The last reconciliation of an instance.
#[derive(Serialize)]
struct Reconciliation {
    instance: String,
    /// `in_step`, `drift` (what was found was mended, unless `applied` is false) or `failed`.
    outcome: &'static str,
    /// When it ended.
    at: String,
    /// The last that came to its end: when it began, whether it mended, what it found. Not there
    /// before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_whole: Option<WholeReconciliation>,
}

#[derive(Serialize)]
struct WholeReconciliation {
    started_at: String,
    applied: bool,
    /// By kind and class of drift.
    drift: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

fn reconciliations(nightly: &Nightly) -> Vec<Reconciliation> {
    let of = |(instance, last): (InstanceName, LastRun)| {
        let last_whole = last.ended().map(|(started_at, applied)| {
            let found = |kind| {
                let drifts = Drift::ALL.into_iter();
                drifts
                    .map(|drift| (drift.name(), last.found(kind, drift).unwrap_or(0)))
                    .collect()
            };
            WholeReconciliation {
                started_at: started_at.to_string(),
                applied,
                drift: EntityKind::ALL
                    .into_iter()
                    .map(|kind| (kind.name(), found(kind)))
                    .collect(),
            }
        });
        Some(Reconciliation {
            instance: instance.to_string(),
            outcome: last.outcome()?.name(),
            at: last.at()?.to_string(),
            last_whole,
        })
    };
    let all = nightly.stats().last_runs;
    all.into_iter().filter_map(of).collect()
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
            database_answers: parts.mirror.inboxes.map(|inboxes| inboxes.store_answers()),
            reconciliations: parts
                .mirror
                .nightly
                .map(|nightly| reconciliations(&nightly))
                .unwrap_or_default(),
        }),
    )
}

async fn render_metrics(State(parts): State<Parts>, headers: HeaderMap) -> impl IntoResponse {
    let format = MetricsFormat::asked(&headers);
    (
        [(header::CONTENT_TYPE, format.content_type())],
        (parts.metrics)(format),
    )
}
