//! Checks of readiness that are measured again and again.

use std::time::Duration;

use proto::health::{Check, Health};
use tokio::time::timeout;
use ulid::Ulid;

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
    /// Longest measurement.
    pub within: Duration,
}

/// Measures once and reports. One that takes too long has failed.
pub async fn once(
    health: &Health,
    check: Check,
    within: Duration,
    measurement: impl Future<Output = Measured>,
) {
    let measured = timeout(within, measurement).await;
    match measured.unwrap_or_else(|_| Measured::Fails(format!("no answer within {within:?}"))) {
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
/// by [`once`].
pub async fn keep<F: Future<Output = Measured>>(
    health: Health,
    check: Check,
    rhythm: Rhythm,
    measurement: impl Fn() -> F,
) {
    loop {
        tokio::time::sleep(jittered(rhythm.every)).await;
        once(&health, check, rhythm.within, measurement()).await;
    }
}

/// 0.8 to 1.2 times as long.
fn jittered(every: Duration) -> Duration {
    let percent = u32::try_from(Ulid::new().random() % 41).unwrap_or(20);
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

    #[test]
    fn pauses_differ_by_a_fifth_at_most() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(8)..=Duration::from_secs(12)).contains(&pause));
        }
    }
}
