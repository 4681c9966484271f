//! The sessions of a pool, as their leases tell of them.

use std::time::Duration;

use proto::{
    id::{Epoch, Identifier, SessionKey, WorkerId},
    lease::LeaseState,
    pool::Pool,
    subject,
};
use routing::bus::leases::Written;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    fleet::Fleet,
    table::{Row, span},
};

/// A session that lives.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    /// As its callers call it.
    pub(crate) identifier: Identifier,
    /// Its name in logs and on the bus.
    pub(crate) key: SessionKey,
    /// The run of a worker that holds it, or held it last.
    pub(crate) owner: WorkerId,
    /// Whether that worker serves it.
    pub(crate) state: &'static str,
    /// Number of its ownership: one more with each worker that took it over.
    pub(crate) epoch: Epoch,
    /// Seconds since it was used, up to the time between two renewals too many.
    pub(crate) idle_seconds: u64,
    /// Seconds until it ends if nobody uses it.
    pub(crate) remaining_seconds: u64,
}

impl Row for Listed {
    const HEAD: &'static [&'static str] = &[
        "IDENTIFIER",
        "STATE",
        "OWNER",
        "EPOCH",
        "IDLE",
        "ENDS IN",
        "KEY",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.identifier.to_string(),
            self.state.to_owned(),
            self.owner.to_string(),
            self.epoch.to_string(),
            span(self.idle_seconds),
            span(self.remaining_seconds),
            self.key.to_string(),
        ]
    }
}

impl Listed {
    /// What a lease tells; `None` when the session has ended.
    fn of(written: Written, now: OffsetDateTime, pool: &Pool) -> Option<Self> {
        let Written { session, lease, at } = written;
        let age = Duration::try_from(now - at).unwrap_or_default();
        if !lease.lives(age, pool) {
            return None;
        }
        let idle = lease.idle(age);
        Some(Self {
            identifier: lease.identifier,
            key: session,
            owner: lease.owner,
            state: match lease.state {
                LeaseState::Active => "held",
                LeaseState::Vacant => "vacant",
                LeaseState::Stopping => "stopping",
                LeaseState::Unknown => "unknown",
            },
            epoch: lease.epoch,
            idle_seconds: idle.as_secs(),
            remaining_seconds: pool.cooldown().saturating_sub(idle).as_secs(),
        })
    }
}

/// The sessions of a pool that live, those that were used last first.
///
/// # Errors
/// There is no such pool, or the bus did not answer.
pub(crate) async fn list(fleet: &Fleet, pool: &str) -> anyhow::Result<Vec<Listed>> {
    let pool = fleet.pool(pool)?;
    let subject = subject::lease_wildcard(&pool.id);
    let leases = fleet.bus.leases(&pool.id, &subject).await?;
    let now = fleet.time().await?;
    let leases = leases.into_iter();
    let mut living: Vec<_> = leases
        .filter_map(|written| Listed::of(written, now, pool))
        .collect();
    living.sort_by(|a, b| {
        let order = a.idle_seconds.cmp(&b.idle_seconds);
        order.then_with(|| a.identifier.as_str().cmp(b.identifier.as_str()))
    });
    Ok(living)
}
