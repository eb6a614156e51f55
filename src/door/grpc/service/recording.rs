//! What was decided, for the log and the decision log.

use tracing::{debug, info};

use super::AuthzDoor;
use crate::{
    authz::{Decision, Instance, OrgQuestion, Subject, Verified, VerifiedMachine},
    callers::KnownCaller,
    door::{
        decision_log::{Began, OrganizationName, Record, Ruling},
        grpc::{request_id::RequestId, stats::Rpc},
    },
    identity::{OrganizationId, Timestamp, UserId},
    reason::Reason,
};

/// A question that is worked on.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) rpc: Rpc,
    pub(super) id: &'a RequestId,
    began: Began,
    /// Who asks, where there are rules for callers.
    caller: Option<&'a KnownCaller>,
    /// The user who was named, and of which instance.
    user: Option<(&'a Instance, &'a UserId)>,
    /// The organization that was named.
    organization: Option<OrganizationName<'a>>,
    /// The instance, where it is named without a user.
    instance: Option<&'a Instance>,
    /// The identity provider that vouches for the user; only one that is configured.
    provider: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// With whom and what a question names.
    pub(super) fn about(self, question: &'a OrgQuestion<'_>) -> Self {
        Self {
            user: match &question.subject {
                Subject::User(instance, user) => Some((instance, user)),
                Subject::Credential(_) | Subject::Session(_) => None,
            },
            organization: question.organization.as_ref().map(Into::into),
            ..self
        }
    }

    /// In which instance, for whom where that is known, and in which organization.
    pub(super) fn in_instance(
        self,
        instance: &'a Instance,
        user: Option<&'a UserId>,
        organization: Option<&'a OrganizationId>,
    ) -> Self {
        Self {
            user: user.map(|user| (instance, user)),
            organization: organization.map(Into::into),
            instance: Some(instance),
            ..self
        }
    }

    /// By which identity provider.
    pub(super) fn by_provider(self, provider: Option<&'a str>) -> Self {
        Self { provider, ..self }
    }

    fn record(&self, ruling: Ruling, reason: Reason) -> Record<'a> {
        Record {
            request_id: self.id.known(),
            caller: self.caller.map(KnownCaller::name),
            instance: self
                .user
                .map(|(instance, _)| instance)
                .or(self.instance)
                .map(|instance| &instance.name),
            user_id: self.user.map(|(_, user)| user),
            organization: self.organization,
            provider: self.provider,
            ..Record::new(self.rpc, ruling, reason)
        }
    }
}

impl AuthzDoor {
    /// The work on a question begins now, which `now` says by the time of day where it is asked.
    pub(super) fn asked<'a>(
        &self,
        rpc: Rpc,
        id: &'a RequestId,
        caller: Option<&'a KnownCaller>,
        now: impl FnOnce() -> Timestamp,
    ) -> Asked<'a> {
        let began = self.decisions.begin(now);
        Asked {
            rpc,
            id,
            began,
            caller,
            user: None,
            organization: None,
            instance: None,
            provider: None,
        }
    }

    /// Records that a ticket was made.
    pub(super) fn exchanged(&self, asked: Asked<'_>) {
        let record = asked.record(Ruling::Allowed, Reason::Allowed);
        self.decisions.record(asked.began, &record);
    }

    /// Records that a token is good.
    pub(super) fn accepted(&self, asked: Asked<'_>, verified: &Verified) {
        let active = verified.session.organization.as_ref();
        let mut record = asked.record(Ruling::Allowed, Reason::Allowed);
        record.add(verified);
        record.organization = active.map(|organization| (&organization.id).into());
        self.decisions.record(asked.began, &record);
    }

    /// Records that a token is good that is of no session.
    pub(super) fn accepted_machine(&self, asked: Asked<'_>, verified: &VerifiedMachine) {
        let mut record = asked.record(Ruling::Allowed, Reason::Allowed);
        record.add_machine(verified);
        self.decisions.record(asked.began, &record);
    }

    /// Records what was decided about an organization.
    pub(super) fn decided(&self, asked: Asked<'_>, decision: &Decision, decision_id: &str) {
        let ruling = match decision.is_allowed() {
            true => Ruling::Allowed,
            false => Ruling::Denied,
        };
        let active = || decision.organization_id().map(Into::into);
        let mut record = asked.record(ruling, decision.reason);
        if let Some(verified) = decision.verified() {
            record.add(verified);
        }
        record.decision_id = Some(decision_id);
        record.source = decision.source;
        record.organization = asked.organization.or_else(active);
        self.decisions.record(asked.began, &record);
    }

    /// Records that there was no token to decide about, or no answer.
    pub(super) fn refused(&self, asked: Asked<'_>, ruling: Ruling, reason: Reason) {
        let record = asked.record(ruling, reason);
        self.decisions.record(asked.began, &record);
    }
}

/// A denial is found in the log by its decision's id at `info`, an allow at `debug`.
pub(super) fn log_decision(rpc: Rpc, id: &RequestId, decision: &Decision, decision_id: &str) {
    let (rpc, reason) = (rpc.name(), decision.reason.name());
    if decision.is_allowed() {
        debug!(rpc, request_id = ?id, decision_id, reason, "allowed");
    } else {
        info!(rpc, request_id = ?id, decision_id, reason, "denied");
    }
}
