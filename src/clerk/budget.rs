//! How many requests may be sent: a token bucket over injected time, with a reserve for checks.

use std::time::Duration;

use tokio::time::Instant;

/// The span that Clerk counts in.
const SPAN: Duration = Duration::from_secs(10);
/// The share of the budget that may be sent at once; the rest comes evenly over [`SPAN`], so that in
/// no span more than the budget is sent.
const AT_ONCE: f64 = 1.0 / 3.0;
/// The share of what may be sent at once that is left for checks: work in the background takes what
/// is above it.
const RESERVE: f64 = 0.5;
/// The same share for questions about opaque tokens: anybody can make up tokens that have to be asked
/// about, and must not end the checks of others.
const RESERVE_OF_TOKENS: f64 = 0.25;
/// The same share for what browsers bring from a handshake: anybody can make that up without a token, and
/// must not end the questions about tokens either.
const RESERVE_OF_HANDSHAKES: f64 = 0.5;
/// How far Clerk's 429s shrink the budget: to an eighth at most.
const SMALLEST: f64 = 1.0 / 8.0;
/// For how long after a shrinking further 429s are taken as answers to what was sent before it.
const ONE_LESSON: Duration = Duration::from_secs(1);
/// After each such span without a 429 what is left of the shrinking is halved.
const HEALING: Duration = Duration::from_secs(10);

/// For whom a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Somebody waits for the answer.
    Check,
    /// Somebody waits for what an opaque token is, and may have made it up.
    Token,
    /// A browser waits for what is kept under a nonce, and may have made it up.
    Handshake,
    /// Nobody waits: takes only what checks leave over.
    Background,
}

/// Grants requests at a rate.
#[derive(Debug)]
pub(super) struct Budget {
    /// What may be sent at once, and what comes a second, unshrunk.
    capacity: f64,
    per_second: f64,
    left: f64,
    settled_at: Instant,
    /// Checks that were told to come back, and so come before others.
    in_line: u32,
    shrunk: Option<Shrunk>,
}

/// The budget is multiplied by `factor` since `at`.
#[derive(Clone, Copy, Debug)]
struct Shrunk {
    factor: f64,
    at: Instant,
}

impl Budget {
    /// `requests` in ten seconds.
    pub(super) fn new(requests: u32, now: Instant) -> Self {
        let requests = f64::from(requests);
        let capacity = (requests * AT_ONCE).floor().max(1.0);
        Self {
            capacity,
            per_second: (requests - capacity).max(1.0) / SPAN.as_secs_f64(),
            left: capacity,
            settled_at: now,
            in_line: 0,
            shrunk: None,
        }
    }

    /// Takes one request, or says when it is worth coming back. Whoever stands in line
    /// ([`Self::line_up`]) does not wait for those behind.
    pub(super) fn take(
        &mut self,
        share: Share,
        in_line: bool,
        now: Instant,
    ) -> Result<(), Duration> {
        self.settle(now);
        let before = match share {
            Share::Check if in_line => 0.0,
            Share::Check => f64::from(self.in_line),
            Share::Token => f64::from(self.in_line) + (self.capacity * RESERVE_OF_TOKENS).ceil(),
            Share::Handshake => {
                f64::from(self.in_line) + (self.capacity * RESERVE_OF_HANDSHAKES).ceil()
            }
            Share::Background => f64::from(self.in_line) + (self.capacity * RESERVE).ceil(),
        };
        let lacking = before + 1.0 - self.left;
        if lacking <= 0.0 {
            self.left -= 1.0;
            Ok(())
        } else {
            let seconds = lacking / (self.per_second * self.factor(now));
            // Rounded up, so that whoever comes back then is not early.
            Err(Duration::from_secs_f64(seconds) + Duration::from_millis(1))
        }
    }

    /// Somebody waits for the time that [`Self::take`] said.
    pub(super) fn line_up(&mut self) {
        self.in_line += 1;
    }

    /// The opposite of [`Self::line_up`].
    pub(super) fn leave_line(&mut self) {
        self.in_line = self.in_line.saturating_sub(1);
    }

    /// Clerk answered 429: the budget is halved for a while. True when it was whole before.
    pub(super) fn shrink(&mut self, now: Instant) -> bool {
        self.settle(now);
        let factor = self.factor(now);
        let is_same_lesson = self
            .shrunk
            .is_some_and(|shrunk| now.duration_since(shrunk.at) < ONE_LESSON);
        if is_same_lesson {
            return false;
        }
        let halved = (factor / 2.0).max(SMALLEST);
        self.shrunk = Some(Shrunk {
            factor: halved,
            at: now,
        });
        self.left = self.left.min(self.capacity * halved);
        factor >= 1.0
    }

    /// What may be sent at this moment.
    pub(super) fn left(&mut self, now: Instant) -> f64 {
        self.settle(now);
        self.left
    }

