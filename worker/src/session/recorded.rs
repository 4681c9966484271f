//! Executions with a record in a session: who asked for each, and what the bus is asked about them
//! meanwhile. The session itself never waits for the bus: it is told what came of it.

use std::{collections::HashMap, time::Duration};

use proto::{
    fault::{Fault, FaultCode},
    id::{PoolId, SessionKey},
    limits,
    message::Answer,
    record::{BodyDigest, RecordKey, RecordRef},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;

use super::{
    program::not_owner,
    queue::{Asked, Caller, Waiting},
};
use crate::{
    bus::Responder,
    lease::{
        Ownership,
        ownership_check::{OwnershipCheck, Owns},
    },
    record::{Begun, ExecutionEnd, FinalRecord, HeldRecord, RecordError, Records},
};

/// How long what a session that was lost has under way at the bus may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The executions with a record that a session has, from the first question to the last answer.
#[derive(Debug)]
pub struct RecordedExecutions {
    records: Records,
    ownership: Ownership,
    ownership_check: OwnershipCheck,
    pool: PoolId,
    session: SessionKey,
    entries: HashMap<RecordKey, Entry>,
    tasks: JoinSet<Settled>,
    /// Answers that wait for readers of output, beyond the session if need be.
    farewells: TaskTracker,
}

/// Everybody who asked for one execution.
#[derive(Debug)]
struct Entry {
    digest: BodyDigest,
    callers: Vec<Responder>,
}

/// What came of a question to the bus.
#[derive(Debug)]
pub enum Settled {
    /// The execution is this session's to run.
    Begun(Box<Waiting>),
    /// Everybody who asked for it is told this.
    Told(RecordKey, Result<Answer, Fault>),
    /// The session turned out to be someone else's before the execution had a record.
    NotBegun(RecordKey),
    /// The session is someone else's, and with it the word on what ran here.
    NotOwner,
}

impl RecordedExecutions {
    /// None yet.
    #[must_use]
    pub fn new(
        records: Records,
        ownership: Ownership,
        ownership_check: OwnershipCheck,
        (pool, session): (PoolId, SessionKey),
        farewells: TaskTracker,
    ) -> Self {
        Self {
            records,
            ownership,
            ownership_check,
            pool,
            session,
            entries: HashMap::new(),
            tasks: JoinSet::new(),
            farewells,
        }
    }

    /// Lets the caller wait for an execution: for the one that this session has already, or for `asked`,
    /// which is begun.
    ///
    /// # Errors
    /// The caller is refused, with the fault for it.
    pub fn ask(
        &mut self,
        record: RecordRef,
        asked: Asked,
        mut caller: Responder,
    ) -> Result<(), Box<(Responder, Fault)>> {
        let most = match record.is_queued() {
            true => limits::QUEUED_IN_SESSION,
            false => limits::SESSION_QUEUE + 1,
        };
        let room = self.entries.len() < most;
        match self.entries.get_mut(&record.key) {
            Some(entry) if entry.digest != record.digest => {
                Err(Box::new((caller, Fault::from(&RecordError::Conflict))))
            }
            Some(entry) if entry.callers.len() < limits::EXECUTION_CALLERS => {
                // Its output goes to the first who asked.
                caller.no_stream();
                entry.callers.push(caller);
                Ok(())
            }
            None if room => {
                let entry = Entry {
                    digest: record.digest.clone(),
                    callers: vec![caller],
                };
                self.entries.insert(record.key.clone(), entry);
                self.begin(record, asked);
                Ok(())
            }
            Some(_) | None => {
                let words = "too many executions or callers wait in this session already";
                let busy = Fault::new(FaultCode::SessionBusy, words);
                Err(Box::new((caller, busy)))
            }
        }
    }

    fn begin(&mut self, record: RecordRef, asked: Asked) {
        let (records, ownership) = (self.records.clone(), self.ownership.clone());
        let (pool, session) = (self.pool.clone(), self.session.clone());
        let ownership_check = self.ownership_check.clone();
        self.tasks.spawn(async move {
            // Nothing is written for a session that is another worker's by now.
            match ownership_check.ask().await {
                Owns::Yes => {}
                Owns::No => return Settled::NotBegun(record.key),
                Owns::Unknown => return Settled::Told(record.key, Err(not_owner())),
            }
            let begun = records.begin(&ownership, (&pool, &session), &record);
            let over = match begun.await {
                Ok(Begun::Mine(held)) => {
                    let caller = Caller::Recorded(held);
                    return Settled::Begun(Box::new(Waiting { asked, caller }));
                }
                // This session would know it: the bus failed when it began or ended.
                Ok(Begun::Known(known)) => records.lose(&ownership, known).await,
                Ok(Begun::Over(over)) => Ok(over),
                Err(error) => Err(error),
            };
            let answer = over.map(|record| record.answer());
            Settled::Told(record.key, told(answer))
        });
    }

    /// Says how an execution ended: to its record first. Of what ran here only an owner can say so:
    /// without a commit nothing else would tell a fenced one that what it ran does not count.
    pub fn finish(&mut self, held: Box<HeldRecord>, end: ExecutionEnd) {
        let ownership_check = self.ownership_check.clone();
        self.tasks.spawn(async move {
            let key = held.key().clone();
            let refusal = match &end {
                ExecutionEnd::Refused(fault) => Some(fault.clone()),
                ExecutionEnd::Outcome(_) | ExecutionEnd::Unsaved(_) | ExecutionEnd::Stopped(_) => {
                    None
                }
            };
            if refusal.is_none() && !ownership_check.owns().await {
                return Settled::NotOwner;
            }
            let answer = match (held.finish(end).await, refusal) {
                (Ok(FinalRecord::Mine(_)), Some(fault)) => Err(fault),
                (finished, _) => told(finished.map(|end| end.into_record().answer())),
            };
            Settled::Told(key, answer)
        });
    }

    /// What came of a question. Never returns while there is none. May be dropped and called again at
    /// any moment.
    pub async fn next(&mut self) -> Settled {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(settled)) => return settled,
                Some(Err(error)) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the task of an execution's record panicked"
                    );
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Tells everybody who asked for an execution.
    pub async fn tell(&mut self, key: &RecordKey, answer: &Result<Answer, Fault>) {
        let entry = self.entries.remove(key);
        for mut caller in entry.into_iter().flat_map(|entry| entry.callers) {
            if !caller.streams() {
                caller.finish(answer.clone()).await;
                continue;
            }
            let answer = answer.clone();
            // The session does not wait for readers.
            self.farewells.spawn(async move {
                caller.pump_out().await;
                caller.finish(answer).await;
            });
        }
    }

    /// Who gets the output of an execution.
    pub fn reader(&mut self, key: &RecordKey) -> Option<&mut Responder> {
        let callers = self.entries.get_mut(key)?.callers.iter_mut();
        callers.into_iter().find(|caller| caller.streams())
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Everybody who waits.
    pub fn callers(&mut self) -> impl Iterator<Item = &mut Responder> {
        self.entries
            .values_mut()
            .flat_map(|entry| entry.callers.iter_mut())
    }

    /// The session has ended here: nothing that has not begun begins, every record says so, and
    /// everybody is told. Those of whom nothing is certain hear `cut_off`.
    pub async fn end(mut self, not_begun: &Fault, cut_off: &Fault) {
        while let Some(settled) = self.tasks.join_next().await {
            match settled {
                Ok(Settled::Begun(waiting)) => {
                    if let Caller::Recorded(held) = waiting.caller {
                        self.finish(held, ExecutionEnd::Refused(not_begun.clone()));
                    }
                }
                Ok(Settled::Told(key, answer)) => self.tell(&key, &answer).await,
                Ok(Settled::NotBegun(key)) => self.tell(&key, &Err(not_owner())).await,
                Ok(Settled::NotOwner) => {}
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the task of an execution's record panicked"
                    );
                }
            }
        }
        self.tell_all(cut_off).await;
    }

    /// The session is someone else's now, and so are its records. What was refused because of that is still said.
    pub async fn leave(mut self, fenced: &Fault) {
        let mut settled = vec![];
        let settling = async {
            while let Some(done) = self.tasks.join_next().await {
                match done {
                    Ok(Settled::Told(key, answer)) => settled.push((key, answer)),
                    Ok(Settled::NotBegun(key)) => settled.push((key, Err(not_owner()))),
                    Ok(Settled::Begun(_) | Settled::NotOwner) | Err(_) => {}
                }
            }
        };
        drop(timeout(LEAVE_WITHIN, settling).await);
        self.tasks.shutdown().await;
        for (key, answer) in settled {
            self.tell(&key, &answer).await;
        }
        self.tell_all(fenced).await;
    }

    async fn tell_all(&mut self, fault: &Fault) {
        for (_, entry) in self.entries.drain() {
            for caller in entry.callers {
                caller.finish(Err(fault.clone())).await;
            }
        }
    }
}

/// What is told of a record, or of the failure to read or write it.
fn told(record: Result<Option<Result<Answer, Fault>>, RecordError>) -> Result<Answer, Fault> {
    match record {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(Fault::from(&RecordError::Contended)),
        Err(error) => {
            if let RecordError::Bus(cause) = &error {
                tracing::error!(error = cause as &dyn std::error::Error, "record");
            }
            Err(Fault::from(&error))
        }
    }
}
