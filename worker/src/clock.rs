//! Whether this host's clock can be trusted. Ages are counted by the bus's and the store's clocks, never by
//! this host's; but a worker whose clock is far from the bus's shows wrong times, is refused by stores that
//! check signatures, and is a sign of something worse. So it takes no new sessions and removes nothing
//! until the clock is right.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{
    ambient::WallClock,
    health::{Check, Health},
    limits, subject,
};
use records::cas::{BusError, RecordBus, time_at};
use time::OffsetDateTime;
use tokio::sync::watch;

/// Time between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(3);

/// Which of two clocks is ahead of the other, and by how much at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// They may show the same.
    None,
    /// The first is ahead.
    Ahead(Duration),
    /// The first is behind.
    Behind(Duration),
}

impl Offset {
    /// Compares a clock that was read twice with another that was read in between. However long that took,
    /// the offset is never said to be greater than it is.
    #[must_use]
    pub fn between(before: SystemTime, other: SystemTime, after: SystemTime) -> Self {
        if let Ok(ahead) = before.duration_since(other)
            && !ahead.is_zero()
        {
            return Self::Ahead(ahead);
        }
        match other.duration_since(after) {
            Ok(behind) if !behind.is_zero() => Self::Behind(behind),
            _ => Self::None,
        }
    }

    /// How far the clocks are apart if it is too far, in words that go between their names.
    #[must_use]
    pub fn excess(self) -> Option<String> {
        let (apart, which) = match self {
            Self::None => return None,
            Self::Ahead(apart) => (apart, "ahead of"),
            Self::Behind(apart) => (apart, "behind"),
        };
        (apart > limits::CLOCK_OFFSET).then(|| format!("{} s {which}", apart.as_secs()))
    }
}

/// This host's clock, and whether it is right. All clones know the same.
#[derive(Clone, Debug)]
pub struct Clock {
    wall: WallClock,
    right: watch::Receiver<bool>,
}

impl Clock {
    /// What it shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.wall.now()
    }

    /// Whether it was right when it was last compared.
    #[must_use]
    pub fn is_right(&self) -> bool {
        *self.right.borrow()
    }

    /// Waits until it is right; for ever, if it is no longer compared.
    pub async fn right(&self) {
        if self.right.clone().wait_for(|right| *right).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Compares this host's clock with the bus's.
#[derive(Debug)]
pub struct Comparison {
    bus: Arc<dyn RecordBus>,
    wall: WallClock,
    health: Health,
    right: watch::Sender<bool>,
}

impl Comparison {
    /// Compares for the first time.
    ///
    /// # Errors
    /// The bus does not tell the time.
    pub async fn begin(
        bus: Arc<dyn RecordBus>,
        wall: WallClock,
        health: Health,
    ) -> Result<(Self, Clock), BusError> {
        let (told, right) = watch::channel(false);
        let clock = Clock {
            wall: wall.clone(),
            right,
        };
        let comparison = Self {
            bus,
            wall,
            health,
            right: told,
        };
        comparison.compare().await?;
        Ok((comparison, clock))
    }

    /// Compares from time to time, for ever. While the bus does not answer, the last comparison counts.
    pub async fn go_on(self) {
        loop {
            tokio::time::sleep(COMPARE_EVERY).await;
            if let Err(error) = self.compare().await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "failed to compare the clock with the bus's"
                );
            }
        }
    }

    async fn compare(&self) -> Result<(), BusError> {
        let before = self.wall.now();
        let bus: OffsetDateTime = time_at(&*self.bus, subject::WORKERS_STREAM).await?;
        let offset = Offset::between(before, bus.into(), self.wall.now());
        self.report(offset);
        Ok(())
    }

    fn report(&self, offset: Offset) {
        let excess = offset.excess();
        let right = excess.is_none();
        let changed = match excess {
            None => self.health.pass(Check::Clock) && !*self.right.borrow(),
            Some(excess) => {
                let reason = format!("this host's clock is {excess} the bus's");
                let changed = self.health.fail(Check::Clock, reason.clone());
                if changed {
                    tracing::error!(
                        "{reason}: no new sessions are taken and nothing is swept until it is right"
                    );
                }
                changed
            }
        };
        if right && changed {
            tracing::info!("this host's clock agrees with the bus's");
        }
        self.right.send_replace(right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_never_made_of_a_slow_answer() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let apart = Duration::from_secs;
        for (before, other, after, offset) in [
            (100, 100, 100, Offset::None),
            (100, 150, 200, Offset::None),
            (100, 99, 200, Offset::Ahead(apart(1))),
            (100, 201, 200, Offset::Behind(apart(1))),
            // The clock was put right meanwhile.
            (500, 100, 100, Offset::Ahead(apart(400))),
        ] {
            let found = Offset::between(at(before), at(other), at(after));
            assert_eq!(found, offset, "{before} {other} {after}");
        }
    }

    #[test]
    fn a_clock_that_is_more_than_a_minute_off_is_wrong() {
        let seconds = Duration::from_secs;
        for offset in [
            Offset::None,
            Offset::Ahead(seconds(60)),
            Offset::Behind(seconds(60)),
        ] {
            assert_eq!(offset.excess(), None, "{offset:?}");
        }
        let ahead = Offset::Ahead(seconds(26 * 3600)).excess();
        assert_eq!(ahead.as_deref(), Some("93600 s ahead of"));
        let behind = Offset::Behind(Duration::from_millis(60_001)).excess();
        assert_eq!(behind.as_deref(), Some("60 s behind"));
    }
}
