//! Executions, at most once: the record of an execution is created before its code runs, and its end is
//! written before its caller hears of it. Both are compare-and-sets; whoever loses one is given the
//! winner's record and reports that.

use std::{sync::Arc, time::Duration};

use proto::{
    execution::Outcome,
    fault::{Fault, FaultCode},
    id::{PoolId, SessionKey},
    limits,
    pool::Pools,
    record::{ExecutionRecord, RecordKey, RecordRef, RecordState, Stamp, StoredOutcome},
    subject, wire,
};
use records::{
    cas::{BusError, RecordBus},
    execution::{Executions, Put, Stamps},
    room::{Entry, Room},
    share::{self, Share},
};

use store::Store;

use crate::lease::{
    LeaseError, Ownership,
    streams::{self, Replicas},
};

pub mod decide;
pub mod upkeep;

use decide::{Decision, decide};

/// How often a record that others change meanwhile is looked at anew.
const LOOKS: u32 = 4;

/// The records of executions, as one worker uses them.
#[derive(Clone, Debug)]
pub struct Records {
    bus: Arc<dyn RecordBus>,
    executions: Executions,
    shares: Arc<[Share]>,
    store: Store,
}

/// Which record it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    pool: PoolId,
    session: SessionKey,
    key: RecordKey,
}

/// What a session may do with an execution.
#[derive(Debug)]
pub enum Begun {
    /// Run it: it never ran and nobody else will.
    Mine(Box<HeldRecord>),
    /// This ownership has it already, unless it forgot it: see [`Records::lose`].
    Known(Known),
    /// It has ended, as the record's [`ExecutionRecord::answer`] says.
    Over(ExecutionRecord),
}

/// An execution that an ownership has, according to its record.
#[derive(Debug)]
pub struct Known {
    name: Name,
    record: ExecutionRecord,
    revision: u64,
}

/// The right to run one execution, and the duty to say how it ended. Only [`Records::begin`] makes one.
#[derive(Debug)]
#[must_use = "an execution whose record stays as it is counts as running until its session is lost"]
pub struct HeldRecord {
    records: Records,
    name: Name,
    record: ExecutionRecord,
    revision: u64,
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutionEnd {
    /// It ran, or was cancelled before it could.
    Outcome(Box<Outcome>),
    /// It did not run and will not here, for this reason; the same operation may be asked for anew, and
    /// one from the queue waits there again.
    Refused(Fault),
    /// It ran, but its files are not saved.
    Unsaved(Fault),
    /// Its session was ended for its caller while it waited or ran.
    Stopped(Fault),
}

/// What the record says in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalRecord {
    /// What this worker wrote.
    Mine(ExecutionRecord),
    /// Someone else ended it first, so this is how it ended.
    Theirs(ExecutionRecord),
}

/// Why an execution does not begin, or its end is not known to be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The operation id was used for another request.
    #[error("this operation id was used for another request")]
    Conflict,
    /// The record says that it was refused, and the job does not start it over.
    #[error("the execution was refused")]
    Refused,
    /// The session has another owner.
    #[error("the session moved to another worker")]
    NotOwner,
    /// The pool's share of the records is full.
    #[error(
        "the pool has recorded as many executions within 24 hours as it may; there is room again in {}",
        share::words(*retry_after)
    )]
    Full {
        /// When there is room again.
        retry_after: Duration,
    },
    /// Others changed the record again and again.
    #[error("too many concurrent changes of the execution's record")]
    Contended,
    /// The bus did not answer as it should; whether the record was written is unknown.
    #[error("the bus failed")]
    Bus(#[from] BusError),
}

impl From<&RecordError> for Fault {
    fn from(error: &RecordError) -> Self {
        let code = match error {
            RecordError::Conflict => FaultCode::OperationConflict,
            RecordError::Refused => FaultCode::Refused,
            RecordError::NotOwner | RecordError::Contended => FaultCode::NotOwner,
            RecordError::Full { retry_after } => {
                let full = Self::new(FaultCode::RecordsFull, error.to_string());
                return full.retry_after(*retry_after);
            }
            RecordError::Bus(_) => {
                let words = "the execution's record could not be written";
                return Self::new(FaultCode::Internal, words);
            }
        };
        Self::new(code, error.to_string())
    }
}

