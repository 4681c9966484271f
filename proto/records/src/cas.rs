//! Reading, writing and deleting one record by comparing with what was seen before. A revision is the
//! record's stream sequence; 0 stands for "there is none".
//!
//! [`RecordBus`] is all that leases, slots and records of executions ask of the bus. [`crate::nats`] is it over
//! a connection to NATS; a model of it for tests and simulations is in the crate `records-model`, and passes the
//! same tests.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use proto::wire;
use time::OffsetDateTime;

/// A failure of the bus, with the client library's own words.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct BusError {
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl BusError {
    /// A failure and what it kept from happening.
    pub fn new(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            what,
            source: source.into(),
        }
    }
}

/// One process's end of the bus, for records. Every subject holds one record at most; a record is gone when
/// its life or that of all records in its stream is over, or when it is deleted.
#[async_trait]
pub trait RecordBus: fmt::Debug + Send + Sync {
    /// Makes a stream, or changes it to what is wanted. A cap on records only ever follows them down.
    ///
    /// # Errors
    /// The bus did not answer, or refuses.
    async fn open(&self, stream: &StreamSpec) -> Result<(), BusError>;

    /// Writes a record.
    ///
    /// # Errors
    /// The bus did not answer; whether the record was written is unknown.
    async fn write(&self, write: Write) -> Result<Written, BusError>;

    /// Deletes a record by its sequence, which is a compare-and-set: a newer one has another. Says
    /// whether it was there.
    ///
    /// # Errors
    /// The bus did not answer; whether the record was deleted is unknown.
    async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, BusError>;

    /// The record at a subject, read from the stream's leader: a replica could be behind.
    ///
    /// # Errors
    /// The bus did not answer, or there is no such stream.
    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError>;

    /// The record at a sequence, read from the stream's leader.
    ///
    /// # Errors
    /// The bus did not answer, or there is no such stream.
    async fn at(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, BusError>;

    /// Where all records are whose subjects match, without what is in them. The nearest server answers, so that
    /// it may be behind a little.
    ///
    /// # Errors
    /// The bus did not answer.
    async fn list(&self, stream: &str, filter: &str) -> Result<Vec<Listed>, BusError>;

    /// Counts the records whose subjects match from this place of the stream on. The nearest server answers,
    /// so that it may be behind a little.
    ///
    /// # Errors
    /// The bus did not answer.
    async fn count(&self, stream: &str, filter: &str, from: u64) -> Result<Count, BusError>;

    /// How a stream stands, if there is one, by its leader.
    ///
    /// # Errors
    /// The bus did not answer.
    async fn describe(&self, stream: &str) -> Result<Option<Described>, BusError>;

    /// Tells this connection from those before and after it: behind another may be another bus.
    fn connection(&self) -> u64;
}

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub subject: String,
    /// What.
    pub payload: Bytes,
    /// Over exactly this revision (0: none). Without it, over whatever is there.
    pub expected: Option<u64>,
    /// How long it is kept, in whole seconds, at least one. Only where the stream has [`StreamSpec::lives`].
    pub life: Option<Duration>,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The record has this revision now.
    At(u64),
    /// The record is not what was expected.
    Conflict,
    /// The stream is at its cap.
    Full,
}

/// A record as it lies on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its revision.
    pub sequence: u64,
    /// When it was written, by the bus's clock.
    pub time: OffsetDateTime,
    /// What is in it.
    pub payload: Bytes,
}

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its subject.
    pub subject: String,
    /// Its revision.
    pub sequence: u64,
    /// When it was written, by the bus's clock.
    pub time: OffsetDateTime,
}

/// How many records there are, and the oldest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub records: u64,
    /// The first of them in the stream.
    pub oldest: Option<Oldest>,
}

/// The oldest record of some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// Its revision.
    pub sequence: u64,
    /// When it was written, by the bus's clock.
    pub written: OffsetDateTime,
}

/// How a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// What time it is where its leader runs, which also says when each of its records was stored.
    pub now: OffsetDateTime,
    /// What its records take, in bytes.
    pub bytes: u64,
    /// How many records it has.
    pub messages: u64,
    /// The last sequence that it gave.
    pub last_sequence: u64,
    /// When its first record was written. Without one it says nothing.
    pub first_time: OffsetDateTime,
    /// The bytes that it may hold. Not positive: not bounded.
    pub most_bytes: i64,
}

/// What a stream of records is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    /// The subjects of its records, with wildcards.
    pub subjects: String,
    /// Most records. One more is refused.
    pub most_records: Option<u32>,
    /// Most bytes of all records. What would be more is refused.
    pub most_bytes: Option<u64>,
    /// How long each record is kept.
    pub max_age: Option<Duration>,
    /// Whether records have lives of their own.
    pub lives: bool,
    /// How many servers of the bus hold each record.
    pub replicas: usize,
}

/// Encodes a record.
///
/// # Errors
/// A value that MessagePack cannot hold.
pub fn encode<T: serde::Serialize>(value: &T) -> Result<Bytes, BusError> {
    let encoded = wire::encode(value);
    let encoded = encoded.map_err(|error| BusError::new("record was not encoded", error))?;
    Ok(encoded.into())
}

/// The bus's clock where the leader of a stream runs. The ages of what lies on the bus are differences between
/// its own times only.
///
/// # Errors
/// The bus did not answer, or there is no such stream.
pub async fn time_at(bus: &dyn RecordBus, stream: &str) -> Result<OffsetDateTime, BusError> {
    match bus.describe(stream).await? {
        Some(described) => Ok(described.now),
        None => Err(BusError::new("stream was not described", "no stream")),
    }
}
