//! Sends the requests of one instance: through the gate, again after faults, counted.

use std::{
    array,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, Url, header::CONTENT_TYPE};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};
use tracing::{debug, error, info, warn};

use super::{
    answer::{self, Fault},
    api::ApiOptions,
    breaker::Change,
    budget::Share,
    coalesce::Errand,
    gate::{Admission, Changes, Endpoint, Gate, Probes, REFUSED_PAUSE},
    model::Asked,
    retry,
    transport::{self, InsecureUrl, Manner},
};
use crate::{
    backoff,
    histogram::Histogram,
    identity::{InstanceName, Timestamp},
    keys::Clock,
    mirror::{Answered, Credentials, DirectoryError, DirectoryStats, RequestOutcome},
    trace::{self, SpanKind},
};

/// Requests to one instance that are under way at once; further ones wait, each as long as its
/// caller does.
const MAX_AT_ONCE: usize = 64;
/// Connections that are kept while nobody asks.
const IDLE_CONNECTIONS: usize = 16;
/// A request that is given up after so long tells of a Clerk that is slow; before, of a caller who
/// went away.
const SLOW: Duration = Duration::from_secs(1);

/// One request: a `GET`, or with a body a `POST`.
#[derive(Clone)]
struct Call {
    url: Url,
    body: Option<Vec<u8>>,
}

/// Which faults a request is sent again after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Those that may pass: it changes nothing.
    AfterAny,
    /// Those that say that nothing was done.
    IfNotDone,
}

impl Again {
    const fn is_after(self, fault: &Fault) -> bool {
        match self {
            Self::AfterAny => fault.may_be_repeated(),
            Self::IfNotDone => matches!(fault, Fault::RateLimited { .. }),
        }
    }
}

/// Requests to one instance's Backend API.
pub(super) struct Sender {
    instance: InstanceName,
    client: Client,
    base: Url,
    /// Of one request.
    timeout: Duration,
    clock: Clock,
    gate: Mutex<Gate>,
    slots: Semaphore,
    requests: [[AtomicU64; RequestOutcome::ALL.len()]; Endpoint::ALL.len()],
    durations: [Histogram; Endpoint::ALL.len()],
    held_back: AtomicU64,
    /// A question was refused, and people have heard of it.
    said_refused: AtomicBool,
}

