//! Records on the bus over a connection to NATS: streams of JetStream.

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::{
    HeaderMap, StatusCode,
    header::{NATS_SEQUENCE, NATS_SUBJECT, NATS_TIME_STAMP},
    jetstream::{
        self, Context, ErrorCode,
        context::PublishError,
        message::{PublishMessage, StreamMessage},
        response::Response,
        stream::{
            Config, DeleteMessageErrorKind, DiscardPolicy, LastRawMessageErrorKind,
            RawMessageErrorKind, RetentionPolicy, StorageType, Stream,
        },
    },
};
use async_trait::async_trait;
use futures_util::StreamExt;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::timeout;

use crate::cas::{
    BusError, Count, Described, Listed, Oldest, RecordBus, Stored, StreamSpec, Write, Written,
};

mod opening;
pub use opening::open_stream;

/// How long the bus may take from one record of a list to the next.
const LISTED_WITHIN: Duration = Duration::from_secs(2);
/// How long the bus may take to count.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);
/// Records of a list that the server sends before it says how many more there are.
const LISTED_AT_ONCE: u32 = 1000;

/// The bus behind a connection to NATS. Clones share the connection.
#[derive(Clone, Debug)]
pub struct NatsBus {
    context: Context,
}

impl NatsBus {
    /// Over a connection. Nothing is sent.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    async fn stream(&self, name: &str) -> Result<Stream<()>, BusError> {
        let stream = self.context.get_stream_no_info(name).await;
        stream.map_err(|error| BusError::new("stream was not opened", error))
    }
}

#[async_trait]
impl RecordBus for NatsBus {
    async fn open(&self, stream: &StreamSpec) -> Result<(), BusError> {
        open_stream(&self.context, config(stream)).await.map(drop)
    }

    async fn write(&self, record: Write) -> Result<Written, BusError> {
        let mut message = PublishMessage::build().payload(record.payload);
        if let Some(expected) = record.expected {
            message = message.expected_last_subject_sequence(expected);
        }
        if let Some(life) = record.life {
            message = message.ttl(life);
        }
        write(&self.context, record.subject, message).await
    }

    async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, BusError> {
        match self.stream(stream).await?.delete_message(sequence).await {
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

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError> {
        let last = last(&self.stream(stream).await?, subject).await?;
        Ok(last.map(Stored::from))
    }

    async fn at(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, BusError> {
        match self.stream(stream).await?.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message.into())),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(BusError::new("record was not read", error)),
        }
    }

    /// In one request (NATS ADR-31, "multi-subject last").
    async fn list(&self, stream: &str, filter: &str) -> Result<Vec<Listed>, BusError> {
        let failed = |what| BusError::new("records were not listed", what);
        let client = self.context.client();
        let inbox = client.new_inbox();
        let mut answers = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| failed(error.to_string()))?;
        let request = format!(r#"{{"multi_last":["{filter}"],"batch":{LISTED_AT_ONCE}}}"#);
        client
            .publish_with_reply(direct_get(stream), inbox, request.into())
            .await
            .map_err(|error| failed(error.to_string()))?;
        let mut found = vec![];
        loop {
            let answer = timeout(LISTED_WITHIN, answers.next()).await;
            let Ok(Some(message)) = answer else {
                return Err(failed("no answer".to_owned()));
            };
            match message.status {
                // 404: nothing matches; 204: that was all.
                Some(StatusCode::NOT_FOUND) => return Ok(found),
                Some(status) if status.as_u16() == 204 => return Ok(found),
                Some(status) => return Err(failed(format!("status {status}"))),
                None => found.extend(message.headers.as_ref().and_then(listed)),
            }
        }
    }

    async fn count(&self, stream: &str, filter: &str, from: u64) -> Result<Count, BusError> {
        let failed = |why: Box<dyn std::error::Error + Send + Sync>| {
            BusError::new("failed to count records", why)
        };
        let question = format!(r#"{{"next_by_subj":"{filter}","seq":{from},"batch":1}}"#);
        let client = self.context.client();
        let asked = client.request(direct_get(stream), question.into());
        let answer = timeout(COUNTED_WITHIN, asked).await;
        let first = answer
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?;
        match first.status {
            None => {}
            Some(StatusCode::NOT_FOUND) => return Ok(Count::default()),
            Some(status) => return Err(failed(status.to_string().into())),
        }
        first
            .headers
            .as_ref()
            .and_then(counted)
            .ok_or_else(|| failed("the answer lacks number, place or time".into()))
    }

    async fn describe(&self, stream: &str) -> Result<Option<Described>, BusError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            BusError::new("stream was not described", error)
        };
        let question = format!("STREAM.INFO.{stream}");
        let answer = self.context.request(question, &()).await;
        match answer.map_err(|error| failed(error.into()))? {
            Response::Ok(stream) => Ok(Some(Info::described(&stream))),
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            Response::Err { error } => Err(failed(error.into())),
        }
    }

    fn connection(&self) -> u64 {
        let statistics = self.context.client().statistics();
        statistics.connects.load(Ordering::Relaxed)
    }
}

