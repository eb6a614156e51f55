//! What the service shows of itself.

mod calls;
mod promtool;
