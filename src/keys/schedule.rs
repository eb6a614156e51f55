//! When to fetch: a pure state machine over injected times.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    identity::{SigningAlgorithms, Timestamp},
};

/// How a keyring is refreshed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RefreshSettings {
    /// From one successful fetch to the next.
    pub refresh: Duration,
    /// At least this long between two fetches that an unknown `kid` asks for.
    pub cooldown: Duration,
    /// A set that was fetched longer ago is not used.
    pub max_staleness: Duration,
    /// How long one fetch may take.
    pub fetch_timeout: Duration,
    /// The share of each wait, from 0 to 1, that is left to chance, so that replicas do not ask at
    /// once.
    pub jitter: f64,
    /// For which the keys are; others in the set are left out.
    pub algorithms: SigningAlgorithms,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(60),
            cooldown: Duration::from_secs(5),
            max_staleness: Duration::from_secs(7 * 24 * 60 * 60),
            fetch_timeout: Duration::from_secs(5),
            jitter: 0.1,
            algorithms: SigningAlgorithms::CLERKS,
        }
    }
}

/// The first wait after a failed fetch; it doubles with each further failure, up to `refresh`.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule {
    last_attempt: Option<Timestamp>,
    failures_in_a_row: u32,
}

/// May an unknown `kid` cause a fetch?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Yes, at once.
    Fetch,
    /// No: the last fetch was moments ago and succeeded, so the set is as fresh as can be.
    Fresh,
    /// No: the last fetch was moments ago and failed.
    Wait(Duration),
}

impl Schedule {
    pub(super) fn attempted(&mut self, at: Timestamp, succeeded: bool) {
        self.last_attempt = Some(at);
        self.failures_in_a_row = if succeeded {
            0
        } else {
            self.failures_in_a_row.saturating_add(1)
        };
    }

    /// How long until the next fetch by itself; zero means now. `chance` is from 0 to 1.
    pub(super) fn next_in(
        &self,
        settings: &RefreshSettings,
        now: Timestamp,
        chance: f64,
    ) -> Duration {
        let Some(last) = self.last_attempt else {
            return Duration::ZERO;
        };
        let wait = match self.failures_in_a_row {
            0 => settings.refresh,
            failures => {
                let backoff = Backoff {
                    first: FIRST_BACKOFF,
                    longest: settings.refresh,
                };
                // The jitter stands for chance here.
                backoff.after(failures, 0.0)
            }
        };
        let wait = wait.mul_f64(1.0 - (chance * settings.jitter).clamp(0.0, 1.0));
        // A clock that was set back must not stop the refresh.
        if last > now {
            Duration::ZERO
        } else {
            wait.saturating_sub(now.since(last))
        }
    }

    pub(super) fn demand(&self, settings: &RefreshSettings, now: Timestamp) -> Demand {
        let Some(last) = self.last_attempt else {
            return Demand::Fetch;
        };
        let since = now.since(last);
        if last > now || since >= settings.cooldown {
            Demand::Fetch
        } else if self.failures_in_a_row == 0 {
            Demand::Fresh
        } else {
            Demand::Wait(settings.cooldown - since)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: RefreshSettings = RefreshSettings {
        refresh: Duration::from_secs(60),
        cooldown: Duration::from_secs(5),
        max_staleness: Duration::from_secs(600),
        fetch_timeout: Duration::from_secs(5),
        jitter: 0.1,
        algorithms: SigningAlgorithms::CLERKS,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn the_first_fetch_is_due_at_once() {
        assert_eq!(
            Schedule::default().next_in(&SETTINGS, at(0), 0.0),
            Duration::ZERO
        );
        assert_eq!(Schedule::default().demand(&SETTINGS, at(0)), Demand::Fetch);
    }

    #[test]
    fn failures_back_off_and_never_beyond_the_refresh() {
        let mut schedule = Schedule::default();
        let mut waits = Vec::new();
        for _ in 0..40 {
            schedule.attempted(at(0), false);
            waits.push(schedule.next_in(&SETTINGS, at(0), 0.0).as_secs());
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits.last(), Some(&60));

        schedule.attempted(at(0), true);
        assert_eq!(schedule.next_in(&SETTINGS, at(0), 0.0), SETTINGS.refresh);
    }

    #[test]
    fn an_unknown_kid_fetches_once_per_cooldown() {
        let mut schedule = Schedule::default();
        schedule.attempted(at(100), true);
        assert_eq!(schedule.demand(&SETTINGS, at(104)), Demand::Fresh);
        assert_eq!(schedule.demand(&SETTINGS, at(105)), Demand::Fetch);

        schedule.attempted(at(105), false);
        assert_eq!(
            schedule.demand(&SETTINGS, at(108)),
            Demand::Wait(Duration::from_secs(2))
        );
        assert_eq!(schedule.demand(&SETTINGS, at(110)), Demand::Fetch);
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing() {
        let mut schedule = Schedule::default();
        schedule.attempted(at(1_000_000), true);
        assert_eq!(schedule.next_in(&SETTINGS, at(0), 0.0), Duration::ZERO);
        assert_eq!(schedule.demand(&SETTINGS, at(0)), Demand::Fetch);
    }
}
