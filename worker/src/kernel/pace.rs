//! How fast what a session writes is read. Code that writes single bytes, or small frames, would have the
//! worker wake up for each of them; soon it has to wait until there is more.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::allowance::Allowance;

/// What a turn costs beside what can be measured during it: waking up and waiting again.
const WAKE: Duration = Duration::from_micros(10);
/// A shorter read is small.
const SMALL_BYTES: usize = 16 * 1024;
/// Small reads with less than this between them, pauses not counted, follow each other closely.
const CLOSE: Duration = Duration::from_millis(1);
/// So many of them may.
const CLOSE_READS: u32 = 64;
/// The shortest pause.
const PAUSE: Duration = Duration::from_millis(2);

/// The pace of one kernel's reader.
#[derive(Debug)]
pub(super) struct Pace {
    allowance: Arc<Allowance>,
    /// When the last read or pause ended.
    last: Instant,
    close: u32,
}

impl Pace {
    pub(super) fn new(allowance: Arc<Allowance>) -> Self {
        Self {
            allowance,
            last: Instant::now(),
            close: 0,
        }
    }

    /// A request begins: what was before it makes nobody wait.
    pub(super) fn begin(&mut self) {
        self.close = 0;
    }

    /// Notes the end of a pause.
    pub(super) fn rested(&mut self) {
        self.last = Instant::now();
    }

    /// Notes a read of so many bytes, what was done with them included, that began then.
    pub(super) fn read(&mut self, bytes: usize, began: Instant) {
        let now = Instant::now();
        self.allowance
            .charge(now.saturating_duration_since(began) + WAKE);
        self.close = next(
            self.close,
            bytes,
            began.saturating_duration_since(self.last),
        );
        self.last = now;
    }

    /// How long to wait before the next read, if at all.
    pub(super) fn pause(&self) -> Option<Duration> {
        let owed = self.allowance.owed();
        let close = self.close >= CLOSE_READS;
        (owed > Duration::ZERO || close).then(|| owed.max(PAUSE))
    }
}

/// How many small reads have followed each other closely, this one included.
fn next(before: u32, bytes: usize, pause: Duration) -> u32 {
    if bytes < SMALL_BYTES && pause < CLOSE {
        before.saturating_add(1)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_reads_in_a_row_are_slowed_down() {
        let mut pace = Pace::new(Arc::default());
        for _ in 0..CLOSE_READS {
            assert_eq!(pace.pause(), None);
            pace.read(1, pace.last);
        }
        assert_eq!(pace.pause(), Some(PAUSE));
        // A pause is no reason to stop pausing, as long as there is always little to read.
        pace.last -= Duration::from_millis(10);
        pace.rested();
        pace.read(1, Instant::now().min(pace.last));
        assert_eq!(pace.pause(), Some(PAUSE));
        pace.begin();
        assert_eq!(pace.pause(), None);
    }

    #[test]
    fn large_reads_and_rare_reads_are_not() {
        assert_eq!(next(7, 1, Duration::ZERO), 8);
        assert_eq!(next(7, SMALL_BYTES, Duration::ZERO), 0);
        assert_eq!(next(7, 1, CLOSE), 0);
    }

    #[test]
    fn whoever_costs_too_much_waits_until_it_is_paid_for() {
        let allowance = Arc::<Allowance>::default();
        let mut pace = Pace::new(Arc::clone(&allowance));
        pace.read(SMALL_BYTES, pace.last);
        assert_eq!(pace.pause(), None);
        allowance.charge(Duration::from_secs(1));
        assert!(pace.pause() > Some(Duration::from_secs(1)));
    }
}
