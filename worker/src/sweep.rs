//! What crashes leave behind on the bus and in the object store, collected by every worker from time
//! to time.

use std::time::{Duration, SystemTime};

use proto::limits;
use records::fleet::{Standing, State};
use store::{
    FleetError, Store, StoreError,
    log::collect::{self, Found},
};

use crate::{
    clock::{Clock, Offset},
    lease::{BusError, Ledger},
};

/// Time between two sweeps for abandoned slots.
const SLOTS_EVERY: Duration = Duration::from_secs(30);
/// Time between two sweeps for abandoned staging objects.
const STAGING_EVERY: Duration = Duration::from_secs(600);
/// Time between two sweeps for logs whose sessions are over. Each lists a pool's objects.
const LOGS_EVERY: Duration = Duration::from_secs(1800);

/// Why logs were not swept.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("the object store failed")]
    Store(#[from] StoreError),
    #[error("the bus failed")]
    Bus(#[from] BusError),
    #[error("this host's clock, which agrees with the bus's, is {0} the object store's")]
    Clock(String),
    #[error("failed to read the fleet's generation")]
    Fleet(#[from] FleetError),
}

/// Frees the slots that no lease belongs to, for ever.
pub async fn slots(ledger: Ledger, clock: Clock, standing: Standing) {
    let mut tick = tokio::time::interval(SLOTS_EVERY);
    loop {
        tick.tick().await;
        standing.sound().await;
        clock.right().await;
        if is_sound(&standing) {
            note("slots", ledger.sweep().await);
        }
    }
}

/// Removes staging objects that nobody reads any more, for ever.
pub async fn staging(store: Store, clock: Clock, standing: Standing) {
    let mut tick = tokio::time::interval(STAGING_EVERY);
    loop {
        tick.tick().await;
        standing.sound().await;
        clock.right().await;
        if is_sound(&standing) {
            note("staging objects", stale(&store, &clock).await);
        }
    }
}

/// Removes the logs of sessions that are over, for ever.
pub async fn logs(store: Store, ledger: Ledger, clock: Clock, standing: Standing) {
    let mut tick = tokio::time::interval(LOGS_EVERY);
    loop {
        tick.tick().await;
        standing.sound().await;
        clock.right().await;
        if is_sound(&standing) {
            note("logs", orphans(&store, &ledger, &clock, &standing).await);
        }
    }
}

/// A bus that lost its data knows of no session, and a bus in doubt may have.
fn is_sound(standing: &Standing) -> bool {
    standing.now() == State::Sound
}

fn note<E: std::error::Error + 'static>(what: &'static str, swept: Result<(), E>) {
    if let Err(error) = swept {
        tracing::warn!(
            what,
            error = &error as &dyn std::error::Error,
            "failed to sweep"
        );
    }
}

/// The store's time. This host's clock, which agrees with the bus's, shows whether the store's does, too:
/// after a jump of the store's clock, objects would seem older than they are.
async fn store_time(store: &Store, clock: &Clock) -> Result<SystemTime, SweepError> {
    let before = clock.now();
    let now = store.time().await?;
    match Offset::between(before, now, clock.now()).excess() {
        Some(excess) => Err(SweepError::Clock(excess)),
        None => Ok(now),
    }
}

async fn stale(store: &Store, clock: &Clock) -> Result<(), SweepError> {
    let now = store_time(store, clock).await?;
    Ok(store.sweep(now).await?)
}

async fn orphans(
    store: &Store,
    ledger: &Ledger,
    clock: &Clock,
    standing: &Standing,
) -> Result<(), SweepError> {
    let pool = ledger.pool();
    let now = store_time(store, clock).await?;
    let accepted = store.fleet_record().await?;
    // Only a bus that follows on a lost one has sessions behind it that it knows nothing of.
    let accepted = accepted.and_then(|(record, written)| record.previous.map(|_| written));
    let lease_life = pool.cooldown() + limits::LEASE_MARGIN;
    for found in collect::incarnations(store, &pool.id).await? {
        let kept = accepted.is_some_and(|at| collect::is_of_lost_bus(&found, at, now));
        if !kept && is_over(&found, ledger, now, lease_life).await? && is_sound(standing) {
            tracing::info!(pool.id = %pool.id, session.key = %found.place.session,
                "what is left of the log of a session that is over is removed");
            collect::delete(store, &found.place).await?;
        }
    }
    Ok(())
}

async fn is_over(
    found: &Found,
    ledger: &Ledger,
    now: SystemTime,
    lease_life: Duration,
) -> Result<bool, BusError> {
    // Most are not, and need no question.
    if !collect::is_orphan(found, None, now, lease_life) {
        return Ok(false);
    }
    let live = ledger.incarnation(&found.place.session).await?;
    Ok(collect::is_orphan(found, live, now, lease_life))
}
