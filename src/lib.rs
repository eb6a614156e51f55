//! clerk-authz: an authorization service for back ends whose users sign in with [Clerk].
//!
//! The rooms, in the order in which a request may know them. The first group is meaning: pure, no
//! I/O, no async, no clock of its own. The second knows keys and caches. The third speaks foreign
//! formats. The last runs it all. An import never points upwards; `tests/it/rooms.rs` holds the
//! table and fails on anything else.
//!
//! [Clerk]: https://clerk.com

pub mod backoff;
mod closed_list;
pub mod explain;
pub mod histogram;
pub mod identity;
pub mod reason;
pub mod trace;

pub mod assertion;
pub mod callers;
pub mod credential;
pub mod decision;
pub mod handshake;
pub mod mirror;
pub mod policy;
pub mod token;
pub mod webhook;

pub mod authz;
pub mod keys;
pub mod sync;
pub mod upstream_assertion;

pub mod clerk;
pub mod door;
pub mod store;

pub mod cli;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod server;
pub mod settings;
pub mod telemetry;
