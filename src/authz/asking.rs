//! Questions that only Clerk answers: counted while they wait, asked as fresh as the caller wants,
//! and never a "no" where there is no answer.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use equivalent::Equivalent;
use tracing::warn;

use super::{
    CannotTell, Instance,
    fact_cache::{FactCache, Known},
    lookups::{Asked, Lookups, Once},
};
use crate::{
    explain::{Rule, Steps},
    identity::Timestamp,
    mirror::{Answered, Ask, Directory, DirectoryError, Join},
};

/// When it is worth asking again where too many wait.
const CROWDED_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When it is worth asking again where there is nobody to ask.
const NOBODY_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How fresh a fact must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Younger than the settings allow.
    AtHand,
    /// Younger than this, too.
    AtMost(Duration),
    /// Asked for now.
    Now,
}

/// Where a fact comes from, beside tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The token says it.
    Token,
    /// It was remembered.
    Cache,
    /// The mirror says it.
    Mirror,
    /// Clerk was asked.
    Clerk,
}

impl Source {
    /// `TOKEN`, `CACHE`, `MIRROR` or `CLERK`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "TOKEN",
            Self::Cache => "CACHE",
            Self::Mirror => "MIRROR",
            Self::Clerk => "CLERK",
        }
    }
}

/// A fact that was found.
pub(super) struct Found<V> {
    pub(super) known: Known<V>,
    pub(super) source: Source,
}

/// Counts a question as long as it waits for Clerk.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None` where `most` wait already.
    pub(super) fn start(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a look-up may take, what time it is, and what has been asked beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookUp<'a> {
    pub(super) freshness: Freshness,
    /// What is remembered from before this time does not answer.
    pub(super) not_before: Option<Timestamp>,
    /// What the mirror knows from before this time does not answer.
    pub(super) mirrored_not_before: Option<Timestamp>,
    pub(super) patience: Duration,
    pub(super) now: Timestamp,
    /// Of the batch that this is part of.
    pub(super) lookups: Option<&'a Lookups>,
}

impl<K, V> FactCache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Remembers what Clerk said, and says so.
    pub(super) fn found(&self, key: K, known: Known<V>, now: Timestamp) -> Found<V> {
        self.insert(key, known.clone(), now);
        Found {
            known,
            source: Source::Clerk,
        }
    }
}

fn ask_of(look_up: LookUp<'_>) -> Ask {
    // What a question under way answers may be as old as that question, which may have waited for
    // long: only who does not say how old may have it. The answers of a batch are shared by all that
    // it asks, whatever they ask for.
    let may_join_any = look_up.freshness == Freshness::AtHand
        && look_up.not_before.is_none()
        && look_up.lookups.is_none();
    Ask {
        patience: look_up.patience,
        join: if may_join_any {
            Join::Any
        } else {
            Join::SentAfter
        },
    }
}

pub(super) fn remembered<K, V, Q>(
    cache: &FactCache<K, V>,
    key: &Q,
    look_up: LookUp<'_>,
) -> Option<Found<V>>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    Q: Equivalent<K> + Hash,
{
    let most = match look_up.freshness {
        Freshness::AtHand => Duration::MAX,
        Freshness::AtMost(age) => age,
        Freshness::Now => return None,
    };
    let known = cache.fresh(key, most, look_up.not_before, look_up.now)?;
    Some(Found {
        known,
        source: Source::Cache,
    })
}

/// A question to Clerk: its name, where it is counted, and where a batch keeps those of its kind.
pub(super) struct Question<'a, K, V> {
    pub(super) key: K,
    pub(super) waiting: &'a AtomicUsize,
    pub(super) max_waiting: usize,
    /// The rule that waits for it.
    pub(super) rule: Rule,
    pub(super) once: fn(&Lookups) -> &Once<K, V>,
}

impl<K: Hash + Eq, V: Clone> Question<'_, K, V> {
    pub(super) async fn answer(
        self,
        instance: &Instance,
        ask: impl FnOnce(Arc<dyn Directory>, Ask) -> Asked<V>,
        look_up: LookUp<'_>,
        steps: &mut Steps,
    ) -> Result<Answered<V>, CannotTell> {
        if look_up.patience.is_zero() {
            steps.failed(
                self.rule,
                || "Clerk would have to be asked, and nobody waits",
            );
            return Err(CannotTell::ClerkUnavailable {
                retry_after: NOBODY_RETRY_AFTER,
            });
        }
        let Some(directory) = instance.directory.clone() else {
            steps.failed(self.rule, || {
                format!(
                    "Clerk has to be asked, and no secret key is configured for instance \"{}\"",
                    instance.name
                )
            });
            return Err(CannotTell::ClerkUnavailable {
                retry_after: NOBODY_RETRY_AFTER,
            });
        };
        let Some(_waiting) = Waiting::start(self.waiting, self.max_waiting) else {
            steps.failed(self.rule, || "too many questions wait for Clerk");
            return Err(CannotTell::Overloaded {
                retry_after: CROWDED_RETRY_AFTER,
            });
        };
        let asked = || ask(directory, ask_of(look_up));
        let answered = match look_up.lookups {
            None => asked().await,
            Some(lookups) => (self.once)(lookups).get(self.key, asked).await,
        };
        answered.map_err(|error| cannot_tell(error, self.rule, instance, steps))
    }
}

/// What is no answer is never "no".
pub(super) fn cannot_tell(
    error: DirectoryError,
    rule: Rule,
    instance: &Instance,
    steps: &mut Steps,
) -> CannotTell {
    steps.failed(rule, || format!("cannot tell: {error}"));
    match error {
        DirectoryError::Unavailable { retry_after, .. }
        | DirectoryError::CredentialsRefused { retry_after, .. } => {
            CannotTell::ClerkUnavailable { retry_after }
        }
        DirectoryError::RateLimited { retry_after } => CannotTell::ClerkRateLimited { retry_after },
        DirectoryError::Rejected { cause } => {
            // The ids have the form that Clerk wants: this is a fault of ours.
            warn!(instance = %instance.name, cause, "Clerk refuses a question as malformed");
            CannotTell::ClerkUnavailable {
                retry_after: NOBODY_RETRY_AFTER,
            }
        }
    }
}

/// The allocator hands out multiples of 16 with 8 of its own.
pub(super) fn text(text: &str) -> usize {
    text.len().next_multiple_of(16) + 16
}
