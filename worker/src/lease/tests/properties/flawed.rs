//! A bus with a bug.

use async_trait::async_trait;
use records::cas::{Count, Described, Listed, Stored, StreamSpec};

use super::*;

/// What a bus or a worker does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// The bus writes over whatever is there.
    ForgetsWhatIsExpected,
    /// The bus has room for any number of records.
    ForgetsTheCap,
    /// The bus answers what was there when it was last asked.
    AnswersFromBefore,
    /// The bus deletes what is there now instead of what was there.
    DeletesWhatIsThere,
    /// The bus's clock is so far ahead that slots seem old.
    SlotsSeemOld,
    /// A worker writes its lease once more after it was lost.
    GoesOnAfterLoss,
}

impl Bug {
    pub(super) const ALL: [Self; 6] = [
        Self::ForgetsWhatIsExpected,
        Self::ForgetsTheCap,
        Self::AnswersFromBefore,
        Self::DeletesWhatIsThere,
        Self::SlotsSeemOld,
        Self::GoesOnAfterLoss,
    ];
}

/// A connection to a bus that may have a bug.
#[derive(Debug)]
pub(super) struct Flawed {
    bus: Arc<Connection>,
    bug: Option<Bug>,
    /// What was there when it was last asked.
    before: Mutex<HashMap<String, Option<Stored>>>,
    /// Where what was written at a sequence of a stream lies.
    subjects: Mutex<HashMap<u64, Vec<String>>>,
}

impl Flawed {
    pub(super) fn new(bus: Arc<Connection>, bug: Option<Bug>) -> Self {
        Self {
            bus,
            bug,
            before: Mutex::default(),
            subjects: Mutex::default(),
        }
    }
}

#[async_trait]
impl RecordBus for Flawed {
    async fn open(&self, stream: &StreamSpec) -> Result<(), BusError> {
        let mut stream = stream.clone();
        if self.bug == Some(Bug::ForgetsTheCap) {
            stream.most_records = None;
        }
        self.bus.open(&stream).await
    }

    async fn write(&self, mut write: Write) -> Result<Written, BusError> {
        if self.bug == Some(Bug::ForgetsWhatIsExpected) {
            write.expected = None;
        }
        let subject = write.subject.clone();
        let written = self.bus.write(write).await?;
        if let Written::At(sequence) = written {
            let mut subjects = self.subjects.lock().unwrap();
            subjects.entry(sequence).or_default().push(subject);
        }
        Ok(written)
    }

    async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, BusError> {
        if self.bug != Some(Bug::DeletesWhatIsThere) {
            return self.bus.delete(stream, sequence).await;
        }
        let subjects = self.subjects.lock().unwrap().get(&sequence).cloned();
        for subject in subjects.unwrap_or_default() {
            if let Some(stored) = self.bus.last(stream, &subject).await? {
                return self.bus.delete(stream, stored.sequence).await;
            }
        }
        Ok(false)
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError> {
        let now = self.bus.last(stream, subject).await?;
        if self.bug != Some(Bug::AnswersFromBefore) {
            return Ok(now);
        }
        let mut before = self.before.lock().unwrap();
        Ok(before
            .insert(subject.to_owned(), now.clone())
            .unwrap_or(now))
    }

    async fn at(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, BusError> {
        self.bus.at(stream, sequence).await
    }

    async fn list(&self, stream: &str, filter: &str) -> Result<Vec<Listed>, BusError> {
        self.bus.list(stream, filter).await
    }

    async fn count(&self, stream: &str, filter: &str, from: u64) -> Result<Count, BusError> {
        self.bus.count(stream, filter, from).await
    }

    async fn describe(&self, stream: &str) -> Result<Option<Described>, BusError> {
        let mut described = self.bus.describe(stream).await?;
        if let (Some(described), Some(Bug::SlotsSeemOld)) = (&mut described, self.bug) {
            described.now += limits::SLOT_GRACE;
        }
        Ok(described)
    }

    fn connection(&self) -> u64 {
        self.bus.connection()
    }
}
