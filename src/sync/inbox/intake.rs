//! A message that was verified, on its way to the disk.

use std::{
    collections::HashSet,
    fmt::Write,
    sync::{Mutex, OnceLock, PoisonError},
};

use thiserror::Error;
use tracing::{error, warn};

use super::{DeliveryOutcome, Inbox, Inboxes};
use crate::{
    identity::InstanceId,
    mirror::{Concern, Received, StoreError},
    webhook::{Delivery, EventType},
};

/// Types of event that we do not know and have warned about. At it, no further one is warned about;
/// all are counted.
const MAX_WARNED_TYPES: usize = 256;

/// A message is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is new.
    New,
    /// It was taken before.
    Known,
}

/// A message is not safe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// It is not of the Clerk instance whose messages this secret signed before.
    #[error("the message is of another Clerk instance than those before it under this secret")]
    OtherInstance,
    /// It could not be written. Worth another delivery.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// For each secret, by its position, the Clerk instance that has it.
pub(super) struct Senders(Vec<OnceLock<InstanceId>>);

impl Senders {
    pub(super) fn new(secrets: usize) -> Self {
        Self((0..secrets).map(|_| OnceLock::new()).collect())
    }
}

/// What was warned about.
#[derive(Default)]
pub(super) struct UnknownTypes(Mutex<HashSet<String>>);

impl UnknownTypes {
    fn is_first(&self, name: &str) -> bool {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MAX_WARNED_TYPES && warned.insert(name.to_owned())
    }
}

impl Inboxes {
    /// Takes a message in; it is on the disk when this returns. May be dropped half-way: then it is
    /// not taken, or it is and its next delivery is found to be known.
    pub async fn receive(
        &self,
        inbox: &Inbox,
        delivery: Delivery,
        body: &[u8],
    ) -> Result<Taken, NotTaken> {
        let taken = self.take(inbox, delivery, body).await;
        inbox.count(match &taken {
            Ok(Taken::New) => DeliveryOutcome::Accepted,
            Ok(Taken::Known) => DeliveryOutcome::Duplicate,
            Err(NotTaken::OtherInstance) => DeliveryOutcome::OtherInstance,
            Err(NotTaken::Store(_)) => DeliveryOutcome::StoreUnavailable,
        });
        taken
    }

    async fn take(
        &self,
        inbox: &Inbox,
        delivery: Delivery,
        body: &[u8],
    ) -> Result<Taken, NotTaken> {
        let now = self.now();
        let envelope = &delivery.envelope;
        if let Some(instance_id) = &envelope.instance_id {
            self.check_sender(inbox, delivery.secret, instance_id)
                .await?;
        }
        let (entity, keep) = match self.reader.concern(envelope) {
            Concern::Nothing => (None, false),
            Concern::Anything => (None, envelope.event_type.keeps_data()),
            Concern::Entity(entity) => (Some(entity), envelope.event_type.keeps_data()),
        };
        let received = Received {
            id: delivery.message_id,
            event_type: envelope.event_type.name().into(),
            entity,
            at: envelope.time.map_or(now, |time| time.earliest()),
            body: keep.then(|| body.to_vec()),
        };
        let is_new = self.store.receive(&inbox.instance, received, now).await?;
        if !is_new {
            return Ok(Taken::Known);
        }
        if keep {
            inbox.wake.notify_one();
        } else {
            inbox.counters.ignored(&envelope.event_type);
        }
        if let EventType::Unknown(name) = &envelope.event_type
            && self.unknown.is_first(name)
        {
            warn!(
                instance = %inbox.instance, event_type = name,
                "Clerk sends events of a type that this version does not know; they are ignored"
            );
        }
        Ok(Taken::New)
    }

    /// The first message under a secret says of which Clerk instance it is; those behind it have to
    /// be of the same, also after a restart. Two endpoints that were given one secret are seen so.
    async fn check_sender(
        &self,
        inbox: &Inbox,
        secret: usize,
        found: &InstanceId,
    ) -> Result<(), NotTaken> {
        let (Some(known), Some(secret)) = (inbox.senders.0.get(secret), inbox.secrets.get(secret))
        else {
            return Ok(());
        };
        if known.get().is_none() {
            let mut name = "webhook-sender-".to_owned();
            for byte in secret.fingerprint() {
                // Writing to a string does not fail.
                let _ = write!(name, "{byte:02x}");
            }
            let kept = self.store.checkpoint(&inbox.instance, &name).await?;
            let kept = match kept.and_then(|checkpoint| checkpoint.value.parse().ok()) {
                Some(kept) => kept,
                None => {
                    let value = found.as_str();
                    self.store
                        .set_checkpoint(&inbox.instance, &name, value, self.now())
                        .await?;
                    found.clone()
                }
            };
            // Of two that came at once, the first stands.
            let _ = known.set(kept);
        }
        if known.get().is_none_or(|known| known == found) {
            return Ok(());
        }
        error!(
            instance = %inbox.instance,
            "a webhook with a good signature is of another Clerk instance than those before it; \
             give each instance's endpoint a secret of its own"
        );
        Err(NotTaken::OtherInstance)
    }
}
