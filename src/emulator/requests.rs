//! How often the Backend API was asked, and how often it may be.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{Endpoint, Timestamp};

const SECOND_MILLISECONDS: i64 = 1_000;
const TEN_SECONDS_MILLISECONDS: i64 = 10 * SECOND_MILLISECONDS;

/// So many requests within so many seconds, any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// That are answered; the next is refused.
    pub requests: u32,
    /// The length of the window.
    pub seconds: u32,
}

impl RateLimit {
    /// Clerk's for a development instance.
    pub const DEVELOPMENT: Self = Self {
        requests: 100,
        seconds: 10,
    };
    /// Clerk's for a production instance.
    pub const PRODUCTION: Self = Self {
        requests: 1_000,
        seconds: 10,
    };
}

/// The most requests within any window of this length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peaks {
    /// Within a second.
    pub one_second: u64,
    /// Within ten.
    pub ten_seconds: u64,
}

/// Of one instance. Held only for a moment, never across I/O.
#[derive(Default)]
pub(super) struct Requests(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    by_endpoint: BTreeMap<Endpoint, u64>,
    /// When those of the last ten seconds came, whatever became of them.
    recent: VecDeque<i64>,
    peaks: Peaks,
    limit: Option<RateLimit>,
    /// When those came that the limit let pass, as far back as it looks.
    passed: VecDeque<i64>,
}

/// A request that the limit refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) retry_after_seconds: u64,
}

impl Requests {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, whatever will be answered.
    pub(super) fn came(&self, endpoint: Endpoint, now: Timestamp) {
        let now = now.unix_millis();
        let mut counts = self.counts();
        *counts.by_endpoint.entry(endpoint).or_default() += 1;
        counts.recent.push_back(now);
        forget(&mut counts.recent, now - TEN_SECONDS_MILLISECONDS);
        let ten_seconds = length(counts.recent.len());
        let since = now - SECOND_MILLISECONDS;
        let one_second = counts.recent.iter().rev().take_while(|&&at| at > since);
        let one_second = length(one_second.count());
        let peaks = &mut counts.peaks;
        peaks.one_second = peaks.one_second.max(one_second);
        peaks.ten_seconds = peaks.ten_seconds.max(ten_seconds);
    }

    /// Whether the limit lets a request pass.
    pub(super) fn pass(&self, now: Timestamp) -> Result<(), TooMany> {
        let now = now.unix_millis();
        let mut counts = self.counts();
        let Some(limit) = counts.limit else {
            return Ok(());
        };
        let window = i64::from(limit.seconds) * SECOND_MILLISECONDS;
        forget(&mut counts.passed, now - window);
        let full = u64::from(limit.requests) <= length(counts.passed.len());
        if full {
            // The oldest must leave the window first; of a limit of none, the window itself.
            let oldest = counts.passed.front().copied().unwrap_or(now);
            let left = u64::try_from(oldest + window - now).unwrap_or(0);
            return Err(TooMany {
                retry_after_seconds: left.div_ceil(1_000).max(1),
            });
        }
        counts.passed.push_back(now);
        Ok(())
    }

    pub(super) fn set_limit(&self, limit: Option<RateLimit>) {
        let mut counts = self.counts();
        counts.limit = limit;
        counts.passed.clear();
    }

    pub(super) fn limit(&self) -> Option<RateLimit> {
        self.counts().limit
    }

    pub(super) fn count(&self, endpoint: Endpoint) -> u64 {
        let counts = self.counts();
        counts.by_endpoint.get(&endpoint).copied().unwrap_or(0)
    }

    pub(super) fn peaks(&self) -> Peaks {
        self.counts().peaks
    }

    /// Counts from nought; what the limit remembers stays.
    pub(super) fn reset(&self) {
        let mut counts = self.counts();
        counts.by_endpoint.clear();
        counts.recent.clear();
        counts.peaks = Peaks::default();
    }
}

/// Drops what is not later than `end`.
fn forget(times: &mut VecDeque<i64>, end: i64) {
    while times.front().is_some_and(|&at| at <= end) {
        times.pop_front();
    }
}

fn length(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    #[test]
    fn a_full_window_says_when_its_oldest_leaves_and_then_lets_pass() {
        let requests = Requests::default();
        requests.set_limit(Some(RateLimit {
            requests: 2,
            seconds: 10,
        }));
        assert_eq!(requests.pass(at(0)), Ok(()));
        assert_eq!(requests.pass(at(2_500)), Ok(()));

        let refused = |retry_after_seconds| {
            Err(TooMany {
                retry_after_seconds,
            })
        };
        assert_eq!(requests.pass(at(2_500)), refused(8), "7.5 s, rounded up");
        assert_eq!(requests.pass(at(9_999)), refused(1));
        assert_eq!(
            requests.pass(at(10_000)),
            Ok(()),
            "refused ones do not count"
        );
        assert_eq!(requests.pass(at(10_000)), refused(3));
    }

    #[test]
    fn without_a_limit_all_pass_and_with_a_limit_of_none_none_does() {
        let requests = Requests::default();
        assert_eq!(requests.pass(at(0)), Ok(()));
        requests.set_limit(Some(RateLimit {
            requests: 0,
            seconds: 3,
        }));
        assert!(requests.pass(at(0)).is_err());
    }

    #[test]
    fn the_peak_is_of_any_window_and_not_of_one_that_starts_on_the_second() {
        let requests = Requests::default();
        for millis in [900, 950, 1_050, 1_100, 1_899, 1_900] {
            requests.came(Endpoint::Users, at(millis));
        }
        assert_eq!(
            requests.peaks().one_second,
            5,
            "from 900 up to but not with 1,900"
        );
        requests.came(Endpoint::Users, at(10_899));
        assert_eq!(requests.peaks().ten_seconds, 7);
        assert_eq!(requests.count(Endpoint::Users), 7);
        requests.reset();
        assert_eq!(requests.peaks(), Peaks::default());
        assert_eq!(requests.count(Endpoint::Users), 0);
    }
}