    fn factor(&self, now: Instant) -> f64 {
        let Some(shrunk) = self.shrunk else {
            return 1.0;
        };
        let healed = now.duration_since(shrunk.at).as_secs() / HEALING.as_secs();
        let healed = i32::try_from(healed).unwrap_or(i32::MAX);
        1.0 - (1.0 - shrunk.factor) * 0.5_f64.powi(healed)
    }

    /// What came since the last look, by the factor of then: never more than was due.
    fn settle(&mut self, now: Instant) {
        let passed = now.duration_since(self.settled_at).as_secs_f64();
        let came = passed * self.per_second * self.factor(self.settled_at);
        self.left = (self.left + came).min((self.capacity * self.factor(now)).max(1.0));
        self.settled_at = now.max(self.settled_at);
        if self.shrunk.is_some() && self.factor(now) > 0.99 {
            self.shrunk = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn drain(budget: &mut Budget, share: Share, now: Instant) -> u32 {
        (0..)
            .take_while(|_| budget.take(share, false, now).is_ok())
            .count() as u32
    }

    #[test]
    fn what_browsers_bring_leaves_enough_for_tokens_and_checks() {
        let start = Instant::now();
        let mut budget = Budget::new(900, start);
        assert_eq!(drain(&mut budget, Share::Handshake, start), 150);
        assert_eq!(drain(&mut budget, Share::Token, start), 75);
        assert_eq!(drain(&mut budget, Share::Check, start), 75);
    }

    #[test]
    fn a_third_comes_at_once_and_the_rest_evenly() {
        let start = Instant::now();
        let mut budget = Budget::new(900, start);
        assert_eq!(drain(&mut budget, Share::Check, start), 300);
        assert_eq!(
            drain(&mut budget, Share::Check, start + Duration::from_secs(1)),
            60
        );
        let wait = budget.take(Share::Check, false, start + Duration::from_secs(1));
        let wait = wait.expect_err("nothing is left");
        assert!(wait < Duration::from_millis(20), "{wait:?}");
    }

    #[test]
    fn background_work_leaves_the_reserve_to_checks() {
        let start = Instant::now();
        let mut budget = Budget::new(900, start);
        assert_eq!(drain(&mut budget, Share::Background, start), 150);
        assert_eq!(drain(&mut budget, Share::Check, start), 150);
        // However long it waits, it comes only after the checks' reserve is full again.
        let wait = budget
            .take(Share::Background, false, start)
            .expect_err("wait");
        assert!(wait > Duration::from_secs(2), "{wait:?}");
    }

    #[test]
    fn whoever_stands_in_line_comes_first() {
        let start = Instant::now();
        let mut budget = Budget::new(30, start);
        drain(&mut budget, Share::Check, start);
        let first = budget.take(Share::Check, false, start).expect_err("wait");
        budget.line_up();
        let second = budget.take(Share::Check, false, start).expect_err("wait");
        assert!(second > first, "{first:?} {second:?}");

        let then = start + first;
        assert!(
            budget.take(Share::Check, false, then).is_err(),
            "it is the other's"
        );
        assert!(budget.take(Share::Check, true, then).is_ok());
        budget.leave_line();
    }

    #[test]
    fn a_429_halves_it_once_and_it_heals() {
        let start = Instant::now();
        let mut budget = Budget::new(900, start);
        assert!(budget.shrink(start), "it was whole");
        assert!(!budget.shrink(start + MILLI), "the same lesson");
        assert_eq!(drain(&mut budget, Share::Check, start + MILLI), 150);

        for second in 2..100 {
            budget.shrink(start + Duration::from_secs(second));
        }
        let late = start + Duration::from_secs(100);
        assert!(drain(&mut budget, Share::Check, late) >= 1, "never nothing");
        assert!(
            budget.left(start + Duration::from_secs(1_000)) > 299.0,
            "healed"
        );
    }

    proptest! {
        /// Whatever comes when, with whatever share and 429s between.
        #[test]
        fn no_ten_seconds_see_more_than_the_budget(
            requests in 10_u32..200,
            steps in prop::collection::vec((0_u64..900, 0_u8..20, 0_u8..30), 1..120),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut budget = Budget::new(requests, start);
            let mut granted = Vec::new();
            for (millis, times, kind) in steps {
                now += Duration::from_millis(millis);
                if kind == 0 {
                    budget.shrink(now);
                }
                let share = if kind % 3 == 0 { Share::Background } else { Share::Check };
                for _ in 0..times {
                    if budget.take(share, kind % 2 == 0, now).is_ok() {
                        granted.push(now);
                    }
                }
            }
            for (index, first) in granted.iter().enumerate() {
                let in_span = granted[index..].iter().filter(|at| **at < *first + SPAN).count();
                prop_assert!(in_span <= requests as usize, "{in_span} of {requests}");
            }
        }
    }
}
