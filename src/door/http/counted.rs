//! Counts each request by its route, its status and how long it took.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::HeaderName,
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;

use crate::{
    door::{
        grpc::CallStats,
        traffic::{CLIENT_CLOSED_REQUEST, Route},
    },
    trace,
};

/// Stands around all routes.
pub(super) async fn counted(
    State(calls): State<Arc<CallStats>>,
    request: Request,
    next: Next,
) -> Response {
    let mut counting = Counting {
        calls,
        route: Route::of(request.uri().path()),
        began: Instant::now(),
        status: CLIENT_CLOSED_REQUEST,
    };
    let followed = match counting.route {
        Route::ForwardAuth | Route::Webhooks => {
            let header = |name: &HeaderName| request.headers().get(name)?.to_str().ok();
            trace::begin(|| counting.route.name().into(), header)
        }
        Route::Metrics | Route::Livez | Route::Readyz | Route::Jwks | Route::Other => None,
    };
    let answered = async {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        trace::note("http.response.status_code", || i64::from(status).into());
        response
    };
    let response = trace::inside(followed, answered).await;
    counting.status = response.status().as_u16();
    response
}

/// Counts when it is dropped, so that a request is counted whose client went away, too.
struct Counting {
    calls: Arc<CallStats>,
    route: Route,
    began: Instant,
    status: u16,
}

impl Drop for Counting {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let traffic = self.calls.traffic();
        traffic.requested(self.route, self.status, took);
    }
}
