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
        GrpcMethod::ExchangeAssertion => GuardedRpc::ExchangeAssertion,
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

/// Whether a caller may ask what would come of an assertion.
pub(super) fn may_exchange(caller: Option<&KnownCaller>, rpc: &'static str) -> Result<(), Status> {
    let Some(caller) = caller else {
        return Ok(());
    };
    caller.admit_exchange().map_err(|refused| {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        callers::{Caller, Limits, Rights, RpcSet, Rules, SecretDigest},
        door::ClientIdentity,
    };

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn callers() -> Callers {
        let billing = Caller {
            name: "billing".into(),
            spiffe: vec!["spiffe://example.org/sa/billing".into()],
            dns: vec!["billing.internal".into()],
            secrets: vec![SecretDigest::of(SECRET.as_bytes())],
            rights: Rights {
                rpcs: RpcSet::from_iter([GuardedRpc::GetUser]),
                any_user: false,
            },
            limits: Limits::default(),
        };
        let rules = Rules::new(Rights::default(), vec![billing]).expect("good rules");
        Callers::new(rules, std::time::Instant::now())
    }

    fn by_certificate(uris: &[&str], dns_names: &[&str]) -> http::Request<()> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        let identity = ClientIdentity {
            uris: own(uris),
            dns_names: own(dns_names),
        };
        let peer = PeerInfo {
            identity: Arc::new(identity.into()),
            ..PeerInfo::default()
        };
        let mut request = http::Request::new(());
        request.extensions_mut().insert(peer);
        request
    }

    fn ask(mut request: http::Request<()>) -> Result<http::Request<()>, Refused> {
        admit(
            &callers(),
            GrpcMethod::GetUser,
            &mut request,
            Instant::now(),
        )?;
        Ok(request)
    }

    #[test]
    fn a_certificate_of_the_connection_names_the_caller() {
        for request in [
            by_certificate(&["spiffe://example.org/sa/billing"], &[]),
            by_certificate(&[], &["other.internal", "BILLING.internal"]),
        ] {
            let admitted = ask(request).expect("it may");
            let known = of(&Request::from_http(admitted)).expect("noted");
            assert_eq!(known.name(), "billing");
        }
        for request in [
            by_certificate(&["spiffe://example.org/sa/other"], &["other.internal"]),
            by_certificate(&[], &[]),
            http::Request::new(()),
        ] {
            assert!(matches!(ask(request), Err(Refused::NotAllowed { .. })));
        }
        // A handshake that has not ended, or no certificate.
        let mut request = http::Request::new(());
        request.extensions_mut().insert(PeerInfo::default());
        assert!(ask(request).is_err());
    }

    #[test]
    fn a_good_certificate_does_not_mend_a_wrong_bearer() {
        let with = |bearer: &str| {
            let mut request = by_certificate(&["spiffe://example.org/sa/billing"], &[]);
            let value = bearer.parse().expect("a header value");
            request.headers_mut().insert("authorization", value);
            ask(request)
        };
        assert!(with("Bearer wrong-secret-of-32-characters---").is_err());
        let admitted = with(&format!("Bearer {SECRET}")).expect("both name it");
        assert!(
            !admitted.headers().contains_key("authorization"),
            "the secret goes no further"
        );
    }

    #[test]
    fn what_is_open_is_health_and_what_is_no_rpc_of_ours() {
        let open = GrpcMethod::ALL
            .into_iter()
            .filter(|it| guarded(*it).is_none());
        let open: Vec<_> = open.collect();
        assert_eq!(open, [GrpcMethod::Health, GrpcMethod::Other]);
        for method in GrpcMethod::ALL {
            if let Some(rpc) = guarded(method) {
                assert_eq!(rpc.name(), method.name());
            }
        }
    }
}
