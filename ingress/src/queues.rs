//! How full the queues of asynchronous executions are, for metrics.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use proto::{ambient::WallClock, id::PoolId};
use records::queue::Depth;
use tokio::time::{MissedTickBehavior, interval};

use crate::bus::{Bus, BusError};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// The queues as they were when last looked at. All clones are the same.
#[derive(Clone, Debug)]
pub struct Queues {
    seen: Arc<Mutex<BTreeMap<PoolId, Seen>>>,
    clock: WallClock,
}

/// What was seen of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What lies in it.
    pub depth: Depth,
    /// When the oldest of it was added, by the bus's clock.
    pub since: Option<SystemTime>,
}

impl Queues {
    /// Nothing was looked at yet; ages are told by this clock.
    #[must_use]
    pub fn new(clock: WallClock) -> Self {
        Self {
            seen: Arc::default(),
            clock,
        }
    }

    /// Looks at the queues of these pools again and again, for ever. Of one that cannot be looked at nothing is known.
    pub async fn watch(self, bus: Bus, pools: Vec<PoolId>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for pool in &pools {
                let seen = look(&bus, pool).await;
                let mut all = self.seen();
                match seen {
                    Ok(seen) => drop(all.insert(pool.clone(), seen)),
                    Err(error) => {
                        all.remove(pool);
                        drop(all);
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(pool.id = %pool, error, "failed to look at the queue");
                    }
                }
            }
        }
    }

    /// The time of day, for ages.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// What was seen of each pool's queue.
    pub(crate) fn seen(&self) -> MutexGuard<'_, BTreeMap<PoolId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// How long the oldest has been there at a moment; zero when nothing is there.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Duration {
        let age = self.since.map(|since| now.duration_since(since));
        age.and_then(Result::ok).unwrap_or_default()
    }
}

async fn look(bus: &Bus, pool: &PoolId) -> Result<Seen, BusError> {
    let queue = bus.queue()?;
    let depth = queue.depth(pool).await?;
    let since = match depth.all() {
        0 => None,
        _ => queue.oldest(pool).await?,
    };
    Ok(Seen { depth, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_oldest_and_never_negative() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let age = |since: Option<u64>| {
            let since = since.map(|since| SystemTime::UNIX_EPOCH + Duration::from_secs(since));
            let seen = Seen {
                since,
                ..Seen::default()
            };
            seen.age(now).as_secs()
        };
        assert_eq!(age(Some(70)), 30);
        assert_eq!(age(Some(101)), 0);
        assert_eq!(age(None), 0);
    }
}
