//! What the servers keep, and what they say to each question. Pure: the time is told them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use records::cas::{
    BusError, Count, Described, Listed, Oldest, Stored, StreamSpec, Write, Written,
};
use time::OffsetDateTime;

/// Lives are counted in whole seconds, and nats-server 2.15.1 refuses one of none (10165).
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// What the server's files take for one message beside subject, headers and payload, in bytes.
const MESSAGE_BYTES: usize = 22 + 8;
/// The same for headers.
const HEADERS_BYTES: usize = 4;

/// All streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server(BTreeMap<String, Stream>);

/// One stream.
#[derive(Clone, Debug)]
struct Stream {
    spec: StreamSpec,
    last_sequence: u64,
    /// By sequence.
    records: BTreeMap<u64, Record>,
    /// The sequence of each subject's record.
    subjects: HashMap<String, u64>,
    changes: Vec<Change>,
}

/// A record as it lies on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub subject: String,
    /// Its revision.
    pub sequence: u64,
    /// When it was written, by the bus's clock.
    pub time: OffsetDateTime,
    /// When it goes by itself.
    pub ends: Option<OffsetDateTime>,
    /// What is in it.
    pub payload: Bytes,
    /// What it takes in the stream.
    bytes: u64,
}

/// What happened to a record, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written, over the record of its subject if there was one.
    Written(Record),
    /// It was deleted.
    Deleted(Record),
    /// Its life was over.
    Ended(Record),
}

impl Server {
    /// Forgets what has ended by now.
    pub(crate) fn pass(&mut self, now: OffsetDateTime) {
        for stream in self.0.values_mut() {
            stream.pass(now);
        }
    }

    pub(crate) fn open(&mut self, spec: &StreamSpec) {
        let stream = self
            .0
            .entry(spec.name.clone())
            .or_insert_with(|| Stream::new(spec));
        stream.change(spec);
    }

    pub(crate) fn write(&mut self, write: Write, now: OffsetDateTime) -> Result<Written, BusError> {
        let mut streams = self.0.values_mut();
        let stream = streams.find(|stream| matches(&stream.spec.subjects, &write.subject));
        match stream {
            Some(stream) => stream.write(write, now),
            None => Err(BusError::new("record was not written", "no stream")),
        }
    }

    pub(crate) fn delete(&mut self, stream: &str, sequence: u64) -> bool {
        let stream = self.0.get_mut(stream);
        stream.is_some_and(|stream| stream.delete(sequence))
    }

    pub(crate) fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError> {
        let stream = self.stream(stream, "record was not read")?;
        let sequence = stream.subjects.get(subject);
        Ok(sequence.and_then(|sequence| stream.stored(*sequence)))
    }

    pub(crate) fn at(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, BusError> {
        Ok(self.stream(stream, "record was not read")?.stored(sequence))
    }

    pub(crate) fn list(&self, stream: &str, filter: &str) -> Result<Vec<Listed>, BusError> {
        let stream = self.stream(stream, "records were not listed")?;
        let listed = stream.matching(filter).map(|record| Listed {
            subject: record.subject.clone(),
            sequence: record.sequence,
            time: record.time,
        });
        Ok(listed.collect())
    }

    pub(crate) fn count(&self, stream: &str, filter: &str, from: u64) -> Result<Count, BusError> {
        let stream = self.stream(stream, "failed to count records")?;
        let mut records = stream
            .matching(filter)
            .filter(|record| record.sequence >= from);
        let oldest = records.next().map(|record| Oldest {
            sequence: record.sequence,
            written: record.time,
        });
        let rest = u64::try_from(records.count()).unwrap_or(u64::MAX);
        Ok(Count {
            records: rest + u64::from(oldest.is_some()),
            oldest,
        })
    }

    pub(crate) fn describe(&self, stream: &str, now: OffsetDateTime) -> Option<Described> {
        let stream = self.0.get(stream)?;
        let first = stream.records.values().next();
        Some(Described {
            now,
            bytes: stream.records.values().map(|record| record.bytes).sum(),
            messages: u64::try_from(stream.records.len()).unwrap_or(u64::MAX),
            last_sequence: stream.last_sequence,
            first_time: first.map_or(OffsetDateTime::UNIX_EPOCH, |record| record.time),
            most_bytes: stream
                .spec
                .most_bytes
                .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        })
    }

    pub(crate) fn records(&self, stream: &str) -> Vec<Record> {
        let stream = self.0.get(stream);
        stream.map_or_else(Vec::new, |stream| {
            stream.records.values().cloned().collect()
        })
    }

    pub(crate) fn changes(&self, stream: &str) -> Vec<Change> {
        let stream = self.0.get(stream);
        stream.map_or_else(Vec::new, |stream| stream.changes.clone())
    }

    fn stream(&self, name: &str, what: &'static str) -> Result<&Stream, BusError> {
        let stream = self.0.get(name);
        stream.ok_or_else(|| BusError::new(what, "no stream"))
    }
}

impl Stream {
    fn new(spec: &StreamSpec) -> Self {
        Self {
            spec: spec.clone(),
            last_sequence: 0,
            records: BTreeMap::new(),
            subjects: HashMap::new(),
            changes: vec![],
        }
    }

