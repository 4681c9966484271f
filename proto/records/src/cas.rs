//! Reading, writing and deleting one record by comparing with what was seen before. A revision is the
//! record's stream sequence; 0 stands for "there is none".

use async_nats::jetstream::{
    self, Context,
    context::PublishError,
    message::{PublishMessage, StreamMessage},
    stream::{DeleteMessageErrorKind, LastRawMessageErrorKind, Stream},
};
use proto::wire;

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

/// What a compare-and-set came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The record has this revision now.
    At(u64),
    /// The record is not what was expected.
    Conflict,
    /// The stream is at its cap.
    Full,
}

/// Encodes a record.
///
/// # Errors
/// A value that MessagePack cannot hold.
pub fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, BusError> {
    wire::encode(value).map_err(|error| BusError::new("record was not encoded", error))
}

/// Writes a record. The message names the revision that it expects.
///
/// # Errors
/// The bus did not answer; whether the record was written is unknown.
pub async fn write(
    context: &Context,
    subject: String,
    message: PublishMessage,
) -> Result<Written, BusError> {
    let failed = |error| BusError::new("record was not written", error);
    let publish = context.send_publish(subject, message);
    match publish.await.map_err(failed)?.await {
        Ok(ack) => Ok(Written::At(ack.sequence)),
        Err(error) => refusal(&error).ok_or_else(|| failed(error)),
    }
}

/// Deletes a record by its sequence, which is a compare-and-set: a newer one has another. Says
/// whether it was there.
///
/// # Errors
/// The bus did not answer; whether the record was deleted is unknown.
pub async fn delete(stream: &Stream<()>, sequence: u64) -> Result<bool, BusError> {
    match stream.delete_message(sequence).await {
        Ok(deleted) => Ok(deleted),
        Err(error) => match error.kind() {
            // It is gone already.
            DeleteMessageErrorKind::JetStream(_) => Ok(false),
            DeleteMessageErrorKind::Request | DeleteMessageErrorKind::TimedOut => {
                Err(BusError::new("record was not deleted", error))
            }
        },
    }
}

/// Reads the last message of a subject from the stream's leader: a replica could be behind.
///
/// # Errors
/// The bus did not answer, or there is no such stream.
pub async fn last(stream: &Stream<()>, subject: &str) -> Result<Option<StreamMessage>, BusError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::InvalidSubject
            | LastRawMessageErrorKind::JetStream(_)
            | LastRawMessageErrorKind::Other => Err(BusError::new("record was not read", error)),
        },
    }
}

/// What the server's refusal of a write means. A lost race is 10071 or 10164; 10077 is a stream at
/// its cap.
fn refusal(error: &PublishError) -> Option<Written> {
    use jetstream::ErrorCode;
    let source = std::error::Error::source(error)?;
    let refused = source.downcast_ref::<jetstream::Error>()?;
    match refused.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            Some(Written::Conflict)
        }
        ErrorCode::STREAM_STORE_FAILED => Some(Written::Full),
        _ => None,
    }
}
