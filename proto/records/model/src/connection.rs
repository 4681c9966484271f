//! One process's end of the bus, and what goes wrong on the way.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use records::cas::{
    BusError, Count, Described, Listed, RecordBus, Stored, StreamSpec, Write, Written,
};
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};

use crate::{
    faults::{Chances, Course, Fate, Faults, Operation},
    model::{Model, lock},
    server::Server,
};

/// How long a process waits for an answer, as the client library of NATS does.
const PATIENCE: Duration = Duration::from_secs(5);

/// One process's end of a [`Model`].
#[derive(Debug)]
pub struct Connection {
    model: Model,
    faults: Mutex<Faults>,
    mended: AtomicU64,
    /// Whether this process stands still.
    is_still: watch::Sender<bool>,
}

impl Connection {
    pub(crate) fn new(model: Model, seed: u64) -> Self {
        Self {
            model,
            faults: Mutex::new(Faults::seeded(seed)),
            mended: AtomicU64::new(0),
            is_still: watch::Sender::new(false),
        }
    }

    /// From here on the seed decides with these chances what goes wrong.
    pub fn chances(&self, chances: Chances) {
        lock(&self.faults).chances = chances;
    }

    /// The next question of this kind that nothing else was asked for meets this fate.
    pub fn next(&self, operation: Operation, fate: Fate) {
        lock(&self.faults).ask_for(operation, fate);
    }

    /// The next question of this kind is on its way to the bus for so long.
    pub fn slow_next(&self, operation: Operation, there: Duration) {
        lock(&self.faults).ask_for_slow(operation, there);
    }

    /// Cuts this process off: it is not answered.
    pub fn cut(&self) {
        lock(&self.faults).is_cut = true;
    }

    /// Connects this process anew.
    pub fn mend(&self) {
        lock(&self.faults).is_cut = false;
        self.mended.fetch_add(1, Ordering::AcqRel);
    }

    /// This process stands still: its questions and their answers wait.
    pub fn stop(&self) {
        self.is_still.send_replace(true);
    }

    /// It goes on.
    pub fn go_on(&self) {
        self.is_still.send_replace(false);
    }

    async fn moves(&self) {
        let mut is_still = self.is_still.subscribe();
        // Whoever asks has the sender, too.
        drop(is_still.wait_for(|is_still| !is_still).await);
    }

    /// How many questions of this kind it has asked.
    #[must_use]
    pub fn asked(&self, operation: Operation) -> u64 {
        let faults = lock(&self.faults);
        faults.asked_of_bus.get(&operation).copied().unwrap_or(0)
    }

    async fn ask<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut Server, OffsetDateTime) -> T + Send + 'static,
    ) -> Result<T, BusError> {
        let Course { there, fate, back } = lock(&self.faults).next(operation);
        self.moves().await;
        on_its_way(there).await;
        let fate = match self.model.is_stopped() {
            true => Fate::Lost,
            false => fate,
        };
        match fate {
            Fate::Answered => {
                let answer = self.model.perform(act);
                on_its_way(back).await;
                self.moves().await;
                return Ok(answer);
            }
            Fate::Failed => return Err(BusError::new("the bus failed", "on request")),
            Fate::Lost => {}
            Fate::Unheard => drop(self.model.perform(act)),
            Fate::Late(by) => {
                let model = self.model.clone();
                tokio::spawn(async move {
                    sleep(PATIENCE + by).await;
                    drop(model.perform(act));
                });
            }
        }
        sleep(PATIENCE).await;
        self.moves().await;
        Err(BusError::new("the bus did not answer", "timed out"))
    }
}

#[async_trait]
impl RecordBus for Connection {
    async fn open(&self, stream: &StreamSpec) -> Result<(), BusError> {
        let stream = stream.clone();
        self.ask(Operation::Open, move |server, _| server.open(&stream))
            .await
    }

    async fn write(&self, write: Write) -> Result<Written, BusError> {
        self.ask(Operation::Write, |server, now| server.write(write, now))
            .await?
    }

    async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, BusError> {
        let stream = stream.to_owned();
        let delete = move |server: &mut Server, _| server.delete(&stream, sequence);
        self.ask(Operation::Delete, delete).await
    }

    async fn last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError> {
        let (stream, subject) = (stream.to_owned(), subject.to_owned());
        let last = move |server: &mut Server, _| server.last(&stream, &subject);
        self.ask(Operation::Last, last).await?
    }

    async fn at(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, BusError> {
        let stream = stream.to_owned();
        let at = move |server: &mut Server, _| server.at(&stream, sequence);
        self.ask(Operation::At, at).await?
    }

    async fn list(&self, stream: &str, filter: &str) -> Result<Vec<Listed>, BusError> {
        let (stream, filter) = (stream.to_owned(), filter.to_owned());
        let list = move |server: &mut Server, _| server.list(&stream, &filter);
        self.ask(Operation::List, list).await?
    }

    async fn count(&self, stream: &str, filter: &str, from: u64) -> Result<Count, BusError> {
        let (stream, filter) = (stream.to_owned(), filter.to_owned());
        let count = move |server: &mut Server, _| server.count(&stream, &filter, from);
        self.ask(Operation::Count, count).await?
    }

    async fn describe(&self, stream: &str) -> Result<Option<Described>, BusError> {
        let stream = stream.to_owned();
        let describe = move |server: &mut Server, now| server.describe(&stream, now);
        self.ask(Operation::Describe, describe).await
    }

    fn connection(&self) -> u64 {
        self.model.starts() + self.mended.load(Ordering::Acquire)
    }
}

async fn on_its_way(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
