//! One question's way through the rooms, for whoever follows it: spans of OpenTelemetry.
//!
//! A question is followed where its caller says so (W3C `traceparent`) or chance does; of any other
//! no span is made, and to ask whether it is followed costs about a nanosecond. Called by the rooms
//! that a question passes; `telemetry` says once a process how many are followed and who collects.
//! Spans hold names and reasons, never a credential, nor ids of users and organizations.

use std::{
    borrow::Cow,
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::OnceLock,
    task::{Context as TaskContext, Poll},
};

use http::{HeaderMap, HeaderName};
use opentelemetry::{
    Context, ContextGuard, KeyValue, Value, global,
    propagation::{Extractor, Injector},
    trace::{SpanBuilder, SpanContext, Status, TraceContextExt, Tracer},
};
use pin_project_lite::pin_project;

pub use opentelemetry::trace::SpanKind;

/// The name of who makes the spans.
const SCOPE: &str = "clerk-authz";

/// The headers of W3C Trace Context, section 3.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

static SAMPLER: OnceLock<Sampler> = OnceLock::new();

thread_local! {
    /// Whether what is done now belongs to a question that is followed. Each step of each question asks,
    /// and the current context is slower to say it.
    static IS_FOLLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Which questions are followed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// A caller that says whether it is followed is heeded.
    pub heeds_parent: bool,
    /// This part of the others, from 0 to 1.
    pub ratio: f64,
}

impl Sampler {
    fn follows(self, parent: Option<&SpanContext>) -> bool {
        match parent {
            Some(parent) if self.heeds_parent => parent.is_sampled(),
            // As the specification wants it, so that all services choose the same.
            Some(parent) => {
                let id = u128::from_be_bytes(parent.trace_id().to_bytes());
                let chance = (id as u64 >> 1) as f64 / (1_u64 << 63) as f64;
                self.ratio >= 1.0 || chance < self.ratio
            }
            None => self.ratio > 0.0 && fastrand::f64() < self.ratio,
        }
    }
}

/// Begins to follow questions by `sampler`; `false` where somebody has begun before.
pub fn start(sampler: Sampler) -> bool {
    SAMPLER.set(sampler).is_ok()
}

/// A question, or a part of the work on it, that is followed. It ends when it is dropped.
#[derive(Debug)]
pub struct Followed(Context);

impl Followed {
    /// What is done until the guard is dropped belongs to it.
    pub fn enter(&self) -> Entered {
        Entered {
            _context: self.0.clone().attach(),
            was_followed: IS_FOLLOWED.replace(true),
        }
    }

    /// The trace that it is a part of: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }

    /// Adds what is known of it.
    pub fn note(&self, name: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(name, value));
    }

    /// It went wrong by a fault that is not the caller's.
    pub fn failed(&self) {
        self.0.span().set_status(Status::error(""));
    }
}

/// As long as it stands, what is done on this thread belongs to a question that is followed.
#[must_use]
pub struct Entered {
    _context: ContextGuard,
    was_followed: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        IS_FOLLOWED.set(self.was_followed);
    }
}

/// Begins with a question, if it is followed; `header` is the value of one of its headers.
pub fn begin<'h>(
    name: impl FnOnce() -> Cow<'static, str>,
    header: impl Fn(&HeaderName) -> Option<&'h str>,
) -> Option<Followed> {
    let sampler = *SAMPLER.get()?;
    let parent = header(&TRACEPARENT).map(|parent| {
        let headers = Headers {
            parent,
            state: header(&TRACESTATE),
        };
        global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::new(), &headers)
        })
    });
    let parent = parent.filter(|parent| parent.span().span_context().is_valid());
    let is_followed = match &parent {
        Some(parent) => sampler.follows(Some(parent.span().span_context())),
        None => sampler.follows(None),
    };
    is_followed.then(|| of(name(), SpanKind::Server, &parent.unwrap_or_default()))
}

