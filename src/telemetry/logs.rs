//! Structured logs on standard error.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::ParseError};

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

/// Sets up logs for the process. Lines still waiting are written when the guard is dropped.
pub fn set_up(filter: &str, format: Format) -> Result<WorkerGuard, LogsError> {
    let filter = EnvFilter::try_new(filter)?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let set = match format {
        Format::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => logs.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| LogsError::AlreadySetUp)?;
    Ok(guard)
}
