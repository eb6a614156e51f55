//! Connections that grow old at different times.
//!
//! tonic ends every connection of a server at one and the same age. Connections that were made in one
//! moment, as all are when a replica starts, would then be made anew in one moment, too. So there are
//! several servers, each with an age of its own, and chance says which one a connection gets.

use std::{io, time::Duration};

use futures_util::FutureExt;
use tokio::{select, sync::mpsc, task::unconstrained};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

use crate::door::{GuardedListener, listener::GuardedStream};

/// How old a connection may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionAge {
    /// Then its client is told to make another (GOAWAY), give or take a tenth.
    pub max: Duration,
    /// How long its calls have to end after that.
    pub grace: Duration,
}

/// From nine to eleven tenths of the age, evenly.
const LANES: u32 = 9;
/// Connections that a lane has not taken up yet. At it accepting waits.
const WAITING: usize = 16;
/// Connections that the kernel has made when the end comes and that are taken up still; else their
/// clients would see them reset. Further ones are.
const MADE_AT_THE_END: usize = 1_024;

/// The age of each lane; one lane where connections do not grow old.
pub(super) fn ages(age: Option<ConnectionAge>) -> Vec<Option<ConnectionAge>> {
    let Some(age) = age else {
        return vec![None];
    };
    let middle = LANES / 2;
    let steps = 0..LANES;
    steps
        .map(|step| {
            let max = age.max / (10 * middle) * (9 * middle + step);
            Some(ConnectionAge { max, ..age })
        })
        .collect()
}

/// Where a lane's connections are put in.
pub(super) struct Lane {
    connections: mpsc::Sender<GuardedStream>,
    age: Option<ConnectionAge>,
}

/// A lane, and its connections as tonic takes them. They end with the lane.
pub(super) fn lane(
    age: Option<ConnectionAge>,
) -> (Lane, impl Stream<Item = io::Result<GuardedStream>>) {
    let (connections, taken) = mpsc::channel(WAITING);
    (
        Lane { connections, age },
        ReceiverStream::new(taken).map(Ok),
    )
}

impl Lane {
    async fn put(&self, mut connection: GuardedStream) {
        if let Some(age) = self.age {
            connection.end_after(age.max + age.grace);
        }
        // Whoever takes them ends behind the lane.
        let _ = self.connections.send(connection).await;
    }
}

/// Hands the listener's connections to the lanes until `stop`; then there are neither.
pub(super) async fn spread(
    mut listener: GuardedListener,
    lanes: Vec<Lane>,
    stop: CancellationToken,
) {
    let hand_on = async |connection| {
        if let Some(lane) = lanes.get(fastrand::usize(..lanes.len())) {
            lane.put(connection).await;
        }
    };
    loop {
        select! {
            biased;
            () = stop.cancelled() => break,
            (connection, _) = listener.next() => hand_on(connection).await,
        }
    }
    for _ in 0..MADE_AT_THE_END {
        // tokio gives a task a share of its turns, and would say that there is none where it is used up.
        let Some((connection, _)) = unconstrained(listener.next()).now_or_never() else {
            break;
        };
        hand_on(connection).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::{net::TcpStream, task::consume_budget};

    use super::*;
    use crate::door::ListenerLimits;

    #[test]
    fn ages_are_spread_by_a_tenth_to_both_sides() {
        let age = ConnectionAge {
            max: Duration::from_secs(1_000),
            grace: Duration::from_secs(11),
        };

        let ages: Vec<u64> = ages(Some(age))
            .into_iter()
            .map(|age| age.expect("it grows old").max.as_secs())
            .collect();

        assert_eq!(
            ages,
            [900, 925, 950, 975, 1_000, 1_025, 1_050, 1_075, 1_100]
        );
    }

    /// More than tokio lets a task do in one turn, and fewer than any kernel keeps. A turn may end at an
    /// accept or at what follows it.
    #[tokio::test]
    async fn what_the_kernel_has_connected_at_the_end_is_taken_up() {
        const CLIENTS: usize = 100;
        for done_before in [0, 1] {
            let limits = ListenerLimits {
                max_connections: 1_000,
                opening_bytes: 1,
                opening_within: Duration::from_secs(10),
                max_age: None,
            };
            let listener = GuardedListener::bind(([127, 0, 0, 1], 0).into(), limits).await;
            let listener = listener.expect("a port");
            let addr = listener.local_addr().expect("it is bound");
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                let client = TcpStream::connect(addr.expect("a port")).await;
                clients.push(client.expect("connects"));
            }
            let age = ConnectionAge {
                max: Duration::from_secs(1_800),
                grace: Duration::from_secs(11),
            };
            let (lanes, taken): (Vec<_>, Vec<_>) = ages(Some(age)).into_iter().map(lane).unzip();
            let stop = CancellationToken::new();
            stop.cancel();
            let taken = taken.into_iter().map(|taken| taken.collect::<Vec<_>>());
            let taken = tokio::spawn(join_all(taken));
            let spreading = tokio::spawn(async move {
                for _ in 0..done_before {
                    consume_budget().await;
                }
                spread(listener, lanes, stop).await;
            });

            spreading.await.expect("no panic");

            let taken = taken.await.expect("no panic");
            let count = taken.iter().map(Vec::len).sum::<usize>();
            assert_eq!(count, CLIENTS, "{done_before}");
        }
    }

    #[test]
    fn without_an_age_there_is_one_lane_without_end() {
        assert_eq!(ages(None), [None]);
    }
}
