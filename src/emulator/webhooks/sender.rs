//! The one task that sends.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::{
    Client,
    header::{CONTENT_TYPE, USER_AGENT},
    redirect::Policy,
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Endpoint, WebhookAttempt, WebhookMessage, Webhooks, message::signatures};

/// An attempt that waits for its time.
#[derive(Clone)]
pub(super) struct Waiting {
    due: Instant,
    order: u64,
    id: Arc<str>,
    body: Arc<str>,
    /// How many attempts failed before it.
    failed: usize,
}

impl Waiting {
    pub(super) fn new(message: &WebhookMessage, due: Instant, order: u64) -> Self {
        Self {
            due,
            order,
            id: Arc::clone(&message.id),
            body: Arc::clone(&message.body),
            failed: 0,
        }
    }

    fn place(&self) -> (Instant, u64) {
        (self.due, self.order)
    }
}

/// The greatest is the one that is due first.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.place().cmp(&self.place())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

/// What the sender does next.
enum Next {
    Attempt(Arc<Endpoint>, Waiting),
    Wait(Option<Instant>),
}

/// Straight to this machine; what redirects has failed, as at Svix.
pub(in crate::emulator) fn client() -> reqwest::Result<Client> {
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .build()
}

impl Webhooks {
    /// Sends until it is told to stop; what is under way then has no answer.
    pub(in crate::emulator) async fn send_all(&self, client: Client, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let due = loop {
                match self.next() {
                    Next::Attempt(endpoint, waiting) => {
                        under_way.push(self.attempt(&client, endpoint, waiting));
                    }
                    Next::Wait(due) => break due,
                }
            };
            let until_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some((waiting, attempt)) = under_way.next() => self.answered(waiting, attempt),
                () = self.wake.notified() => {}
                () = until_due => {}
            }
        }
    }

    fn next(&self) -> Next {
        let mut state = self.state();
        let Some(endpoint) = state.endpoint.clone() else {
            return Next::Wait(None);
        };
        let Some(due) = state.queue.peek().map(|waiting| waiting.due) else {
            return Next::Wait(None);
        };
        if state.under_way >= endpoint.settings.concurrent {
            // Woken by the next answer.
            return Next::Wait(None);
        }
        if due > Instant::now() {
            return Next::Wait(Some(due));
        }
        match state.queue.pop() {
            Some(waiting) => {
                state.under_way += 1;
                Next::Attempt(endpoint, waiting)
            }
            None => Next::Wait(None),
        }
    }

    async fn attempt(
        &self,
        client: &Client,
        endpoint: Arc<Endpoint>,
        waiting: Waiting,
    ) -> (Waiting, WebhookAttempt) {
        let attempted_at = (self.clock)().unix_seconds();
        let signatures = signatures(&endpoint, &waiting.id, attempted_at, &waiting.body);
        let answer = client
            .post(endpoint.url.clone())
            .timeout(Duration::from_millis(
                endpoint.settings.timeout_milliseconds,
            ))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "Svix-Webhooks/1.0 (clerk-authz emulator)")
            .header("svix-id", &*waiting.id)
            .header("svix-timestamp", attempted_at)
            .header("svix-signature", signatures)
            .body(waiting.body.to_string())
            .send()
            .await;
        let attempt = WebhookAttempt {
            attempted_at,
            status: answer.ok().map(|answer| answer.status().as_u16()),
        };
        (waiting, attempt)
    }

    fn answered(&self, mut waiting: Waiting, attempt: WebhookAttempt) {
        let mut state = self.state();
        state.under_way -= 1;
        state.stats.attempts += 1;
        let answer = match attempt.status {
            Some(status) => status.to_string(),
            None => "none".to_owned(),
        };
        *state.stats.answers.entry(answer).or_default() += 1;
        let mut listed = state.listed.iter_mut().rev();
        if let Some(message) = listed.find(|message| message.id == waiting.id) {
            message.attempts.push(attempt);
        }
        let is_delivered = attempt.status.is_some_and(|it| (200..300).contains(&it));
        if !is_delivered {
            let waits = state.endpoint.as_ref();
            let waits = waits.map(|endpoint| &endpoint.settings.retry_milliseconds);
            match waits.and_then(|waits| waits.get(waiting.failed)) {
                Some(wait) => {
                    waiting.due = Instant::now() + Duration::from_millis(*wait);
                    waiting.failed += 1;
                    // It had its place in the queue before: the bound is kept but for those
                    // under way.
                    state.queue.push(waiting);
                    state.stats.retried += 1;
                }
                None => state.stats.given_up += 1,
            }
        }
        self.changed(&state);
    }
}