impl Sender {
    pub(super) fn new(options: ApiOptions, clock: Clock) -> Result<Self, InsecureUrl> {
        let manner = Manner {
            accept: "application/json",
            within: options.timeout,
            idle_connections: IDLE_CONNECTIONS,
        };
        let client = transport::client(&options.url, Some(&options.secret_key), &manner)?;
        Ok(Self {
            instance: options.instance,
            client,
            base: options.url,
            timeout: options.timeout,
            clock,
            gate: Mutex::new(Gate::new(options.budget, Instant::now())),
            slots: Semaphore::new(MAX_AT_ONCE),
            requests: array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))),
            durations: array::from_fn(|_| Histogram::default()),
            held_back: AtomicU64::new(0),
            said_refused: AtomicBool::new(false),
        })
    }

    /// The address of a path below `/v1`, each segment escaped, with parameters.
    pub(super) fn url(&self, segments: &[&str], parameters: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        if !parameters.is_empty() {
            // `+` and `-` before a value mean something to Clerk: a `+` is escaped here, and no id
            // starts with one.
            url.query_pairs_mut().extend_pairs(parameters);
        }
        url
    }

    /// Asks by what is sent: the same as [`Self::get`]. For questions that change nothing, so that they
    /// may be repeated like those.
    pub(super) async fn post<T: Asked>(
        &self,
        endpoint: Endpoint,
        share: Share,
        url: Url,
        body: Vec<u8>,
        errand: &Errand,
    ) -> Result<Answered<Option<T>>, DirectoryError> {
        let call = Call {
            url,
            body: Some(body),
        };
        self.ask(endpoint, share, call, errand, Again::AfterAny)
            .await
    }

    /// Has something done. After a fault that leaves open whether it was done it is not sent again.
    pub(super) async fn change<T: Asked>(
        &self,
        endpoint: Endpoint,
        share: Share,
        url: Url,
        body: Vec<u8>,
        errand: &Errand,
    ) -> Result<Answered<Option<T>>, DirectoryError> {
        let call = Call {
            url,
            body: Some(body),
        };
        self.ask(endpoint, share, call, errand, Again::IfNotDone)
            .await
    }

    /// Asks; `None` when Clerk says that there is no such thing. The answer is as of when the request
    /// that brought it was sent.
    pub(super) async fn get<T: Asked>(
        &self,
        endpoint: Endpoint,
        share: Share,
        url: Url,
        errand: &Errand,
    ) -> Result<Answered<Option<T>>, DirectoryError> {
        let call = Call { url, body: None };
        self.ask(endpoint, share, call, errand, Again::AfterAny)
            .await
    }

    async fn ask<T: Asked>(
        &self,
        endpoint: Endpoint,
        share: Share,
        call: Call,
        errand: &Errand,
        again: Again,
    ) -> Result<Answered<Option<T>>, DirectoryError> {
        let mut last: Option<Fault> = None;
        for attempt in 1..=retry::MAX_ATTEMPTS {
            let ticket = match self.admit(endpoint, share, errand).await {
                Ok(ticket) => ticket,
                // What it ran into says more than that it is held back since.
                Err(DirectoryError::Unavailable { retry_after, cause }) => {
                    return Err(match last {
                        Some(fault) => fault.into_error(retry_after),
                        None => DirectoryError::Unavailable { cause, retry_after },
                    });
                }
                Err(held) => return Err(held),
            };
            let as_of = (self.clock)();
            errand.sent();
            let sending = self.send(endpoint, call.clone());
            let answer = trace::within("clerk.request", SpanKind::Client, sending).await;
            let is_found =
                |answer: &Option<T>| answer.as_ref().is_some_and(|found| !found.is_nothing());
            ticket.end(answer.as_ref().map(is_found));
            let fault = match answer {
                Ok(value) => return Ok(Answered { value, as_of }),
                Err(fault) => fault,
            };
            if attempt == retry::MAX_ATTEMPTS || !again.is_after(&fault) {
                return Err(fault.into_error(REFUSED_PAUSE));
            }
            // After a 429 the gate knows how long to wait.
            if let Fault::Failed { retry_after, .. } = &fault {
                let wait = retry::BACKOFF
                    .after(attempt, backoff::chance())
                    .max(retry_after.unwrap_or_default());
                if Instant::now() + wait >= errand.deadline() {
                    return Err(fault.into_error(REFUSED_PAUSE));
                }
                errand.note(fault.clone().into_error(REFUSED_PAUSE));
                sleep(wait).await;
            } else {
                errand.note(fault.clone().into_error(REFUSED_PAUSE));
            }
            last = Some(fault);
        }
        unreachable!("the last attempt returns")
    }

    async fn send<T: Asked>(&self, endpoint: Endpoint, call: Call) -> Result<Option<T>, Fault> {
        let request = match call.body {
            None => self.client.get(call.url),
            Some(body) => self
                .client
                .post(call.url)
                .header(CONTENT_TYPE, "application/json")
                .body(body),
        };
        let request = request.timeout(self.timeout.max(endpoint.least_timeout()));
        trace::note("clerk_authz.endpoint", || endpoint.name().into());
        let headers = trace::headers().into_iter();
        let request = headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        let response = request.send().await.map_err(Fault::of_request)?;
        let status = response.status().as_u16();
        trace::note("http.response.status_code", || i64::from(status).into());
        answer::read(response, endpoint, (self.clock)()).await
    }

    /// By the clock that answers are dated with.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Waits until a request may be sent. A wait that would end too late is not begun.
    async fn admit(
        &self,
        endpoint: Endpoint,
        share: Share,
        errand: &Errand,
    ) -> Result<Ticket<'_>, DirectoryError> {
        let mut place = None;
        loop {
            let slot = self.slots.acquire().await.expect("it is never closed");
            let now = Instant::now();
            let admission = self.gate().admit(endpoint, share, place.is_some(), now);
            let wait = match admission {
                Admission::Pass(probes) => {
                    return Ok(Ticket {
                        sender: self,
                        endpoint,
                        probes,
                        sent_at: now,
                        ended: false,
                        _slot: slot,
                    });
                }
                Admission::Refused { cause, retry_after } => {
                    self.held_back.fetch_add(1, Ordering::Relaxed);
                    return Err(DirectoryError::CredentialsRefused { cause, retry_after });
                }
                Admission::LeftAlone { cause, retry_after } => {
                    self.held_back.fetch_add(1, Ordering::Relaxed);
                    return Err(DirectoryError::Unavailable { cause, retry_after });
                }
                Admission::Paused(wait) => wait,
                Admission::OverBudget(wait) => {
                    if place.is_none() && share == Share::Check && now + wait < errand.deadline() {
                        place = Some(Place::new(self));
                    }
                    wait
                }
            };
            drop(slot);
            if now + wait >= errand.deadline() {
                self.held_back.fetch_add(1, Ordering::Relaxed);
                return Err(DirectoryError::RateLimited { retry_after: wait });
            }
            sleep(wait).await;
        }
    }

    pub(super) fn credentials(&self) -> Credentials {
        self.gate().credentials()
    }

    /// Its numbers; `joined` is not known here.
    pub(super) fn stats(&self) -> DirectoryStats {
        let requests = Endpoint::ALL.into_iter().flat_map(|endpoint| {
            RequestOutcome::ALL.map(|outcome| {
                let count = &self.requests[endpoint as usize][outcome as usize];
                (endpoint.name(), outcome, count.load(Ordering::Relaxed))
            })
        });
        let requests = requests.collect();
        let durations = Endpoint::ALL
            .map(|endpoint| (endpoint.name(), self.durations[endpoint as usize].read()))
            .to_vec();
        let mut gate = self.gate();
        DirectoryStats {
            requests,
            durations,
            joined: 0,
            held_back: self.held_back.load(Ordering::Relaxed),
            budget_left: gate.budget.left(Instant::now()),
            breaker_open: gate.is_left_alone(),
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, endpoint: Endpoint, outcome: RequestOutcome, took: Duration) {
        self.durations[endpoint as usize].record(took);
        self.requests[endpoint as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
        debug!(
            instance = %self.instance, endpoint = endpoint.name(), outcome = outcome.name(), ?took,
            "asked Clerk"
        );
    }

    /// Says once what people have to know, however many requests run into it.
    fn say(&self, changes: Changes, fault: Option<&Fault>) {
        let instance = &self.instance;
        match (changes.clerk, fault) {
            (Change::Opened, Some(Fault::Failed { cause, .. } | Fault::Unusable(cause))) => warn!(
                %instance, cause,
                "Clerk's API keeps failing; it is left alone for a while and probed"
            ),
            (Change::Closed, _) => info!(%instance, "Clerk's API answers again"),
            _ => {}
        }
        if changes.shrunk {
            warn!(
                %instance,
                "Clerk's rate limit is reached: sending less for a while. Others use the same \
                 limit, or CLERK_AUTHZ_API_BUDGET is too large for the number of replicas"
            );
        }
        if changes.key == Change::Closed {
            info!(%instance, "Clerk accepts the secret key again");
        }
        match fault {
            Some(Fault::Refused { cause, of_instance }) => {
                let is_news = if *of_instance {
                    changes.key == Change::Opened
                } else {
                    !self.said_refused.swap(true, Ordering::Relaxed)
                };
                if is_news {
                    error!(
                        %instance, cause,
                        "Clerk refuses our requests; no membership and no opaque token can be \
                         checked. Set \
                         CLERK_SECRET_KEY (secret_key_file) to a current key of this instance \
                         (Clerk dashboard, \"API keys\"), and see that organizations are \
                         switched on there"
                    );
                }
            }
            None => self.said_refused.store(false, Ordering::Relaxed),
            Some(_) => {}
        }
    }
}

/// A request that is under way. Dropped without an end, it was given up.
struct Ticket<'a> {
    sender: &'a Sender,
    endpoint: Endpoint,
    probes: Probes,
    sent_at: Instant,
    ended: bool,
    _slot: SemaphorePermit<'a>,
}

