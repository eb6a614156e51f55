//! The decision log of the settings.

use std::sync::Arc;

use super::StartError;
use crate::{
    door::DecisionLog,
    settings::{DecisionLogPlace, Settings},
    telemetry::lines::{Lines, Target},
};

/// The decision log, and what writes it, which is to end last.
pub(super) fn open(settings: &Settings) -> Result<(DecisionLog, Option<Lines>), StartError> {
    let target = match &settings.decision_log {
        DecisionLogPlace::Off => return Ok((DecisionLog::off(), None)),
        DecisionLogPlace::Stdout => Target::Stdout,
        DecisionLogPlace::File(path) => Target::File(path.clone()),
    };
    let lines = Lines::open(target.clone()).map_err(|source| StartError::DecisionLog {
        place: match target {
            Target::Stdout => "stdout".to_owned(),
            Target::File(path) => path.display().to_string(),
        },
        source,
    })?;
    let write = Arc::new(lines.writer());
    let log = DecisionLog::new(write, settings.decision_log_sample);
    Ok((log, Some(lines)))
}
