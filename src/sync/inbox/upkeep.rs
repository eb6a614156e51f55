//! What has been kept long enough is forgotten, and what there is is counted now and then.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{InboxStats, Inboxes};
use crate::{
    identity::InstanceName,
    mirror::{Retention, StoreStats},
};

/// How often the store is asked whether it answers.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How often is counted; counting reads whole tables.
const COUNT_INTERVAL: Duration = Duration::from_secs(30);
/// How often what has been kept long enough is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(3_600);
/// Rows of each kind that are forgotten in one transaction.
const FORGET_AT_ONCE: u32 = 1_000;
/// How long a watcher may be away and still go on where it was; and longer than what was revoked is
/// remembered (`CLERK_AUTHZ_REVOCATION_MEMORY`), since a replica that starts reads it here.
const CHANGES_KEPT: Duration = Duration::from_secs(8 * 86_400);
/// Longer than tokens live that are believed.
const REVOCATIONS_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// What was last seen in the store.
#[derive(Default)]
pub(super) struct Health {
    fails: AtomicBool,
    stats: ArcSwap<HashMap<InstanceName, StoreStats>>,
}

impl Health {
    pub(super) fn answers(&self) -> bool {
        !self.fails.load(Relaxed)
    }
}

impl Inboxes {
    /// Counts and forgets until the stop.
    pub async fn keep_up(self: Arc<Self>, stop: CancellationToken) {
        let keeping = async {
            let (mut count_at, mut forget_at) = (Instant::now(), Instant::now());
            loop {
                self.ping().await;
                if Instant::now() >= count_at {
                    self.count_all().await;
                    count_at = Instant::now() + COUNT_INTERVAL;
                }
                if Instant::now() >= forget_at {
                    self.forget().await;
                    forget_at = Instant::now() + FORGET_INTERVAL;
                }
                sleep(PING_INTERVAL).await;
            }
        };
        // What is cut off is undone.
        tokio::select! {
            () = keeping => {}
            () = stop.cancelled() => {}
        }
    }

    /// What cannot be counted is absent.
    async fn count_all(&self) {
        let mut all = HashMap::new();
        for instance in self.instances() {
            if let Ok(stats) = self.store.stats(&instance).await {
                all.insert(instance, stats);
            }
        }
        self.health.stats.store(Arc::new(all));
    }

    async fn ping(&self) {
        let found = self.store.ping().await;
        let failed_before = self.health.fails.swap(found.is_err(), Relaxed);
        match found {
            Err(error) if !failed_before => warn!(
                %error,
                "the database does not answer: webhooks are refused and sent again; tokens are \
                 verified all the same"
            ),
            Ok(()) if failed_before => info!("the database answers again"),
            Err(_) | Ok(()) => {}
        }
    }

    async fn forget(&self) {
        let retention = Retention {
            messages: self.retention,
            changes: CHANGES_KEPT,
            revocations: REVOCATIONS_KEPT,
        };
        for instance in self.instances() {
            loop {
                let now = self.now();
                match self
                    .store
                    .forget(&instance, retention, FORGET_AT_ONCE, now)
                    .await
                {
                    Ok(0) => break,
                    Ok(rows) => info!(%instance, rows, "forgot what was kept long enough"),
                    Err(error) => {
                        warn!(%instance, %error, "cannot forget what was kept long enough");
                        break;
                    }
                }
            }
        }
    }

    fn instances(&self) -> Vec<InstanceName> {
        self.all.load().keys().cloned().collect()
    }

    /// Counts of every inbox, by instance.
    pub fn stats(&self) -> Vec<(InstanceName, InboxStats)> {
        let seen = self.health.stats.load();
        let all = self.all.load();
        let mut stats: Vec<_> = all
            .iter()
            .map(|(name, inbox)| {
                let seen = seen.get(name);
                let depth = seen.map(|seen| seen.inbox.clone()).unwrap_or_default();
                let oldest = seen.and_then(|seen| seen.oldest_waiting);
                (name.clone(), inbox.stats(depth, oldest))
            })
            .collect();
        stats.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        stats
    }
}
