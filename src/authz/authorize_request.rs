//! May this request go on to its upstream? By the route policy: which route it is, who sends it, and
//! whether what the route requires holds.

mod asked;
mod browser;
mod rehearsal;
mod shadow;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use url::Url;

use self::{
    asked::{Asked, Denial, Senders, find, sign_in},
    browser::{Handshakes, is_for_a_page},
    shadow::Shadow,
};
pub use self::{
    browser::{BrowserAnswer, CookiesOnTheWayBack, HandshakeOutcome},
    rehearsal::rehearse,
    shadow::ShadowStats,
};
use super::{Checker, Decision, OrganizationRef, Source, Verified, VerifiedMachine};
use crate::{
    decision::Reverification,
    explain::Steps,
    identity::{Organization, OrganizationId, Texts, Timestamp},
    policy::{Access, Effect, Policy, Route, Upstream},
    reason::Reason,
};

/// A request, as a proxy describes it: nothing of it is believed but what decides.
#[derive(Clone, Copy)]
pub struct ProxiedRequest<'a> {
    /// The method, upper-case as it came.
    pub method: &'a str,
    /// The host that was asked for, with its port; the bytes as they came.
    pub authority: &'a [u8],
    /// The path and the query; the bytes as they came.
    pub target: &'a [u8],
    /// Whether it came over TLS: for the address that a browser comes back to.
    pub is_https: bool,
    /// The values of `authorization`.
    pub authorization: &'a [String],
    /// The values of `cookie`.
    pub cookie: &'a [String],
    /// The values of any other header, by its lower-case name.
    pub headers: &'a dyn Headers,
    /// What must hold beside what the route asks.
    pub narrowing: Option<&'a Access>,
    /// How long the caller waits at most; zero asks Clerk nothing.
    pub patience: Duration,
    /// How cookies reach a browser whose request goes on.
    pub cookies_on_the_way_back: CookiesOnTheWayBack,
}

/// The headers of a request.
pub trait Headers: Send + Sync {
    /// The values of one, by its lower-case name.
    fn values<'h>(&'h self, name: &str) -> Vec<&'h str>;
}

/// `Debug` shows no header and no query.
impl fmt::Debug for ProxiedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxiedRequest")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// Why.
    pub reason: Reason,
    /// The route that it is; `None` where no route is about it.
    pub route: Option<Box<str>>,
    /// Of the policy that decided.
    pub policy_version: Box<str>,
    /// What to do.
    pub outcome: Outcome,
    /// For which upstream it is vouched who sends the request.
    pub upstream: Upstream,
    /// Who was refused, where a good token says it.
    pub refused: Option<Box<Refused>>,
    /// What a browser is told of Clerk's handshake, where there was one.
    pub browser: Option<Box<BrowserAnswer>>,
}

/// Whoever sends a request that does not go on, for the records.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Whose token it is.
    pub bearer: Bearer,
    /// The organization that the route binds.
    pub organization: Option<OrganizationRef>,
}

/// Whose good token a request has.
#[derive(Clone, Debug)]
pub enum Bearer {
    /// Of a person, who is signed in.
    Session(Arc<Verified>),
    /// Of a machine, an OAuth client or an API key.
    Machine(Arc<VerifiedMachine>),
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It goes on.
    Allowed {
        /// Who sends it; `None` where nobody is signed in or the route does not look.
        identity: Option<Identity>,
    },
    /// Whoever sends it is not signed in, or no longer.
    Unauthenticated {
        /// For a document of which the route says so: where to sign in.
        sign_in: Option<Box<Url>>,
    },
    /// Whoever sends it may not.
    Forbidden {
        /// The user may after verifying a factor again.
        step_up: Option<Reverification>,
    },
    /// It cannot be told.
    Unavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

impl Outcome {
    /// What of it the sender sees.
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Allowed { .. } => Effect::Allowed,
            Self::Unauthenticated { sign_in: None } => Effect::Unauthenticated,
            Self::Unauthenticated { sign_in: Some(_) } => Effect::SignIn,
            Self::Forbidden { step_up: None } => Effect::Forbidden,
            Self::Forbidden { step_up: Some(_) } => Effect::StepUp,
            Self::Unavailable { .. } => Effect::Unavailable,
        }
    }
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Somebody who is signed in.
    Person(Person),
    /// A machine, an OAuth client or an API key.
    Machine(Arc<VerifiedMachine>),
}

impl Identity {
    /// Whose token it is.
    pub fn bearer(&self) -> Bearer {
        match self {
            Self::Person(person) => Bearer::Session(Arc::clone(&person.verified)),
            Self::Machine(verified) => Bearer::Machine(Arc::clone(verified)),
        }
    }

    /// Whoever is signed in; `None` for a machine.
    pub const fn person(&self) -> Option<&Person> {
        match self {
            Self::Person(person) => Some(person),
            Self::Machine(_) => None,
        }
    }
}

/// Somebody who is signed in, and sends a request.
#[derive(Clone, Debug)]
pub struct Person {
    /// Whose token it is.
    pub verified: Arc<Verified>,
    /// What was decided about an organization; `None` where none was asked about.
    pub decision: Option<Box<Decision>>,
    /// Whether what the token says of its organization still holds, as far as is known.
    pub token_is_current: bool,
}

impl Person {
    /// The organization that was asked about, else the active one.
    pub fn organization_id(&self) -> Option<&OrganizationId> {
        match &self.decision {
            Some(decision) => decision.organization_id(),
            None => self.active().map(|organization| &organization.id),
        }
    }

