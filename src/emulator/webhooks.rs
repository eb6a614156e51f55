//! Webhooks: what changes is told to an endpoint, as Clerk does through Svix, and as badly as its
//! knobs say.
//!
//! A change becomes messages while it is made, so that their order is that of the changes; one task
//! (`sender`) sends them. No change waits for it, nor for the endpoint.

mod control;
mod events;
mod message;
mod sender;
mod settings;

use std::{
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

pub(super) use self::{control::router, sender::client};
use self::{
    events::{Event, events},
    sender::Waiting,
    settings::Endpoint,
};
pub use self::{
    message::{WebhookAttempt, WebhookMessage},
    settings::{InvalidWebhooks, TimestampUnit, WebhookSettings, new_secret},
};
use super::{
    Clock,
    directory::{Changes, Tables},
};

/// How many attempts wait for their time. At it a new message is not sent but listed and counted as
/// overflowed: a receiver that falls behind so far has to look for itself, as after any loss.
const MAX_WAITING: usize = 10_000;
/// How many messages are listed and can be replayed. At it the oldest leaves the list; it is sent
/// all the same.
const MAX_LISTED: usize = 10_000;

/// A message that cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoReplay {
    /// There is none with this id, or it has left the list.
    #[error("no message with this id")]
    Unknown,
    /// Nobody is told.
    #[error("there is no endpoint; PUT /_emulator/webhooks sets one")]
    NoEndpoint,
    /// Too many attempts wait.
    #[error("{MAX_WAITING} attempts wait already")]
    Full,
}

/// What became of all messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WebhookStats {
    /// Messages, whatever became of them.
    pub messages: u64,
    /// Messages that were never sent because of `lose`.
    pub lost: u64,
    /// Messages that were sent twice because of `double`.
    pub doubled: u64,
    /// Messages that were not sent because too many attempts waited.
    pub overflowed: u64,
    /// Replays.
    pub replayed: u64,
    /// Attempts that were made, whatever was answered.
    pub attempts: u64,
    /// Attempts that had to be made again.
    pub retried: u64,
    /// Attempts that nothing followed: behind the last retry, or since the endpoint was taken away.
    pub given_up: u64,
    /// Attempts by the status that was answered; `none` without an answer.
    pub answers: BTreeMap<String, u64>,
    /// Attempts that wait for their time, or are under way.
    pub waiting: usize,
}

/// The messages of an instance.
pub(super) struct Webhooks {
    instance_id: String,
    clock: Clock,
    state: Mutex<State>,
    /// There is more to do for the sender.
    wake: Notify,
    /// How many attempts wait or are under way.
    waiting: watch::Sender<usize>,
}

struct State {
    endpoint: Option<Arc<Endpoint>>,
    chance: fastrand::Rng,
    /// When the last message that keeps its place is due.
    last_due: Instant,
    queue: BinaryHeap<Waiting>,
    /// Orders what is due at one time.
    queued: u64,
    under_way: usize,
    listed: VecDeque<WebhookMessage>,
    stats: WebhookStats,
}

/// What chance makes of a message: how long each copy waits.
struct Fate {
    copies: Vec<Duration>,
}

impl Webhooks {
    pub(super) fn new(instance_id: &str, clock: Clock) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            clock,
            state: Mutex::new(State {
                endpoint: None,
                chance: fastrand::Rng::with_seed(0),
                last_due: Instant::now(),
                queue: BinaryHeap::new(),
                queued: 0,
                under_way: 0,
                listed: VecDeque::new(),
                stats: WebhookStats::default(),
            }),
            wake: Notify::new(),
            waiting: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those know who wait: the sender for work, and others for its end.
    fn changed(&self, state: &State) {
        self.waiting
            .send_replace(state.queue.len() + state.under_way);
        self.wake.notify_one();
    }

    /// Says which endpoint is told from now on. What waits goes there too.
    pub(super) fn set(
        &self,
        settings: WebhookSettings,
    ) -> Result<WebhookSettings, InvalidWebhooks> {
        let endpoint = Endpoint::check(settings)?;
        let settings = endpoint.settings.clone();
        let mut state = self.state();
        state.chance = fastrand::Rng::with_seed(settings.seed);
        state.last_due = Instant::now();
        state.endpoint = Some(Arc::new(endpoint));
        self.changed(&state);
        Ok(settings)
    }