impl From<StreamMessage> for Stored {
    fn from(message: StreamMessage) -> Self {
        Self {
            sequence: message.sequence,
            time: message.time,
            payload: message.payload,
        }
    }
}

/// What the bus tells of a stream, as far as it is read.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "ts", with = "time::serde::rfc3339")]
    now: OffsetDateTime,
    config: InfoConfig,
    state: InfoState,
}

#[derive(Deserialize)]
struct InfoConfig {
    #[serde(default)]
    max_bytes: i64,
}

#[derive(Deserialize)]
struct InfoState {
    bytes: u64,
    messages: u64,
    last_seq: u64,
    #[serde(with = "time::serde::rfc3339")]
    first_ts: OffsetDateTime,
}

impl Info {
    fn described(&self) -> Described {
        Described {
            now: self.now,
            bytes: self.state.bytes,
            messages: self.state.messages,
            last_sequence: self.state.last_seq,
            first_time: self.state.first_ts,
            most_bytes: self.config.max_bytes,
        }
    }
}

/// Writes a record. The message names the revision that it expects.
///
/// # Errors
/// The bus did not answer; whether the record was written is unknown.
pub(crate) async fn write(
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

/// Reads the last message of a subject from the stream's leader: a replica could be behind.
///
/// # Errors
/// The bus did not answer, or there is no such stream.
pub(crate) async fn last(
    stream: &Stream<()>,
    subject: &str,
) -> Result<Option<StreamMessage>, BusError> {
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

/// The stream that a spec asks for.
fn config(stream: &StreamSpec) -> Config {
    let is_capped = stream.most_records.is_some() || stream.most_bytes.is_some();
    Config {
        name: stream.name.clone(),
        subjects: vec![stream.subjects.clone()],
        max_messages_per_subject: 1,
        max_messages: stream.most_records.map_or(0, i64::from),
        max_bytes: stream
            .most_bytes
            .map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        max_age: stream.max_age.unwrap_or_default(),
        discard: match is_capped {
            true => DiscardPolicy::New,
            false => DiscardPolicy::Old,
        },
        allow_message_ttl: stream.lives,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        allow_direct: true,
        num_replicas: stream.replicas,
        ..Config::default()
    }
}

fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

fn listed(headers: &HeaderMap) -> Option<Listed> {
    Some(Listed {
        subject: headers.get(NATS_SUBJECT)?.as_str().to_owned(),
        sequence: headers.get(NATS_SEQUENCE)?.as_str().parse().ok()?,
        time: time(headers)?,
    })
}

fn counted(headers: &HeaderMap) -> Option<Count> {
    let more: u64 = headers.get("Nats-Num-Pending")?.as_str().parse().ok()?;
    Some(Count {
        records: more + 1,
        oldest: Some(Oldest {
            sequence: headers.get(NATS_SEQUENCE)?.as_str().parse().ok()?,
            written: time(headers)?,
        }),
    })
}

fn time(headers: &HeaderMap) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(headers.get(NATS_TIME_STAMP)?.as_str(), &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_describes_a_stream_with_its_own_time() {
        let told = r#"{"ts":"2026-11-27T23:25:25.4Z","config":{"name":"x","max_bytes":7},
            "state":{"messages":1,"bytes":5,"first_seq":1,"last_seq":9,
                     "first_ts":"0001-01-01T00:00:00Z"}}"#;
        let stream: Info = serde_json::from_str(told).unwrap();
        let stream = stream.described();
        assert_eq!(stream.most_bytes, 7);
        assert_eq!((stream.bytes, stream.last_sequence), (5, 9));
        assert_eq!(stream.now.unix_timestamp(), 1_795_821_925);
    }

    #[test]
    fn a_stream_with_a_cap_refuses_what_is_new_and_one_without_forgets_what_is_old() {
        let spec = StreamSpec {
            name: "slots".into(),
            subjects: "slots.*".into(),
            most_records: Some(3),
            most_bytes: None,
            max_age: None,
            lives: false,
            replicas: 1,
        };
        let capped = config(&spec);
        assert_eq!(capped.discard, DiscardPolicy::New);
        assert_eq!((capped.max_messages, capped.max_bytes), (3, 0));
        let free = config(&StreamSpec {
            most_records: None,
            ..spec
        });
        assert_eq!(free.discard, DiscardPolicy::Old);
    }
}
