//! A browser whose session cookie does not do is sent to Clerk for another, and what it brings back from
//! there is put in place (docs/handshake.md). Only of requests for pages, only without a token in a
//! header, and only of pages whose origin the settings name.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use moka::{policy::EvictionPolicy, sync::Cache};
use tracing::{debug, warn};

use super::{
    Authorization, Gatekeeper, Outcome, ProxiedRequest,
    asked::{Senders, find},
    authorize_by,
};
use crate::{
    authz::{
        CannotTell, Instance, Instances, Question, Verdict, Verified, Verifier, asking::Waiting,
    },
    closed_list::closed_list,
    credential::{self, BrowserCookies, CookieNames, Credential},
    explain::Steps,
    handshake::{self, Attempt, Carried, Cause, Directives, Page, SetCookie},
    identity::{Environment, PublishableKey, Timestamp, TokenTypes},
    mirror::{Ask, DirectoryError, Join},
    policy::{Access, Policy},
    reason::Reason,
    token,
};

/// Nonces and tokens that are remembered as used: the one that was used longest ago is forgotten. A nonce
/// that comes again after that is asked about again, and Clerk says no.
const USED: u64 = 10_000;
/// The most browsers for which Clerk is asked at a time; others are told to come back.
const MAX_WAITING: usize = 256;
/// When it is worth coming back then.
const CROWDED_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When it is worth coming back where nobody can be asked.
const NOBODY_RETRY_AFTER: Duration = Duration::from_secs(60);

closed_list! {
    /// What came of a handshake.
    HandshakeOutcome {
        /// The browser was sent to Clerk.
        Sent = "sent",
        /// It was sent there often enough, and is refused.
        Stopped = "stopped",
        /// What it brought from Clerk is in place.
        Resolved = "resolved",
        /// What it brought is nothing.
        Failed = "failed",
        /// It cannot be told: Clerk cannot be asked.
        Untold = "untold",
    }
}

/// What a browser is told of a handshake, beside what becomes of its request.
#[derive(Clone)]
pub struct BrowserAnswer {
    /// What came of it.
    pub handshake: HandshakeOutcome,
    /// To where it is sent, whatever the outcome says; `None` where that counts.
    pub location: Option<Box<str>>,
    /// The cookies that it gets, whatever the outcome says.
    pub cookies: Vec<SetCookie>,
    /// Why, in a word of the SDK's.
    pub why: &'static str,
    /// The same in a sentence; empty where there is nothing to be said.
    pub message: &'static str,
}

/// `Debug` shows no address, since that may hold a token.
impl fmt::Debug for BrowserAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrowserAnswer")
            .field("handshake", &self.handshake)
            .field("why", &self.why)
            .field("cookies", &self.cookies)
            .finish_non_exhaustive()
    }
}

/// How a door gets cookies to a browser whose request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookiesOnTheWayBack {
    /// It can have them set on the answer of the upstream.
    Set,
    /// It cannot: the browser is sent to the same page once more.
    ByRedirect,
}

/// Sends browsers to Clerk, and believes what they bring from there.
pub(super) struct Handshakes {
    /// Of nonces and tokens, by their hashes.
    used: Cache<[u8; 32], ()>,
    waiting: AtomicUsize,
    counts: [AtomicU64; HandshakeOutcome::ALL.len()],
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshakes")
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        let used = Cache::builder()
            .max_capacity(USED)
            .eviction_policy(EvictionPolicy::lru());
        Self {
            used: used.build(),
            waiting: AtomicUsize::new(0),
            counts: Default::default(),
        }
    }
}

/// A browser that asks for a page.
struct Browser<'a> {
    instance: Arc<Instance>,
    key: PublishableKey,
    page: Page,
    cookies: BrowserCookies<'a>,
}