    /// Nobody is told any more. What waits is given up.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.endpoint = None;
        let dropped = u64::try_from(state.queue.len()).unwrap_or(u64::MAX);
        state.stats.given_up += dropped;
        state.queue.clear();
        self.changed(&state);
    }

    pub(super) fn settings(&self) -> Option<WebhookSettings> {
        let state = self.state();
        state.endpoint.as_ref().map(|it| it.settings.clone())
    }

    /// Tells of a change. Called while it is made, so it waits for nothing.
    pub(super) fn tell(&self, tables: &Tables, changes: &Changes, now: i64) {
        let mut state = self.state();
        if state.endpoint.is_some() {
            for event in events(tables, changes, now) {
                state.post(event, &self.instance_id);
            }
            self.changed(&state);
        }
    }

    /// Tells of something that nothing here has changed.
    pub(super) fn tell_of(&self, event_type: &str, data: Value) {
        let mut state = self.state();
        let event = Event {
            event_type: event_type.to_owned(),
            at: (self.clock)().unix_millis(),
            data,
        };
        state.post(event, &self.instance_id);
        self.changed(&state);
    }

    pub(super) fn replay(&self, id: &str) -> Result<(), NoReplay> {
        let mut state = self.state();
        let message = state.listed.iter().find(|message| *message.id == *id);
        let message = message.cloned().ok_or(NoReplay::Unknown)?;
        if state.endpoint.is_none() {
            return Err(NoReplay::NoEndpoint);
        }
        if state.queue.len() >= MAX_WAITING {
            return Err(NoReplay::Full);
        }
        state.stats.replayed += 1;
        state.queue(&message, Instant::now());
        self.changed(&state);
        Ok(())
    }

    pub(super) fn messages(&self) -> Vec<WebhookMessage> {
        self.state().listed.iter().cloned().collect()
    }

    pub(super) fn stats(&self) -> WebhookStats {
        let state = self.state();
        WebhookStats {
            waiting: state.queue.len() + state.under_way,
            ..state.stats.clone()
        }
    }

    /// Counts from nought again; the list stays.
    pub(super) fn reset(&self) {
        self.state().stats = WebhookStats::default();
    }

    /// Waits until nothing waits to be sent, retries included.
    pub(super) async fn idle(&self) {
        let mut waiting = self.waiting.subscribe();
        // The other end is ours.
        let _ = waiting.wait_for(|waiting| *waiting == 0).await;
    }
}

impl State {
    fn post(&mut self, event: Event, instance_id: &str) {
        let Some(endpoint) = self.endpoint.clone() else {
            return;
        };
        let settings = &endpoint.settings;
        let mut message = WebhookMessage::new(event, settings.timestamps, instance_id);
        let fate = Fate::draw(&mut self.chance, settings);
        self.stats.messages += 1;
        message.lost = fate.copies.is_empty();
        message.doubled = fate.copies.len() > 1;
        if message.lost {
            self.stats.lost += 1;
        } else if self.queue.len() + fate.copies.len() > MAX_WAITING {
            self.stats.overflowed += 1;
        } else {
            self.stats.doubled += u64::from(message.doubled);
            let now = Instant::now();
            for wait in fate.copies {
                let mut due = now + wait;
                if !settings.shuffle {
                    due = due.max(self.last_due);
                    self.last_due = due;
                }
                self.queue(&message, due);
            }
        }
        if self.listed.len() >= MAX_LISTED {
            self.listed.pop_front();
        }
        self.listed.push_back(message);
    }

    fn queue(&mut self, message: &WebhookMessage, due: Instant) {
        self.queued += 1;
        self.queue.push(Waiting::new(message, due, self.queued));
    }
}

impl Fate {
    /// Takes as many numbers from `chance` whatever the settings, so that one knob does not move
    /// what another does.
    fn draw(chance: &mut fastrand::Rng, settings: &WebhookSettings) -> Self {
        let is_lost = chance.f64() < settings.lose;
        let is_doubled = chance.f64() < settings.double;
        let [least, most] = settings.delay_milliseconds;
        let mut wait = || {
            let delay = Duration::from_millis(chance.u64(least..=most));
            let more = WebhookSettings::SHUFFLE.mul_f64(chance.f64());
            if settings.shuffle {
                delay + more
            } else {
                delay
            }
        };
        let mut copies = vec![wait(), wait()];
        copies.truncate(match (is_lost, is_doubled) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        });
        Self { copies }
    }
}
