//! Pure decisions over what is known of a user. So far one: whether a factor was verified recently
//! enough.
//!
//! Called by `authz` with facts from a token. May not touch I/O or a clock.

mod step_up;

pub use self::step_up::{InvalidReverification, Level, Preset, Reverification, check};
