//! What the service shows of itself.

mod alerts;
mod calls;
mod collector;
mod decision_log;
mod envoy;
mod promtool;
mod secrets;
mod silent;
mod traces;
