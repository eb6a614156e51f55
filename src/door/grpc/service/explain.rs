//! `ExplainDecision`: the same ways to an answer, with every rule written down.

use std::time::Duration;

use tonic::Status;
use tracing::debug;

use super::{Asking, AuthzDoor, recording::log_decision};
use crate::{
    authz::{CannotTell, ExchangeAnswer, OrgAnswer, Verdict},
    door::grpc::{
        convert::{self, Circumstances},
        proto::{self, explain_decision_request::Decision as Asked},
        request_id::{self, RequestId},
        stats::{CallOutcome, Rpc},
        status::Violation,
    },
    explain::{Rule, Steps},
    identity::UserId,
    reason::Reason,
};

const RPC: Rpc = Rpc::ExplainDecision;

/// What was decided, before the steps are added.
struct Explained {
    outcome: proto::DecisionOutcome,
    reason: Option<Reason>,
    session: Option<proto::Session>,
    machine: Option<proto::Machine>,
    check: Option<proto::CheckOrgPermissionResponse>,
    /// Whom an assertion means.
    user_id: Option<UserId>,
}

impl Explained {
    fn denied(reason: Reason) -> Self {
        Self {
            outcome: proto::DecisionOutcome::Denied,
            reason: Some(reason),
            session: None,
            machine: None,
            check: None,
            user_id: None,
        }
    }

    fn cannot_tell(cannot_tell: CannotTell) -> Self {
        Self {
            outcome: proto::DecisionOutcome::CannotTell,
            ..Self::denied(cannot_tell.reason())
        }
    }
}

impl AuthzDoor {
    pub(super) async fn explain(
        &self,
        (_, id, caller): Asking<'_>,
        request: &proto::ExplainDecisionRequest,
        circumstances: Circumstances<'_>,
    ) -> Result<proto::ExplainDecisionResponse, Status> {
        let (explained, steps) = match &request.decision {
            Some(Asked::VerifySession(asked)) => {
                self.explain_verification(asked, circumstances.patience)
                    .await?
            }
            Some(Asked::CheckOrgPermission(asked)) => {
                self.may_ask(RPC, caller, asked)?;
                self.explain_check(id, asked, circumstances).await?
            }
            Some(Asked::ExchangeAssertion(asked)) => {
                self.may_exchange(RPC, caller)?;
                self.explain_exchange(id, asked, circumstances.patience)
                    .await?
            }
            None => {
                let description =
                    "is not set; set verify_session, check_org_permission or exchange_assertion";
                return Err(self.invalid(RPC, vec![Violation::new("decision", description)]));
            }
        };
        let Explained {
            outcome,
            reason,
            session,
            machine,
            check,
            user_id,
        } = explained;
        let counted = reason.map_or(CallOutcome::Accepted, CallOutcome::Decided);
        self.calls.count(RPC, counted);
        debug!(rpc = RPC.name(), outcome = counted.name(), "explained");
        Ok(proto::ExplainDecisionResponse {
            outcome: outcome.into(),
            reason: reason
                .map_or(proto::Reason::Unspecified, convert::reason)
                .into(),
            session,
            machine,
            steps: steps.finish().into_iter().map(convert::step).collect(),
            check_org_permission: check,
            user_id: user_id.map(|id| id.to_string()).unwrap_or_default(),
        })
    }

    async fn explain_verification(
        &self,
        asked: &proto::VerifySessionRequest,
        patience: Duration,
    ) -> Result<(Explained, Steps), Status> {
        let question = convert::question(asked, patience, "verify_session.")
            .map_err(|violations| self.invalid(RPC, violations))?;
        self.known_instance(RPC, &question, "verify_session.")?;
        let mut steps = Steps::on(Rule::OF_VERIFICATION);
        let answer = self
            .verifier()
            .verify_session(&question, (self.clock)(), &mut steps)
            .await;
        let explained = match answer {
            Ok(Verdict::Accepted(verified)) => Explained {
                outcome: proto::DecisionOutcome::Accepted,
                reason: None,
                session: Some(convert::session(&verified.session)),
                machine: None,
                check: None,
                user_id: None,
            },
            Ok(Verdict::Machine(verified)) => Explained {
                outcome: proto::DecisionOutcome::Accepted,
                reason: None,
                session: None,
                machine: Some(convert::machine(&verified.machine)),
                check: None,
                user_id: None,
            },
            Ok(Verdict::Denied(reason)) => Explained::denied(reason),
            Err(cannot_tell) => Explained::cannot_tell(cannot_tell),
        };
        Ok((explained, steps))
    }

    async fn explain_check(
        &self,
        id: &RequestId,
        asked: &proto::CheckOrgPermissionRequest,
        circumstances: Circumstances<'_>,
    ) -> Result<(Explained, Steps), Status> {
        let question = convert::org_question(asked, circumstances, "check_org_permission.")
            .map_err(|violations| self.invalid(RPC, violations))?;
        let mut steps = Steps::on(Rule::OF_CHECK);
        let answer = self
            .checker
            .check_org_permission(&question, (self.clock)(), &mut steps)
            .await;
        let explained = match answer {
            Ok(OrgAnswer::Decided(decision)) => {
                let decision_id = request_id::new_decision_id();
                log_decision(RPC, id, &decision, &decision_id);
                Explained {
                    outcome: if decision.is_allowed() {
                        proto::DecisionOutcome::Accepted
                    } else {
                        proto::DecisionOutcome::Denied
                    },
                    reason: Some(decision.reason),
                    session: None,
                    machine: None,
                    check: Some(convert::decision(&decision, decision_id)),
                    user_id: None,
                }
            }
            Ok(OrgAnswer::TokenDenied(reason)) => Explained::denied(reason),
            Ok(OrgAnswer::OrganizationNotFound) => Explained::denied(Reason::OrganizationNotFound),
            Err(cannot_tell) => Explained::cannot_tell(cannot_tell),
        };
        Ok((explained, steps))
    }

    async fn explain_exchange(
        &self,
        id: &RequestId,
        asked: &proto::ExchangeAssertionRequest,
        patience: Duration,
    ) -> Result<(Explained, Steps), Status> {
        let wanted = self.wanted(RPC, asked, "exchange_assertion.")?;
        let exchanger = self.exchanger(RPC, id)?;
        let mut steps = Steps::on(Rule::OF_EXCHANGE);
        let exchange = wanted.exchange(asked, patience);
        let answer = exchanger
            .exchange(&exchange, (self.clock)(), &mut steps)
            .await;
        let accepted = |user_id| Explained {
            outcome: proto::DecisionOutcome::Accepted,
            reason: None,
            session: None,
            machine: None,
            check: None,
            user_id,
        };
        let explained = match answer {
            Ok(ExchangeAnswer::Would { user_id }) => accepted(user_id),
            Ok(ExchangeAnswer::Ticket(ticket)) => accepted(Some(ticket.user_id)),
            Ok(ExchangeAnswer::Denied {
                denial, user_id, ..
            }) => Explained {
                user_id,
                ..Explained::denied(denial.reason)
            },
            Err(no_answer) => Explained::cannot_tell(no_answer.cannot_tell),
        };
        Ok((explained, steps))
    }
}
