//! Ownership of sessions: slots that keep a pool's maximum exactly, and leases that name the one
//! owner of a session. Both are only ever changed by comparing with what was seen before.
//!
//! A slot is created and deleted, never overwritten: with three replicas an overwrite in a full
//! capped stream is refused. So what changes over time lives in the lease, whose stream has no cap.

use std::{sync::Arc, time::Duration};

use in_use::{InUse, Use};
use proto::{
    ambient::Ids,
    fault::{Fault, FaultCode},
    id::{Epoch, Identifier, Incarnation, SessionKey, WorkerId},
    lease::{Lease, LeaseState, Slot},
    limits,
    pool::Pool,
    record::Holder,
    subject, wire,
};
pub use records::cas::BusError;
use records::cas::{self, RecordBus, Write, Written};
use tokio::time::Instant;

pub mod beat;
mod in_use;
pub mod janitor;
pub mod keeper;
pub mod orphan;
pub mod ownership_check;
pub mod streams;
#[cfg(test)]
mod tests;
pub use streams::Replicas;

/// A claim that took less than this has the slot that it created: the janitor takes slots only that
/// were without a lease for [`limits::SLOT_GRACE`]. After a longer one the slot is read again.
const SLOT_IS_SURE: Duration = Duration::from_secs(30);
const _: () = assert!(SLOT_IS_SURE.as_secs() * 2 <= limits::SLOT_GRACE.as_secs());

/// Writes of a lease that others of the same owner are in the way of: at most one is under way.
const RENEWALS: usize = 3;

/// A pool's slots and leases, as one worker uses them.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bus: Arc<dyn RecordBus>,
    /// Names of the pool's streams.
    slots: String,
    leases: String,
    worker: WorkerId,
    pool: Pool,
    ids: Ids,
    sweeps: janitor::Sweeps,
    in_use: Arc<InUse>,
}

/// The right to act for a session. Only [`Ledger::claim`] makes one.
#[derive(Debug)]
#[must_use = "a lease that is dropped keeps its slot until it expires"]
pub struct HeldLease {
    ownership: Ownership,
    state: LeaseState,
    idle: Duration,
    revision: u64,
}

/// A claimed session.
#[derive(Debug)]
pub struct Claimed {
    /// The right to act for it.
    pub lease: HeldLease,
    /// Whether it lived before.
    pub continuity: Continuity,
}

/// Whether a claimed session lived before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// It begins. What an earlier life left in the object store is nobody's any more.
    New {
        /// The life that had ended, if there was one.
        ended: Option<Incarnation>,
    },
    /// It goes on: its files must be taken over.
    Continued,
}

impl Continuity {
    /// What a claim finds behind a lease record of this age.
    fn behind(lease: &Lease, age: Duration, pool: &Pool) -> Self {
        if lease.lives(age, pool) {
            return Self::Continued;
        }
        Self::New {
            ended: Some(lease.incarnation),
        }
    }
}

/// Which lease is held, to make sure of it from anywhere.
#[derive(Clone, Debug)]
pub struct Ownership {
    ledger: Ledger,
    session: SessionKey,
    record: Arc<Lease>,
    /// As long as it is claimed or owned; nothing for one that is only to be given up.
    #[expect(dead_code, reason = "it counts until it is dropped")]
    used: Option<Arc<Use>>,
}

/// Why a session was not claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Someone else changed the session's records since the ingress looked.
    #[error("another worker was faster")]
    LostRace,
    /// The pool's maximum of live sessions is reached.
    #[error("the pool's maximum of live sessions is reached")]
    Full,
    /// The bus did not answer as it should. Nothing was claimed; a slot may be left to the janitor.
    #[error("the bus failed")]
    Bus(#[from] BusError),
    /// The bus did not answer as it should, and the session may be claimed.
    #[error("the bus did not say whether the session was claimed")]
    Unsure {
        /// What may have been claimed: see [`orphan::give_up`].
        ownership: Box<Ownership>,
        /// Whether the session lived before.
        continuity: Continuity,
        /// How the bus failed.
        #[source]
        cause: BusError,
    },
}

/// Why a held lease could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The session has another owner or none.
    #[error("the lease is lost")]
    Lost,
    /// The bus did not answer as it should; whether the change happened is unknown.
    #[error("the bus failed")]
    Bus(#[from] BusError),
}

impl From<&ClaimError> for Fault {
    fn from(error: &ClaimError) -> Self {
        match error {
            ClaimError::LostRace => Self::new(FaultCode::LostRace, error.to_string()),
            ClaimError::Full => Self::new(FaultCode::SessionPoolFull, error.to_string()),
            ClaimError::Bus(_) | ClaimError::Unsure { .. } => {
                // The sender looks again.
                let words = "the bus did not say whether the session was claimed; nothing was done";
                Self::new(FaultCode::NotOwner, words)
            }
        }
    }
}

