//! The doors: each knows one foreign format, asks `authz`, and holds no rule of its own.
//!
//! Called by `server`. May not touch `clerk` or a store.

pub mod answer;
mod decision_log;
pub mod grpc;
pub mod http;
mod listener;
mod peer;
mod traffic;

pub use self::{
    decision_log::{DecisionLog, WriteLine},
    listener::{GuardedListener, ListenerLimits},
    peer::{ClientIdentity, PeerInfo},
    traffic::{CODES, GrpcMethod, Route, Traffic},
};
