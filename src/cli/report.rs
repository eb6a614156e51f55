//! Explanations on a terminal, and as JSON.

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::{DENIED, SUCCESS};
use crate::{
    explain::{Outcome, Step},
    reason::Reason,
};

/// The steps as `--json` prints them.
pub(super) fn steps_json(steps: &[Step]) -> Value {
    let steps = steps.iter().map(|step| {
        json!({
            "rule": step.rule.name(), "outcome": step.outcome.name(), "detail": step.detail,
        })
    });
    steps.collect()
}

/// Every rule with a mark, then how it ended. `accepted` is the word for an exit code of success.
pub(super) fn print(code: u8, accepted: &str, reason: Option<Reason>, steps: &[Step]) {
    let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
    for step in steps {
        let (mark, style) = match step.outcome {
            Outcome::Passed => ("✓", color(AnsiColor::Green)),
            Outcome::Failed => ("✗", color(AnsiColor::Red)),
            Outcome::Skipped => ("–", Style::new().dimmed()),
        };
        anstream::println!(
            "{style}{mark} {:<17}{style:#} {}",
            step.rule.name(),
            step.detail
        );
    }
    let (word, style) = match code {
        SUCCESS => (accepted, color(AnsiColor::Green)),
        DENIED => ("denied", color(AnsiColor::Red)),
        _ => ("cannot tell", color(AnsiColor::Yellow)),
    };
    match reason {
        None => anstream::println!("\n{style}{word}{style:#}"),
        Some(reason) => {
            anstream::println!(
                "\n{style}{word}{style:#} {reason}: {}",
                reason.description()
            );
        }
    }
}