impl Ledger {
    /// Creates what is missing of the pool's streams.
    ///
    /// # Errors
    /// The bus is gone or refuses.
    pub async fn open(
        bus: Arc<dyn RecordBus>,
        worker: WorkerId,
        pool: Pool,
        replicas: Replicas,
        ids: Ids,
    ) -> Result<Self, BusError> {
        bus.open(&streams::slots(&pool, replicas)).await?;
        bus.open(&streams::leases(&pool, replicas)).await?;
        Ok(Self::over(bus, worker, pool, ids))
    }

    /// A ledger on a bus that has the pool's streams. Nothing is sent.
    #[must_use]
    pub fn over(bus: Arc<dyn RecordBus>, worker: WorkerId, pool: Pool, ids: Ids) -> Self {
        Self {
            inner: Arc::new(Inner {
                slots: subject::slots_stream(&pool.id),
                leases: subject::leases_stream(&pool.id),
                bus,
                worker,
                pool,
                ids,
                sweeps: janitor::Sweeps::default(),
                in_use: Arc::default(),
            }),
        }
    }

    /// The pool that this is the ledger of.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// The life that a session has now, read from the bus's leader.
    ///
    /// # Errors
    /// The bus failed.
    pub async fn incarnation(&self, session: &SessionKey) -> Result<Option<Incarnation>, BusError> {
        let subject = subject::lease(&self.inner.pool.id, session);
        let Some(stored) = self.inner.bus.last(&self.inner.leases, &subject).await? else {
            return Ok(None);
        };
        let lease = wire::decode::<Lease>(&stored.payload);
        let lease = lease.map_err(|error| BusError::new("lease was not read", error))?;
        Ok(Some(lease.incarnation))
    }

    /// Claims a session on exactly the lease revision that an ingress saw (0: none).
    ///
    /// # Errors
    /// The session or the last slot went to someone else, or the bus failed.
    pub async fn claim(
        &self,
        session: &SessionKey,
        identifier: &Identifier,
        seen: u64,
    ) -> Result<Claimed, ClaimError> {
        let begun = Instant::now();
        // Before anything is written: nobody gives up what this may claim.
        let used = Some(self.inner.in_use.begin(session));
        let previous = if seen == 0 {
            None
        } else {
            Some(self.lease_at(seen).await?)
        };
        let (slot, created) = match &previous {
            Some((lease, _)) => (lease.slot, false),
            None => (self.create_slot(session).await?, true),
        };
        let (record, continuity) = self.follow(previous, slot, identifier);
        let written = self.write_lease(session, &record, seen).await;
        let ownership = Ownership {
            ledger: self.clone(),
            session: session.clone(),
            record: Arc::new(record),
            used,
        };
        let revision = match written {
            Ok(Written::At(revision)) => revision,
            Ok(Written::Conflict | Written::Full) => {
                if created {
                    self.inner.bus.delete(&self.inner.slots, slot).await?;
                }
                return Err(ClaimError::LostRace);
            }
            // The acknowledgement may be lost while the lease is ours.
            Err(error) => match ownership.own_revision().await {
                Ok(revision) => revision,
                Err(_) => return Err(ownership.unsure(continuity, error)),
            },
        };
        let lease = HeldLease {
            ownership,
            state: LeaseState::Active,
            idle: Duration::ZERO,
            revision,
        };
        let claimed = Claimed { lease, continuity };
        match begun.elapsed() < SLOT_IS_SURE {
            true => Ok(claimed),
            false => self.with_slot(claimed).await,
        }
    }

    /// The record of a claim over a lease and its age, or of one without any.
    fn follow(
        &self,
        previous: Option<(Lease, Duration)>,
        slot: u64,
        identifier: &Identifier,
    ) -> (Lease, Continuity) {
        let continuity = match &previous {
            None => Continuity::New { ended: None },
            Some((lease, age)) => Continuity::behind(lease, *age, &self.inner.pool),
        };
        let incarnation = match (continuity, &previous) {
            (Continuity::Continued, Some((lease, _))) => lease.incarnation,
            _ => Incarnation::from_ulid(self.inner.ids.next()),
        };
        let epoch = previous.map_or_else(Epoch::default, |(lease, _)| lease.epoch);
        let record = Lease {
            identifier: identifier.clone(),
            owner: self.inner.worker.clone(),
            epoch: epoch.next(),
            incarnation,
            slot,
            state: LeaseState::Active,
            idle_ms: 0,
        };
        (record, continuity)
    }

