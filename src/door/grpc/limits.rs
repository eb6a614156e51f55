//! Limits on calls: how many at once, and how long one may take.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{stats::CallStats, status};

/// The longest time that a call may take, whatever the client allows.
const MAX_CALL_TIME: Duration = Duration::from_secs(10);

/// tonic ends a call at the client's deadline too, but as `CANCELLED`, and its timer starts before
/// ours: ours ends so much earlier.
const TONIC_MARGIN: Duration = Duration::from_millis(10);

/// Calls that are always taken up, and that no other waits for: a service that is busy is not to be
/// restarted or taken out for it.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Turns calls away with `RESOURCE_EXHAUSTED` when more than `max_calls` are worked on, health
/// checks aside, and ends one at the client's deadline or after [`MAX_CALL_TIME`] with
/// `DEADLINE_EXCEEDED`.
#[derive(Clone)]
pub(super) struct LimitLayer {
    max_calls: u64,
    stats: Arc<CallStats>,
}

impl LimitLayer {
    pub(super) fn new(max_calls: usize, stats: Arc<CallStats>) -> Self {
        Self {
            max_calls: u64::try_from(max_calls).unwrap_or(u64::MAX),
            stats,
        }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited {
            inner,
            limits: self.clone(),
        }
    }
}

#[derive(Clone)]
pub(super) struct Limited<S> {
    inner: S,
    limits: LimitLayer,
}

impl<S, B> Service<http::Request<B>> for Limited<S>
where
    S: Service<http::Request<B>, Response = http::Response<tonic::body::Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Call<S::Future> {
        let is_health = request.uri().path().starts_with(HEALTH);
        let in_flight = (!is_health).then(|| InFlight::start(&self.limits.stats));
        if let Some(in_flight) = &in_flight
            && in_flight.count > self.limits.max_calls
        {
            self.limits.stats.count_shed();
            return Call::Shed;
        }
        let allowed = match deadline(request.headers()) {
            Some(deadline) if deadline <= MAX_CALL_TIME => {
                deadline - TONIC_MARGIN.min(deadline / 10)
            }
            Some(_) | None => MAX_CALL_TIME,
        };
        let ends_at = Instant::now() + allowed;
        Call::Worked {
            call: self.inner.call(request),
            ends_at,
            sleep: None,
            _in_flight: in_flight,
        }
    }
}

/// Counts a call as long as it lives.
pub(super) struct InFlight {
    stats: Arc<CallStats>,
    count: u64,
}

impl InFlight {
    fn start(stats: &Arc<CallStats>) -> Self {
        Self {
            count: stats.started(),
            stats: Arc::clone(stats),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.ended();
    }
}

/// How long a call may wait for others: so much less than it may take that its answer still arrives.
pub(super) fn patience(headers: &http::HeaderMap) -> Duration {
    /// What the answer's own way takes at most.
    const MARGIN: Duration = Duration::from_millis(100);
    let allowed = deadline(headers).map_or(MAX_CALL_TIME, |d| d.min(MAX_CALL_TIME));
    allowed - MARGIN.min(allowed / 10)
}

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests"). One that cannot be
/// read is left to the client.
fn deadline(headers: &http::HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

pin_project! {
    /// A call under its limits. The timer is made only for a call that has to wait.
    #[project = CallProjection]
    pub(super) enum Call<F> {
        Shed,
        Worked {
            #[pin]
            call: F,
            ends_at: Instant,
            sleep: Option<Pin<Box<Sleep>>>,
            _in_flight: Option<InFlight>,
        },
    }
}

impl<F, E> Future for Call<F>
where
    F: Future<Output = Result<http::Response<tonic::body::Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            CallProjection::Shed => Poll::Ready(Ok(status::overloaded().into_http())),
            CallProjection::Worked {
                call,
                ends_at,
                sleep: timer,
                ..
            } => {
                if let Poll::Ready(answer) = call.poll(cx) {
                    return Poll::Ready(answer);
                }
                ready!(
                    timer
                        .get_or_insert_with(|| Box::pin(sleep_until(*ends_at)))
                        .as_mut()
                        .poll(cx)
                );
                let status = Status::new(Code::DeadlineExceeded, "the call took too long");
                Poll::Ready(Ok(status.into_http()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_in_every_unit_and_nothing_else() {
        let read = |value: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", value.parse().expect("a header value"));
            deadline(&headers)
        };
        assert_eq!(read("1S"), Some(Duration::from_secs(1)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            read("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for bad in ["", "S", "1", "-1S", "1.5S", "123456789S", "1x"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