    fn change(&mut self, wanted: &StreamSpec) {
        let live = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        self.spec = StreamSpec {
            most_records: wanted.most_records.map(|most| most.max(live)),
            ..wanted.clone()
        };
    }

    fn write(&mut self, write: Write, now: OffsetDateTime) -> Result<Written, BusError> {
        if write.life.is_some() && !self.spec.lives {
            let why = "records of this stream have no lives";
            return Err(BusError::new("record was not written", why));
        }
        if write.life.is_some_and(|life| life < SHORTEST_LIFE) {
            let why = "invalid per-message TTL";
            return Err(BusError::new("record was not written", why));
        }
        let there = self.subjects.get(&write.subject).copied();
        if write
            .expected
            .is_some_and(|expected| expected != there.unwrap_or(0))
        {
            return Ok(Written::Conflict);
        }
        let bytes = size(&write);
        let old = there.and_then(|sequence| self.records.get(&sequence));
        if !self.has_room(old, bytes) {
            return Ok(Written::Full);
        }
        if let Some(sequence) = there {
            self.records.remove(&sequence);
        }
        self.last_sequence += 1;
        let life = write.life.map(|life| Duration::from_secs(life.as_secs()));
        let lives = [life, self.spec.max_age];
        let record = Record {
            sequence: self.last_sequence,
            time: now,
            ends: lives.into_iter().flatten().min().map(|life| now + life),
            payload: write.payload,
            bytes,
            subject: write.subject,
        };
        self.changes.push(Change::Written(record.clone()));
        self.subjects
            .insert(record.subject.clone(), record.sequence);
        self.records.insert(record.sequence, record);
        Ok(Written::At(self.last_sequence))
    }

    /// Whether a record of so many bytes may be written, over an old one or as one more.
    fn has_room(&self, old: Option<&Record>, bytes: u64) -> bool {
        let live = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        let is_one_too_many = self.spec.most_records.is_some_and(|most| live >= most);
        if is_one_too_many && old.is_none() {
            return false;
        }
        let used: u64 = self.records.values().map(|record| record.bytes).sum();
        match self.spec.most_bytes {
            // An old one makes room for a smaller one.
            Some(most) if used + bytes > most => old.is_some_and(|old| old.bytes > bytes),
            Some(_) | None => true,
        }
    }

    fn delete(&mut self, sequence: u64) -> bool {
        let Some(record) = self.remove(sequence) else {
            return false;
        };
        self.changes.push(Change::Deleted(record));
        true
    }

    fn pass(&mut self, now: OffsetDateTime) {
        let over = |record: &&Record| record.ends.is_some_and(|ends| ends <= now);
        let ended: Vec<_> = self
            .records
            .values()
            .filter(over)
            .map(|record| record.sequence)
            .collect();
        for sequence in ended {
            let record = self.remove(sequence);
            self.changes.extend(record.map(Change::Ended));
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Record> {
        let record = self.records.remove(&sequence)?;
        self.subjects.remove(&record.subject);
        Some(record)
    }

    fn stored(&self, sequence: u64) -> Option<Stored> {
        let record = self.records.get(&sequence)?;
        Some(Stored {
            sequence,
            time: record.time,
            payload: record.payload.clone(),
        })
    }

    fn matching(&self, filter: &str) -> impl Iterator<Item = &Record> {
        self.records
            .values()
            .filter(move |record| matches(filter, &record.subject))
    }
}

/// What the server's files take for a record, with the headers that the client library writes.
fn size(write: &Write) -> u64 {
    let header = |name: &str, value: Option<u64>| match value {
        Some(value) => name.len() + ": \r\n".len() + value.to_string().len(),
        None => 0,
    };
    let headers = header("Nats-Expected-Last-Subject-Sequence", write.expected)
        + header("Nats-TTL", write.life.map(|life| life.as_secs()));
    let headers = match headers {
        0 => 0,
        headers => HEADERS_BYTES + "NATS/1.0\r\n\r\n".len() + headers,
    };
    let bytes = MESSAGE_BYTES + write.subject.len() + headers + write.payload.len();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Whether a subject matches a filter: `*` stands for one token, `>` at the end for one or more.
fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_tokens() {
        for (filter, subject, is_match) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
        ] {
            assert_eq!(matches(filter, subject), is_match, "{filter} {subject}");
        }
    }
}