    /// Makes sure of the slot of a claim that took long: the janitor may have taken it while this worker stood
    /// still, and without one the session would not count towards the maximum.
    async fn with_slot(&self, claimed: Claimed) -> Result<Claimed, ClaimError> {
        let Claimed { lease, continuity } = claimed;
        let (slot, revision) = (lease.ownership.record.slot, lease.revision);
        match self.slot_exists(slot, &lease.ownership.session).await {
            Ok(true) => Ok(Claimed { lease, continuity }),
            Ok(false) => match self.inner.bus.delete(&self.inner.leases, revision).await {
                Ok(_) => Err(ClaimError::LostRace),
                Err(cause) => Err(lease.ownership.unsure(continuity, cause)),
            },
            // A lease without an actor would keep everybody waiting.
            Err(cause) => Err(lease.ownership.unsure(continuity, cause)),
        }
    }

    /// The lease at a revision and the age of that record. Anything but a live lease there means
    /// that the sender's view is old.
    async fn lease_at(&self, revision: u64) -> Result<(Lease, Duration), ClaimError> {
        let Some(stored) = self.inner.bus.at(&self.inner.leases, revision).await? else {
            return Err(ClaimError::LostRace);
        };
        let lease = wire::decode(&stored.payload).map_err(|_| ClaimError::LostRace)?;
        let age = self.server_time().await? - stored.time;
        Ok((lease, Duration::try_from(age).unwrap_or_default()))
    }

    /// Creates the session's slot. A full pool is swept once before it counts as full.
    async fn create_slot(&self, session: &SessionKey) -> Result<u64, ClaimError> {
        let nonce = self.inner.ids.next().to_string();
        let mut swept = false;
        loop {
            let slot = Slot {
                worker: self.inner.worker.clone(),
                nonce: nonce.clone(),
            };
            let write = Write {
                subject: subject::slot(&self.inner.pool.id, session),
                payload: cas::encode(&slot)?,
                expected: Some(0),
                life: None,
            };
            match self.inner.bus.write(write).await {
                Ok(Written::At(sequence)) => return Ok(sequence),
                Ok(Written::Conflict) => return Err(ClaimError::LostRace),
                Ok(Written::Full) if !swept => {
                    swept = true;
                    self.sweep().await?;
                }
                Ok(Written::Full) => return Err(ClaimError::Full),
                // The acknowledgement may be lost while the slot is ours.
                Err(error) => {
                    return self
                        .own_slot(session, &nonce)
                        .await?
                        .ok_or_else(|| error.into());
                }
            }
        }
    }

    async fn own_slot(&self, session: &SessionKey, nonce: &str) -> Result<Option<u64>, BusError> {
        let subject = subject::slot(&self.inner.pool.id, session);
        let found = self.inner.bus.last(&self.inner.slots, &subject).await?;
        Ok(found.and_then(|stored| {
            let slot: Slot = wire::decode(&stored.payload).ok()?;
            (slot.nonce == nonce).then_some(stored.sequence)
        }))
    }

    async fn slot_exists(&self, slot: u64, session: &SessionKey) -> Result<bool, BusError> {
        let subject = subject::slot(&self.inner.pool.id, session);
        let found = self.inner.bus.last(&self.inner.slots, &subject).await?;
        Ok(found.is_some_and(|stored| stored.sequence == slot))
    }

    async fn write_lease(
        &self,
        session: &SessionKey,
        record: &Lease,
        expected: u64,
    ) -> Result<Written, BusError> {
        let idle = Duration::from_millis(record.idle_ms);
        let write = Write {
            subject: subject::lease(&self.inner.pool.id, session),
            payload: cas::encode(record)?,
            expected: Some(expected),
            life: Some(self.inner.pool.cooldown().saturating_sub(idle) + limits::LEASE_MARGIN),
        };
        self.inner.bus.write(write).await
    }
}

impl Ownership {
    /// Fencing number of this ownership.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    /// Holds the lease anew if the bus says that it is still this owner's: a doubt that was not
    /// resolved in time may have been groundless.
    ///
    /// # Errors
    /// The lease is someone else's now, or the bus failed.
    pub async fn hold(&self) -> Result<HeldLease, LeaseError> {
        let (found, revision) = self.own().await?;
        Ok(HeldLease {
            ownership: self.clone(),
            state: found.state,
            idle: Duration::ZERO,
            revision,
        })
    }

    /// The same for whoever only asks about it, or gives it up: it is not in use because of that.
    #[must_use]
    pub fn unused(self) -> Self {
        Self { used: None, ..self }
    }

    /// Whether the session is claimed or owned here, maybe by this very ownership.
    fn is_in_use(&self) -> bool {
        self.ledger.inner.in_use.contains(&self.session)
    }

