//! Callers at the gRPC door: what a call shows of whom it comes from, and what the rules say to it.
//!
//! It translates; `callers` holds the rules.

use std::net::SocketAddr;

use tokio::time::Instant;
use tonic::{Request, Status};
use tracing::info;

use super::status;
use crate::{
    callers::{Bearer, Callers, GuardedRpc, KnownCaller, Place, Refused, Shown},
    door::{GrpcMethod, PeerInfo},
};

/// What rules are about; `None` for what is open to everybody: health checks, which whoever restarts
/// and balances the service has to ask, and reflection, which tells the published contract.
const fn guarded(method: GrpcMethod) -> Option<GuardedRpc> {
    Some(match method {
        GrpcMethod::VerifySession => GuardedRpc::VerifySession,
        GrpcMethod::BatchVerifySession => GuardedRpc::BatchVerifySession,
        GrpcMethod::CheckOrgPermission => GuardedRpc::CheckOrgPermission,
        GrpcMethod::BatchCheckOrgPermission => GuardedRpc::BatchCheckOrgPermission,
        GrpcMethod::SyncUser => GuardedRpc::SyncUser,
        GrpcMethod::GetUser => GuardedRpc::GetUser,
        GrpcMethod::WatchUsers => GuardedRpc::WatchUsers,
        GrpcMethod::ExplainDecision => GuardedRpc::ExplainDecision,
        GrpcMethod::Check => GuardedRpc::Check,
        GrpcMethod::Health | GrpcMethod::Other => return None,
    })
}

/// Lets a call in by the rules, and notes in it whom it comes from. What it shows goes no further: a
/// secret is not for those who work on the call.
pub(super) fn admit<B>(
    callers: &Callers,
    method: GrpcMethod,
    request: &mut http::Request<B>,
    now: Instant,
) -> Result<Option<Place>, Refused> {
    let Some(rpc) = guarded(method) else {
        return Ok(None);
    };
    let peer = request.extensions().get::<PeerInfo>();
    let identity = peer.and_then(|peer| peer.identity.get());
    let shown = Shown {
        uris: identity.map_or(&[], |identity| &identity.uris),
        dns_names: identity.map_or(&[], |identity| &identity.dns_names),
        bearer: bearer(request.headers()),
    };
    match callers.admit(rpc, &shown, now.into_std()) {
        Ok((known, place)) => {
            request.headers_mut().remove(http::header::AUTHORIZATION);
            request.extensions_mut().insert(known);
            Ok(Some(place))
        }
        Err(refused) => {
            log(&refused, rpc.name(), peer.and_then(|peer| peer.addr));
            Err(refused)
        }
    }
}

/// Whom a call comes from, where there are rules.
pub(super) fn of<T>(request: &Request<T>) -> Option<KnownCaller> {
    request.extensions().get().cloned()
}

/// Whether a caller may ask about a user without a token of that user.
pub(super) fn may_ask_about_anybody(
    caller: Option<&KnownCaller>,
    rpc: &'static str,
) -> Result<(), Status> {
    let Some(caller) = caller else {
        return Ok(());
    };
    caller.admit_any_user().map_err(|refused| {
        log(&refused, rpc, None);
        status::refused_caller(&refused, rpc)
    })
}

/// A denial is said; that a caller is over its limit is counted only, as there may be many.
fn log(refused: &Refused, rpc: &'static str, peer: Option<SocketAddr>) {
    if let Refused::NotAllowed { caller, why } = refused {
        let peer = peer.map(tracing::field::display);
        info!(rpc, caller = &**caller, peer, "caller not allowed: {why}");
    }
}

/// `authorization: Bearer SECRET` (RFC 6750, 2.1), once.
fn bearer(headers: &http::HeaderMap) -> Bearer<'_> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(http::header::AUTHORIZATION) {
            true => Bearer::Unreadable,
            false => Bearer::Missing,
        };
    };
    let (scheme, secret) = value.as_bytes().split_at(value.len().min(7));
    match scheme.eq_ignore_ascii_case(b"bearer ") {
        true => Bearer::Secret(secret.trim_ascii()),
        false => Bearer::Unreadable,
    }
}
