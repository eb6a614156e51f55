//! One request under a policy: its route, who sends it, and whether what is required holds.

use std::{future::Future, sync::Arc};

use tracing::warn;
use url::Url;

use super::{Bearer, Identity, Outcome, Person, ProxiedRequest, Refused};
use crate::{
    authz::{
        CannotTell, Checker, Consistency, Decision, OrgAnswer, OrgQuestion, OrganizationRef,
        Question, Subject, Verdict, Verified, VerifiedMachine, Verifier,
    },
    credential::Credential,
    decision::Requirement,
    explain::{Rule, Steps},
    identity::{Timestamp, TokenTypes},
    policy::{
        Access, Ambiguities, Browser, Host, OnCannotTell, OrganizationFrom, Path, Policy, Route,
        RouteFreshness,
    },
    reason::Reason,
};

/// A way to an answer that is no allow.
pub(super) struct Denial {
    pub(super) reason: Reason,
    pub(super) outcome: Outcome,
    pub(super) refused: Option<Box<Refused>>,
}

impl Denial {
    fn forbidden(reason: Reason) -> Self {
        Self {
            reason,
            outcome: Outcome::Forbidden { step_up: None },
            refused: None,
        }
    }

    fn unavailable(cannot_tell: CannotTell) -> Self {
        Self {
            reason: cannot_tell.reason(),
            outcome: Outcome::Unavailable {
                retry_after: cannot_tell.retry_after(),
            },
            refused: None,
        }
    }

    /// Of a request by whom this session is.
    fn of(self, verified: Arc<Verified>, organization: Option<OrganizationRef>) -> Self {
        self.by(Bearer::Session(verified), organization)
    }

    fn by(self, bearer: Bearer, organization: Option<OrganizationRef>) -> Self {
        Self {
            refused: Some(Box::new(Refused {
                bearer,
                organization,
            })),
            ..self
        }
    }
}

/// The route that a request is. Where servers read its path in several ways, and a route permits that,
/// each of them must be of that route, with the same values of its variables.
pub(super) fn find<'p, 'r>(
    policy: &'p Policy,
    request: &ProxiedRequest<'r>,
) -> Result<(&'p Route, Path<'r>), Reason> {
    let ambiguous = Reason::PathAmbiguous;
    let host = Host::parse(request.authority).map_err(|_| ambiguous)?;
    let path = Path::parse(request.target).map_err(|_| ambiguous)?;
    let segments: Vec<&str> = path.segments().collect();
    let route = policy.route(Some(host.as_str()), request.method, &segments);
    let unpermitted = |permits: Ambiguities| !path.ambiguities().without(permits).is_empty();
    let Some(route) = route else {
        return Err(match unpermitted(Ambiguities::NONE) {
            true => ambiguous,
            false => Reason::RouteUnmatched,
        });
    };
    if unpermitted(route.permits) {
        return Err(ambiguous);
    }
    for reading in path.other_readings() {
        let other: Vec<&str> = reading.segments().collect();
        let same_route = policy
            .route(Some(host.as_str()), request.method, &other)
            .is_some_and(|found| std::ptr::eq(found, route));
        let same_organization = match &route.organization {
            Some(OrganizationFrom::Variable(name)) => {
                route.path.value(name, &other) == route.path.value(name, &segments)
            }
            Some(OrganizationFrom::Header(_)) | None => true,
        };
        if !same_route || !same_organization {
            return Err(ambiguous);
        }
    }
    Ok((route, path))
}

/// Who says who sends a request.
pub(super) trait Senders: Sync {
    /// Whose token it is, of the types that are accepted; or why there is none.
    fn sender(
        &self,
        accepted: TokenTypes,
        request: &ProxiedRequest<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> impl Future<Output = Result<Verdict, CannotTell>> + Send;
}

/// By the request's credentials.
impl Senders for Verifier {
    async fn sender(
        &self,
        accepted: TokenTypes,
        request: &ProxiedRequest<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let question = Question {
            credential: Credential::Http {
                authorization: request.authorization,
                cookie: request.cookie,
            },
            accepted,
            patience: request.patience,
            ..Question::about("")
        };
        self.verify_session(&question, now, steps).await
    }
}

/// One request and its route.
pub(super) struct Asked<'a, S> {
    pub(super) checker: &'a Checker,
    pub(super) senders: &'a S,
    pub(super) request: &'a ProxiedRequest<'a>,
    pub(super) route: &'a Route,
    pub(super) path: &'a Path<'a>,
    pub(super) now: Timestamp,
}

