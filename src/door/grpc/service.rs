//! `clerkauthz.v1.AuthzService`.

use std::sync::Arc;

use tonic::{Request, Response, Status, metadata::MetadataValue};
use tracing::{debug, info, warn};

use super::{
    MAX_REQUEST_BYTES, convert,
    proto::{
        self,
        authz_service_server::{AuthzService, AuthzServiceServer},
    },
    stats::{CallOutcome, CallStats, Rpc},
    status::{self, Violation},
};
use crate::{
    authz::{CannotTell, Verdict, Verifier},
    explain::Steps,
    keys::Clock,
    reason::Reason,
};

/// The most requests in a batch.
const MAX_BATCH: usize = 1_000;
/// The header that names a request, in and out.
const REQUEST_ID: &str = "x-request-id";
/// The longest request id in bytes that is believed; a longer one is replaced.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Names a request in answers and in logs.
type RequestId = MetadataValue<tonic::metadata::Ascii>;

/// Answers the RPCs of `AuthzService`.
#[derive(Clone)]
pub struct AuthzDoor {
    verifier: Arc<Verifier>,
    clock: Clock,
    calls: Arc<CallStats>,
}

impl AuthzDoor {
    /// Asks `verifier`, by `clock`.
    pub fn new(verifier: Arc<Verifier>, clock: Clock) -> Self {
        Self {
            verifier,
            clock,
            calls: Arc::default(),
        }
    }

    /// The counters.
    pub fn calls(&self) -> Arc<CallStats> {
        Arc::clone(&self.calls)
    }

    pub(super) fn into_service(self) -> AuthzServiceServer<Self> {
        AuthzServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The one way to an answer, for single calls and batches.
    async fn verify(
        &self,
        rpc: Rpc,
        id: &RequestId,
        request: &proto::VerifySessionRequest,
    ) -> Result<proto::VerifySessionResponse, Status> {
        let question = match convert::question(request, "") {
            Ok(question) => question,
            Err(violations) => {
                self.calls.count(rpc, CallOutcome::InvalidRequest);
                return Err(status::invalid(violations));
            }
        };
        match self
            .verifier
            .verify_session(&question, (self.clock)(), &mut Steps::off())
            .await
        {
            Ok(Verdict::Accepted(verified)) => {
                self.calls.count(rpc, CallOutcome::Accepted);
                Ok(convert::accepted(convert::session(&verified.session)))
            }
            Ok(Verdict::Denied(reason)) => {
                self.calls.count(rpc, CallOutcome::Refused(reason));
                log_denial(rpc, id, reason);
                Err(status::denied(reason))
            }
            Err(cannot_tell) => {
                self.calls
                    .count(rpc, CallOutcome::Refused(cannot_tell.reason()));
                log_cannot_tell(rpc, id, cannot_tell);
                Err(status::cannot_tell(cannot_tell))
            }
        }
    }
}

fn log_denial(rpc: Rpc, id: &RequestId, reason: Reason) {
    info!(rpc = rpc.name(), request_id = ?id, reason = reason.name(), "denied");
}

fn log_cannot_tell(rpc: Rpc, id: &RequestId, cannot_tell: CannotTell) {
    warn!(
        rpc = rpc.name(),
        request_id = ?id,
        reason = cannot_tell.reason().name(),
        retry_after = ?cannot_tell.retry_after(),
        "cannot tell: see whether the instance's JWKS can be reached"
    );
}

/// The caller's request id where it has a good one, else a new one.
fn request_id<T>(request: &Request<T>) -> RequestId {
    let given = request.metadata().get(REQUEST_ID);
    match given {
        Some(given)
            if (1..=MAX_REQUEST_ID_BYTES).contains(&given.len())
                && given.as_bytes().iter().all(u8::is_ascii_graphic) =>
        {
            given.clone()
        }
        _ => new_request_id(),
    }
}

fn new_request_id() -> RequestId {
    use std::{
        hash::{BuildHasher, RandomState},
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };
    // Unique in this process by the counter, and among processes by the random start; not a secret.
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id())));
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut text = [0; 16];
    for (position, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (60 - 4 * position)) as usize & 0xf];
    }
    MetadataValue::try_from(&text[..]).unwrap_or_else(|_| MetadataValue::from_static("0"))
}

