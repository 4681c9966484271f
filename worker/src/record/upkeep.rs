//! Keeps the stream of records as large as the pools' shares need it: a worker of an older version, or one
//! with another pool file, may have made it smaller.

use std::time::Duration;

use proto::health::Health;
use records::{cas::BusError, share, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::Records;
use crate::lease::streams::{self, Replicas};

/// Time between two looks at the stream's bound.
const EVERY: Duration = Duration::from_secs(60);

/// The bound of a stream that has one of `has` bytes and needs `needed`. What is not positive is no bound.
pub(super) fn kept(has: Option<i64>, needed: u64) -> u64 {
    let has = has.and_then(|has| u64::try_from(has).ok());
    needed.max(has.unwrap_or(0))
}

impl Records {
    /// Reports to `health` whether every pool has room, and keeps the stream large enough, for ever.
    pub async fn watch(self, replicas: Replicas, health: Health) {
        let watching = watch::watch(self.executions.clone(), self.shares.to_vec(), health);
        tokio::join!(watching, self.keep_room(replicas));
    }

    async fn keep_room(&self, replicas: Replicas) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.enlarge(replicas).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "failed to reserve the room of records");
            }
        }
    }

    /// Makes the stream larger if the shares need it. Never smaller: others may know more pools.
    ///
    /// # Errors
    /// The bus is gone, or cannot reserve so much.
    pub async fn enlarge(&self, replicas: Replicas) -> Result<(), BusError> {
        let has = self.executions.bound().await?;
        let usage = self.executions.usage(&self.shares).await?;
        let bytes = share::bound(&self.shares, usage.as_ref());
        // Not positive: not bounded.
        if has.is_some_and(|has| u64::try_from(has).map_or(true, |has| has == 0 || has >= bytes)) {
            return Ok(());
        }
        self.bus.open(&streams::executions(bytes, replicas)).await?;
        tracing::info!(
            bytes,
            "the stream of records was too small and is larger now"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_never_made_smaller() {
        for (has, needed, kept_at) in [
            (None, 7, 7),
            (Some(6), 7, 7),
            (Some(8), 7, 8),
            (Some(0), 7, 7),
            (Some(-1), 7, 7),
        ] {
            assert_eq!(kept(has, needed), kept_at, "{has:?}");
        }
    }
}
