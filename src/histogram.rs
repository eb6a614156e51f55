//! How long things take: counts by duration, which many threads add to at once.
//!
//! Pure. Kept by the rooms that count for themselves, read by `server` when metrics are asked for.

use std::{
    array,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Upper bounds of the classes; a last one has what took longer. From a call that what is remembered
/// answers to the longest that a call may take.
pub const BOUNDS: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(2_500),
    Duration::from_secs(10),
];

/// Counts of durations since the start. To record one costs two additions and a few comparisons.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// Wraps after 584 years of work.
    sum_nanos: AtomicU64,
    /// Of those that were followed the last.
    exemplar: Mutex<Option<Exemplar>>,
}

/// One duration, and the trace that shows what took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// Which of the counts it is in.
    pub class: usize,
    /// The trace: 32 hexadecimal digits.
    pub trace_id: String,
    /// The duration.
    pub took: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            sum_nanos: AtomicU64::new(0),
            exemplar: Mutex::default(),
        }
    }
}

fn class_of(took: Duration) -> usize {
    let class = BOUNDS.iter().position(|bound| took <= *bound);
    class.unwrap_or(BOUNDS.len())
}

impl Histogram {
    /// Counts something that took so long.
    pub fn record(&self, took: Duration) {
        self.counts[class_of(took)].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// Keeps what was recorded as the one to look at, by its trace.
    pub fn show(&self, took: Duration, trace_id: String) {
        let exemplar = Exemplar {
            class: class_of(took),
            trace_id,
            took,
        };
        *self.exemplar.lock().unwrap_or_else(PoisonError::into_inner) = Some(exemplar);
    }

    /// What was recorded so far.
    pub fn read(&self) -> Recorded {
        let exemplar = self.exemplar.lock();
        let exemplar = exemplar.unwrap_or_else(PoisonError::into_inner).clone();
        Recorded {
            exemplar,
            counts: array::from_fn(|class| self.counts[class].load(Relaxed)),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)),
        }
    }
}

/// What a [`Histogram`] had recorded at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// By class: at most its bound and more than the one before it; the last has no bound.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Of all durations.
    pub sum: Duration,
    /// One of them that was followed.
    pub exemplar: Option<Exemplar>,
}

impl Recorded {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_class_and_the_last_class_has_none() {
        let histogram = Histogram::default();
        for (took, class) in [
            (Duration::ZERO, 0),
            (BOUNDS[0], 0),
            (BOUNDS[0] + Duration::from_nanos(1), 1),
            (BOUNDS[11], 11),
            (BOUNDS[11] + Duration::from_nanos(1), 12),
            (Duration::from_secs(3_600), 12),
        ] {
            let before = histogram.read().counts[class];
            histogram.record(took);
            assert_eq!(histogram.read().counts[class], before + 1, "{took:?}");
        }
        assert_eq!(histogram.read().count(), 6);
        let sum = BOUNDS[0] * 2 + BOUNDS[11] * 2 + Duration::from_secs(3_600);
        assert_eq!(histogram.read().sum, sum + Duration::from_nanos(2));
    }

    #[test]
    fn bounds_grow() {
        assert!(BOUNDS.is_sorted());
    }
}