impl FinalRecord {
    /// The record, whoever wrote it: everybody is told the same.
    #[must_use]
    pub fn into_record(self) -> ExecutionRecord {
        match self {
            Self::Mine(record) | Self::Theirs(record) => record,
        }
    }
}

impl Records {
    /// Creates the stream of records if it is missing, with room for the shares of these pools. It never
    /// becomes smaller: others may know more pools.
    ///
    /// # Errors
    /// The bus is gone, or refuses, as when it cannot reserve so much.
    pub async fn open(
        bus: Arc<dyn RecordBus>,
        store: Store,
        pools: &Pools,
        replicas: Replicas,
        stamps: Stamps,
    ) -> Result<Self, BusError> {
        let executions = Executions::over(bus.clone(), stamps);
        let shares = share::of(pools);
        let usage = executions.usage(&shares).await?;
        let needed = share::bound(&shares, usage.as_ref());
        let bytes = upkeep::kept(executions.bound().await?, needed);
        bus.open(&streams::executions(bytes, replicas)).await?;
        Ok(Self {
            bus,
            executions,
            shares: shares.into(),
            store,
        })
    }

    /// Whether a pool has room for one more record. Of a pool that this worker does not serve nobody asks.
    async fn room(&self, pool: &PoolId) -> Result<Room<Entry>, BusError> {
        match self.share(pool) {
            Some(share) => self.executions.admit(share).await,
            None => Ok(Room::Full {
                retry_after: limits::RECORDS_AGAIN,
            }),
        }
    }

    fn share(&self, pool: &PoolId) -> Option<&Share> {
        self.shares.iter().find(|share| share.pool == *pool)
    }

    /// The bus had no room for a write that was let in.
    async fn full(&self, pool: &PoolId) -> RecordError {
        let room = match self.share(pool) {
            Some(share) => self.executions.standing(share).await.ok(),
            None => None,
        };
        let retry_after = match room {
            Some(Room::Full { retry_after }) => retry_after,
            Some(Room::Left(())) | None => limits::RECORDS_AGAIN,
        };
        RecordError::Full { retry_after }
    }

    /// Takes an execution for an ownership, before its code runs.
    ///
    /// # Errors
    /// It must not run, or whether it may is unknown.
    pub async fn begin(
        &self,
        ownership: &Ownership,
        (pool, session): (&PoolId, &SessionKey),
        asked: &RecordRef,
    ) -> Result<Begun, RecordError> {
        let (name, place) = (Name::of(pool, session, &asked.key), ownership.place());
        let new = || {
            let (digest, place) = (asked.digest.clone(), Some(place.clone()));
            ExecutionRecord::new(RecordState::Running, digest, place, self.executions.stamp())
                .submitted(asked.submission.clone())
        };
        let (mut record, mut expected) = (new(), 0);
        let _entry = match self.room(pool).await? {
            Room::Left(entry) => entry,
            Room::Full { retry_after } => {
                let full = RecordError::Full { retry_after };
                return self.without_room(ownership, name, asked, full).await;
            }
        };
        let subject = name.subject();
        for _ in 0..LOOKS {
            let put = self.executions.put(&subject, &record, expected);
            let (found, revision) = match put.await? {
                Put::At(revision) => {
                    return Ok(Begun::Mine(Box::new(HeldRecord {
                        records: self.clone(),
                        name,
                        record,
                        revision,
                    })));
                }
                Put::Full => return Err(self.full(pool).await),
                Put::Taken(Some(found)) => found,
                Put::Taken(None) => {
                    (record, expected) = (new(), 0);
                    continue;
                }
            };
            match decide(&found, revision, asked, &place) {
                Decision::Take => {
                    (record, expected) = (
                        found.taken(place.clone(), self.executions.stamp()),
                        revision,
                    );
                }
                decision => {
                    let known = Known {
                        name,
                        record: found,
                        revision,
                    };
                    return self.otherwise(decision, ownership, known).await;
                }
            }
        }
        Err(RecordError::Contended)
    }

