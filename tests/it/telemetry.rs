//! What the service shows of itself.

mod calls;
mod decision_log;
mod promtool;
