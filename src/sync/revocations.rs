//! Keeps what is known of revocations as new as the feed.

use std::{sync::Arc, time::Duration};

use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Clock, Ear};
use crate::{authz::Revocations, identity::InstanceName, mirror::Store};

/// The pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_millis(250);
/// How often what is older than the memory is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Reads an instance's feed into `revocations` until the stop, whenever `ear` hears of something.
pub async fn follow_revocations(
    revocations: Arc<Revocations>,
    instance: InstanceName,
    store: Arc<dyn Store>,
    ear: Arc<Ear>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut heard = ear.hear(&instance);
    let following = async {
        let mut is_failing = false;
        loop {
            match revocations.catch_up(&*store, &instance, &clock).await {
                Ok(()) => {
                    if is_failing {
                        info!(%instance, "revocations are read again");
                    }
                    is_failing = false;
                    if heard.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !is_failing {
                        warn!(%instance, %error, "revocations cannot be read; what is known stays known");
                    }
                    is_failing = true;
                    sleep(STORE_PAUSE).await;
                }
            }
        }
    };
    let forgetting = async {
        let mut ticks = interval(FORGET_INTERVAL);
        loop {
            ticks.tick().await;
            revocations.forget(clock());
        }
    };
    tokio::select! {
        () = following => {}
        () = forgetting => {}
        () = stop.cancelled() => {}
    }
}
