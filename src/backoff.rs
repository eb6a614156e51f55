//! How long to wait before something that failed is tried again, everywhere the same way.
//!
//! Called by whoever repeats something. Waits for nothing itself, and reads no clock.

use std::time::Duration;

/// Waits that double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never more than this.
    pub longest: Duration,
}

/// Doublings that are counted; by then every wait has reached its longest.
const MAX_DOUBLINGS: u32 = 16;

impl Backoff {
    /// The wait after so many failures, 1 or more. `chance` is from 0 to 1 (see [`chance`]): at
    /// least half of the wait is kept, the rest is left to it, so that those who failed together do
    /// not come back together.
    pub fn after(&self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(MAX_DOUBLINGS);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        full.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// From 0 to 1; not a secret, only different from one replica to the next.
pub fn chance() -> f64 {
    fastrand::f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_half_of_each_is_left_to_chance() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(600),
        };
        let seconds = |failures| backoff.after(failures, 0.0).as_secs();
        assert_eq!(
            [0, 1, 2, 3, 10, 11, u32::MAX].map(seconds),
            [1, 1, 2, 4, 512, 600, 600]
        );
        assert_eq!(backoff.after(3, 1.0), Duration::from_secs(2));
        assert_eq!(backoff.after(3, 0.5), Duration::from_secs(3));
    }
}