    fn unsure(self, continuity: Continuity, cause: BusError) -> ClaimError {
        ClaimError::Unsure {
            ownership: Box::new(self.unused()),
            continuity,
            cause,
        }
    }

    /// The life of the session that is owned.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.record.incarnation
    }

    /// How the records of executions name this ownership.
    #[must_use]
    pub fn place(&self) -> Holder {
        Holder {
            worker: self.record.owner.clone(),
            epoch: self.record.epoch,
            incarnation: self.record.incarnation,
        }
    }

    /// Whether this is still the session's owner, read from the bus's leader.
    ///
    /// # Errors
    /// The lease is someone else's now, or the bus failed, so that nothing is known.
    pub async fn confirm(&self) -> Result<(), LeaseError> {
        self.own_revision().await.map(drop)
    }

    async fn own_revision(&self) -> Result<u64, LeaseError> {
        self.own().await.map(|(_, revision)| revision)
    }

    /// The lease as it lies on the bus, as long as it is this owner's, and its revision.
    async fn own(&self) -> Result<(Lease, u64), LeaseError> {
        match self.now().await? {
            Some((lease, revision)) if self.is_same(&lease) => Ok((lease, revision)),
            _ => Err(LeaseError::Lost),
        }
    }

    /// The session's lease and its revision, read from the bus's leader.
    async fn now(&self) -> Result<Option<(Lease, u64)>, LeaseError> {
        let Inner {
            bus, leases, pool, ..
        } = &*self.ledger.inner;
        let subject = subject::lease(&pool.id, &self.session);
        let Some(stored) = bus.last(leases, &subject).await? else {
            return Ok(None);
        };
        // One that this version cannot read it has not written.
        let lease = wire::decode::<Lease>(&stored.payload).map_err(|_| LeaseError::Lost)?;
        Ok(Some((lease, stored.sequence)))
    }

    fn is_same(&self, lease: &Lease) -> bool {
        lease.owner == self.record.owner
            && lease.epoch == self.record.epoch
            && lease.incarnation == self.record.incarnation
    }
}

impl HeldLease {
    /// Which lease this is.
    #[must_use]
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Writes the lease anew, so that it lives for the rest of the cooldown.
    ///
    /// # Errors
    /// The lease is someone else's now, or the bus failed.
    pub async fn renew(&mut self) -> Result<(), LeaseError> {
        let Ownership {
            ledger,
            session,
            record,
            used: _,
        } = &self.ownership;
        let record = Lease {
            state: self.state,
            idle_ms: u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX),
            ..Lease::clone(record)
        };
        for _ in 0..RENEWALS {
            match ledger.write_lease(session, &record, self.revision).await {
                Ok(Written::At(revision)) => {
                    self.revision = revision;
                    return Ok(());
                }
                // A conflict can be with this owner's own write whose acknowledgement was lost, and which may
                // say something else.
                Ok(Written::Conflict | Written::Full) => {
                    let (found, revision) = self.ownership.own().await?;
                    self.revision = revision;
                    if (found.state, found.idle_ms) == (record.state, record.idle_ms) {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.revision = self.ownership.own_revision().await?;
                    return Err(error.into());
                }
            }
        }
        Err(BusError::new("lease was not written", "it changes all the time").into())
    }

    /// Marks the session as ending, so that requests wait for its end instead of being answered.
    ///
    /// # Errors
    /// The lease is someone else's now, or the bus failed.
    pub async fn stop(&mut self) -> Result<(), LeaseError> {
        self.state = LeaseState::Stopping;
        self.renew().await
    }

    /// Leaves the session to whoever is asked for it next, with its files and the rest of its
    /// cooldown; `idle` is how long it has not been used. The sandbox must be dead by now.
    ///
    /// # Errors
    /// The lease is someone else's now, or the bus failed.
    pub async fn vacate(mut self, idle: Duration) -> Result<(), LeaseError> {
        self.state = LeaseState::Vacant;
        self.idle = idle;
        self.renew().await
    }

    /// Gives lease and slot back. The sandbox must be dead by now.
    ///
    /// # Errors
    /// The lease is someone else's now, and with it the slot; or the bus failed: the lease then ends by its
    /// own time and the janitor frees the slot.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        let Ownership { ledger, record, .. } = &self.ownership;
        let Inner {
            bus, slots, leases, ..
        } = &*ledger.inner;
        while !bus.delete(leases, self.revision).await? {
            match self.ownership.now().await? {
                // An earlier try has done it.
                None => break,
                // This owner's own write, whose acknowledgement was lost.
                Some((lease, revision))
                    if self.ownership.is_same(&lease) && revision != self.revision =>
                {
                    self.revision = revision;
                }
                Some(_) => return Err(LeaseError::Lost),
            }
        }
        bus.delete(slots, record.slot).await?;
        Ok(())
    }
}
