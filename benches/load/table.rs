//! Figures, and the table that they make.

use std::io::{self, Write};

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

pub(crate) struct Row {
    pub(crate) figure: &'static str,
    pub(crate) measured: String,
    pub(crate) target: String,
    pub(crate) reached: bool,
}

pub(crate) fn say(what: &str) {
    let _ = writeln!(io::stderr(), "load: {what}");
}

pub(crate) fn print(rows: &[Row]) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "))
        .unwrap_or("unknown");
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "machine: {model}, the server on one core\n");
    let _ = writeln!(
        out,
        "| figure | measured | must reach | |\n|---|---|---|---|"
    );
    for row in rows {
        let mark = if row.reached { "reached" } else { "**missed**" };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {mark} |",
            row.figure, row.measured, row.target
        );
    }
}
