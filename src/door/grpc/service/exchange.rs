//! `ExchangeAssertion`: a ticket for whom an identity provider vouches for.

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tonic::Status;
use tracing::info;

use super::{Asking, AuthzDoor, recording::Asked};
use crate::{
    authz::{Exchange, ExchangeAnswer, Exchanger, Instance, Ticket},
    door::{
        decision_log::Ruling,
        grpc::{
            convert, proto,
            request_id::RequestId,
            stats::{CallOutcome, Rpc},
            status::{self, Violation},
        },
    },
    explain::Steps,
    identity::{InvalidId, OrganizationId},
    reason::Reason,
    trace::{self, SpanKind},
};

/// Records an exchange that ends without an answer: whoever asked has hung up, or its time is over, and
/// a user or a ticket may have been made.
struct Unanswered<'a> {
    door: &'a AuthzDoor,
    asked: Option<Asked<'a>>,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.asked = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked {
            let reason = Reason::ClerkUnavailable;
            self.door.refused(asked, Ruling::CannotTell, reason);
        }
    }
}

/// What of a request has become a type.
pub(super) struct Wanted {
    instance: Arc<Instance>,
    organization: Option<OrganizationId>,
}

impl Wanted {
    pub(super) fn exchange<'a>(
        &'a self,
        request: &'a proto::ExchangeAssertionRequest,
        patience: Duration,
    ) -> Exchange<'a> {
        Exchange {
            instance: &self.instance,
            provider: &request.provider,
            assertion: &request.assertion,
            nonce: &request.nonce,
            organization: self.organization.as_ref(),
            patience,
        }
    }
}

impl AuthzDoor {
    pub(super) async fn exchange(
        &self,
        (rpc, id, caller): Asking<'_>,
        request: &proto::ExchangeAssertionRequest,
        patience: Duration,
    ) -> Result<proto::ExchangeAssertionResponse, Status> {
        let now = (self.clock)();
        let asked = self.asked(rpc, id, caller, || now);
        let wanted = self.wanted(rpc, request, "")?;
        let exchanger = self.exchanger(rpc, id)?;
        let exchange = wanted.exchange(request, patience);
        let organization = wanted.organization.as_ref();
        let provider = wanted.instance.provider(&request.provider);
        let provider = provider.map(|provider| provider.rules.name.as_str());
        let asked = asked
            .in_instance(&wanted.instance, None, organization)
            .by_provider(provider);
        let unanswered = Unanswered {
            door: self,
            asked: Some(asked),
        };
        let mut steps = Steps::off();
        let exchanging = exchanger.exchange(&exchange, now, &mut steps);
        let answer = trace::within("exchange_assertion", SpanKind::Internal, exchanging).await;
        unanswered.answered();
        match answer {
            Ok(ExchangeAnswer::Ticket(ticket)) => {
                self.calls.count(rpc, CallOutcome::Accepted);
                let user = Some(&ticket.user_id);
                self.exchanged(asked.in_instance(&wanted.instance, user, organization));
                Ok(response(&ticket))
            }
            // Only of who wants an explanation.
            Ok(ExchangeAnswer::Would { .. }) => Err(Status::internal("no ticket was made")),
            Ok(ExchangeAnswer::Denied {
                denial,
                user_id,
                left,
            }) => {
                let (reason, rule) = (denial.reason, denial.rule);
                self.calls.count(rpc, CallOutcome::Decided(reason));
                info!(
                    rpc = rpc.name(), request_id = ?id, reason = reason.name(), rule = rule.name(),
                    "denied"
                );
                let asked = asked.in_instance(&wanted.instance, user_id.as_ref(), organization);
                self.refused(asked, Ruling::Denied, reason);
                Err(status::assertion_denied(denial, left))
            }
            Err(no_answer) => {
                self.untold(asked, no_answer.cannot_tell);
                Err(status::cannot_tell_of_assertion(no_answer))
            }
        }
    }

    /// `path` is where the request stands.
    pub(super) fn wanted(
        &self,
        rpc: Rpc,
        request: &proto::ExchangeAssertionRequest,
        path: &str,
    ) -> Result<Wanted, Status> {
        let mut violations = Vec::new();
        for (name, value) in [
            ("provider", &request.provider),
            ("assertion", &request.assertion),
        ] {
            if value.is_empty() {
                violations.push(Violation::new(format!("{path}{name}"), "is not set"));
            }
        }
        let organization = match &*request.organization_id {
            "" => None,
            text => match text.parse() {
                Ok(id) => Some(id),
                Err(error) => {
                    let field = format!("{path}organization_id");
                    let expected: InvalidId = error;
                    violations.push(Violation::new(field, expected.to_string()));
                    None
                }
            },
        };
        let instance = convert::instance(&request.instance, &self.verifier().instances());
        match instance {
            Ok(instance) if violations.is_empty() => Ok(Wanted {
                instance,
                organization,
            }),
            Ok(_) => Err(self.invalid(rpc, violations)),
            Err(description) => {
                violations.push(Violation::new(format!("{path}instance"), description));
                Err(self.invalid(rpc, violations))
            }
        }
    }

    pub(super) fn exchanger(&self, rpc: Rpc, id: &RequestId) -> Result<&Exchanger, Status> {
        let exchanger = self.exchanger.as_deref();
        exchanger.ok_or_else(|| self.without_database(rpc, id))
    }
}

fn response(ticket: &Ticket) -> proto::ExchangeAssertionResponse {
    proto::ExchangeAssertionResponse {
        ticket: ticket.ticket.0.expose_secret().to_owned(),
        expires_at: Some(convert::timestamp(ticket.expires_at)),
        user_id: ticket.user_id.to_string(),
    }
}