/// What a browser brought from Clerk.
enum Brought {
    /// Cookies, with a good session, or with none.
    Cookies(Directives, Option<Arc<Verified>>),
    /// Nothing that is believed.
    Nothing(Reason, &'static str),
    /// It cannot be told.
    Untold(CannotTell),
}

/// Whoever the cookies that a handshake brought are of, in the place of those that came.
struct Renewed<'a>(Option<&'a Arc<Verified>>);

impl Senders for Renewed<'_> {
    async fn sender(
        &self,
        accepted: TokenTypes,
        _: &ProxiedRequest<'_>,
        _: Timestamp,
        _: &mut Steps,
    ) -> Result<Verdict, CannotTell> {
        let Self(verified) = self;
        Ok(match verified {
            None => Verdict::Denied(Reason::TokenMissing),
            Some(_) if accepted.and(TokenTypes::SESSION) != TokenTypes::SESSION => {
                Verdict::Denied(Reason::TokenTypeNotAccepted)
            }
            Some(verified) => Verdict::Accepted(Arc::clone(verified)),
        })
    }
}

impl<'a> Browser<'a> {
    /// `None` where the request is not for a page of one instance's, or has another credential than
    /// cookies.
    fn of(instances: &Instances, request: &ProxiedRequest<'a>, now: Timestamp) -> Option<Self> {
        if credential::is_in_header(request.authorization) {
            return None;
        }
        let page = |instance: &Instance| {
            Page::read(
                request.is_https,
                request.authority,
                request.target,
                &instance.authorized_parties,
            )
        };
        let mut of_page = instances.all().iter().filter_map(|instance| {
            let key = instance.publishable_key.as_ref()?;
            Some((instance, key, page(instance)?))
        });
        let (instance, key, page) = of_page.next()?;
        // Of two nobody knows which the browser is to be sent to.
        if of_page.next().is_some() {
            return None;
        }
        let names = CookieNames::new(key);
        Some(Self {
            cookies: BrowserCookies::read(request.cookie, &names, token::hint, now)?,
            instance: Arc::clone(instance),
            key: key.clone(),
            page,
        })
    }

    fn environment(&self) -> Environment {
        self.key.environment()
    }

    /// Whether it gets what it brought by way of a redirect to the page.
    fn is_sent_on(&self, request: &ProxiedRequest<'_>) -> bool {
        match self.environment() {
            // The address holds what nobody is to keep.
            Environment::Development => true,
            Environment::Production => {
                request.cookies_on_the_way_back == CookiesOnTheWayBack::ByRedirect
            }
        }
    }

    /// Whether it comes with what it brought as often as it is sent anywhere: in production that may
    /// stand in a cookie that nobody takes away.
    fn goes_in_circles(&self, request: &ProxiedRequest<'_>) -> bool {
        self.environment() == Environment::Production
            && self.is_sent_on(request)
            && Attempt::next(&self.cookies).is_none()
    }
}

/// Whether a browser asks for a page.
pub(super) fn is_for_a_page(request: &ProxiedRequest<'_>) -> bool {
    handshake::is_document(
        request.method,
        &request.headers.values("sec-fetch-dest"),
        &request.headers.values("accept"),
    )
}