fn of(name: Cow<'static, str>, kind: SpanKind, parent: &Context) -> Followed {
    let span = SpanBuilder::from_name(name).with_kind(kind);
    let span = global::tracer(SCOPE).build_with_context(span, parent);
    Followed(parent.with_span(span))
}

/// Whether what is done now belongs to a question that is followed.
pub fn is_followed() -> bool {
    IS_FOLLOWED.get()
}

/// Whether these headers tell of a trace that their sender is in.
pub fn has_parent(headers: &HeaderMap) -> bool {
    headers.contains_key(&TRACEPARENT)
}

/// Adds what is known to the span that is under way, if there is one.
pub fn note(name: &'static str, value: impl FnOnce() -> Value) {
    if is_followed() {
        Context::map_current(|current| {
            current.span().set_attribute(KeyValue::new(name, value()));
        });
    }
}

/// The trace that this is a part of, if there is one: 32 hexadecimal digits.
pub fn id() -> Option<String> {
    is_followed().then(|| {
        Context::map_current(|current| current.span().span_context().trace_id().to_string())
    })
}

/// The headers that tell another service of it; none where nothing is followed.
pub fn headers() -> Vec<(String, String)> {
    let mut told = Told::default();
    if is_followed() {
        global::get_text_map_propagator(|propagator| propagator.inject(&mut told));
    }
    told.0
}

/// A part of the work as a span of its own, where it is followed.
pub fn within<F: Future>(name: &'static str, kind: SpanKind, work: F) -> Within<F> {
    let followed = is_followed().then(|| of(name.into(), kind, &Context::current()));
    inside(followed, work)
}

/// What `work` does belongs to `followed`.
pub fn inside<F: Future>(followed: Option<Followed>, work: F) -> Within<F> {
    Within { followed, work }
}

pin_project! {
    /// Work that is followed, or not.
    pub struct Within<F> {
        followed: Option<Followed>,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = {
            let _entered = this.followed.as_ref().map(Followed::enter);
            this.work.poll(cx)
        };
        if answer.is_ready() {
            this.followed.take();
        }
        answer
    }
}

/// As they came.
struct Headers<'h> {
    parent: &'h str,
    state: Option<&'h str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.parent),
            "tracestate" => self.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[derive(Default)]
struct Told(Vec<(String, String)>);

impl Injector for Told {
    fn set(&mut self, key: &str, value: String) {
        // One without vendors' members says nothing.
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    fn parent(id: u128, sampled: bool) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(sampled);
        let (trace, span) = (TraceId::from(id), SpanId::from(1));
        SpanContext::new(trace, span, flags, true, TraceState::default())
    }

    #[test]
    fn a_caller_is_heeded_where_the_setting_says_so_and_only_there() {
        let low = u128::from(u64::MAX) << 64 | 1;
        let high = u128::from(u64::MAX);
        for (heeds_parent, ratio, id, sampled, followed) in [
            (true, 0.0, high, true, true),
            (true, 1.0, low, false, false),
            (false, 0.5, low, false, true),
            (false, 0.5, high, true, false),
            (false, 0.0, low, true, false),
            (false, 1.0, high - 2, false, true),
        ] {
            let sampler = Sampler {
                heeds_parent,
                ratio,
            };
            let follows = sampler.follows(Some(&parent(id, sampled)));
            assert_eq!(follows, followed, "{sampler:?} {id:x} {sampled}");
        }
    }

    #[test]
    fn without_a_caller_chance_decides() {
        let count = |ratio| {
            let heeds_parent = true;
            let sampler = Sampler {
                heeds_parent,
                ratio,
            };
            (0..10_000).filter(|_| sampler.follows(None)).count()
        };
        assert_eq!(count(0.0), 0);
        assert_eq!(count(1.0), 10_000);
        // Ten standard deviations to either side.
        assert!((700..1_300).contains(&count(0.1)));
    }
}
