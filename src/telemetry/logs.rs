//! Structured logs on standard error.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, ParseError, filter_fn},
    fmt,
    layer::{Filter, SubscriberExt},
    util::SubscriberInitExt,
};

use super::otlp::Otlp;

/// Lines that wait for a slow reader; further ones are dropped, so that a full pipe never holds up
/// an answer.
const MAX_WAITING_LINES: usize = 32_768;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs could not be set up.
#[derive(Debug, Error)]
pub enum LogsError {
    /// The filter cannot be read.
    #[error("the log filter cannot be read: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else set up logs in this process.
    #[error("logs are set up already")]
    AlreadySetUp,
}

/// Sets up logs for the process; where there is `otlp`, a collector gets them too. Lines still waiting
/// are written when the guard is dropped.
pub fn set_up(filter: &str, format: Format, otlp: Option<&Otlp>) -> Result<WorkerGuard, LogsError> {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let to_collector = match otlp {
        Some(otlp) => Some(otlp.bridge().with_filter(ours(EnvFilter::try_new(filter)?))),
        None => None,
    };
    let set = tracing_subscriber::registry()
        .with(lines.with_filter(EnvFilter::try_new(filter)?))
        .with(to_collector)
        .try_init();
    set.map_err(|_| LogsError::AlreadySetUp)?;
    Ok(guard)
}

/// Of what `filter` lets through, that which this service says itself: what sends would else send what it
/// says of sending. Without the hint each place of each dependency that may log would be asked at each
/// call whether it does.
fn ours<S>(filter: EnvFilter) -> impl Filter<S> {
    let ours = filter_fn(|metadata| metadata.target().starts_with("clerk_authz"));
    FilterExt::<S>::and(filter, ours.with_max_level_hint(LevelFilter::TRACE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::Registry;

    #[test]
    fn what_is_below_the_filters_level_costs_no_question() {
        for (filter, level) in [
            ("info", LevelFilter::INFO),
            ("warn,clerk_authz::door=debug", LevelFilter::DEBUG),
        ] {
            let ours = ours::<Registry>(EnvFilter::new(filter));
            assert_eq!(ours.max_level_hint(), Some(level), "{filter}");
        }
    }
}