impl<S: Senders> Asked<'_, S> {
    pub(super) async fn answer(
        &self,
        steps: &mut Steps,
    ) -> Result<(Reason, Option<Identity>), Denial> {
        let allowed = self.holds(&self.route.access, steps).await?;
        match self.request.narrowing {
            None => Ok(allowed),
            // Both must hold. Who only has to be signed in is decided about by the route alone.
            Some(narrowing) => {
                let (reason, identity) = self.holds(narrowing, steps).await?;
                let decides = |identity: &Option<Identity>| {
                    let person = identity.as_ref().and_then(Identity::person);
                    person.is_some_and(|person| person.decision.is_some())
                };
                match allowed {
                    (_, by_route) if decides(&by_route) && !decides(&identity) => {
                        Ok((reason, by_route))
                    }
                    _ => Ok((reason, identity)),
                }
            }
        }
    }

    async fn holds(
        &self,
        access: &Access,
        steps: &mut Steps,
    ) -> Result<(Reason, Option<Identity>), Denial> {
        match access {
            Access::Denied => Err(Denial::forbidden(Reason::RouteDenied)),
            Access::Public {
                ignores_credentials: true,
            } => Ok((Reason::RoutePublic, None)),
            Access::Public {
                ignores_credentials: false,
            } => self.public(steps).await,
            Access::SignedIn {
                denies_impersonation,
            } => self.signed_in(*denies_impersonation, steps).await,
            // On the heap: it may wait for Clerk.
            Access::Required(requirement) => Box::pin(self.required(requirement, steps)).await,
        }
    }

    /// No credential is fine, a bad one is not.
    async fn public(&self, steps: &mut Steps) -> Result<(Reason, Option<Identity>), Denial> {
        let allowed = |identity| Ok((Reason::RoutePublic, identity));
        match self.verdict(steps).await {
            Ok(Verdict::Accepted(verified)) => allowed(Some(self.identity(verified, None))),
            Ok(Verdict::Machine(verified)) => allowed(Some(Identity::Machine(verified))),
            Ok(Verdict::Denied(Reason::TokenMissing)) => allowed(None),
            Ok(Verdict::Denied(reason)) => Err(unauthenticated(reason)),
            Err(_) if self.route.on_cannot_tell == OnCannotTell::Allow => allowed(None),
            Err(cannot_tell) => Err(Denial::unavailable(cannot_tell)),
        }
    }

    async fn signed_in(
        &self,
        denies_impersonation: bool,
        steps: &mut Steps,
    ) -> Result<(Reason, Option<Identity>), Denial> {
        match self.verdict(steps).await {
            Ok(Verdict::Accepted(verified))
                if denies_impersonation && verified.session.actor.is_some() =>
            {
                let denial = Denial::forbidden(Reason::ImpersonationNotAllowed);
                Err(denial.of(verified, None))
            }
            Ok(Verdict::Accepted(verified)) => {
                Ok((Reason::Allowed, Some(self.identity(verified, None))))
            }
            Ok(Verdict::Machine(verified)) => match self.missing_scope(&verified) {
                None => Ok((Reason::Allowed, Some(Identity::Machine(verified)))),
                Some(scope) => {
                    steps.failed(Rule::Permission, || format!("scope {scope} is missing"));
                    let denial = Denial::forbidden(Reason::PermissionMissing);
                    Err(denial.by(Bearer::Machine(verified), None))
                }
            },
            Ok(Verdict::Denied(reason)) => Err(unauthenticated(reason)),
            Err(cannot_tell) => Err(Denial::unavailable(cannot_tell)),
        }
    }

    async fn required(
        &self,
        requirement: &Requirement,
        steps: &mut Steps,
    ) -> Result<(Reason, Option<Identity>), Denial> {
        // Who is not signed in hears that first, whatever the organization.
        let verified = match self.verdict(steps).await {
            Ok(Verdict::Accepted(verified)) => verified,
            // The policy file is refused for it; the proxy's own configuration may ask it all the same.
            Ok(Verdict::Machine(verified)) => {
                steps.failed(
                    Rule::Membership,
                    || "a machine is a member of no organization",
                );
                let denial = Denial::forbidden(Reason::NotAMember);
                return Err(denial.by(Bearer::Machine(verified), None));
            }
            Ok(Verdict::Denied(reason)) => return Err(unauthenticated(reason)),
            Err(cannot_tell) => return Err(Denial::unavailable(cannot_tell)),
        };
        let organization = match self.organization() {
            Ok(organization) => organization,
            Err(denial) => return Err(denial.of(verified, None)),
        };
        let question = OrgQuestion {
            subject: Subject::Session(Arc::clone(&verified)),
            organization: organization.clone(),
            requirement: requirement.clone(),
            consistency: match self.route.freshness {
                RouteFreshness::MinimizeLatency => Consistency::MinimizeLatency,
                RouteFreshness::MaxStaleness(age) => Consistency::MaxStaleness(age),
                RouteFreshness::FullyConsistent => Consistency::FullyConsistent,
            },
            patience: self.request.patience,
            lookups: None,
        };
        // The policy file is refused for it; the proxy's own configuration nobody has checked before.
        if let Some(fault) = question.faults().first() {
            warn!(
                route = &*self.route.name,
                "{} of this route {fault}: everybody is denied there; mend context_extensions in the \
                 proxy's configuration",
                fault.field(),
            );
            return Err(Denial::forbidden(Reason::RouteDenied));
        }
        let answer = self
            .checker
            .check_org_permission(&question, self.now, steps);
        match answer.await {
            Ok(OrgAnswer::Decided(decision)) if decision.is_allowed() => {
                let identity = self.identity(verified, Some(Box::new(decision)));
                Ok((Reason::Allowed, Some(identity)))
            }
            Ok(OrgAnswer::Decided(decision)) => {
                let step_up = requirement
                    .reverification
                    .filter(|_| decision.reason == Reason::ReverificationRequired);
                let denial = Denial {
                    outcome: Outcome::Forbidden { step_up },
                    ..Denial::forbidden(decision.reason)
                };
                Err(denial.of(verified, organization))
            }
            Ok(OrgAnswer::TokenDenied(reason)) => Err(unauthenticated(reason)),
            Ok(OrgAnswer::OrganizationNotFound) => {
                let denial = Denial::forbidden(Reason::OrganizationNotFound);
                Err(denial.of(verified, organization))
            }
            Err(cannot_tell) => Err(Denial::unavailable(cannot_tell).of(verified, organization)),
        }
    }

    fn identity(&self, verified: Arc<Verified>, decision: Option<Box<Decision>>) -> Identity {
        Identity::Person(Person {
            token_is_current: self.checker.is_current(&verified),
            verified,
            decision,
        })
    }

    /// One that the route asks for and the token does not have.
    fn missing_scope(&self, verified: &VerifiedMachine) -> Option<&str> {
        let has = |scope: &str| verified.machine.scopes.contains(scope);
        let asked = self.route.scopes.iter().map(|scope| &**scope);
        asked.into_iter().find(|scope| !has(scope))
    }

    async fn verdict(&self, steps: &mut Steps) -> Result<Verdict, CannotTell> {
        self.senders
            .sender(self.route.accepts, self.request, self.now, steps)
            .await
    }

    /// The organization that the route binds; one that is not there is never the active one.
    fn organization(&self) -> Result<Option<OrganizationRef>, Denial> {
        let missing = || Denial::forbidden(Reason::OrganizationMissing);
        let segments: Vec<&str>;
        let named = match &self.route.organization {
            None => return Ok(None),
            Some(OrganizationFrom::Variable(name)) => {
                segments = self.path.segments().collect();
                self.route.path.value(name, &segments)
            }
            Some(OrganizationFrom::Header(name)) => {
                match self.request.headers.values(name)[..] {
                    [one] => Some(one),
                    // Which of two the upstream reads nobody knows.
                    _ => None,
                }
            }
        };
        let named = named.ok_or_else(missing)?;
        OrganizationRef::parse(named)
            .map(Some)
            .map_err(|_| missing())
    }
}

