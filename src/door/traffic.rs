//! What came through the doors, how it ended, and how long it took: plain counters, read when
//! metrics are asked for.
//!
//! The labels are closed lists: a path from outside is none of them, and counts as `other`.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tonic::Code;

use crate::{
    closed_list::closed_list,
    histogram::{Histogram, Recorded},
};

closed_list! {
    /// Of the gRPC port: an RPC, or a service whose RPCs are counted together.
    GrpcMethod {
        /// `VerifySession`.
        VerifySession = "VerifySession",
        /// `BatchVerifySession`.
        BatchVerifySession = "BatchVerifySession",
        /// `CheckOrgPermission`.
        CheckOrgPermission = "CheckOrgPermission",
        /// `BatchCheckOrgPermission`.
        BatchCheckOrgPermission = "BatchCheckOrgPermission",
        /// `SyncUser`.
        SyncUser = "SyncUser",
        /// `GetUser`.
        GetUser = "GetUser",
        /// `WatchUsers`, until its stream began.
        WatchUsers = "WatchUsers",
        /// `ExchangeAssertion`.
        ExchangeAssertion = "ExchangeAssertion",
        /// `ExplainDecision`.
        ExplainDecision = "ExplainDecision",
        /// `Check` of Envoy's external authorization.
        Check = "Check",
        /// Of `grpc.health.v1.Health`.
        Health = "Health",
        /// Everything else: reflection, and what is no RPC of ours.
        Other = "other",
    }
}

impl GrpcMethod {
    /// By the path of a call.
    pub(super) fn of(path: &str) -> Self {
        let of_ours = path.strip_prefix("/clerkauthz.v1.AuthzService/");
        match of_ours.unwrap_or(path) {
            "VerifySession" => Self::VerifySession,
            "BatchVerifySession" => Self::BatchVerifySession,
            "CheckOrgPermission" => Self::CheckOrgPermission,
            "BatchCheckOrgPermission" => Self::BatchCheckOrgPermission,
            "SyncUser" => Self::SyncUser,
            "GetUser" => Self::GetUser,
            "WatchUsers" => Self::WatchUsers,
            "ExchangeAssertion" => Self::ExchangeAssertion,
            "ExplainDecision" => Self::ExplainDecision,
            "/envoy.service.auth.v3.Authorization/Check" => Self::Check,
            // A service that is busy is not to be restarted or taken out for it.
            path if path.starts_with("/grpc.health.v1.Health/") => Self::Health,
            _ => Self::Other,
        }
    }
}

/// gRPC's status codes by number, as its specification writes them.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

closed_list! {
    /// Of the HTTP port and of the socket.
    Route {
        /// `/forward-auth`.
        ForwardAuth = "forward_auth",
        /// `/webhooks/clerk` and what is below it.
        Webhooks = "webhooks",
        /// `/metrics`.
        Metrics = "metrics",
        /// `/livez`.
        Livez = "livez",
        /// `/readyz`.
        Readyz = "readyz",
        /// `/.well-known/jwks.json`.
        Jwks = "jwks",
        /// What is no path of ours.
        Other = "other",
    }
}

impl Route {
    /// By the path of a request.
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/forward-auth" => Self::ForwardAuth,
            "/metrics" => Self::Metrics,
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/.well-known/jwks.json" => Self::Jwks,
            "/webhooks/clerk" => Self::Webhooks,
            path if path.starts_with("/webhooks/clerk/") => Self::Webhooks,
            _ => Self::Other,
        }
    }
}

/// Of a request whose client went away before it was answered; nginx's number for it.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;
/// HTTP's statuses.
const STATUSES: std::ops::Range<u16> = 100..600;

/// Counts and durations since the start.
#[derive(Debug)]
pub struct Traffic {
    grpc: [Grpc; GrpcMethod::ALL.len()],
    http: [Http; Route::ALL.len()],
}

