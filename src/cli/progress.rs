//! How far a long command is: a bar on a terminal, else a line now and then, both beside the answer.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// From one line to the next where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the bar moves by itself, so that one sees that something is waited for.
const TICK: Duration = Duration::from_millis(200);

/// Shows how far something is.
pub(super) enum Progress {
    Bar(ProgressBar),
    Lines(Mutex<Option<Line>>),
}

/// What was said last.
pub(super) struct Line {
    label: String,
    at: Instant,
}

impl Progress {
    /// By what standard error is.
    pub(super) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(Mutex::new(None));
        }
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(TICK);
        Self::Bar(bar)
    }

    /// Something is at `done` of `total`.
    pub(super) fn set(&self, label: &str, done: u64, total: Option<u64>) {
        match self {
            Self::Bar(bar) => {
                let template = match total {
                    Some(_) => "{msg:<28} {wide_bar} {human_pos}/{human_len} {eta}",
                    None => "{msg:<28} {spinner} {human_pos}",
                };
                if bar.message() != label || bar.length() != total {
                    if let Ok(style) = ProgressStyle::with_template(template) {
                        bar.set_style(style);
                    }
                    bar.set_message(label.to_owned());
                    match total {
                        // A list grows while it is read.
                        Some(total) => bar.set_length(total.max(done)),
                        None => bar.unset_length(),
                    }
                }
                bar.set_position(done);
            }
            Self::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                let is_news = last
                    .as_ref()
                    .is_none_or(|last| last.label != label || last.at.elapsed() >= LINE_INTERVAL);
                let is_end = total == Some(done);
                if is_news || is_end {
                    match total {
                        Some(total) => anstream::eprintln!("{label}: {done} of {total}"),
                        None => anstream::eprintln!("{label}: {done}"),
                    }
                    *last = Some(Line {
                        label: label.to_owned(),
                        at: Instant::now(),
                    });
                }
            }
        }
    }

    /// Prints a line of the answer, the bar out of its way.
    pub(super) fn print(&self, line: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| anstream::println!("{line}")),
            Self::Lines(_) => anstream::println!("{line}"),
        }
    }

    /// It is over.
    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
