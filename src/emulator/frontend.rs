//! The offline Clerk's Frontend API, as far as it has one: what browsers are sent to.

mod handshake;

use std::sync::Arc;

use axum::Router;

pub(super) use self::handshake::Handshakes;
use super::Instance;

pub(super) fn router<S>(instance: &Arc<Instance>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    handshake::router().with_state(Arc::clone(instance))
}
