//! `clerkauthz.v1.AuthzService`.

mod exchange;
mod explain;
mod recording;
mod users;
mod watch;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use self::recording::{Asked, log_decision};
use super::{
    MAX_REQUEST_BYTES, callers,
    convert::{self, Circumstances},
    limits,
    proto::{
        self,
        authz_service_server::{AuthzService, AuthzServiceServer},
        check_org_permission_request::Subject,
    },
    request_id::{self, RequestId, identified},
    stats::{CallOutcome, CallStats, Rpc},
    status::{self, Violation},
};
use crate::{
    authz::{
        CannotTell, Checker, Exchanger, Instances, Lookups, OrgAnswer, Question, Verdict, Verifier,
    },
    callers::{Callers, KnownCaller},
    door::decision_log::{DecisionLog, Ruling},
    explain::Steps,
    identity::Timestamp,
    keys::Clock,
    reason::Reason,
    sync::{UserSync, Watches},
    trace::{self, SpanKind},
};

/// The most requests in a batch.
const MAX_BATCH: usize = 1_000;
/// Questions of a batch about organizations that are worked on at once: each may wait for Clerk.
const BATCH_WIDTH: usize = 64;

/// What is asked, under which name, and by whom where there are rules for callers.
type Asking<'a> = (Rpc, &'a RequestId, Option<&'a KnownCaller>);

/// Answers the RPCs of `AuthzService`.
#[derive(Clone)]
pub struct AuthzDoor {
    checker: Arc<Checker>,
    /// Where there is a database.
    users: Option<UserSync>,
    /// Likewise.
    watches: Option<Arc<Watches>>,
    clock: Clock,
    calls: Arc<CallStats>,
    decisions: DecisionLog,
    callers: Option<Arc<Callers>>,
    /// Where there is a database.
    exchanger: Option<Arc<Exchanger>>,
}

impl AuthzDoor {
    /// Asks `checker`, and of users `users` and `watches`, by `clock`, and records in
    /// `decisions`.
    pub fn new(
        checker: Arc<Checker>,
        users: Option<UserSync>,
        watches: Option<Arc<Watches>>,
        clock: Clock,
        decisions: DecisionLog,
    ) -> Self {
        Self {
            checker,
            users,
            watches,
            clock,
            calls: Arc::default(),
            decisions,
            callers: None,
            exchanger: None,
        }
    }

    /// Under rules for who may call what; they hold for the whole port.
    pub fn with_callers(self, callers: Arc<Callers>) -> Self {
        Self {
            callers: Some(callers),
            ..self
        }
    }

    /// With what exchanges assertions.
    pub fn with_exchanger(self, exchanger: Arc<Exchanger>) -> Self {
        Self {
            exchanger: Some(exchanger),
            ..self
        }
    }

    pub(super) fn callers(&self) -> Option<Arc<Callers>> {
        self.callers.clone()
    }

    /// The counters.
    pub fn calls(&self) -> Arc<CallStats> {
        Arc::clone(&self.calls)
    }

