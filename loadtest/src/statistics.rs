//! Percentiles of measured times.

use std::time::Duration;

use serde::Serialize;

/// Times of repeated runs of one thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

/// What is told of [`Samples`], in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many runs.
    pub count: usize,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile (the largest of fewer than 100 runs).
    pub p99_ms: f64,
    /// Slowest.
    pub max_ms: f64,
}

impl Samples {
    /// Adds one run.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds the runs of a later round.
    pub fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Percentiles of what was pushed; all zero when nothing was.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        Summary {
            count: sorted.len(),
            p50_ms: milliseconds(rank(&sorted, 50)),
            p99_ms: milliseconds(rank(&sorted, 99)),
            max_ms: milliseconds(sorted.last().copied().unwrap_or_default()),
        }
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

/// A time in milliseconds.
#[must_use]
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Nearest rank: the smallest sample that at least `percent` of all samples do not exceed.
fn rank(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_of_nearest_rank() {
        let samples: Samples = (1..=100).rev().map(Duration::from_millis).collect();
        let summary = samples.summary();
        assert_eq!(
            (summary.count, summary.p50_ms, summary.p99_ms),
            (100, 50.0, 99.0)
        );
        assert_eq!(summary.max_ms, 100.0);
    }

    #[test]
    fn one_sample_is_every_percentile_and_none_is_zero() {
        let one: Samples = [Duration::from_millis(7)].into_iter().collect();
        assert_eq!((one.summary().p50_ms, one.summary().p99_ms), (7.0, 7.0));
        assert_eq!(Samples::default().summary(), Summary::default());
    }
}
