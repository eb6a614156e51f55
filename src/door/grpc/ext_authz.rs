//! `envoy.service.auth.v3.Authorization`: Envoy, and what is built of it, asks whether a request may
//! go on.
//!
//! It translates; the route policy and `authz` decide.

mod codec;
mod request;
mod response;
mod yes;

use std::{
    cell::OnceCell,
    convert::Infallible,
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
};
use tower::Service;
use tracing::warn;

use self::{
    codec::{CheckCodec, Encoded, Received},
    request::{CheckRequest, Http},
};
use super::{
    MAX_REQUEST_BYTES, callers, limits,
    request_id::{self, identified},
    stats::{CallOutcome, CallStats, Rpc},
};
use crate::{
    authz::{CookiesOnTheWayBack, Gatekeeper, Headers, ProxiedRequest},
    callers::KnownCaller,
    door::{
        answer::Vouching,
        decision_log::{self, DecisionLog},
    },
    explain::Steps,
    keys::Clock,
    policy::Access,
    trace::{self, Followed, SpanKind},
};

/// Answers `Check`.
#[derive(Clone)]
pub struct ExtAuthzDoor {
    gatekeeper: Arc<Gatekeeper>,
    clock: Clock,
    calls: Arc<CallStats>,
    decisions: DecisionLog,
    vouching: Vouching,
}

impl ExtAuthzDoor {
    /// Asks `gatekeeper` by `clock`, counts in `calls`, records in `decisions`.
    pub fn new(
        gatekeeper: Arc<Gatekeeper>,
        clock: Clock,
        calls: Arc<CallStats>,
        decisions: DecisionLog,
    ) -> Self {
        Self {
            gatekeeper,
            clock,
            calls,
            decisions,
            vouching: Vouching::default(),
        }
    }

    /// Vouches for who sends a request, where its route asks for it.
    pub fn with_vouching(self, vouching: Vouching) -> Self {
        Self { vouching, ..self }
    }

    async fn check(self, request: Request<Received>) -> Result<Response<Encoded>, Status> {
        let now = (self.clock)();
        let began = self.decisions.begin(|| now);
        let id = request_id::of(&request);
        let patience = limits::patience(request.metadata().as_ref());
        let caller = callers::of(&request);
        let Received(message) = request.into_inner();
        let Ok(request) = CheckRequest::read(&message) else {
            return identified(id, Err(Status::internal("this is no CheckRequest")));
        };
        // Without a request nothing is known of it, and no route is about that.
        let nothing = Http::default();
        let http = request.http.as_ref().unwrap_or(&nothing);
        let context = request.context();
        let pairs = context.iter().map(|(key, value)| (&**key, &**value));
        let narrowing = Access::narrowing(pairs).unwrap_or_else(|error| {
            warn!(
                request_id = ?id, %error,
                "context_extensions cannot be read: everybody is denied there; mend them in the \
                 proxy's configuration"
            );
            Some(Access::Denied)
        });
        let proxied = ProxiedRequest {
            method: &http.method(),
            authority: http.host,
            target: http.path,
            is_https: http.is_https(),
            authorization: &http.texts("authorization"),
            cookie: &http.texts("cookie"),
            headers: http,
            narrowing: narrowing.as_ref(),
            patience,
            cookies_on_the_way_back: CookiesOnTheWayBack::Set,
        };
        let mut steps = Steps::off();
        let deciding = self.gatekeeper.authorize(&proxied, now, &mut steps);
        let authorization = trace::within("authorize", SpanKind::Internal, deciding).await;
        let decision_id = request_id::new_decision_id();
        self.calls
            .count(Rpc::Check, CallOutcome::Decided(authorization.reason));
        let logged_id: &dyn Debug = &id;
        decision_log::log(
            &self.decisions,
            began,
            Rpc::Check,
            (logged_id, id.known()),
            caller.as_ref().map(KnownCaller::name),
            &authorization,
            &decision_id,
        );
        let vouching = &self.vouching;
        let assertion = vouching.assertion(&authorization, &proxied, &decision_id, now);
        let assertion = assertion.as_deref();
        let response = response::response(&authorization, assertion, &decision_id, http);
        identified(id, Ok(response))
    }
}

impl NamedService for ExtAuthzDoor {
    const NAME: &'static str = "envoy.service.auth.v3.Authorization";
}

/// As the generated servers do it; theirs would refuse bytes that are no text.
impl Service<http::Request<Body>> for ExtAuthzDoor {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/envoy.service.auth.v3.Authorization/Check" {
            return Box::pin(async { Ok(Status::unimplemented("").into_http()) });
        }
        let check = Check(self.clone());
        Box::pin(async move {
            let mut grpc =
                Grpc::new(CheckCodec).apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
            Ok(grpc.unary(check, request).await)
        })
    }
}

/// The one method.
struct Check(ExtAuthzDoor);

impl Check {
    /// Where Envoy's own call says nothing of a trace, the request that it asks about may.
    fn followed(&self, request: &Request<Received>) -> Option<Followed> {
        if trace::is_followed() || trace::has_parent(request.metadata().as_ref()) {
            return None;
        }
        let name = || "envoy.service.auth.v3.Authorization/Check".into();
        let Received(message) = request.get_ref();
        let read = OnceCell::new();
        trace::begin(name, |name| {
            let read = read.get_or_init(|| CheckRequest::read(message).ok());
            match read.as_ref()?.http.as_ref()?.values(name.as_str())[..] {
                [one] => Some(one),
                _ => None,
            }
        })
    }
}

impl UnaryService<Received> for Check {
    type Response = Encoded;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Encoded>, Status>> + Send>>;

    fn call(&mut self, request: Request<Received>) -> Self::Future {
        let followed = self.followed(&request);
        Box::pin(trace::inside(followed, self.0.clone().check(request)))
    }
}