    pub(super) fn into_service(self) -> AuthzServiceServer<Self> {
        AuthzServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Whom a call comes from, where there are rules for callers.
    fn caller<T>(&self, request: &Request<T>) -> Option<KnownCaller> {
        self.callers.as_ref()?;
        callers::of(request)
    }

    fn verifier(&self) -> &Verifier {
        self.checker.verifier()
    }

    /// The one way to a verification, for single calls and batches.
    async fn verify(
        &self,
        asked: Asked<'_>,
        request: &proto::VerifySessionRequest,
        patience: Duration,
        now: Timestamp,
    ) -> Result<proto::VerifySessionResponse, Status> {
        let rpc = asked.rpc;
        let question = match convert::question(request, patience, "") {
            Ok(question) => question,
            Err(violations) => return Err(self.invalid(rpc, violations)),
        };
        self.known_instance(rpc, &question, "")?;
        let mut steps = Steps::off();
        let verifier = self.verifier();
        let verifying = verifier.verify_session(&question, now, &mut steps);
        match trace::within("verify_session", SpanKind::Internal, verifying).await {
            Ok(Verdict::Accepted(verified)) => {
                self.calls.count(rpc, CallOutcome::Accepted);
                self.accepted(asked, &verified);
                Ok(convert::accepted(convert::session(&verified.session)))
            }
            Ok(Verdict::Machine(verified)) => {
                self.calls.count(rpc, CallOutcome::Accepted);
                self.accepted_machine(asked, &verified);
                Ok(convert::accepted_machine(convert::machine(
                    &verified.machine,
                )))
            }
            Ok(Verdict::Denied(reason)) => Err(self.token_denied(asked, reason)),
            Err(cannot_tell) => Err(self.cannot_tell(asked, cannot_tell)),
        }
    }

    /// Refuses a question that names an instance which is not there; `path` is where it stands.
    fn known_instance(&self, rpc: Rpc, question: &Question<'_>, path: &str) -> Result<(), Status> {
        if question.instance.is_empty() {
            return Ok(());
        }
        match convert::instance(question.instance, &self.verifier().instances()) {
            Ok(_) => Ok(()),
            Err(description) => {
                let violation = Violation::new(format!("{path}instance"), description);
                Err(self.invalid(rpc, vec![violation]))
            }
        }
    }

    /// The one way to a decision about an organization, for single calls and batches.
    async fn check(
        &self,
        (rpc, id, caller): Asking<'_>,
        request: &proto::CheckOrgPermissionRequest,
        circumstances: Circumstances<'_>,
    ) -> Result<proto::CheckOrgPermissionResponse, Status> {
        let now = (self.clock)();
        let asked = self.asked(rpc, id, caller, || now);
        self.may_ask(rpc, caller, request)?;
        let question = match convert::org_question(request, circumstances, "") {
            Ok(question) => question,
            Err(violations) => return Err(self.invalid(rpc, violations)),
        };
        let asked = asked.about(&question);
        let mut steps = Steps::off();
        let checker = &self.checker;
        let checking = checker.check_org_permission(&question, now, &mut steps);
        match trace::within("check_org_permission", SpanKind::Internal, checking).await {
            Ok(OrgAnswer::Decided(decision)) => {
                self.calls.count(rpc, CallOutcome::Decided(decision.reason));
                let decision_id = request_id::new_decision_id();
                log_decision(rpc, id, &decision, &decision_id);
                self.decided(asked, &decision, &decision_id);
                Ok(convert::decision(&decision, decision_id))
            }
            Ok(OrgAnswer::TokenDenied(reason)) => Err(self.token_denied(asked, reason)),
            Ok(OrgAnswer::OrganizationNotFound) => {
                Err(self.token_denied(asked, Reason::OrganizationNotFound))
            }
            Err(cannot_tell) => Err(self.cannot_tell(asked, cannot_tell)),
        }
    }

    /// Whether its caller may ask this about this subject.
    fn may_ask(
        &self,
        rpc: Rpc,
        caller: Option<&KnownCaller>,
        request: &proto::CheckOrgPermissionRequest,
    ) -> Result<(), Status> {
        match &request.subject {
            // A token is its own permission to ask.
            None | Some(Subject::Token(_) | Subject::Http(_)) => Ok(()),
            Some(Subject::UserId(_)) => callers::may_ask_about_anybody(caller, rpc.name())
                .inspect_err(|_| self.count_refused_caller(rpc)),
        }
    }

    /// Whether its caller may ask what would come of an assertion.
    fn may_exchange(&self, rpc: Rpc, caller: Option<&KnownCaller>) -> Result<(), Status> {
        callers::may_exchange(caller, rpc.name()).inspect_err(|_| self.count_refused_caller(rpc))
    }

    fn count_refused_caller(&self, rpc: Rpc) {
        let outcome = CallOutcome::Decided(Reason::CallerNotAllowed);
        self.calls.count(rpc, outcome);
    }

    fn invalid(&self, rpc: Rpc, violations: Vec<Violation>) -> Status {
        self.calls.count(rpc, CallOutcome::InvalidRequest);
        status::invalid(violations)
    }

    fn token_denied(&self, asked: Asked<'_>, reason: Reason) -> Status {
        let Asked { rpc, id, .. } = asked;
        self.calls.count(rpc, CallOutcome::Decided(reason));
        info!(rpc = rpc.name(), request_id = ?id, reason = reason.name(), "denied");
        self.refused(asked, Ruling::Denied, reason);
        status::denied(reason)
    }

    fn cannot_tell(&self, asked: Asked<'_>, cannot_tell: CannotTell) -> Status {
        self.untold(asked, cannot_tell);
        status::cannot_tell(cannot_tell)
    }

    /// Counts, logs and records that it cannot be told.
    fn untold(&self, asked: Asked<'_>, cannot_tell: CannotTell) {
        let Asked { rpc, id, .. } = asked;
        let reason = cannot_tell.reason();
        self.calls.count(rpc, CallOutcome::Decided(reason));
        warn!(
            rpc = rpc.name(),
            request_id = ?id,
            reason = reason.name(),
            retry_after = ?cannot_tell.retry_after(),
            "cannot tell: {}",
            match cannot_tell {
                CannotTell::KeysUnavailable { .. } =>
                    "see whether the instance's JWKS can be reached",
                CannotTell::ClerkUnavailable { .. } =>
                    "see whether Clerk's API can be reached, and whether a secret key is configured",
                CannotTell::ClerkRateLimited { .. } =>
                    "see CLERK_AUTHZ_API_BUDGET and what else uses the secret key",
                CannotTell::StoreUnavailable { .. } =>
                    "see whether the database of CLERK_AUTHZ_DATABASE_URL can be reached",
                CannotTell::Overloaded { .. } =>
                    "too many questions wait for Clerk; see how slow it is",
            }
        );
        self.refused(asked, Ruling::CannotTell, reason);
    }

    /// The number of requests in a batch, if it is one that is worked on. By its caller's rate it is
    /// as many calls.
    fn batch_size(
        &self,
        rpc: Rpc,
        count: usize,
        caller: Option<&KnownCaller>,
    ) -> Result<usize, Status> {
        if (1..=MAX_BATCH).contains(&count) {
            if let (Some(callers), Some(caller)) = (&self.callers, caller) {
                callers.charge_batch(caller, count, Instant::now().into_std());
            }
            return Ok(count);
        }
        let description = format!("{count} requests; expected 1 to {MAX_BATCH}");
        Err(self.invalid(rpc, vec![Violation::new("requests", description)]))
    }
}

fn circumstances<'a, T>(
    request: &Request<T>,
    instances: &'a Instances,
    lookups: Option<&'a Lookups>,
) -> Circumstances<'a> {
    Circumstances {
        instances,
        patience: limits::patience(request.metadata().as_ref()),
        lookups,
    }
}

