//! The end, in its order: say that it leaves, answer on for a while, take nothing new, finish what is
//! in flight, and only then end what works in the background and close the store.

use std::time::Duration;

use tokio::{
    task::{AbortHandle, JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Running;
use crate::{door::grpc::ConnectionAge, settings::DrainSettings};

/// How long what works in the background has to end after the last call. Workers of the inbox end
/// within five seconds by themselves; what is cut off here is claimed again when its lease has passed.
const BACKGROUND_WITHIN: Duration = Duration::from_secs(6);

/// How long the last records of decisions have to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// What is told of the end, in this order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// Health checks say that the service leaves. Everything is still answered.
    pub(super) leaving: CancellationToken,
    /// The doors take nothing new, clients are told so, and watches end.
    pub(super) closing: CancellationToken,
    /// What works in the background ends.
    pub(super) background: CancellationToken,
}

/// How old a gRPC connection may get.
pub(super) fn connection_age(drain: &DrainSettings) -> Option<ConnectionAge> {
    let max = drain.max_connection_age?;
    let grace = drain.timeout;
    Some(ConnectionAge { max, grace })
}

impl Running {
    /// Says that it leaves, answers on for the pause, stops accepting, finishes what is in flight
    /// within the time for it, and ends. Dropped half-way, it ends at once.
    pub async fn stop(self) {
        let DrainSettings {
            pause,
            timeout: within,
            ..
        } = self.drain;
        self.ending.leaving.cancel();
        if !pause.is_zero() {
            info!("leaving; answering on for {pause:?}");
            sleep(pause).await;
        }
        self.ending.closing.cancel();
        self.health.end_watches().await;
        let abort: Vec<_> = self.doors.iter().map(JoinHandle::abort_handle).collect();
        let ended = timeout(within, async {
            for door in self.doors {
                // A door that panicked has ended too.
                let _ = door.await;
            }
        });
        if ended.await.is_err() {
            // Their connections end with the process; what they ask of a store that is closed fails.
            warn!("calls were still open after {within:?}; going on without them");
            abort.iter().for_each(AbortHandle::abort);
        }
        self.ending.background.cancel();
        self.tasks.close();
        if timeout(BACKGROUND_WITHIN, self.tasks.wait()).await.is_err() {
            warn!(
                "work in the background was still under way after {BACKGROUND_WITHIN:?}; ending it"
            );
        }
        if let Some(store) = self.store {
            store.close().await;
        }
        // What waits is written, on a thread that may wait for the disk, or for who reads it.
        let decisions = self.decisions;
        let written = timeout(WRITTEN_WITHIN, spawn_blocking(move || drop(decisions)));
        if written.await.is_err() {
            warn!("the decision log was not written to its end within {WRITTEN_WITHIN:?}");
        }
        info!("stopped");
    }
}
