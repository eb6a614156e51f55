//! One message that was claimed: its effect, or what comes after its failure.

use std::{slice, time::Duration};

use tracing::{debug, error, warn};

use super::{Inbox, Inboxes};
use crate::{
    backoff::{self, Backoff},
    identity::Timestamp,
    mirror::{Claimed, Effect, Failed, Next, StoreError},
    webhook::{Envelope, EventType},
};

/// How often a message is tried; at it, it goes to the poison list. The last try is 14 to 27 minutes
/// behind the first.
pub(super) const MAX_ATTEMPTS: u32 = 12;
/// Between two tries.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(600),
};

/// Why a message was not applied.
#[derive(Debug)]
pub(super) enum Failure {
    /// It will never be.
    Unreadable(Box<str>),
    /// Perhaps later.
    Store(StoreError),
}

impl Inboxes {
    /// Applies a message, or says what comes next. Whatever ends this half-way, the message is
    /// applied whole or is claimed again when its lease has passed.
    pub(super) async fn apply(&self, inbox: &Inbox, claimed: Claimed) {
        let failure = match self.apply_together(inbox, slice::from_ref(&claimed)).await {
            Ok(()) => return,
            // Somebody else has it, or has decided.
            Err(Failure::Store(StoreError::ClaimLost)) => {
                debug!(instance = %inbox.instance, "a message was taken by another worker");
                return;
            }
            Err(failure) => failure,
        };
        let failed = failed(&failure, claimed.attempt, self.now(), backoff::chance());
        let (instance, event_type) = (&inbox.instance, &*claimed.message.event_type);
        let (message_id, attempt) = (&claimed.message.id, claimed.attempt);
        let (cause, next) = (failed.cause.clone(), failed.next);
        // Counted and told when it is so, not before: whoever reads of it finds it in the list.
        if let Err(error) = self.store.fail(claimed.claim, failed).await {
            warn!(
                %instance, %message_id, event_type, attempt, %cause, %error,
                "a message was not applied; its lease has to pass before it is tried again"
            );
            return;
        }
        match next {
            Next::Poison => {
                inbox.counters.poisoned();
                error!(
                    %instance, %message_id, event_type, attempt, %cause,
                    "a message cannot be applied; see `clerk-authz inbox list`"
                );
            }
            Next::TryAt(at) => {
                inbox.counters.failed();
                warn!(
                    %instance, %message_id, event_type, attempt, %cause, %at,
                    "a message was not applied and is tried again"
                );
            }
        }
    }

    /// Applies messages in one transaction, or none of them.
    pub(super) async fn apply_together(
        &self,
        inbox: &Inbox,
        claimed: &[Claimed],
    ) -> Result<(), Failure> {
        let mut types = Vec::with_capacity(claimed.len());
        let mut effects = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            let (event_type, effect) = self.effect(claimed)?;
            types.push(event_type);
            effects.push(effect);
        }
        let (instance, now) = (&inbox.instance, self.now());
        let applied = self.store.apply_all(instance, &effects, now).await;
        applied.map_err(Failure::Store)?;
        for event_type in &types {
            inbox.counters.applied(event_type);
        }
        Ok(())
    }

    /// What a message says, and of what type it is.
    fn effect(&self, claimed: &Claimed) -> Result<(EventType, Effect), Failure> {
        let body = claimed.message.body.as_deref().unwrap_or_default();
        let envelope = Envelope::parse(body)
            .map_err(|invalid| Failure::Unreadable(invalid.to_string().into()))?;
        let facts = self
            .reader
            .facts(&envelope, claimed.received_at)
            .map_err(|unreadable| Failure::Unreadable(unreadable.to_string().into()))?;
        let effect = Effect {
            facts,
            done: Some(claimed.claim),
        };
        Ok((envelope.event_type, effect))
    }
}

/// What comes after a failure. `chance` is from 0 to 1.
fn failed(failure: &Failure, attempt: u32, now: Timestamp, chance: f64) -> Failed {
    match failure {
        Failure::Unreadable(cause) => Failed {
            cause: cause.clone(),
            next: Next::Poison,
        },
        Failure::Store(error) => Failed {
            cause: error.to_string().into(),
            next: if attempt >= MAX_ATTEMPTS {
                Next::Poison
            } else {
                Next::TryAt(now.plus(BACKOFF.after(attempt, chance)))
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_given_up_at_once_and_a_failing_store_is_not() {
        let now = Timestamp::from_unix_seconds(1_900_000_000);
        let unreadable = Failure::Unreadable("id is missing".into());
        assert_eq!(failed(&unreadable, 1, now, 0.0).next, Next::Poison);

        let store = Failure::Store(StoreError::Unavailable {
            cause: "gone".into(),
        });
        let next = |attempt| failed(&store, attempt, now, 0.0).next;
        assert_eq!(next(1), Next::TryAt(now.plus(BACKOFF.first)));
        assert!(matches!(next(MAX_ATTEMPTS - 1), Next::TryAt(_)));
        assert_eq!(next(MAX_ATTEMPTS), Next::Poison);
    }
}
