//! What the service shows of itself: logs, lines for machines, metrics, and
//! what a collector gets.
//!
//! Called by `server` and `cli`. Knows no other room than `histogram` and `trace`: the rooms count
//! for themselves, and `server` brings their counts together when metrics are asked for.

pub mod lines;
pub mod logs;
pub mod metrics;
pub mod otlp;
