//! Clerk's Frontend API, as far as the offline Clerk has it: what a browser asks, without a secret key.

mod handshake;
mod sign_ins;

use std::sync::Arc;

use axum::Router;

pub(super) use self::handshake::Handshakes;
use super::Instance;

pub(super) fn router<S>(instance: &Arc<Instance>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .merge(handshake::router())
        .merge(sign_ins::router())
        .with_state(Arc::clone(instance))
}
