//! Who vouches to upstreams, by the settings.

use std::sync::Arc;

use crate::{
    keys::Clock,
    settings::{Settings, UpstreamSettings},
    store::SqlStore,
    upstream_assertion::{AssertionSettings, Assertions},
};

/// Where requests are let through and there is a database for the keys. No key is made before a route
/// or a setting asks for one.
pub(super) fn assertions(
    settings: &Settings,
    store: Option<&SqlStore>,
    clock: &Clock,
) -> Option<Arc<Assertions>> {
    settings.policy.as_ref()?;
    let UpstreamSettings {
        default_audience,
        issuer,
        rotation,
        cache_bytes,
    } = settings.upstream.clone();
    let settings = AssertionSettings {
        issuer,
        default_audience: default_audience.map(Into::into),
        rotation,
        cache_bytes,
    };
    let store = Arc::new(store?.clone());
    Some(Arc::new(Assertions::new(
        settings,
        store,
        Arc::clone(clock),
    )))
}