impl Ticket<'_> {
    /// `answer` is whether something was found, or what went wrong.
    fn end(mut self, answer: Result<bool, &Fault>) {
        let outcome = match answer {
            Ok(true) => RequestOutcome::Found,
            Ok(false) => RequestOutcome::NotFound,
            Err(fault) => fault.outcome(),
        };
        self.report(outcome, answer.err());
    }

    fn report(&mut self, outcome: RequestOutcome, fault: Option<&Fault>) {
        self.ended = true;
        let now = Instant::now();
        self.sender
            .count(self.endpoint, outcome, now.duration_since(self.sent_at));
        let changes = self
            .sender
            .gate()
            .ended(self.endpoint, self.probes, fault, now);
        self.sender.say(changes, fault);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let took = self.sent_at.elapsed();
        if took >= SLOW {
            let cause = format!("did not answer within {} ms", took.as_millis());
            let retry_after = None;
            let fault = Fault::Failed { cause, retry_after };
            self.report(RequestOutcome::Unavailable, Some(&fault));
        } else {
            self.sender
                .count(self.endpoint, RequestOutcome::Unavailable, took);
            self.sender.gate().given_up(self.probes);
        }
    }
}

/// A place in the line for the budget.
struct Place<'a>(&'a Sender);

impl<'a> Place<'a> {
    fn new(sender: &'a Sender) -> Self {
        sender.gate().budget.line_up();
        Self(sender)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.gate().budget.leave_line();
    }
}