    /// Its slug, where it has one that is known.
    pub fn organization_slug(&self) -> Option<&str> {
        match &self.decision {
            Some(decision) => decision.organization_slug(),
            None => self.active()?.slug.as_deref(),
        }
    }

    /// The user's role in it, with `org:`.
    pub fn role(&self) -> Option<&str> {
        match &self.decision {
            Some(decision) => decision.role(),
            None => self.active()?.role.as_deref(),
        }
    }

    /// The user's permissions in it, with `org:`; `None` where those of the token are not believed.
    pub fn permissions(&self) -> Option<&Texts> {
        match &self.decision {
            // Who asks for a role alone does not look whether permissions have changed.
            Some(decision) if decision.source == Some(Source::Token) && !self.token_is_current => {
                None
            }
            Some(decision) => decision.permissions(),
            None => self.active().map(|organization| &organization.permissions),
        }
    }

    fn active(&self) -> Option<&Organization> {
        let active = self.verified.session.organization.as_deref();
        active.filter(|_| self.token_is_current)
    }
}

/// Decides about requests by the policy that is in force.
#[derive(Debug)]
pub struct Gatekeeper {
    checker: Arc<Checker>,
    policy: ArcSwap<Policy>,
    shadow: Shadow,
    handshakes: Option<Handshakes>,
}

impl Gatekeeper {
    /// By `policy`, with what `checker` finds out.
    pub fn new(checker: Arc<Checker>, policy: Policy) -> Self {
        Self {
            checker,
            policy: ArcSwap::from_pointee(policy),
            shadow: Shadow::default(),
            handshakes: None,
        }
    }

    /// Sends browsers with unsettled cookies to Clerk, for pages of instances that have a publishable key
    /// and authorized parties.
    #[must_use]
    pub fn with_handshakes(mut self) -> Self {
        self.handshakes = Some(Handshakes::default());
        self
    }

    /// How many handshakes came to what; empty where there are none.
    pub fn handshakes(&self) -> Vec<(HandshakeOutcome, u64)> {
        let handshakes = self.handshakes.as_ref();
        handshakes.map_or_else(Vec::new, |handshakes| handshakes.counts().to_vec())
    }

    /// Decides by `policy` too, and tells where it would have decided otherwise; `None` ends that.
    /// Nothing else depends on it.
    pub fn set_shadow(&self, policy: Option<Policy>) {
        self.shadow.set(policy);
    }

    /// The policy that is tried beside, and its counts.
    pub fn shadow(&self) -> (Option<Arc<Policy>>, ShadowStats) {
        (self.shadow.policy(), self.shadow.stats())
    }

    /// The policy that is in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Puts another policy in force; requests that are under way end by the one before.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Decides about a request.
    pub async fn authorize(
        &self,
        request: &ProxiedRequest<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Authorization {
        let policy = self.policy.load_full();
        let handshakes = self.handshakes.as_ref();
        let authorization = match handshakes.filter(|_| is_for_a_page(request)) {
            None => self.authorize_by(&policy, request, now, steps).await,
            // On the heap: of all that is asked, pages are few.
            Some(handshakes) => {
                let authorizing = self.authorize_page(handshakes, &policy, request, now, steps);
                Box::pin(authorizing).await
            }
        };
        // Another policy knows nothing of what a browser brought from Clerk.
        let brought = authorization
            .browser
            .as_ref()
            .is_some_and(|browser| browser.handshake == HandshakeOutcome::Resolved);
        if let Some(shadow) = self.shadow.policy().filter(|_| !brought) {
            // On the heap, so that whoever tries nothing does not carry its state around.
            Box::pin(self.compare(&shadow, &authorization, request, now)).await;
        }
        authorization
    }

    /// Decides by a policy that need not be in force.
    pub async fn authorize_by(
        &self,
        policy: &Policy,
        request: &ProxiedRequest<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Authorization {
        authorize_by(
            policy,
            &self.checker,
            &**self.checker.verifier(),
            request,
            now,
            steps,
        )
        .await
    }
}

/// Decides by `policy` about a request of which `senders` say who sends it.
async fn authorize_by<S: Senders>(
    policy: &Policy,
    checker: &Checker,
    senders: &S,
    request: &ProxiedRequest<'_>,
    now: Timestamp,
    steps: &mut Steps,
) -> Authorization {
    let answer = |route: Option<&Route>, reason, outcome| Authorization {
        reason,
        route: route.map(|route| route.name.clone()),
        policy_version: policy.version().into(),
        outcome,
        upstream: route
            .map(|route| route.upstream.clone())
            .unwrap_or_default(),
        refused: None,
        browser: None,
    };
    let (route, path) = match find(policy, request) {
        Ok(found) => found,
        Err(reason) => {
            return answer(None, reason, Outcome::Forbidden { step_up: None });
        }
    };
    let asked = Asked {
        checker,
        senders,
        request,
        route,
        path: &path,
        now,
    };
    match asked.answer(steps).await {
        Ok((reason, identity)) => answer(Some(route), reason, Outcome::Allowed { identity }),
        Err(Denial {
            reason,
            outcome: Outcome::Unauthenticated { .. },
            ..
        }) => {
            let sign_in = sign_in(policy, route, request).map(Box::new);
            answer(Some(route), reason, Outcome::Unauthenticated { sign_in })
        }
        Err(Denial {
            reason,
            outcome,
            refused,
        }) => Authorization {
            refused,
            ..answer(Some(route), reason, outcome)
        },
    }
}
