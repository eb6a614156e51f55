//! Whether it is worth asking at all: closed, open for a while, then one probe.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// So many failures in a row open it.
    pub failures: u32,
    /// For so long at first; doubled each time that a probe fails.
    pub first_pause: Duration,
    /// Never longer than this.
    pub longest_pause: Duration,
}

/// Lets requests pass until too many fail, then holds them back, and lets one pass to see.
#[derive(Debug)]
pub(super) struct Breaker {
    rules: Rules,
    failures: u32,
    /// How often it opened without a success between.
    openings: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// One request is under way to see.
    Probing {
        since: Instant,
    },
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    pub(super) const fn new(rules: Rules) -> Self {
        Self {
            rules,
            failures: 0,
            openings: 0,
            state: State::Closed,
        }
    }

    /// How long a request would be held back; `None` when it may pass.
    pub(super) fn holds(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open { until } => {
                let left = until.saturating_duration_since(now);
                (!left.is_zero()).then_some(left)
            }
            // How the probe ends is not known; it is worth asking again soon.
            State::Probing { .. } => Some(self.rules.first_pause),
        }
    }

    /// A request passes, after [`Self::holds`] said that it may. True when it is the probe.
    pub(super) fn pass(&mut self, now: Instant) -> bool {
        let is_probe = matches!(self.state, State::Open { .. });
        if is_probe {
            self.state = State::Probing { since: now };
        }
        is_probe
    }

    pub(super) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    pub(super) fn succeeded(&mut self) -> Change {
        let was_open = self.is_open();
        self.failures = 0;
        self.openings = 0;
        self.state = State::Closed;
        if was_open {
            Change::Closed
        } else {
            Change::None
        }
    }

    /// `is_probe` is what [`Self::pass`] said of the request: a late failure of a request from
    /// before the opening says nothing new.
    pub(super) fn failed(&mut self, is_probe: bool, now: Instant) -> Change {
        match self.state {
            State::Open { .. } => Change::None,
            State::Probing { .. } if !is_probe => Change::None,
            State::Probing { .. } => {
                self.open(now);
                Change::None
            }
            State::Closed => {
                self.failures = self.failures.saturating_add(1);
                if self.failures < self.rules.failures {
                    return Change::None;
                }
                self.open(now);
                Change::Opened
            }
        }
    }

    /// The request ended in a way that tells nothing: a probe is still owed.
    pub(super) fn told_nothing(&mut self, is_probe: bool) {
        if let (State::Probing { since }, true) = (self.state, is_probe) {
            self.state = State::Open { until: since };
        }
    }

    fn open(&mut self, now: Instant) {
        let doubled = self
            .rules
            .first_pause
            .saturating_mul(1 << self.openings.min(16));
        self.openings = self.openings.saturating_add(1);
        self.state = State::Open {
            until: now + doubled.min(self.rules.longest_pause),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        failures: 3,
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(3),
    };

    fn opened(at: Instant) -> Breaker {
        let mut breaker = Breaker::new(RULES);
        assert_eq!(breaker.failed(false, at), Change::None);
        assert_eq!(breaker.failed(false, at), Change::None);
        assert_eq!(breaker.failed(false, at), Change::Opened);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let now = Instant::now();
        assert_eq!(opened(now).holds(now), Some(RULES.first_pause));

        let mut breaker = Breaker::new(RULES);
        for _ in 0..10 {
            breaker.failed(false, now);
            breaker.failed(false, now);
            breaker.succeeded();
        }
        assert_eq!(breaker.holds(now), None);
    }

    #[test]
    fn one_probe_passes_and_decides() {
        let now = Instant::now();
        let then = now + RULES.first_pause;
        let mut breaker = opened(now);
        assert_eq!(breaker.holds(then), None);
        assert!(breaker.pass(then), "the probe");
        assert!(breaker.holds(then).is_some(), "only one");

        assert_eq!(breaker.succeeded(), Change::Closed);
        assert_eq!(breaker.holds(then), None);
        assert!(!breaker.pass(then), "no probe any more");
    }

    #[test]
    fn a_failed_probe_doubles_the_pause_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for expected in [1, 2, 3, 3, 3] {
            let pause = Duration::from_secs(expected);
            assert_eq!(breaker.holds(now), Some(pause));
            now += pause;
            let is_probe = breaker.pass(now);
            breaker.failed(is_probe, now);
        }
        breaker.pass(now);
        breaker.succeeded();
        for _ in 0..3 {
            breaker.failed(false, now);
        }
        assert_eq!(breaker.holds(now), Some(RULES.first_pause), "forgotten");
    }

    #[test]
    fn what_was_sent_before_the_opening_tells_nothing_new() {
        let now = Instant::now();
        let then = now + RULES.first_pause;
        let mut breaker = opened(now);
        breaker.failed(false, now);
        assert_eq!(breaker.holds(then), None, "not prolonged");
        breaker.pass(then);
        breaker.failed(false, then);
        assert!(
            breaker.holds(then).is_some(),
            "the probe is still under way"
        );
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_the_next_one_free() {
        let now = Instant::now();
        let then = now + RULES.first_pause;
        let mut breaker = opened(now);
        let is_probe = breaker.pass(then);
        breaker.told_nothing(is_probe);
        assert_eq!(breaker.holds(then), None);
        assert!(breaker.pass(then), "another probe");
    }
}