    /// There is no room for another execution; those that are known are treated as ever.
    async fn without_room(
        &self,
        ownership: &Ownership,
        name: Name,
        asked: &RecordRef,
        full: RecordError,
    ) -> Result<Begun, RecordError> {
        let Some((record, revision)) = self.executions.read(&name.subject()).await? else {
            return Err(full);
        };
        match decide(&record, revision, asked, &ownership.place()) {
            // Its record is there and becomes no other: it needs no room of its own.
            Decision::Take => self.take(ownership, name, record, revision).await,
            decision => {
                let known = Known {
                    name,
                    record,
                    revision,
                };
                self.otherwise(decision, ownership, known).await
            }
        }
    }

    /// Takes over an execution that nobody has, over exactly this revision of its record.
    async fn take(
        &self,
        ownership: &Ownership,
        name: Name,
        record: ExecutionRecord,
        revision: u64,
    ) -> Result<Begun, RecordError> {
        let record = record.taken(ownership.place(), self.executions.stamp());
        let subject = name.subject();
        let put = self.executions.put(&subject, &record, revision);
        match put.await? {
            Put::At(revision) => Ok(Begun::Mine(Box::new(HeldRecord {
                records: self.clone(),
                name,
                record,
                revision,
            }))),
            Put::Taken(_) => Err(RecordError::Contended),
            Put::Full => Err(self.full(&name.pool).await),
        }
    }

    /// An execution that this session does not run.
    async fn otherwise(
        &self,
        decision: Decision,
        ownership: &Ownership,
        known: Known,
    ) -> Result<Begun, RecordError> {
        match decision {
            Decision::Attach => Ok(Begun::Known(known)),
            Decision::Tell => Ok(Begun::Over(known.record)),
            Decision::Lose => Ok(Begun::Over(self.lose(ownership, known).await?)),
            Decision::Conflict => Err(RecordError::Conflict),
            Decision::Refused => Err(RecordError::Refused),
            Decision::NotOwner => Err(RecordError::NotOwner),
            Decision::Take => Err(RecordError::Contended),
        }
    }

    /// Says that an execution is lost, or lets it wait anew if that was wished: its owner lost the session
    /// to `ownership`, or `ownership` itself does not know it, because the bus failed when it began or
    /// ended. Returns how it ended.
    ///
    /// # Errors
    /// The ownership is none any more, or whether the record was written is unknown.
    pub async fn lose(
        &self,
        ownership: &Ownership,
        known: Known,
    ) -> Result<ExecutionRecord, RecordError> {
        match ownership.confirm().await {
            Ok(()) => {}
            Err(LeaseError::Lost) => return Err(RecordError::NotOwner),
            Err(LeaseError::Bus(error)) => return Err(error.into()),
        }
        let lost = known.record.after_owner_lost(self.executions.stamp());
        let subject = known.name.subject();
        let put = self.executions.put(&subject, &lost, known.revision);
        match put.await? {
            Put::At(_) => Ok(lost),
            Put::Taken(Some((winner, _))) if winner.answer().is_some() => Ok(winner),
            Put::Taken(_) => Err(RecordError::Contended),
            Put::Full => Err(self.full(&known.name.pool).await),
        }
    }
}

impl HeldRecord {
    /// Name of the record.
    #[must_use]
    pub fn key(&self) -> &RecordKey {
        &self.name.key
    }

