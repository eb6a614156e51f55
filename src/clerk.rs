//! Clerk over HTTP: its key sets, its Backend API as [`Directory`](crate::mirror::Directory), and
//! what its events say.
//!
//! Built by `server`; implements the traits of the rooms that ask. Knows no door. The secret key is
//! sent in a header and stands nowhere else: in no log, no error, no metric.

mod answer;
mod api;
mod breaker;
mod budget;
mod coalesce;
mod discovery;
mod events;
mod gate;
mod jwks;
mod listing;
mod mirrored;
mod model;
mod retry;
mod sender;
mod sign_ins;
mod transport;

pub use self::api::{ApiOptions, BackendApi};
pub use self::discovery::DiscoveredJwksSource;
pub use self::events::ClerkEvents;
pub use self::jwks::HttpJwksSource;
pub use self::transport::InsecureUrl;

/// The version of Clerk's API that we speak.
const API_VERSION: &str = "2026-05-12";
