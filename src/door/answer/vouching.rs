//! From what was decided about a request to what is vouched to its upstream.

use std::sync::Arc;

use crate::{
    authz::{Authorization, Identity, Outcome, ProxiedRequest},
    identity::{MachineSubject, Timestamp, TokenType},
    policy::{Host, Upstream},
    upstream_assertion::{Assertions, Claims},
};

/// Vouches to upstreams, where there are keys for it.
#[derive(Clone, Debug, Default)]
pub struct Vouching(Option<Arc<Assertions>>);

impl Vouching {
    /// With these keys; without, nothing is vouched for.
    pub const fn with(assertions: Option<Arc<Assertions>>) -> Self {
        Self(assertions)
    }

    /// The assertion that goes with a request: about somebody, to the upstream of its route. Where
    /// nobody is named there is none, so that what vouches for nobody never passes as somebody.
    pub fn assertion(
        &self,
        authorization: &Authorization,
        request: &ProxiedRequest<'_>,
        decision_id: &str,
        now: Timestamp,
    ) -> Option<Arc<str>> {
        let assertions = self.0.as_ref()?;
        let audience = match &authorization.upstream {
            Upstream::Named(name) => name,
            Upstream::Default => assertions.default_audience()?,
            Upstream::None => return None,
        };
        let Outcome::Allowed {
            identity: Some(identity),
        } = &authorization.outcome
        else {
            return None;
        };
        // It was read before: what has none is denied.
        let host = Host::parse(request.authority).ok()?;
        let of_nobody = Claims {
            audience,
            subject: "",
            token_type: "",
            session_id: None,
            actor: None,
            client_id: None,
            organization_id: None,
            organization_role: None,
            method: request.method,
            host: host.as_str(),
        };
        let claims = match identity {
            Identity::Person(person) => {
                let session = &person.verified.session;
                let actor = session.actor.as_deref();
                Claims {
                    subject: session.user_id.as_str(),
                    token_type: TokenType::Session.name(),
                    session_id: Some(session.session_id.as_str()),
                    actor: actor.map(|actor| &*actor.subject),
                    organization_id: person.organization_id().map(|id| id.as_str()),
                    organization_role: person.role(),
                    ..of_nobody
                }
            }
            Identity::Machine(verified) => {
                let machine = &verified.machine;
                let subject = machine.subject.as_str();
                Claims {
                    subject,
                    token_type: TokenType::Machine(machine.machine_type).name(),
                    client_id: machine.client_id.as_deref(),
                    organization_id: match machine.subject {
                        MachineSubject::Organization(_) => Some(subject),
                        MachineSubject::User(_) | MachineSubject::Machine(_) => None,
                    },
                    ..of_nobody
                }
            }
        };
        assertions.assertion(&claims, decision_id, now)
    }
}
