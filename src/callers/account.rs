//! How much a caller asks of this replica: what is under way, a token bucket, counters.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
    time::Duration,
};

use super::rules::Limits;
use crate::closed_list::closed_list;

/// What a bucket holds at most, as time: so much may come at once.
const BURST: Duration = Duration::from_secs(1);
/// When a call is worth repeating that found too many others of its caller under way.
const CONCURRENCY_RETRY_AFTER: Duration = Duration::from_millis(100);

closed_list! {
    /// What became of a call at the rules.
    CallerOutcome {
        /// It went on.
        Admitted = "admitted",
        /// Its caller may not.
        Denied = "denied",
        /// Its caller was over a limit.
        Shed = "shed",
    }
}

/// Calls since the start, by what became of them at the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerStats([u64; CallerOutcome::ALL.len()]);

impl CallerStats {
    /// Calls with this outcome.
    pub const fn calls(&self, outcome: CallerOutcome) -> u64 {
        self.0[outcome as usize]
    }
}

/// Of one caller; it outlives the rules that it was made for.
#[derive(Debug, Default)]
pub(super) struct Account {
    in_flight: AtomicU64,
    bucket: Bucket,
    calls: [AtomicU64; CallerOutcome::ALL.len()],
}

impl Account {
    /// Takes up a call, or says when it is worth repeating.
    pub(super) fn enter(&self, limits: Limits, now: Duration) -> Result<(), Duration> {
        let in_flight = self.in_flight.fetch_add(1, Acquire) + 1;
        let max = limits.max_concurrent_calls.map(u64::from);
        let entered = match max {
            // First: what is turned away for it takes nothing from the bucket.
            Some(max) if in_flight > max => Err(CONCURRENCY_RETRY_AFTER),
            Some(_) | None => match limits.max_calls_per_second {
                Some(rate) => self.bucket.take(rate, now),
                None => Ok(()),
            },
        };
        if entered.is_err() {
            self.leave();
        }
        entered
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Takes from the bucket what a call that was taken up turned out to cost beside itself.
    pub(super) fn charge(&self, limits: Limits, calls: u32, now: Duration) {
        if let Some(rate) = limits.max_calls_per_second {
            self.bucket.charge(rate, calls, now);
        }
    }

    pub(super) fn count(&self, outcome: CallerOutcome) {
        self.calls[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn stats(&self) -> CallerStats {
        CallerStats(CallerOutcome::ALL.map(|it| self.calls[it as usize].load(Relaxed)))
    }
}

/// A token bucket as one number, so that it takes no lock: when it will be full again, in nanoseconds
/// (the "generic cell rate algorithm"). Its rate comes with each question, as rules may change.
#[derive(Debug, Default)]
struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes one, or says when there will be one.
    fn take(&self, rate: u32, now: Duration) -> Result<(), Duration> {
        let (now, cost) = (nanos(now), cost(rate));
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let after = full_at.max(now) + cost;
            let owed = after - now;
            if let Some(lacking) = owed.checked_sub(nanos(BURST)).filter(|it| *it > 0) {
                return Err(Duration::from_nanos(lacking));
            }
            let swapped = self
                .full_at
                .compare_exchange_weak(full_at, after, Relaxed, Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }

    /// Takes so many whether they are there or not: later calls wait until they have come.
    fn charge(&self, rate: u32, calls: u32, now: Duration) {
        let cost = cost(rate) * u64::from(calls);
        let charged = |full_at: u64| Some(full_at.max(nanos(now)) + cost);
        // It never fails: it always gives a value.
        let _ = self.full_at.fetch_update(Relaxed, Relaxed, charged);
    }
}

/// What one call takes, as time.
fn cost(rate: u32) -> u64 {
    nanos(BURST) / u64::from(rate.max(1))
}

/// 2^64 nanoseconds are 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
