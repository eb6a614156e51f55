//! The one normaliser: what of a request decides which route it is, its host and its path.
//!
//! Every door gives it the bytes that it received and hears one of three: one meaning, several
//! meanings of which a route may permit some, or a refusal (docs/paths.md). It never mends: what two
//! servers could read in two ways is told to the caller, not chosen between.

mod ambiguity;
mod host;
mod path;
mod reading;

pub use self::{
    ambiguity::{Ambiguities, Ambiguity},
    host::{AmbiguousHost, Host, MAX_HOST_BYTES},
    path::{AmbiguousPath, MAX_PATH_BYTES, Path},
    reading::{Reading, Segments},
};
