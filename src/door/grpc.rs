//! The gRPC door: `clerkauthz.v1.AuthzService`, Envoy's external authorization, health and reflection.

mod callers;
mod convert;
mod ext_authz;
mod health;
mod json;
mod lanes;
mod limits;
mod request_id;
mod service;
mod stats;
mod status;

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::future::{join, try_join_all};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

pub use self::ext_authz::ExtAuthzDoor;
pub use self::health::{BACKEND_API_NAME, HealthReport, LIVENESS_NAME, SERVICE_NAME};
pub use self::json::{machine_json, session_json};
pub use self::lanes::ConnectionAge;
pub use self::request_id::new_decision_id;
pub(in crate::door) use self::request_id::{DecisionId, is_good as is_good_request_id};
pub use self::service::AuthzDoor;
pub use self::stats::{CALL_OUTCOMES, CallOutcome, CallStats, Rpc};
use super::GuardedListener;
use crate::door::grpc::limits::LimitLayer;

/// The messages and the service as compiled from `proto/`, and clients for tests.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; documented in proto/"
)]
pub mod proto {
    tonic::include_proto!("clerkauthz.v1");

    /// The compiled protos, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/clerkauthz.bin"));
}

/// The largest request in bytes; a batch of 1,000 tokens of 4 KB fits.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Calls that are worked on at once in one connection; further ones wait for the client.
const MAX_STREAMS_PER_CONNECTION: u32 = 1_000;
/// How much a client may send before it waits for us to read on, in bytes: for one call, and for all
/// calls of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The largest header list of a call in bytes; a larger one ends the call.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Streams that a client has opened and reset and that were not taken up yet; more ends the
/// connection (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// How often a silent connection is asked whether it lives, and how long it has to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the door takes on.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Calls that are worked on at once.
    pub max_calls: usize,
    /// How old a connection may get; `None` is without end.
    pub age: Option<ConnectionAge>,
}

/// Serves until `stop`, then finishes what is in flight.
pub async fn serve(
    listener: GuardedListener,
    door: AuthzDoor,
    ext_authz: Option<ExtAuthzDoor>,
    health: Arc<HealthReport>,
    limits: ServeLimits,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (calls, callers) = (door.calls(), door.callers());
    let mut routes = Routes::builder();
    routes.add_service(door.into_service());
    routes.add_service(health.service());
    if let Some(door) = ext_authz {
        routes.add_service(door);
    }
    // The descriptors are compiled in, and a test serves them.
    if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
        routes.add_service(v1).add_service(v1alpha);
    }
    let routes = routes.routes().prepare();
    let layer = LimitLayer::new(limits.max_calls, calls, callers);
    let (lanes, served): (Vec<_>, Vec<_>) = lanes::ages(limits.age)
        .into_iter()
        .map(|age| {
            let (lane, connections) = lanes::lane(age);
            let server = server(age).layer(layer.clone());
            // A lane that ends finishes what is in flight, as behind a signal; and before that it
            // takes up the connections that it was handed, as it would not behind one.
            let served =
                server.serve_with_incoming_shutdown(routes.clone(), connections, pending());
            (lane, served)
        })
        .unzip();
    join(lanes::spread(listener, lanes, stop), try_join_all(served))
        .await
        .1
        .map(drop)
}

fn server(age: Option<ConnectionAge>) -> Server {
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    match age {
        // With a grace of tonic's (0.14.9) the connection would be cut off behind it and never be told
        // to go: the grace is kept by the lane.
        Some(age) => server.max_connection_age(age.max),
        None => server,
    }
}

/// Keeps `health` true until `stop`.
pub async fn report_health(health: Arc<HealthReport>, stop: CancellationToken) {
    health.run(stop).await;
}