#[tonic::async_trait]
impl AuthzService for AuthzDoor {
    type WatchUsersStream = watch::Messages;

    async fn watch_users(
        &self,
        request: Request<proto::WatchUsersRequest>,
    ) -> Result<Response<Self::WatchUsersStream>, Status> {
        let (id, caller) = (request_id::of(&request), self.caller(&request));
        let answer = self.watch(&id, caller, &request.into_inner()).await;
        identified(id, answer)
    }

    async fn verify_session(
        &self,
        request: Request<proto::VerifySessionRequest>,
    ) -> Result<Response<proto::VerifySessionResponse>, Status> {
        let id = request_id::of(&request);
        let patience = limits::patience(request.metadata().as_ref());
        let caller = self.caller(&request);
        let now = (self.clock)();
        let asked = self.asked(Rpc::VerifySession, &id, caller.as_ref(), || now);
        let request = request.into_inner();
        let answer = self.verify(asked, &request, patience, now).await;
        identified(id, answer)
    }

    async fn batch_verify_session(
        &self,
        request: Request<proto::BatchVerifySessionRequest>,
    ) -> Result<Response<proto::BatchVerifySessionResponse>, Status> {
        const RPC: Rpc = Rpc::BatchVerifySession;
        let id = request_id::of(&request);
        let (patience, caller) = (
            limits::patience(request.metadata().as_ref()),
            self.caller(&request),
        );
        let requests = request.into_inner().requests;
        let answer = async {
            let count = self.batch_size(RPC, requests.len(), caller.as_ref())?;
            let mut results = Vec::with_capacity(count);
            // A batch is asked at one moment.
            let now = (self.clock)();
            for request in &requests {
                let asked = self.asked(RPC, &id, caller.as_ref(), || (self.clock)());
                let result = self.verify(asked, request, patience, now).await;
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

    async fn check_org_permission(
        &self,
        request: Request<proto::CheckOrgPermissionRequest>,
    ) -> Result<Response<proto::CheckOrgPermissionResponse>, Status> {
        let id = request_id::of(&request);
        let instances = self.verifier().instances();
        let circumstances = circumstances(&request, &instances, None);
        let caller = self.caller(&request);
        let asking = (Rpc::CheckOrgPermission, &id, caller.as_ref());
        let request = request.into_inner();
        let answer = self.check(asking, &request, circumstances).await;
        identified(id, answer)
    }

    async fn batch_check_org_permission(
        &self,
        request: Request<proto::BatchCheckOrgPermissionRequest>,
    ) -> Result<Response<proto::BatchCheckOrgPermissionResponse>, Status> {
        const RPC: Rpc = Rpc::BatchCheckOrgPermission;
        let id = request_id::of(&request);
        let (instances, lookups) = (self.verifier().instances(), Lookups::default());
        let circumstances = circumstances(&request, &instances, Some(&lookups));
        let caller = self.caller(&request);
        let asking = (RPC, &id, caller.as_ref());
        let requests = request.into_inner().requests;
        let answer = async {
            let count = self.batch_size(RPC, requests.len(), caller.as_ref())?;
            let mut results = Vec::with_capacity(count);
            let (mut rest, mut waiting) = (requests.iter(), FuturesOrdered::new());
            while results.len() < count {
                let free = BATCH_WIDTH - waiting.len();
                for request in rest.by_ref().take(free) {
                    waiting.push_back(self.check(asking, request, circumstances));
                }
                if let Some(result) = waiting.next().await {
                    results.push(convert::batch_check_result(
                        result.map_err(|s| status::as_message(&s)),
                    ));
                }
                tokio::task::coop::consume_budget().await;
            }
            Ok(proto::BatchCheckOrgPermissionResponse { results })
        };
        let answer = answer.await;
        identified(id, answer)
    }

    async fn sync_user(
        &self,
        request: Request<proto::SyncUserRequest>,
    ) -> Result<Response<proto::SyncUserResponse>, Status> {
        let id = request_id::of(&request);
        let patience = limits::patience(request.metadata().as_ref());
        let caller = self.caller(&request);
        let asking = (Rpc::SyncUser, &id, caller.as_ref());
        let answer = self.sync(asking, &request.into_inner(), patience).await;
        identified(id, answer)
    }

    async fn get_user(
        &self,
        request: Request<proto::GetUserRequest>,
    ) -> Result<Response<proto::GetUserResponse>, Status> {
        let id = request_id::of(&request);
        let answer = self.get(&id, &request.into_inner()).await;
        identified(id, answer)
    }

    async fn exchange_assertion(
        &self,
        request: Request<proto::ExchangeAssertionRequest>,
    ) -> Result<Response<proto::ExchangeAssertionResponse>, Status> {
        let id = request_id::of(&request);
        let patience = limits::patience(request.metadata().as_ref());
        let caller = self.caller(&request);
        let asking = (Rpc::ExchangeAssertion, &id, caller.as_ref());
        let answer = self.exchange(asking, &request.into_inner(), patience).await;
        identified(id, answer)
    }

    async fn explain_decision(
        &self,
        request: Request<proto::ExplainDecisionRequest>,
    ) -> Result<Response<proto::ExplainDecisionResponse>, Status> {
        let id = request_id::of(&request);
        let instances = self.verifier().instances();
        let circumstances = circumstances(&request, &instances, None);
        let caller = self.caller(&request);
        let asking = (Rpc::ExplainDecision, &id, caller.as_ref());
        let answer = self
            .explain(asking, &request.into_inner(), circumstances)
            .await;
        identified(id, answer)
    }
}
