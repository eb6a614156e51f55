//! Limits on calls: how many at once, and how long one may take. It is where each call passes, and so
//! where it is counted.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::HeaderName;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{callers, stats::CallStats, status};
use crate::{
    callers::{Callers, Place, Refused},
    door::GrpcMethod,
    trace::{self, Followed},
};

/// The longest time that a call may take, whatever the client allows.
const MAX_CALL_TIME: Duration = Duration::from_secs(10);

/// tonic ends a call at the client's deadline too, but as `CANCELLED`, and its timer starts before
/// ours: ours ends so much earlier.
const TONIC_MARGIN: Duration = Duration::from_millis(10);

/// The headers of gRPC over HTTP/2.
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Turns calls away with `RESOURCE_EXHAUSTED` when more than `max_calls` are worked on, health
/// checks aside (a service that is busy is not to be restarted or taken out for it), and ends one at the
/// client's deadline or after [`MAX_CALL_TIME`] with `DEADLINE_EXCEEDED`. Where there are rules for
/// callers, it is here that they are asked.
#[derive(Clone)]
pub(super) struct LimitLayer {
    max_calls: u64,
    stats: Arc<CallStats>,
    callers: Option<Arc<Callers>>,
}

impl LimitLayer {
    pub(super) fn new(
        max_calls: usize,
        stats: Arc<CallStats>,
        callers: Option<Arc<Callers>>,
    ) -> Self {
        Self {
            max_calls: u64::try_from(max_calls).unwrap_or(u64::MAX),
            stats,
            callers,
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

    fn call(&mut self, mut request: http::Request<B>) -> Call<S::Future> {
        let method = GrpcMethod::of(request.uri().path());
        let (counted, in_flight) = Counted::start(&self.limits.stats, method);
        let counted = counted.followed(&request);
        if in_flight > self.limits.max_calls {
            self.limits.stats.count_shed();
            return Call::Shed { counted };
        }
        let place = match &self.limits.callers {
            None => None,
            Some(rules) => match callers::admit(rules, method, &mut request, counted.began) {
                Ok(place) => place,
                Err(refused) => return Call::Refused { refused, counted },
            },
        };
        let allowed = match deadline(request.headers()) {
            Some(deadline) if deadline <= MAX_CALL_TIME => {
                deadline - TONIC_MARGIN.min(deadline / 10)
            }
            Some(_) | None => MAX_CALL_TIME,
        };
        let ends_at = counted.began + allowed;
        Call::Worked {
            call: self.inner.call(request),
            ends_at,
            sleep: None,
            counted,
            _place: place,
        }
    }
}

/// Counts a call: as one that is worked on as long as it lives, and then by how it ended.
pub(super) struct Counted {
    stats: Arc<CallStats>,
    method: GrpcMethod,
    began: Instant,
    ended: bool,
    followed: Option<Followed>,
}

impl Counted {
    /// And how many are worked on with it; a health check is none of them.
    fn start(stats: &Arc<CallStats>, method: GrpcMethod) -> (Self, u64) {
        let in_flight = match method {
            GrpcMethod::Health => 0,
            _ => stats.started(),
        };
        let counted = Self {
            stats: Arc::clone(stats),
            method,
            began: Instant::now(),
            ended: false,
            followed: None,
        };
        (counted, in_flight)
    }

    /// Follows it, where its caller or chance wants that.
    fn followed<B>(mut self, request: &http::Request<B>) -> Self {
        let header = |name: &HeaderName| request.headers().get(name)?.to_str().ok();
        let wanted = match self.method {
            GrpcMethod::Health | GrpcMethod::Other => false,
            // Its caller may stand in the message.
            GrpcMethod::Check => trace::has_parent(request.headers()),
            _ => true,
        };
        if wanted {
            // The path is one of ours.
            let name = || {
                request
                    .uri()
                    .path()
                    .trim_start_matches('/')
                    .to_owned()
                    .into()
            };
            self.followed = trace::begin(name, header);
        }
        self
    }

    /// What is done meanwhile belongs to it.
    fn polls<T>(&self, poll: impl FnOnce() -> T) -> T {
        let _entered = self.followed.as_ref().map(Followed::enter);
        poll()
    }

    /// An answer that goes well says so behind its body, any other in its head.
    fn answered<B>(&mut self, answer: &http::Response<B>) {
        let told = answer.headers().get(&GRPC_STATUS);
        let code = match told {
            Some(code) => Code::from_bytes(code.as_bytes()),
            None if answer.status() == http::StatusCode::OK => Code::Ok,
            None => Code::Unknown,
        };
        self.end(code);
    }

    fn end(&mut self, code: Code) {
        self.ended = true;
        let took = self.began.elapsed();
        self.stats.traffic().called(self.method, code, took);
        if let Some(followed) = self.followed.take() {
            let traffic = self.stats.traffic();
            traffic.followed(self.method, took, followed.trace_id());
            followed.note("rpc.system", "grpc");
            followed.note("rpc.grpc.status_code", code as i64);
            // By the specification these are faults of the server.
            if matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ) {
                followed.failed();
            }
        }
    }
}

/// Dropped before its end, it was given up by the client.
impl Drop for Counted {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled);
        }
        if self.method != GrpcMethod::Health {
            self.stats.ended();
        }
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
    let value = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
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
        Shed { counted: Counted },
        Refused { refused: Refused, counted: Counted },
        Worked {
            #[pin]
            call: F,
            ends_at: Instant,
            sleep: Option<Pin<Box<Sleep>>>,
            counted: Counted,
            // Among its caller's.
            _place: Option<Place>,
        },
    }
}

impl<F, E> Future for Call<F>
where
    F: Future<Output = Result<http::Response<tonic::body::Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (counted, answer) = match self.project() {
            CallProjection::Shed { counted } => (counted, Ok(status::overloaded().into_http())),
            CallProjection::Refused { refused, counted } => {
                let status = status::refused_caller(refused, counted.method.name());
                (counted, Ok(status.into_http()))
            }
            CallProjection::Worked {
                call,
                ends_at,
                sleep: timer,
                counted,
                ..
            } => match counted.polls(|| call.poll(cx)) {
                Poll::Ready(answer) => (counted, answer),
                Poll::Pending => {
                    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(*ends_at)));
                    ready!(timer.as_mut().poll(cx));
                    let status = Status::new(Code::DeadlineExceeded, "the call took too long");
                    (counted, Ok(status.into_http()))
                }
            },
        };
        if let Ok(answer) = &answer {
            counted.answered(answer);
        }
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_client_gave_up_is_cancelled() {
        let stats = Arc::new(CallStats::default());
        let (counted, in_flight) = Counted::start(&stats, GrpcMethod::GetUser);
        let (of_health, _) = Counted::start(&stats, GrpcMethod::Health);
        assert_eq!((in_flight, stats.in_flight()), (1, 1));

        drop((counted, of_health));

        let calls = |method| stats.traffic().calls(method, Code::Cancelled as usize);
        assert_eq!(calls(GrpcMethod::GetUser), 1);
        assert_eq!(calls(GrpcMethod::Health), 1);
        assert_eq!(stats.in_flight(), 0);
    }

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
