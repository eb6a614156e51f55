//! Clerk over HTTP: so far its key sets.
//!
//! Built by `server`; implements the traits of the rooms that ask. Knows no door.

mod jwks;

pub use self::jwks::{HttpJwksSource, InsecureUrl};

/// The version of Clerk's API that we speak.
const API_VERSION: &str = "2026-05-12";