    /// Says how the execution ended. What the record says afterwards is what its callers are told.
    ///
    /// # Errors
    /// Whether the end was written is unknown: it is not told, and who asks again hears what the
    /// record says.
    pub async fn finish(self, end: ExecutionEnd) -> Result<FinalRecord, RecordError> {
        let stamp = self.records.executions.stamp();
        let (state, outcome) = match end {
            ExecutionEnd::Refused(fault) => (RecordState::Refused, StoredOutcome::fault(fault)),
            ExecutionEnd::Unsaved(fault) => (RecordState::Failed, StoredOutcome::fault(fault)),
            ExecutionEnd::Stopped(fault) => (RecordState::Cancelled, StoredOutcome::fault(fault)),
            ExecutionEnd::Outcome(outcome) => {
                let state = RecordState::after(&outcome.ending);
                (state, self.recorded(&outcome, &stamp).await)
            }
        };
        let ended = match (state, self.record.queued()) {
            (RecordState::Refused, Some(_)) => self.record.waiting(stamp),
            _ => self.record.followed_by(state, Some(outcome), stamp),
        };
        if let Some(finished) = self.write(&ended).await? {
            return Ok(finished);
        }
        // A full stream may have room for a record whose result lies elsewhere.
        let Some(StoredOutcome::Inline(encoded)) = &ended.outcome else {
            return Err(self.records.full(&self.name.pool).await);
        };
        let outcome = Some(self.kept(encoded.clone(), &ended.nonce).await);
        let ended = ExecutionRecord { outcome, ..ended };
        match self.write(&ended).await? {
            Some(finished) => Ok(finished),
            None => Err(self.records.full(&self.name.pool).await),
        }
    }

    /// Writes the end; nothing when there is no room for it.
    async fn write(&self, ended: &ExecutionRecord) -> Result<Option<FinalRecord>, RecordError> {
        let (executions, subject) = (&self.records.executions, self.name.subject());
        let finished = match executions.put(&subject, ended, self.revision).await? {
            Put::At(_) => Ok(Some(FinalRecord::Mine(ended.clone()))),
            Put::Taken(Some((winner, _))) if winner.answer().is_some() => {
                Ok(Some(FinalRecord::Theirs(winner)))
            }
            Put::Taken(_) => Err(RecordError::Contended),
            Put::Full => Ok(None),
        };
        if !matches!(finished, Ok(Some(FinalRecord::Mine(_)))) {
            self.forget(ended).await;
        }
        finished
    }

    /// An outcome as the record holds it: a long one by way of the store.
    async fn recorded(&self, outcome: &Outcome, stamp: &Stamp) -> StoredOutcome {
        match wire::encode(outcome) {
            Ok(encoded) if encoded.len() <= limits::RECORD_OUTCOME_BYTES => {
                StoredOutcome::Inline(encoded)
            }
            Ok(encoded) => self.kept(encoded, &stamp.nonce).await,
            Err(_) => {
                let words = "the code ran, but its result could not be encoded";
                StoredOutcome::Fault(Fault::new(FaultCode::Internal, words))
            }
        }
    }

    async fn kept(&self, encoded: Vec<u8>, nonce: &str) -> StoredOutcome {
        let Name { pool, session, key } = &self.name;
        let object = subject::result_key(pool, session, key, nonce);
        match self.records.store.keep_result(object, encoded).await {
            Ok(object) => StoredOutcome::Object(object),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to store a result"
                );
                // Not a fault that callers answer with another try.
                let words = "the code ran, but its result could not be stored";
                StoredOutcome::Fault(Fault::new(FaultCode::Internal, words))
            }
        }
    }

    /// Removes the result of an end that did not count.
    async fn forget(&self, ended: &ExecutionRecord) {
        if let Some(StoredOutcome::Object(object)) = &ended.outcome {
            self.records.store.discard(object).await;
        }
    }
}

impl Name {
    fn of(pool: &PoolId, session: &SessionKey, key: &RecordKey) -> Self {
        Self {
            pool: pool.clone(),
            session: session.clone(),
            key: key.clone(),
        }
    }

    fn subject(&self) -> String {
        subject::execution(&self.pool, &self.session, &self.key)
    }
}
