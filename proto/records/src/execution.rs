//! The records of executions. Ingress and workers write the same ones, so whoever loses a
//! compare-and-set is given the winner's.

use std::time::SystemTime;

use async_nats::jetstream::{Context, message::PublishMessage, stream::Stream};
use proto::{
    limits,
    record::{ExecutionRecord, Stamp},
    subject, wire,
};
use ulid::Ulid;

use crate::{
    cas::{self, BusError, Written},
    room::{Entry, Room, Rooms},
    share::{Share, Usage},
};

/// How often a write is tried whose acknowledgement does not come.
const TRIES: u32 = 3;

/// The records of all pools' executions.
#[derive(Clone, Debug)]
pub struct Executions {
    context: Context,
    stream: Stream<()>,
    rooms: Rooms,
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
    /// The records behind this connection. The stream is made by whichever worker comes first.
    ///
    /// # Errors
    /// The client library refuses the stream's name.
    pub async fn open(context: Context) -> Result<Self, BusError> {
        let stream = context.get_stream_no_info(subject::EXECUTIONS_STREAM).await;
        let stream = stream.map_err(|error| BusError::new("stream was not opened", error))?;
        Ok(Self {
            rooms: Rooms::new(context.clone()),
            context,
            stream,
        })
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
        let stream = self.rooms.describe().await?;
        Ok(stream.map(|stream| stream.config.max_bytes))
    }

    /// The record at a subject, read from the stream's leader.
    ///
    /// # Errors
    /// The bus did not answer, or the record cannot be decoded.
    pub async fn read(&self, subject: &str) -> Result<Found, BusError> {
        let Some(message) = cas::last(&self.stream, subject).await? else {
            return Ok(None);
        };
        let record = wire::decode(&message.payload);
        let record = record.map_err(|error| BusError::new("record was not decoded", error))?;
        Ok(Some((record, message.sequence)))
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
            let message = PublishMessage::build()
                .payload(payload.clone().into())
                .expected_last_subject_sequence(expected)
                .ttl(limits::RECORD_LIFE);
            let found = match cas::write(&self.context, subject.to_owned(), message).await {
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

/// The stamp of a version that is written now.
#[must_use]
pub fn stamp() -> Stamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = since.map_or(0, |since| since.as_millis());
    Stamp {
        nonce: Ulid::new().to_string().to_lowercase(),
        now_ms: u64::try_from(now_ms).unwrap_or(u64::MAX),
    }
}
