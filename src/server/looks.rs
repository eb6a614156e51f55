//! Files that are read again and again while the service runs, so that a change of them needs no
//! restart.

use std::time::Duration;

use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

/// How often most files are looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for so long and reads, on a thread that may wait for the disk; `None` at the stop, or where
/// the runtime ends.
pub(super) async fn look<T: Send + 'static>(
    stop: &CancellationToken,
    interval: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::select! {
        () = sleep(interval) => spawn_blocking(read).await.ok(),
        () = stop.cancelled() => None,
    }
}
