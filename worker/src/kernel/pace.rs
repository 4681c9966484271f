//! How fast what a session writes is read. Code that writes single bytes, or small frames, would have the
//! worker wake up for each of them; soon it has to wait until there is more.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::allowance::{Allowance, thread_time};

/// What a turn costs beside what can be measured during it: waking up and waiting again.
const WAKE: Duration = Duration::from_micros(20);
/// A shorter read is small.
const SMALL_BYTES: usize = 16 * 1024;
/// Small reads with less than this between them, pauses not counted, follow each other closely.
const CLOSE: Duration = Duration::from_millis(1);
/// So many of them may.
const CLOSE_READS: u32 = 64;
/// The shortest pause.
const PAUSE: Duration = Duration::from_millis(2);

/// A turn of the reader that has begun: one read, and what is done with what was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    began: Instant,
    before: Duration,
}

/// A turn that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    began: Instant,
    ended: Instant,
    /// Processor time. A worker that stood still meanwhile spent nothing on its session.
    spent: Duration,
}

impl Turn {
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            before: thread_time(),
        }
    }

    /// On the thread on which it began.
    pub(super) fn end(self) -> Took {
        Took {
            began: self.began,
            ended: Instant::now(),
            spent: thread_time().saturating_sub(self.before),
        }
    }
}

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
    pub(super) fn rested(&mut self, now: Instant) {
        self.last = now;
    }

    /// Notes a turn that read so many bytes.
    pub(super) fn read(&mut self, bytes: usize, took: Took) {
        self.allowance.charge_at(took.spent + WAKE, took.ended);
        let quiet = took.began.saturating_duration_since(self.last);
        self.close = next(self.close, bytes, quiet);
        self.last = took.ended;
    }

    /// How long to wait before the next read, if at all.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let owed = self.allowance.owed_at(now);
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

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn pace() -> (Pace, Instant) {
        let pace = Pace::new(Arc::default());
        let now = pace.last;
        (pace, now)
    }

    /// A turn that took no processor time, however long it was.
    fn from_to(began: Instant, ended: Instant) -> Took {
        let spent = Duration::ZERO;
        Took {
            began,
            ended,
            spent,
        }
    }

    #[test]
    fn many_small_reads_in_a_row_are_slowed_down() {
        let (mut pace, now) = pace();
        for _ in 0..CLOSE_READS {
            assert_eq!(pace.pause(now), None);
            pace.read(1, from_to(now, now));
        }
        assert_eq!(pace.pause(now), Some(PAUSE));
        // A pause is no reason to stop pausing, as long as there is always little to read.
        let now = now + MILLISECOND * 10;
        pace.rested(now);
        pace.read(1, from_to(now, now));
        assert_eq!(pace.pause(now), Some(PAUSE));
        pace.begin();
        assert_eq!(pace.pause(now), None);
    }

    #[test]
    fn large_reads_and_rare_reads_are_not() {
        assert_eq!(next(7, 1, Duration::ZERO), 8);
        assert_eq!(next(7, SMALL_BYTES, Duration::ZERO), 0);
        assert_eq!(next(7, 1, CLOSE), 0);
    }

    #[test]
    fn whoever_costs_too_much_waits_until_it_is_paid_for() {
        let (mut pace, now) = pace();
        let spent = Duration::from_secs(1);
        let ended = now + spent;
        pace.read(
            SMALL_BYTES,
            Took {
                began: now,
                ended,
                spent,
            },
        );
        let pause = pace.pause(ended).unwrap();
        assert!(pause > Duration::from_secs(4), "{pause:?}");
        assert_eq!(pace.pause(ended + pause), None);
    }

    #[test]
    fn a_worker_that_stood_still_makes_its_session_owe_nothing() {
        let (mut pace, now) = pace();
        let later = now + Duration::from_secs(10);
        pace.read(SMALL_BYTES, from_to(now, later));
        assert_eq!(pace.pause(later), None);
    }
}
