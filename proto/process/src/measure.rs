//! Checks of readiness that are measured again and again.

use std::time::Duration;

use proto::{
    ambient::Ids,
    health::{Check, Health},
};
use routing::patience::patiently;
use tokio::time::timeout;

use crate::failure::causes;

/// What a measurement found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measured {
    /// What is checked holds.
    Holds,
    /// It does not; why, for operators.
    Fails(String),
    /// It cannot be known now, because of something that another check tells of.
    Unknown,
}

impl<E: std::error::Error> From<Result<(), E>> for Measured {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Holds,
            Err(error) => Self::Fails(causes(&error)),
        }
    }
}

/// When a check is measured.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Pause between two measurements; a fifth more or less, so that the processes of a fleet do not
    /// measure at the same moments.
    pub every: Duration,
    /// Longest measurement, on a machine of usual speed.
    pub within: Duration,
    /// So many failures in a row turn a check that passed, at least 1.
    pub misses: u32,
}

impl Rhythm {
    /// The longest time after which a change shows, on a machine of usual speed.
    #[must_use]
    pub fn shows_within(self) -> Duration {
        (self.every * 6 / 5 + self.within) * self.misses
    }
}

/// Measures once and reports. One that takes too long has failed.
pub async fn once(
    health: &Health,
    check: Check,
    within: Duration,
    measurement: impl Future<Output = Measured>,
) {
    report(health, check, measure(within, measurement).await);
}

async fn measure(within: Duration, measurement: impl Future<Output = Measured>) -> Measured {
    let within = patiently(within);
    let measured = timeout(within, measurement).await;
    measured.unwrap_or_else(|_| Measured::Fails(format!("no answer within {within:?}")))
}

fn report(health: &Health, check: Check, measured: Measured) {
    match measured {
        Measured::Holds => {
            let failed = !health.passes(check);
            if health.pass(check) && failed {
                tracing::info!(check = check.name(), "check passes again");
            }
        }
        Measured::Fails(reason) => {
            if health.fail(check, reason.clone()) {
                tracing::warn!(check = check.name(), reason, "check fails");
            }
        }
        Measured::Unknown => {}
    }
}

/// Measures for ever. The first measurement is after the first pause: whoever starts a process does one
/// by [`once`]. How long a pause is comes from the random part of new ids.
pub async fn keep<F: Future<Output = Measured>>(
    health: Health,
    check: Check,
    rhythm: Rhythm,
    ids: &Ids,
    measurement: impl Fn() -> F,
) {
    let mut missed = 0_u32;
    loop {
        tokio::time::sleep(jittered(rhythm.every, ids)).await;
        let measured = measure(rhythm.within, measurement()).await;
        match measured {
            Measured::Fails(_) => missed = missed.saturating_add(1),
            Measured::Holds | Measured::Unknown => missed = 0,
        }
        if missed == 0 || missed >= rhythm.misses || !health.passes(check) {
            report(&health, check, measured);
        }
    }
}

/// 0.8 to 1.2 times as long.
fn jittered(every: Duration, ids: &Ids) -> Duration {
    let percent = u32::try_from(ids.next().random() % 41).unwrap_or(20);
    every * (80 + percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_measurement_that_does_not_end_has_failed() {
        let health = Health::default();
        let within = Duration::from_secs(2);
        once(&health, Check::Store, within, std::future::pending()).await;
        assert!(!health.passes(Check::Store));
        once(&health, Check::Store, within, async { Measured::Unknown }).await;
        assert!(!health.passes(Check::Store), "nothing is known");
        once(&health, Check::Store, within, async { Measured::Holds }).await;
        assert!(health.passes(Check::Store));
    }

    /// Measures again and again with these results, the last of them for ever, and returns what was
    /// reported after each.
    async fn kept(results: &[Measured]) -> Vec<bool> {
        let health = Health::default();
        health.pass(Check::Bus);
        let rhythm = Rhythm {
            every: Duration::from_secs(1),
            within: Duration::from_secs(2),
            misses: 2,
        };
        let ids = Ids::seeded(1);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let reported = std::sync::Mutex::new(vec![]);
        let measuring = keep(health.clone(), Check::Bus, rhythm, &ids, || {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            reported.lock().unwrap().push(health.passes(Check::Bus));
            let result = results.get(index).cloned();
            async move { result.unwrap_or(Measured::Unknown) }
        });
        let enough = Duration::from_secs(2) * u32::try_from(results.len() + 1).unwrap();
        drop(timeout(enough, measuring).await);
        let reported = reported.into_inner().unwrap();
        // What was reported before the first measurement is nothing of it.
        reported.into_iter().skip(1).take(results.len()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_miss_turns_no_check_and_two_in_a_row_do() {
        let (holds, fails) = (Measured::Holds, || Measured::Fails("no answer".into()));
        let results = [
            fails(),
            holds.clone(),
            fails(),
            Measured::Unknown,
            fails(),
            fails(),
            fails(),
            holds,
        ];
        let passes = [true, true, true, true, true, false, false, true];
        assert_eq!(kept(&results).await, passes);
    }

    #[test]
    fn pauses_differ_by_a_fifth_at_most() {
        let ids = Ids::seeded(1);
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(10), &ids);
            assert!((Duration::from_secs(8)..=Duration::from_secs(12)).contains(&pause));
        }
    }
}
