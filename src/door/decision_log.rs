//! What was decided: a line in the service's log, and a record in the decision log, which is for
//! machines and has its own place, form (docs/decision-log.schema.json) and sampling.
//!
//! Neither has anything of a credential, nor of a request's path, query or headers.

mod record;

use std::{fmt, fmt::Debug, sync::Arc, time::Instant};

use tracing::{debug, info, warn};

use self::record::Made;
pub(super) use self::record::{OrganizationName, Record, Ruling};
use super::grpc::{DecisionId, Rpc};
use crate::{
    authz::{Authorization, Bearer, Identity, Outcome, Person},
    identity::Timestamp,
    trace,
};

/// Has a line, with its end, written behind those that stand there; must not wait.
pub type WriteLine = Arc<dyn Fn(&mut dyn FnMut(&mut Vec<u8>)) + Send + Sync>;

/// Where decisions are recorded, if anywhere. Cheap to clone.
#[derive(Clone)]
pub struct DecisionLog(Option<Arc<On>>);

struct On {
    write: WriteLine,
    /// Of what was allowed this part is recorded, from 0 to 1; of everything else all.
    sample: f64,
}

/// When the work on a question began, by a clock that is never set and by the time of day; nothing
/// where nobody wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Began(Option<(Instant, Timestamp)>);

impl DecisionLog {
    /// Records nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Gives records to `write`: of what is allowed the part `sample`, from 0 to 1, by chance, and of
    /// everything else all.
    pub fn new(write: WriteLine, sample: f64) -> Self {
        Self(Some(Arc::new(On { write, sample })))
    }

    /// The work on a question begins now, which `now` says by the time of day where it is asked.
    pub(super) fn begin(&self, now: impl FnOnce() -> Timestamp) -> Began {
        Began(self.0.as_ref().map(|_| (Instant::now(), now())))
    }

    /// Records what was decided; in the trace, too, where there is one.
    pub(super) fn record(&self, began: Began, record: &Record<'_>) {
        if trace::is_followed() {
            record.note();
        }
        let (Some(on), Began(Some((began, began_at)))) = (&self.0, began) else {
            return;
        };
        let sample_rate = match record.ruling {
            Ruling::Allowed => on.sample,
            Ruling::Denied | Ruling::CannotTell => 1.0,
        };
        if sample_rate < 1.0 && fastrand::f64() >= sample_rate {
            return;
        }
        let latency = began.elapsed();
        let new_id;
        let decision_id = match record.decision_id {
            Some(id) => id,
            None => {
                new_id = DecisionId::new();
                new_id.as_str()
            }
        };
        let trace_id = trace::id();
        let made = Made {
            trace_id: trace_id.as_deref(),
            time: began_at.plus(latency),
            decision_id,
            latency,
            sample_rate,
        };
        record.write(&made, &on.write);
    }
}

impl Debug for DecisionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sample = self.0.as_ref().map(|on| on.sample);
        f.debug_struct("DecisionLog")
            .field("sample", &sample)
            .finish()
    }
}

/// A decision about a proxied request. In the log a denial is found by its id at `info`, an allow at
/// `debug`.
pub(super) fn log(
    decisions: &DecisionLog,
    began: Began,
    rpc: Rpc,
    request_id: (&dyn Debug, Option<&str>),
    caller: Option<&str>,
    authorization: &Authorization,
    decision_id: &str,
) {
    let Authorization {
        reason,
        route,
        policy_version,
        outcome,
        upstream: _,
        refused,
        browser,
    } = authorization;
    let (id, rpc_name, reason_name) = (request_id.0, rpc.name(), reason.name());
    let route = route.as_deref();
    let (ruling, identity) = match outcome {
        Outcome::Allowed { identity } => {
            debug!(rpc = rpc_name, request_id = ?id, decision_id, reason = reason_name, route, policy_version, "allowed");
            (Ruling::Allowed, identity.as_ref())
        }
        Outcome::Unauthenticated { .. } | Outcome::Forbidden { .. } => {
            info!(rpc = rpc_name, request_id = ?id, decision_id, reason = reason_name, route, policy_version, "denied");
            (Ruling::Denied, None)
        }
        Outcome::Unavailable { retry_after } => {
            warn!(
                rpc = rpc_name, request_id = ?id, decision_id, reason = reason_name, route, policy_version,
                ?retry_after, "cannot tell"
            );
            (Ruling::CannotTell, None)
        }
    };
    let bearer = identity.map(Identity::bearer);
    let bearer = bearer.or_else(|| Some(refused.as_ref()?.bearer.clone()));
    let person = identity.and_then(Identity::person);
    let bound = refused.as_ref().and_then(|it| it.organization.as_ref());
    let decision = person.and_then(|person| person.decision.as_ref());
    let mut record = Record {
        request_id: request_id.1,
        caller,
        decision_id: Some(decision_id),
        route,
        policy_version: Some(policy_version),
        organization: person
            .and_then(Person::organization_id)
            .map(Into::into)
            .or(bound.map(Into::into)),
        source: decision.and_then(|decision| decision.source),
        handshake: browser.as_ref().map(|browser| browser.handshake.name()),
        ..Record::new(rpc, ruling, *reason)
    };
    match &bearer {
        None => {}
        Some(Bearer::Session(verified)) => record.add(verified),
        Some(Bearer::Machine(verified)) => record.add_machine(verified),
    }
    decisions.record(began, &record);
}