impl Gatekeeper {
    /// The same as [`Self::authorize_by`] for a request for a page, with Clerk's handshake.
    pub(super) async fn authorize_page(
        &self,
        handshakes: &Handshakes,
        policy: &Policy,
        request: &ProxiedRequest<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Authorization {
        let verifier = self.checker.verifier();
        let Some(browser) = Browser::of(&verifier.instances(), request, now) else {
            return self.authorize_by(policy, request, now, steps).await;
        };
        let environment = browser.environment();
        let carried = handshake::carried(&browser.page, &browser.cookies, environment);
        let mut failed = None;
        if let Some(carried) = carried.filter(|_| looks_at_credentials(policy, request)) {
            let patience = request.patience;
            let bringing = handshakes.bring(verifier, &browser, carried, patience, now);
            match bringing.await {
                Brought::Cookies(..) if browser.goes_in_circles(request) => {
                    failed = Some(HandshakeOutcome::Stopped);
                }
                Brought::Cookies(directives, verified) => {
                    return self
                        .resolved(
                            handshakes, &browser, directives, verified, policy, request, now, steps,
                        )
                        .await;
                }
                // In development whoever sets it up sees what is wrong.
                Brought::Nothing(reason, message) if environment == Environment::Development => {
                    handshakes.count(HandshakeOutcome::Failed);
                    let outcome = Outcome::Unauthenticated { sign_in: None };
                    let answer = BrowserAnswer::failed(message);
                    return of_route(policy, request, reason, outcome, answer);
                }
                Brought::Untold(cannot_tell) if environment == Environment::Development => {
                    handshakes.count(HandshakeOutcome::Untold);
                    let outcome = Outcome::Unavailable {
                        retry_after: cannot_tell.retry_after(),
                    };
                    let answer = BrowserAnswer {
                        handshake: HandshakeOutcome::Untold,
                        ..BrowserAnswer::failed("Clerk cannot be asked for the handshake's cookies")
                    };
                    return of_route(policy, request, cannot_tell.reason(), outcome, answer);
                }
                // In production the request is judged by the cookies that it has. Anybody can bring what is
                // nothing: it is counted, and the log has it where somebody looks.
                Brought::Nothing(reason, message) => {
                    debug!(
                        instance = %browser.instance.name, reason = reason.name(), message,
                        "a handshake brought nothing; the request is judged by its cookies"
                    );
                    failed = Some(HandshakeOutcome::Failed);
                }
                Brought::Untold(cannot_tell) => {
                    debug!(
                        instance = %browser.instance.name, reason = cannot_tell.reason().name(),
                        "a handshake's cookies cannot be had; the request is judged by its own"
                    );
                    failed = Some(HandshakeOutcome::Untold);
                }
            }
        }
        if let Some(failed) = failed {
            handshakes.count(failed);
        }
        let mut authorization = self.authorize_by(policy, request, now, steps).await;
        if let Outcome::Unauthenticated { .. } = authorization.outcome {
            let refused = authorization.reason;
            authorization.browser = handshakes.send(&browser, refused).map(Box::new);
        }
        authorization
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "it is the one half of a function that has them all"
    )]
    async fn resolved(
        &self,
        handshakes: &Handshakes,
        browser: &Browser<'_>,
        directives: Directives,
        verified: Option<Arc<Verified>>,
        policy: &Policy,
        request: &ProxiedRequest<'_>,
        now: Timestamp,
        steps: &mut Steps,
    ) -> Authorization {
        handshakes.count(HandshakeOutcome::Resolved);
        let is_sent_on = browser.is_sent_on(request);
        let mut cookies = directives.into_cookies();
        if is_sent_on && browser.environment() == Environment::Production {
            cookies.extend(Attempt::next(&browser.cookies).map(Attempt::cookie));
        }
        let answer = |location| BrowserAnswer {
            handshake: HandshakeOutcome::Resolved,
            location,
            cookies,
            why: match verified {
                Some(_) => "handshake",
                None => "session-token-missing",
            },
            message: "",
        };
        if is_sent_on {
            let answer = answer(Some(browser.page.cleaned().into()));
            let outcome = Outcome::Unauthenticated { sign_in: None };
            return of_route(policy, request, Reason::TokenMissing, outcome, answer);
        }
        let senders = Renewed(verified.as_ref());
        let authorizing = authorize_by(policy, &self.checker, &senders, request, now, steps);
        let authorization = authorizing.await;
        Authorization {
            browser: Some(Box::new(answer(None))),
            ..authorization
        }
    }
}

impl BrowserAnswer {
    fn failed(message: &'static str) -> Self {
        Self {
            handshake: HandshakeOutcome::Failed,
            location: None,
            cookies: Vec::new(),
            why: "handshake-failed",
            message,
        }
    }
}

