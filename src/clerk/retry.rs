//! How long to wait before a request is repeated, and what `Retry-After` says of it.

use std::time::Duration;

use crate::{backoff::Backoff, identity::Timestamp};

/// How often one request is sent at most.
pub(super) const MAX_ATTEMPTS: u32 = 3;
/// From a request that failed to its repetition.
pub(super) const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(10),
};
/// The longest wait that Clerk may ask for; what it asks beyond is looked at again after this, so
/// that one absurd header does not silence us for a day.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a 429 that does not say how long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3). At most [`LONGEST_PAUSE`].
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More seconds than there are numbers for is still a wish to wait.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        Timestamp::from(date).since(now)
    };
    Some(wait.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = Timestamp::from_unix_seconds(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, seconds) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("86400", Some(60)),
            ("99999999999999999999999", Some(60)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:49:40 GMT", Some(3)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(value, now), expected, "{value:?}");
        }
    }
}
