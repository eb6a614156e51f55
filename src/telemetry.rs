//! What the service shows of itself: logs and metrics.
//!
//! Called by `server` and `cli`. Knows no other room than `histogram`: the rooms count
//! for themselves, and `server` brings their counts together when metrics are asked for.

pub mod logs;
pub mod metrics;
