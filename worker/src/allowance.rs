//! The processor time that the worker itself may spend on one session. Code in a sandbox can cause
//! such work: output to read, frames to parse, files and mappings to look at. What is spent is
//! measured; a session that causes too much waits, and its neighbours do not.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::ClockId;
use tokio::time::Instant;

/// Share of one processor that the worker spends on a session in the long run, as a divisor: a fifth.
const SHARE: u32 = 5;
/// What may be spent at once, after a rest.
const BURST: Duration = Duration::from_millis(100);

/// One session's allowance. Shared by all that work for it.
#[derive(Debug)]
pub struct Allowance(Mutex<Account>);

/// What was spent and not paid back yet. Pure.
#[derive(Clone, Copy, Debug)]
struct Account {
    spent: Duration,
    at: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        let (spent, at) = (Duration::ZERO, Instant::now());
        Self(Mutex::new(Account { spent, at }))
    }
}

impl Allowance {
    /// Notes that so much was spent.
    pub fn charge(&self, spent: Duration) {
        self.charge_at(spent, Instant::now());
    }

    /// Notes that so much was spent at this time.
    pub(crate) fn charge_at(&self, spent: Duration, now: Instant) {
        self.lock().charge(spent, now);
    }

    /// How long the session has to wait until something more may be spent on it.
    #[must_use]
    pub fn owed(&self) -> Duration {
        self.owed_at(Instant::now())
    }

    /// How long the session has to wait, seen from this time.
    pub(crate) fn owed_at(&self, now: Instant) -> Duration {
        self.lock().owed(now)
    }

    /// Does work on the calling thread and charges the processor time that it takes.
    pub fn pay_for<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let done = work();
        self.charge(thread_time().saturating_sub(before));
        done
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn charge(&mut self, spent: Duration, now: Instant) {
        self.pay_back(now);
        self.spent = self.spent.saturating_add(spent);
    }

    fn owed(&mut self, now: Instant) -> Duration {
        self.pay_back(now);
        self.spent.saturating_sub(BURST).saturating_mul(SHARE)
    }

    fn pay_back(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at) / SHARE;
        self.spent = self.spent.saturating_sub(earned);
        self.at = now;
    }
}

/// Processor time of the calling thread.
#[expect(
    clippy::disallowed_methods,
    reason = "what a thread has used is no time of day, and nobody else can tell it"
)]
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn account() -> (Account, Instant) {
        let at = Instant::now();
        let spent = Duration::ZERO;
        (Account { spent, at }, at)
    }

    #[test]
    fn what_fits_the_burst_makes_nobody_wait() {
        let (mut account, now) = account();
        account.charge(BURST, now);
        assert_eq!(account.owed(now), Duration::ZERO);
        account.charge(MILLISECOND, now);
        assert_eq!(account.owed(now), MILLISECOND * SHARE);
        let later = now + MILLISECOND * SHARE;
        assert_eq!(account.owed(later), Duration::ZERO);
    }

    #[test]
    fn in_the_long_run_no_more_than_the_share_is_spent() {
        let (mut account, start) = account();
        let (mut now, mut spent) = (start, Duration::ZERO);
        while now < start + Duration::from_secs(100) {
            now += account.owed(now);
            account.charge(MILLISECOND * 7, now);
            spent += MILLISECOND * 7;
            now += MILLISECOND * 7;
        }
        let share = (now - start) / SHARE + BURST + MILLISECOND * 7;
        assert!(spent <= share, "{spent:?} of {share:?}");
        assert!(spent >= share / 2, "{spent:?} of {share:?}");
    }

    #[test]
    fn a_long_rest_saves_nothing_up() {
        let (mut account, start) = account();
        let now = start + Duration::from_secs(3600);
        account.charge(BURST + MILLISECOND, now);
        assert_eq!(account.owed(now), MILLISECOND * SHARE);
    }

    #[test]
    fn work_is_charged_as_it_takes() {
        let allowance = Allowance::default();
        let before = thread_time();
        allowance.pay_for(|| {
            while thread_time() - before < BURST {
                std::hint::spin_loop();
            }
        });
        let spent = allowance.lock().spent;
        assert!(spent > BURST / 2 && spent < BURST * 2, "{spent:?}");
    }
}