/// By what it is remembered that a nonce or token was used.
fn id_of(instance: &Instance, kind: &str, text: &str) -> [u8; 32] {
    let id = format!("{:?}/{kind}/{text}", instance.serial);
    let hash = digest(&SHA256, id.as_bytes());
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether the request is of a route on which it matters who sends it.
fn looks_at_credentials(policy: &Policy, request: &ProxiedRequest<'_>) -> bool {
    find(policy, request).is_ok_and(|(route, _)| match route.access {
        Access::Denied
        | Access::Public {
            ignores_credentials: true,
        } => false,
        Access::Public {
            ignores_credentials: false,
        }
        | Access::SignedIn { .. }
        | Access::Required(_) => true,
    })
}

fn of_route(
    policy: &Policy,
    request: &ProxiedRequest<'_>,
    reason: Reason,
    outcome: Outcome,
    answer: BrowserAnswer,
) -> Authorization {
    let route = find(policy, request).ok().map(|(route, _)| route);
    Authorization {
        reason,
        route: route.map(|route| route.name.clone()),
        policy_version: policy.version().into(),
        outcome,
        upstream: route
            .map(|route| route.upstream.clone())
            .unwrap_or_default(),
        refused: None,
        browser: Some(Box::new(answer)),
    }
}

impl Handshakes {
    fn count(&self, outcome: HandshakeOutcome) {
        self.counts[outcome as usize].fetch_add(1, Relaxed);
    }

    /// How many there were of each.
    pub(super) fn counts(&self) -> [(HandshakeOutcome, u64); HandshakeOutcome::ALL.len()] {
        HandshakeOutcome::ALL.map(|it| (it, self.counts[it as usize].load(Relaxed)))
    }

    /// To Clerk with it, where that may help against this reason.
    fn send(&self, browser: &Browser<'_>, refused: Reason) -> Option<BrowserAnswer> {
        let Browser {
            instance,
            key,
            page,
            cookies,
        } = browser;
        let environment = browser.environment();
        let cause: Cause = handshake::cause(page, cookies, refused, environment)?;
        let Some(attempt) = Attempt::next(cookies) else {
            self.count(HandshakeOutcome::Stopped);
            debug!(
                instance = %instance.name, cause = cause.name(),
                "a browser comes back from Clerk as it went: it is sent there no more; see whether \
                 the publishable key and the secret key are of one instance"
            );
            return Some(BrowserAnswer {
                handshake: HandshakeOutcome::Stopped,
                location: None,
                cookies: Vec::new(),
                why: cause.name(),
                message: "the browser was sent to Clerk three times, and came back as it went",
            });
        };
        let frontend_api = handshake::frontend_api(key, &instance.issuer)?;
        let location = attempt.location(&frontend_api, page, cookies, cause, environment)?;
        self.count(HandshakeOutcome::Sent);
        Some(BrowserAnswer {
            handshake: HandshakeOutcome::Sent,
            location: Some(location.into()),
            cookies: vec![attempt.cookie()],
            why: cause.name(),
            message: "",
        })
    }

    /// What the browser brought from Clerk, verified.
    async fn bring(
        &self,
        verifier: &Verifier,
        browser: &Browser<'_>,
        carried: Carried,
        patience: Duration,
        now: Timestamp,
    ) -> Brought {
        let instance = &browser.instance;
        let mut used_up = None;
        let texts = match carried {
            Carried::Malformed => {
                return Brought::Nothing(
                    Reason::TokenMalformed,
                    "the handshake's nonce is none of Clerk's",
                );
            }
            Carried::Nonce(nonce) => self.ask(instance, &nonce, patience).await,
            Carried::Token(token) => {
                // It has no end, and in production it may stand in a cookie: put in place once, it would
                // otherwise count before all that the browser does after it.
                if browser.environment() == Environment::Production {
                    let id = id_of(instance, "token", &token);
                    if self.used.contains_key(&id) {
                        return Brought::Nothing(
                            Reason::TokenMissing,
                            "the handshake's token was put in place before",
                        );
                    }
                    used_up = Some(id);
                }
                let reading = verifier.handshake_cookies(instance, &token, patience, now);
                match reading.await {
                    Ok(Ok(texts)) => Ok(texts),
                    Ok(Err(reason)) => Err(Brought::Nothing(
                        reason,
                        "the handshake's token is not one of this instance",
                    )),
                    Err(cannot_tell) => Err(Brought::Untold(cannot_tell)),
                }
            }
        };
        let texts = match texts {
            Ok(texts) => texts,
            Err(brought) => return brought,
        };
        if let Some(id) = used_up {
            self.used.insert(id, ());
        }
        let suffix = browser.key.cookie_suffix();
        let directives = match Directives::read(&texts, &suffix) {
            Ok(directives) => directives,
            Err(error) => {
                warn!(instance = %instance.name, %error, "a handshake's cookies are refused");
                return Brought::Nothing(
                    Reason::TokenMalformed,
                    "the handshake's cookies are not such as Clerk sets",
                );
            }
        };
        let Some(session) = directives.session() else {
            return Brought::Cookies(directives, None);
        };
        let question = Question {
            credential: Credential::Token(session),
            instance: instance.name.as_str(),
            patience,
            ..Question::about("")
        };
        let mut steps = Steps::off();
        match verifier.verify_session(&question, now, &mut steps).await {
            Ok(Verdict::Accepted(verified)) => Brought::Cookies(directives, Some(verified)),
            Ok(Verdict::Denied(reason)) => Brought::Nothing(
                reason,
                "the session token of the handshake is denied; do the clocks agree?",
            ),
            Ok(Verdict::Machine(_)) => Brought::Nothing(
                Reason::TokenTypeNotAccepted,
                "the handshake's token is no session's",
            ),
            Err(cannot_tell) => Brought::Untold(cannot_tell),
        }
    }

    /// The cookies that Clerk keeps under a nonce, which is good once.
    async fn ask(
        &self,
        instance: &Instance,
        nonce: &str,
        patience: Duration,
    ) -> Result<Vec<Box<str>>, Brought> {
        const GONE: Brought = Brought::Nothing(
            Reason::TokenMissing,
            "Clerk keeps nothing under the handshake's nonce; it is good once",
        );
        let id = id_of(instance, "nonce", nonce);
        if self.used.contains_key(&id) {
            debug!(instance = %instance.name, "a handshake's nonce comes again");
            return Err(GONE);
        }
        let nobody = |retry_after| Brought::Untold(CannotTell::ClerkUnavailable { retry_after });
        let Some(directory) = instance.directory.clone().filter(|_| !patience.is_zero()) else {
            return Err(nobody(NOBODY_RETRY_AFTER));
        };
        let Some(_waiting) = Waiting::start(&self.waiting, MAX_WAITING) else {
            return Err(Brought::Untold(CannotTell::Overloaded {
                retry_after: CROWDED_RETRY_AFTER,
            }));
        };
        let ask = Ask {
            patience,
            // Whoever asks for the same nonce at the same time gets the same.
            join: Join::Any,
        };
        match directory.handshake(nonce, ask).await {
            Ok(answered) => {
                self.used.insert(id, ());
                answered.value.map(|cookies| cookies.0).ok_or(GONE)
            }
            // The browser chose it.
            Err(DirectoryError::Rejected { cause }) => {
                debug!(instance = %instance.name, cause, "Clerk refuses a handshake's nonce");
                self.used.insert(id, ());
                Err(GONE)
            }
            Err(
                DirectoryError::Unavailable { retry_after, .. }
                | DirectoryError::CredentialsRefused { retry_after, .. },
            ) => Err(nobody(retry_after)),
            Err(DirectoryError::RateLimited { retry_after }) => {
                Err(Brought::Untold(CannotTell::ClerkRateLimited {
                    retry_after,
                }))
            }
        }
    }
}
