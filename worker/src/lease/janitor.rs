//! Frees slots that no lease belongs to: their creators died between the two writes, or their
//! leases ended by time.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::{limits, subject};
use records::cas::{Listed, time_at};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{BusError, Ledger};

/// Shortest time between two sweeps of a pool by one worker, so that a full pool under load is not
/// swept for every refused caller.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// When this worker last swept the pool.
#[derive(Debug, Default)]
pub(super) struct Sweeps(Mutex<Option<Instant>>);

impl Sweeps {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= SWEEP_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

impl Ledger {
    /// Deletes slots that are older than [`limits::SLOT_GRACE`] and have no lease. Does nothing
    /// when this worker swept a moment ago.
    ///
    /// # Errors
    /// The bus failed.
    pub async fn sweep(&self) -> Result<(), BusError> {
        if !self.inner.sweeps.is_due() {
            return Ok(());
        }
        let pool = &self.inner.pool.id;
        let bus = &self.inner.bus;
        let connection = bus.connection();
        // The time first, then slots, then leases: a slot that is old by this time had a lease by the
        // time that leases are read, or its creator knows that it cannot be sure of it.
        let now = self.server_time().await?;
        let slots = bus
            .list(&self.inner.slots, &subject::slot_wildcard(pool))
            .await?;
        let leases = bus
            .list(&self.inner.leases, &subject::leases_bucket(pool))
            .await?;
        for slot in abandoned(&slots, &leases, now) {
            // Behind another connection may be another bus, where the sequence is another slot's.
            if bus.connection() != connection {
                return Ok(());
            }
            tracing::warn!(pool.id = %pool, slot, "abandoned slot freed");
            bus.delete(&self.inner.slots, slot).await?;
        }
        Ok(())
    }

    /// The bus's clock: ages are differences between its own times only.
    pub(super) async fn server_time(&self) -> Result<OffsetDateTime, BusError> {
        time_at(&*self.inner.bus, &self.inner.slots).await
    }
}

/// The slots that are to be freed at this time: those that are old and have no lease.
pub(super) fn abandoned(slots: &[Listed], leases: &[Listed], now: OffsetDateTime) -> Vec<u64> {
    let leased: HashSet<_> = leases.iter().filter_map(session).collect();
    let slots = slots.iter().filter(|slot| {
        let is_old = now - slot.time > limits::SLOT_GRACE;
        is_old && session(slot).is_some_and(|session| !leased.contains(session))
    });
    slots.map(|slot| slot.sequence).collect()
}

/// The session whose slot or lease it is.
fn session(listed: &Listed) -> Option<&str> {
    listed.subject.rsplit('.').next()
}
