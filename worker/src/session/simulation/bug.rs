//! Bugs that are planted to see that the simulation finds them: in a worker, or on its way to the bus.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use proto::{id::WorkerId, lease::Lease, wire};
use records::cas::{
    BusError, Count, Described, Listed, RecordBus, Stored, StreamSpec, Write, Written,
};
use time::OffsetDateTime;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// A session's log is taken over without a fence.
    NoFence,
    /// A worker renews a lease that is another's by now.
    RenewalAfterLoss,
    /// An execution is answered before its files are saved.
    AnswerBeforeSave,
    /// Whoever finds an execution's record taken begins it all the same.
    RecordIgnored,
    /// A worker that makes sure of a lease is told what it wrote itself.
    OldConfirmation,
    /// A claim does not look at whose the session is.
    ClaimOverOwner,
}

impl Bug {
    pub(super) const ALL: [Self; 6] = [
        Self::NoFence,
        Self::RenewalAfterLoss,
        Self::AnswerBeforeSave,
        Self::RecordIgnored,
        Self::OldConfirmation,
        Self::ClaimOverOwner,
    ];
}

/// A worker's end of the bus with a bug.
#[derive(Debug)]
pub(super) struct Flawed {
    pub(super) inner: Arc<dyn RecordBus>,
    pub(super) bug: Bug,
    pub(super) worker: WorkerId,
    /// The leases that it wrote last.
    pub(super) own: Mutex<HashMap<String, Stored>>,
}

impl Flawed {
    /// Whether a write that is refused is made all the same.
    fn insists(&self, write: &Write) -> bool {
        let is_lease = write.subject.contains("h1_leases_");
        let lease = || wire::decode::<Lease>(&write.payload).ok();
        match self.bug {
            Bug::RenewalAfterLoss => {
                is_lease
                    && lease().is_some_and(|lease| lease.owner == self.worker)
                    && write.expected.is_some_and(|expected| expected > 0)
            }
            Bug::ClaimOverOwner => is_lease && write.expected.is_some(),
            Bug::RecordIgnored => write.subject.contains("h1_executions"),
            Bug::NoFence | Bug::AnswerBeforeSave | Bug::OldConfirmation => false,
        }
    }
}

#[async_trait]
impl RecordBus for Flawed {
    async fn open(&self, stream: &StreamSpec) -> Result<(), BusError> {
        self.inner.open(stream).await
    }

    async fn write(&self, write: Write) -> Result<Written, BusError> {
        let insists = self.insists(&write).then(|| Write {
            expected: None,
            ..write.clone()
        });
        let (subject, payload) = (write.subject.clone(), write.payload.clone());
        let written = match (self.inner.write(write).await?, insists) {
            (Written::Conflict, Some(again)) => self.inner.write(again).await?,
            (written, _) => written,
        };
        if let Written::At(sequence) = written {
            let time = OffsetDateTime::UNIX_EPOCH;
            let stored = Stored {
                sequence,
                time,
                payload,
            };
            self.own.lock().unwrap().insert(subject, stored);
        }
        Ok(written)
    }

    async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, BusError> {
        self.inner.delete(stream, sequence).await
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError> {
        let is_own = self.bug == Bug::OldConfirmation && subject.contains("h1_leases_");
        let own = self.own.lock().unwrap().get(subject).cloned();
        match own.filter(|_| is_own) {
            Some(own) => Ok(Some(own)),
            None => self.inner.last(stream, subject).await,
        }
    }

    async fn at(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, BusError> {
        self.inner.at(stream, sequence).await
    }

    async fn list(&self, stream: &str, filter: &str) -> Result<Vec<Listed>, BusError> {
        self.inner.list(stream, filter).await
    }

    async fn count(&self, stream: &str, filter: &str, from: u64) -> Result<Count, BusError> {
        self.inner.count(stream, filter, from).await
    }

    async fn describe(&self, stream: &str) -> Result<Option<Described>, BusError> {
        self.inner.describe(stream).await
    }

    fn connection(&self) -> u64 {
        self.inner.connection()
    }
}
