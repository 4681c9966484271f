//! Keeps a held lease alive without making its session wait for the bus.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use proto::pool::Pool;
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    HeldLease, LeaseError, Ownership,
    ownership_check::{Confirmation, OwnershipCheck},
};
use crate::{metrics::Counts, trace};

/// After a renewal that the bus did not answer, the time until the next.
const RETRY: Duration = Duration::from_secs(1);

type Renewal = BoxFuture<'static, (HeldLease, Confirmation, Result<(), LeaseError>)>;

/// A held lease and its renewals.
pub struct Keeper {
    ownership: Ownership,
    ownership_check: OwnershipCheck,
    counts: Counts,
    every: Duration,
    next: Instant,
    renewed: Instant,
    used: bool,
    lease: Option<HeldLease>,
    renewal: Option<Renewal>,
}

impl Keeper {
    /// Keeps a fresh lease, and tells `ownership_check` of each renewal.
    #[must_use]
    pub fn new(
        lease: HeldLease,
        ownership_check: OwnershipCheck,
        pool: &Pool,
        counts: Counts,
    ) -> Self {
        let every = pool.renewed_every();
        let ownership = lease.ownership().clone();
        let now = Instant::now();
        Self {
            ownership,
            ownership_check,
            counts,
            every,
            next: now + every,
            renewed: now,
            used: false,
            lease: Some(lease),
            renewal: None,
        }
    }

    /// Which lease it is.
    #[must_use]
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// When the bus last said that the lease is its owner's.
    #[must_use]
    pub fn renewed(&self) -> Instant {
        self.renewed
    }

    /// The session was used, so that its lease is renewed when it is time.
    pub fn used(&mut self) {
        self.used = true;
    }

    /// Renews whenever it is time. Returns when the lease is lost. May be dropped and called again
    /// at any moment.
    pub async fn keep(&mut self) {
        loop {
            if let Some(renewal) = &mut self.renewal {
                let (lease, sure, renewed) = renewal.await;
                self.renewal = None;
                self.lease = Some(lease);
                match renewed {
                    Ok(()) => {
                        self.counts.renewed();
                        self.ownership_check.note(sure);
                        self.renewed = Instant::now();
                        self.next = self.renewed + self.every;
                    }
                    Err(LeaseError::Lost) => {
                        self.counts.lease_lost();
                        return;
                    }
                    Err(LeaseError::Bus(error)) => {
                        self.counts.renewal_unanswered();
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "failed to renew a lease"
                        );
                        self.used = true;
                        self.next = Instant::now() + RETRY;
                    }
                }
            }
            if !self.used {
                return std::future::pending().await;
            }
            tokio::time::sleep_until(self.next).await;
            if let Some(mut lease) = self.lease.take() {
                self.used = false;
                let sure = self.ownership_check.now();
                let renewal = async move {
                    let renewed = lease.renew().await;
                    (lease, sure, renewed)
                };
                self.renewal = Some(Box::pin(renewal.instrument(trace::renewal())));
            }
        }
    }

    /// Gives the lease back to whoever ends the session.
    pub async fn into_lease(self) -> Option<HeldLease> {
        match self.renewal {
            Some(renewal) => Some(renewal.await.0),
            None => self.lease,
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("ownership", &self.ownership)
            .finish_non_exhaustive()
    }
}
