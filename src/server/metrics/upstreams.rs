//! What is vouched to upstreams, and with which keys.

use std::fmt;

use super::number;
use crate::{
    telemetry::metrics::{self as catalogue, Writer},
    upstream_assertion::Assertions,
};

pub(super) fn write(writer: &mut Writer<'_>, assertions: Option<&Assertions>) -> fmt::Result {
    let stats = assertions.map(Assertions::stats);
    let outcomes = stats.iter().flat_map(|stats| stats.outcomes);
    let outcomes = outcomes.map(|(outcome, count)| ([outcome.name().to_owned()], number(count)));
    writer.write(catalogue::UPSTREAM_ASSERTIONS, outcomes)?;
    for (metric, value) in [
        (
            catalogue::UPSTREAM_ASSERTION_CACHE_ENTRIES,
            stats.map(|stats| stats.cache.entries),
        ),
        (
            catalogue::UPSTREAM_ASSERTION_CACHE_BYTES,
            stats.map(|stats| stats.cache.bytes),
        ),
        (
            catalogue::UPSTREAM_ASSERTION_CACHE_EVICTIONS,
            stats.map(|stats| stats.cache.evictions),
        ),
        (
            catalogue::UPSTREAM_KEYS,
            stats.map(|stats| stats.published_keys),
        ),
    ] {
        writer.write::<[String; 0]>(metric, value.map(|value| ([], number(value))))?;
    }
    let age = stats.and_then(|stats| stats.key_age);
    let age = age.map(|age| ([], age.as_secs_f64()));
    writer.write::<[String; 0]>(catalogue::UPSTREAM_KEY_AGE, age)?;
    let readings = stats.iter().flat_map(|stats| {
        let (read, failed) = stats.readings;
        [("read", read), ("failed", failed)]
            .map(|(outcome, count)| ([outcome.to_owned()], number(count)))
    });
    writer.write(catalogue::UPSTREAM_KEY_READINGS, readings)
}
