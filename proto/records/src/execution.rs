//! The records of executions. Ingress and workers write the same ones, so whoever loses a
//! compare-and-set is given the winner's.

use std::{sync::Arc, time::SystemTime};

use proto::{
    ambient::{Ids, WallClock},
    limits,
    record::{ExecutionRecord, Stamp},
    subject, wire,
};
use time::OffsetDateTime;

use crate::{
    cas::{self, BusError, RecordBus, Write, Written, time_at},
    room::{Entry, Room, Rooms},
    share::{Share, Usage},
};

/// How often a write is tried whose acknowledgement does not come.
const TRIES: u32 = 3;

/// The records of all pools' executions.
#[derive(Clone, Debug)]
pub struct Executions {
    bus: Arc<dyn RecordBus>,
    rooms: Rooms,
    stamps: Stamps,
}

/// Where the stamps of new versions come from.
#[derive(Clone, Debug)]
pub struct Stamps {
    /// Their nonces.
    pub ids: Ids,
    /// Their times.
    pub clock: WallClock,
}

/// A record and its revision.
pub type Found = Option<(ExecutionRecord, u64)>;

/// What a write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The record is written and has this revision.
    At(u64),
    /// It was not what was expected; this is what it is.
    Taken(Found),
    /// No more records can be kept.
    Full,
}

impl Executions {
    /// The records on this bus. Nothing is sent; the stream is made by whichever worker comes first.
    #[must_use]
    pub fn over(bus: Arc<dyn RecordBus>, stamps: Stamps) -> Self {
        Self {
            rooms: Rooms::new(bus.clone()),
            bus,
            stamps,
        }
    }

    /// The stamp of a version that is written now.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamps.stamp()
    }

    /// The bus's time, by which records are stored.
    ///
    /// # Errors
    /// The bus did not answer, or there is no stream of records yet.
    pub async fn time(&self) -> Result<OffsetDateTime, BusError> {
        time_at(&*self.bus, subject::EXECUTIONS_STREAM).await
    }

    /// Whether one more execution of a pool may be recorded. If so, it counts as recorded until the records
    /// are counted anew after the entry was dropped.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn admit(&self, share: &Share) -> Result<Room<Entry>, BusError> {
        self.rooms.admit(share).await
    }

    /// Whether a pool has room for one more record.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn standing(&self, share: &Share) -> Result<Room, BusError> {
        self.rooms.standing(share).await
    }

    /// How a pool's share stands by a look at the bus, whatever was found before.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn look(&self, share: &Share) -> Result<Room, BusError> {
        self.rooms.look_anew(share).await
    }

    /// What is in the stream, or nothing if there is none yet.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn usage(&self, shares: &[Share]) -> Result<Option<Usage>, BusError> {
        self.rooms.usage(shares).await
    }

    /// The bytes that the stream may hold, or nothing if there is none yet. Not positive: not bounded.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn bound(&self) -> Result<Option<i64>, BusError> {
        let stream = self.bus.describe(subject::EXECUTIONS_STREAM).await?;
        Ok(stream.map(|stream| stream.most_bytes))
    }

    /// The record at a subject, read from the stream's leader.
    ///
    /// # Errors
    /// The bus did not answer, or the record cannot be decoded.
    pub async fn read(&self, subject: &str) -> Result<Found, BusError> {
        let last = self.bus.last(subject::EXECUTIONS_STREAM, subject).await?;
        let Some(stored) = last else {
            return Ok(None);
        };
        let record = wire::decode(&stored.payload);
        let record = record.map_err(|error| BusError::new("record was not decoded", error))?;
        Ok(Some((record, stored.sequence)))
    }

    /// Writes a record over exactly the revision `expected` (0: none). A write whose acknowledgement is
    /// lost is told by the record's nonce and tried again: no two of its tries can both succeed.
    ///
    /// # Errors
    /// The bus did not answer in several tries; whether the record was written is unknown.
    pub async fn put(
        &self,
        subject: &str,
        record: &ExecutionRecord,
        expected: u64,
    ) -> Result<Put, BusError> {
        let payload = cas::encode(record)?;
        let mut tries = 0;
        loop {
            let write = Write {
                subject: subject.to_owned(),
                payload: payload.clone(),
                expected: Some(expected),
                life: Some(limits::RECORD_LIFE),
            };
            let found = match self.bus.write(write).await {
                Ok(Written::At(revision)) => return Ok(Put::At(revision)),
                Ok(Written::Full) => return Ok(Put::Full),
                Ok(Written::Conflict) => return Ok(settled(self.read(subject).await?, record)),
                Err(error) => {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error);
                    }
                    self.read(subject).await
                }
            };
            match found {
                Ok(found) if revision(&found) != expected => return Ok(settled(found, record)),
                // Nothing was written yet, or nobody knows.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

fn revision(found: &Found) -> u64 {
    found.as_ref().map_or(0, |(_, revision)| *revision)
}

/// What a record that is not as expected means for whoever tried to write `ours`.
fn settled(found: Found, ours: &ExecutionRecord) -> Put {
    match found {
        Some((record, revision)) if record.nonce == ours.nonce => Put::At(revision),
        other => Put::Taken(other),
    }
}

impl Stamps {
    /// Real ones, for a process.
    #[must_use]
    pub fn real() -> Self {
        Self {
            ids: Ids::random(),
            clock: WallClock::system(),
        }
    }

    /// The stamp of a version that is written now.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        let now_ms = since.map_or(0, |since| since.as_millis());
        Stamp {
            nonce: self.ids.next().to_string().to_lowercase(),
            now_ms: u64::try_from(now_ms).unwrap_or(u64::MAX),
        }
    }
}
