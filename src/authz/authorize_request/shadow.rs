//! A policy that is tried beside the one in force.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tracing::info;

use super::{Authorization, Gatekeeper, Outcome, ProxiedRequest};
use crate::{explain::Steps, identity::Timestamp, policy::Policy};

/// From one difference in the log to the next; all are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The policy that is tried, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    policy: ArcSwapOption<Policy>,
    same: AtomicU64,
    different: AtomicU64,
    untold: AtomicU64,
    /// When a difference was last logged, in Unix milliseconds.
    logged_at: AtomicI64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowStats {
    /// Requests of which both policies say the same.
    pub same: u64,
    /// Requests of which they do not.
    pub different: u64,
    /// Requests of which the tried policy could not tell: Clerk is never asked for it.
    pub untold: u64,
}

impl Shadow {
    pub(super) fn set(&self, policy: Option<Policy>) {
        self.policy.store(policy.map(Arc::new));
    }

    pub(super) fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
    }

    pub(super) fn stats(&self) -> ShadowStats {
        ShadowStats {
            same: self.same.load(Relaxed),
            different: self.different.load(Relaxed),
            untold: self.untold.load(Relaxed),
        }
    }

    /// Whether it is time for another line.
    fn may_log(&self, now: Timestamp) -> bool {
        let last = self.logged_at.load(Relaxed);
        now.since(Timestamp::from_unix_millis(last)) >= LOG_INTERVAL
            && self
                .logged_at
                .compare_exchange(last, now.unix_millis(), Relaxed, Relaxed)
                .is_ok()
    }
}

impl Gatekeeper {
    /// Decides by the tried policy, from what is at hand, and counts whether it is the same.
    pub(super) async fn compare(
        &self,
        policy: &Policy,
        real: &Authorization,
        request: &ProxiedRequest<'_>,
        now: Timestamp,
    ) {
        let at_hand = ProxiedRequest {
            patience: Duration::ZERO,
            ..*request
        };
        let tried = self
            .authorize_by(policy, &at_hand, now, &mut Steps::off())
            .await;
        let counter = match (&real.outcome, &tried.outcome) {
            (_, Outcome::Unavailable { .. }) => &self.shadow.untold,
            _ if real.outcome.effect() == tried.outcome.effect() => &self.shadow.same,
            _ => &self.shadow.different,
        };
        counter.fetch_add(1, Relaxed);
        if std::ptr::eq(counter, &raw const self.shadow.different) && self.shadow.may_log(now) {
            info!(
                route = real.route.as_deref(),
                reason = real.reason.name(),
                shadow_route = tried.route.as_deref(),
                shadow_reason = tried.reason.name(),
                shadow_version = policy.version(),
                "the shadow policy decides otherwise"
            );
        }
    }
}