fn unauthenticated(reason: Reason) -> Denial {
    Denial {
        reason,
        outcome: Outcome::Unauthenticated { sign_in: None },
        refused: None,
    }
}

/// Where a browser is sent that asks for a document, and may come back from.
pub(super) fn sign_in(policy: &Policy, route: &Route, request: &ProxiedRequest<'_>) -> Option<Url> {
    if route.browser != Browser::SignIn || !is_document(request) {
        return None;
    }
    let sign_in = policy.sign_in()?;
    let host = Host::parse(request.authority).ok()?;
    let scheme = if request.is_https { "https" } else { "http" };
    let authority = std::str::from_utf8(request.authority).ok()?;
    let port = authority.strip_prefix(host.as_str()).unwrap_or_default();
    let origin = format!("{scheme}://{}{port}", host.as_str());
    if !sign_in.return_to.iter().any(|known| **known == *origin) {
        return None;
    }
    let target = std::str::from_utf8(request.target).ok()?;
    let mut url = sign_in.url.clone();
    url.query_pairs_mut()
        .append_pair(&sign_in.return_parameter, &format!("{origin}{target}"));
    Some(url)
}

/// Whether a browser asks for a page: by what it says itself, else by what it accepts.
fn is_document(request: &ProxiedRequest<'_>) -> bool {
    if !matches!(request.method, "GET" | "HEAD") {
        return false;
    }
    match request.headers.values("sec-fetch-dest")[..] {
        [destination] => matches!(destination, "document" | "iframe"),
        [] => {
            let accept = request.headers.values("accept");
            accept.iter().any(|value| value.contains("text/html"))
        }
        _ => false,
    }
}
