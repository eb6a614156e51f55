//! Clerk's browser handshake: by the SDK's own decisions, through the doors, and behind a real Envoy.

mod doors;
mod envoy;
mod oracle;
mod scene;
