//! The route policy: what a route asks of a request, and which route a request is.
//!
//! Called by every door that stands in front of other services, and by the command line. Pure: no
//! I/O, no async, no clock.

mod target;

pub use target::{
    Ambiguities, Ambiguity, AmbiguousHost, AmbiguousPath, Host, MAX_HOST_BYTES, MAX_PATH_BYTES,
    Path, Reading, Segments,
};
