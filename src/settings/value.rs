//! Texts → values with units.

use std::{ops::RangeInclusive, time::Duration};

use url::Url;

/// A duration with a unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// A duration as people write it.
pub(super) fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A size in bytes: `0`, or a number with a unit.
pub(super) fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    if text == "0" {
        return Some(0);
    }
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number = number.trim_end();
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A number within bounds, digits only.
pub(super) fn count(text: &str, bounds: &RangeInclusive<u32>) -> Option<u32> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    let count = is_number.then(|| text.parse().ok()).flatten()?;
    bounds.contains(&count).then_some(count)
}

/// `HH:MM`, from `00:00` to `23:59`: minutes after midnight.
pub(super) fn time_of_day(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    Some(count(hours, &(0..=23))? * 60 + count(minutes, &(0..=59))?)
}

/// Bounds as people read them.
pub(super) fn shown_bounds(bounds: &RangeInclusive<u32>) -> String {
    format!("a number from {} to {}", bounds.start(), bounds.end())
}

/// A list of values between commas; spaces around them do not count.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether the text is an origin as browsers send it: scheme, host and port, nothing more.
pub(super) fn is_origin(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let host = text.split_once("://").map_or("", |(_, host)| host);
    matches!(url.scheme(), "http" | "https")
        && !host.is_empty()
        && !host.contains(['/', '?', '#', '@', '*', ' '])
        && host.to_ascii_lowercase() == host
}

/// Whether a name or a password stands in front of an address's host.
pub(super) fn has_userinfo(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}

/// An address as it may be shown, whether it can be read or not: what stands before an `@` may be a
/// password.
pub(super) fn shown_address(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://…@{host}"),
        None => format!("…@{host}"),
    }
}

/// Whether the text is levels, or `target=level`, between commas.
pub(super) fn is_log_filter(text: &str) -> bool {
    let is_level = |level: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|known| level.eq_ignore_ascii_case(known))
    };
    let is_target = |target: &str| {
        !target.is_empty()
            && target
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
    };
    text.split(',')
        .map(str::trim)
        .all(|part| match part.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(part),
        })
}