#[derive(Debug)]
struct Grpc {
    codes: [AtomicU64; CODES.len()],
    durations: Histogram,
}

#[derive(Debug)]
struct Http {
    statuses: [AtomicU64; STATUSES.end as usize - STATUSES.start as usize],
    durations: Histogram,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            grpc: array::from_fn(|_| Grpc {
                codes: array::from_fn(|_| AtomicU64::new(0)),
                durations: Histogram::default(),
            }),
            http: array::from_fn(|_| Http {
                statuses: array::from_fn(|_| AtomicU64::new(0)),
                durations: Histogram::default(),
            }),
        }
    }
}

impl Traffic {
    pub(super) fn called(&self, method: GrpcMethod, code: Code, took: Duration) {
        let of = &self.grpc[method as usize];
        of.codes[code as usize].fetch_add(1, Relaxed);
        of.durations.record(took);
    }

    /// A call that took so long was followed.
    pub(super) fn followed(&self, method: GrpcMethod, took: Duration, trace_id: String) {
        self.grpc[method as usize].durations.show(took, trace_id);
    }

    pub(super) fn requested(&self, route: Route, status: u16, took: Duration) {
        let of = &self.http[route as usize];
        if STATUSES.contains(&status) {
            of.statuses[usize::from(status - STATUSES.start)].fetch_add(1, Relaxed);
        }
        of.durations.record(took);
    }

    /// Calls that ended with the code of this number.
    pub fn calls(&self, method: GrpcMethod, code: usize) -> u64 {
        self.grpc[method as usize].codes[code].load(Relaxed)
    }

    /// How long calls took.
    pub fn call_durations(&self, method: GrpcMethod) -> Recorded {
        self.grpc[method as usize].durations.read()
    }

    /// Statuses that requests were answered with, and how many.
    pub fn requests(&self, route: Route) -> impl Iterator<Item = (u16, u64)> {
        let counts = self.http[route as usize].statuses.iter();
        STATUSES
            .zip(counts.map(|count| count.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
    }

    /// How long requests took.
    pub fn request_durations(&self, route: Route) -> Recorded {
        self.http[route as usize].durations.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::grpc::proto::FILE_DESCRIPTOR_SET;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    #[test]
    fn every_rpc_of_the_contract_has_counters_of_its_own() {
        let protos = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
        let services = protos.file.iter().flat_map(|file| &file.service);
        let mut rpcs = 0;
        for rpc in services.flat_map(|service| &service.method) {
            let found = GrpcMethod::of(&format!("/clerkauthz.v1.AuthzService/{}", rpc.name()));
            assert_eq!(found.name(), rpc.name(), "src/door/traffic.rs lacks it");
            rpcs += 1;
        }
        assert!(rpcs >= 8, "{rpcs}");
        assert_eq!(GrpcMethod::of("/anybodys/VerifySession"), GrpcMethod::Other);
        for (index, method) in GrpcMethod::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, index);
        }
    }

    #[test]
    fn codes_stand_at_their_numbers() {
        for (number, name) in CODES.iter().enumerate() {
            let code = Code::from_i32(i32::try_from(number).expect("small"));
            assert_eq!(code as usize, number);
            let spelled = format!("{code:?}").to_uppercase();
            assert_eq!(spelled, name.replace('_', ""));
        }
    }

    #[test]
    fn statuses_are_counted_by_route() {
        let traffic = Traffic::default();
        traffic.requested(Route::of("/webhooks/clerk/x"), 204, Duration::ZERO);
        traffic.requested(Route::of("/webhooks/clerks"), 404, Duration::ZERO);
        traffic.requested(Route::Other, 99, Duration::ZERO);

        let counted = |route| traffic.requests(route).collect::<Vec<_>>();
        assert_eq!(counted(Route::Webhooks), [(204, 1)]);
        assert_eq!(counted(Route::Other), [(404, 1)]);
        assert_eq!(traffic.request_durations(Route::Other).count(), 2);
    }
}