/// Returns the request's id with its answer.
fn identified<T>(mut id: RequestId, answer: Result<T, Status>) -> Result<Response<T>, Status> {
    // It never comes again: HPACK must not remember it (RFC 7541 §7.1.3 has the same flag).
    id.set_sensitive(true);
    match answer {
        Ok(answer) => {
            let mut response = Response::new(answer);
            response.metadata_mut().insert(REQUEST_ID, id);
            Ok(response)
        }
        Err(mut status) => {
            status.metadata_mut().insert(REQUEST_ID, id);
            Err(status)
        }
    }
}

#[tonic::async_trait]
impl AuthzService for AuthzDoor {
    async fn verify_session(
        &self,
        request: Request<proto::VerifySessionRequest>,
    ) -> Result<Response<proto::VerifySessionResponse>, Status> {
        let id = request_id(&request);
        let answer = self
            .verify(Rpc::VerifySession, &id, &request.into_inner())
            .await;
        identified(id, answer)
    }

    async fn batch_verify_session(
        &self,
        request: Request<proto::BatchVerifySessionRequest>,
    ) -> Result<Response<proto::BatchVerifySessionResponse>, Status> {
        let id = request_id(&request);
        let requests = request.into_inner().requests;
        let answer = async {
            let count = requests.len();
            if !(1..=MAX_BATCH).contains(&count) {
                self.calls
                    .count(Rpc::BatchVerifySession, CallOutcome::InvalidRequest);
                let description = format!("{count} requests; expected 1 to {MAX_BATCH}");
                return Err(status::invalid(vec![Violation::new(
                    "requests",
                    description,
                )]));
            }
            let mut results = Vec::with_capacity(count);
            for request in &requests {
                let result = self.verify(Rpc::BatchVerifySession, &id, request).await;
                results.push(convert::batch_result(
                    result.map_err(|s| status::as_message(&s)),
                ));
                // A thousand signatures take 20 ms: let others have their turn.
                tokio::task::coop::consume_budget().await;
            }
            Ok(proto::BatchVerifySessionResponse { results })
        };
        let answer = answer.await;
        identified(id, answer)
    }

    async fn explain_decision(
        &self,
        request: Request<proto::ExplainDecisionRequest>,
    ) -> Result<Response<proto::ExplainDecisionResponse>, Status> {
        let id = request_id(&request);
        let request = request.into_inner();
        let answer = async {
            let asked = match &request.decision {
                Some(proto::explain_decision_request::Decision::VerifySession(asked)) => {
                    convert::question(asked, "verify_session.")
                }
                None => Err(vec![Violation::new(
                    "decision",
                    "is not set; set verify_session",
                )]),
            };
            let question = asked.map_err(|violations| {
                self.calls
                    .count(Rpc::ExplainDecision, CallOutcome::InvalidRequest);
                status::invalid(violations)
            })?;
            let mut steps = Steps::on();
            let answer = self
                .verifier
                .verify_session(&question, (self.clock)(), &mut steps)
                .await;
            let (outcome, reason, session) = match answer {
                Ok(Verdict::Accepted(verified)) => (
                    proto::DecisionOutcome::Accepted,
                    None,
                    Some(convert::session(&verified.session)),
                ),
                Ok(Verdict::Denied(reason)) => (proto::DecisionOutcome::Denied, Some(reason), None),
                Err(cannot_tell) => (
                    proto::DecisionOutcome::CannotTell,
                    Some(cannot_tell.reason()),
                    None,
                ),
            };
            let counted = reason.map_or(CallOutcome::Accepted, CallOutcome::Refused);
            self.calls.count(Rpc::ExplainDecision, counted);
            debug!(
                rpc = Rpc::ExplainDecision.name(),
                outcome = counted.name(),
                "explained"
            );
            Ok(proto::ExplainDecisionResponse {
                outcome: outcome.into(),
                reason: reason
                    .map_or(proto::Reason::Unspecified, convert::reason)
                    .into(),
                session,
                steps: steps.finish().into_iter().map(convert::step).collect(),
            })
        };
        let answer = answer.await;
        identified(id, answer)
    }
}
