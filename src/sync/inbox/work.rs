//! The workers: one loop for each instance.

use std::{future::ready, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Inbox, Inboxes};

/// Messages of an instance that are worked on at once, by this process. Others wait.
const AT_ONCE: u32 = 32;
/// How long a message is one worker's. A worker that is gone keeps it back for so long.
const LEASE: Duration = Duration::from_secs(20);
/// How long they may take in one transaction; then each is tried alone.
const TOGETHER_WITHIN: Duration = Duration::from_secs(5);
/// How long they may take then: with the time before it less than the lease, so that nobody else has
/// them meanwhile.
const APPLY_WITHIN: Duration = Duration::from_secs(10);
/// Messages that are tried alone at once: fewer than the store has connections.
const ALONE_AT_ONCE: usize = 8;
/// How long what is under way has to end after the stop. What is cut off is undone, and claimed
/// again when its lease has passed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often is looked without having been woken: for tries whose time has come, for leases that
/// have passed, and for what commands put back.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Inboxes {
    /// Applies an inbox's messages until the stop.
    pub async fn work(self: Arc<Self>, inbox: Arc<Inbox>, stop: CancellationToken) {
        // What comes behind something that another replica has applied may be taken now.
        let mut heard = self.ear.hear(&inbox.instance);
        let working = async {
            while !stop.is_cancelled() {
                let pause = match self.work_once(&inbox).await {
                    // There may be more.
                    Worked::Some => continue,
                    Worked::Nothing => LOOK_INTERVAL,
                    Worked::StoreFailed => STORE_PAUSE,
                };
                // Replicas that began together do not stay together.
                let pause = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                tokio::select! {
                    () = inbox.wake.notified() => {}
                    Ok(()) = heard.changed() => {}
                    () = sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
            }
        };
        tokio::select! {
            () = working => {}
            () = async { stop.cancelled().await; sleep(STOP_WITHIN).await } => warn!(
                instance = %inbox.instance,
                "messages were still worked on after {STOP_WITHIN:?}; they are applied later"
            ),
        }
    }

    async fn work_once(&self, inbox: &Inbox) -> Worked {
        let now = self.now();
        let claimed = self
            .store
            .claim(&inbox.instance, AT_ONCE, now.plus(LEASE), now)
            .await;
        let claimed = match claimed {
            Ok(claimed) if claimed.is_empty() => return Worked::Nothing,
            Ok(claimed) => claimed,
            Err(error) => {
                warn!(instance = %inbox.instance, %error, "the inbox cannot be read");
                return Worked::StoreFailed;
            }
        };
        let together = timeout(TOGETHER_WITHIN, self.apply_together(inbox, &claimed));
        if matches!(together.await, Ok(Ok(()))) {
            return Worked::Some;
        }
        // One of them is at fault, or the store is; each finds out for itself. Never two are about
        // one entity, so their order does not matter.
        let end = Instant::now() + APPLY_WITHIN;
        let alone = claimed.into_iter().map(|claimed| async {
            let id = claimed.message.id.clone();
            let applied = timeout_at(end, self.apply(inbox, claimed));
            if applied.await.is_err() {
                warn!(
                    instance = %inbox.instance, message_id = %id,
                    "a message was not applied within {APPLY_WITHIN:?}; its lease has to pass"
                );
            }
        });
        let alone = stream::iter(alone).buffer_unordered(ALONE_AT_ONCE);
        alone.for_each(|()| ready(())).await;
        Worked::Some
    }
}

enum Worked {
    Some,
    Nothing,
    StoreFailed,
}
