//! Leases that are held for no session. A live worker's lease keeps callers waiting for it until it ends by itself,
//! so it is given up as soon as the bus says that it is there.

use std::time::Duration;

use proto::{lease::LeaseState, limits};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{LeaseError, Ownership};

/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A write that the bus did not answer may arrive for so long after it answers again: the client library sends what
/// it could not send before.
const LATE: Duration = Duration::from_secs(30);

/// Why a lease may be there that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its session ended, and what became of the lease is not known; or the session was believed to be another's.
    Ended,
    /// The bus did not say whether the session was claimed.
    Claim,
}

/// How a lease is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// With its slot: nothing is left of the session.
    Nothing,
    /// To whoever is asked for the session next; it has not been used since this moment.
    Vacancy(Instant),
}

/// Gives a lease up once it turns out that it is there and that its session is neither claimed nor owned here.
/// Returns when it is given up, another's, or not there; or, while the bus does not answer or the session is in use,
/// when the lease would have ended by itself. A worker that ends tries once more.
pub async fn give_up(
    ownership: Ownership,
    reason: Reason,
    leave: Leave,
    draining: CancellationToken,
) {
    let ownership = ownership.unused();
    let late = match reason {
        Reason::Ended => Duration::ZERO,
        Reason::Claim => LATE,
    };
    let life = ownership.ledger.pool().cooldown() + limits::LEASE_MARGIN;
    let begun = Instant::now();
    // Since when the bus has said that it is not there.
    let mut missing = None;
    while begun.elapsed() < life + late {
        let ends = draining.is_cancelled();
        match try_once(&ownership, leave).await {
            Ok(Tried::GivenUp) => return,
            Ok(Tried::InUse) => {}
            Err(LeaseError::Lost) => {
                let since: &mut Instant = missing.get_or_insert_with(Instant::now);
                if since.elapsed() >= late {
                    return;
                }
            }
            Err(LeaseError::Bus(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "failed to give up a lease that no session has");
                missing = None;
            }
        }
        // Whoever is asked for the session finds that its owner is gone.
        if ends {
            return;
        }
        tokio::select! {
            () = draining.cancelled() => {}
            () = sleep(LOOK_AGAIN) => {}
        }
    }
}

enum Tried {
    GivenUp,
    InUse,
}

async fn try_once(ownership: &Ownership, leave: Leave) -> Result<Tried, LeaseError> {
    if ownership.is_in_use() {
        return Ok(Tried::InUse);
    }
    let mut lease = ownership.hold().await?;
    if lease.state == LeaseState::Vacant {
        return Ok(Tried::GivenUp);
    }
    // A claim says so before it writes, so what was read is none of its.
    if ownership.is_in_use() {
        return Ok(Tried::InUse);
    }
    match leave {
        Leave::Nothing => lease.release().await?,
        Leave::Vacancy(idle_since) => lease.vacate(idle_since.elapsed()).await?,
    }
    Ok(Tried::GivenUp)
}
