//! A record of the decision log. docs/decision-log.schema.json is its schema, and
//! docs/decision-log.md says what each member is for.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::{
    authz::{Source, Verified, VerifiedMachine},
    door::grpc::Rpc,
    identity::{MachineSubject, Timestamp},
    reason::Reason,
    trace,
};

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::door) enum Ruling {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// Neither.
    CannotTell,
}

/// What is known of a decision; nothing of a credential.
#[derive(Clone, Copy)]
pub(in crate::door) struct Record<'a> {
    pub(in crate::door) rpc: Rpc,
    pub(in crate::door) ruling: Ruling,
    pub(in crate::door) reason: Reason,
    /// That which the answer has; `None` where it has none, and the record gets one.
    pub(in crate::door) decision_id: Option<&'a str>,
    pub(in crate::door) request_id: Option<&'a str>,
    /// The rule's name for who asks.
    pub(in crate::door) caller: Option<&'a str>,
    pub(in crate::door) instance: Option<&'a str>,
    pub(in crate::door) route: Option<&'a str>,
    pub(in crate::door) policy_version: Option<&'a str>,
    pub(in crate::door) user_id: Option<&'a str>,
    pub(in crate::door) session_id: Option<&'a str>,
    pub(in crate::door) actor: Option<&'a str>,
    pub(in crate::door) token_type: Option<&'static str>,
    pub(in crate::door) token_id: Option<&'a str>,
    pub(in crate::door) machine_id: Option<&'a str>,
    pub(in crate::door) client_id: Option<&'a str>,
    pub(in crate::door) organization: Option<&'a str>,
    pub(in crate::door) source: Option<Source>,
}

impl<'a> Record<'a> {
    /// Of which nothing else is known.
    pub(in crate::door) const fn new(rpc: Rpc, ruling: Ruling, reason: Reason) -> Self {
        Self {
            rpc,
            ruling,
            reason,
            decision_id: None,
            request_id: None,
            caller: None,
            instance: None,
            route: None,
            policy_version: None,
            user_id: None,
            session_id: None,
            actor: None,
            token_type: None,
            token_id: None,
            machine_id: None,
            client_id: None,
            organization: None,
            source: None,
        }
    }

    /// About whom a good token speaks. Of a bad one nothing is believed, and nothing recorded.
    pub(in crate::door) fn of(self, verified: Option<&'a Verified>) -> Self {
        let Some(verified) = verified else {
            return self;
        };
        let session = &verified.session;
        Self {
            instance: Some(verified.instance().name.as_str()),
            user_id: Some(session.user_id.as_str()),
            session_id: Some(session.session_id.as_str()),
            actor: session.actor.as_ref().map(|actor| &*actor.subject),
            ..self
        }
    }

    /// The same of a token that is of no session.
    pub(in crate::door) fn of_machine(self, verified: Option<&'a VerifiedMachine>) -> Self {
        let Some(verified) = verified else {
            return self;
        };
        let machine = &*verified.machine;
        let subject = Some(machine.subject.as_str());
        let (mut machine_id, mut user_id, mut organization) = (None, None, self.organization);
        match machine.subject {
            MachineSubject::Machine(_) => machine_id = subject,
            MachineSubject::User(_) => user_id = subject,
            MachineSubject::Organization(_) => organization = subject,
        }
        Self {
            instance: Some(verified.instance().name.as_str()),
            token_type: Some(machine.machine_type.name()),
            token_id: machine.token_id.as_deref(),
            machine_id,
            user_id,
            organization,
            client_id: machine.client_id.as_deref(),
            ..self
        }
    }

    /// Tells the trace that it is a part of, where there is one.
    pub(super) fn note(&self) {
        if !trace::is_followed() {
            return;
        }
        trace::note("clerk_authz.reason", || self.reason.name().into());
        for (name, value) in [
            ("clerk_authz.decision_id", self.decision_id),
            ("clerk_authz.instance", self.instance),
            ("clerk_authz.route", self.route),
        ] {
            if let Some(value) = value {
                trace::note(name, || value.to_owned().into());
            }
        }
    }

    /// As JSON, with its end.
    pub(super) fn line(&self, made: &Made<'_>) -> Vec<u8> {
        let trace_id = trace::id();
        let line = Line {
            time: made.time,
            decision_id: made.decision_id,
            request_id: self.request_id,
            trace_id: trace_id.as_deref(),
            caller: self.caller,
            door: match self.rpc {
                Rpc::Check => "ext_authz",
                Rpc::ForwardAuth => "forward_auth",
                Rpc::VerifySession
                | Rpc::BatchVerifySession
                | Rpc::CheckOrgPermission
                | Rpc::BatchCheckOrgPermission
                | Rpc::SyncUser
                | Rpc::GetUser
                | Rpc::WatchUsers
                | Rpc::ExplainDecision => "grpc",
            },
            rpc: self.rpc.name(),
            outcome: self.ruling,
            reason: self.reason.name(),
            instance: self.instance,
            route: self.route,
            policy_version: self.policy_version,
            user_id: self.user_id,
            session_id: self.session_id,
            actor: self.actor,
            token_type: self.token_type,
            token_id: self.token_id,
            machine_id: self.machine_id,
            client_id: self.client_id,
            organization: self.organization,
            source: self.source.map(Source::name),
            latency_microseconds: u64::try_from(made.latency.as_micros()).unwrap_or(u64::MAX),
            sample_rate: made.sample_rate,
        };
        // Texts and numbers alone: it cannot fail.
        let mut bytes = Vec::with_capacity(LINE_BYTES);
        let _ = serde_json::to_writer(&mut bytes, &line);
        bytes.push(b'\n');
        bytes
    }
}

/// How a record came to be.
pub(super) struct Made<'a> {
    pub(super) time: Timestamp,
    pub(super) decision_id: &'a str,
    pub(super) latency: Duration,
    pub(super) sample_rate: f64,
}

/// About as long as most lines.
const LINE_BYTES: usize = 512;

fn as_text<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

/// What is not known is not there.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "as_text")]
    time: Timestamp,
    decision_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    door: &'static str,
    rpc: &'static str,
    outcome: Ruling,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    latency_microseconds: u64,
    sample_rate: f64,
}
