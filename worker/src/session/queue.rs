//! Executions that wait for their turn, and who is told how each ended.

use std::{collections::VecDeque, time::Duration};

use proto::{
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    pool::Limits,
    trace::TraceContext,
};
use tokio::time::Instant;

use super::program::Source;
use crate::{bus::Responder, record::HeldRecord};

/// Who is told how an execution ended.
#[derive(Debug)]
pub enum Caller {
    /// The one who asked.
    Plain(Responder),
    /// Its record, and then everybody who asked.
    Recorded(Box<HeldRecord>),
}

/// What is to be run.
#[derive(Debug)]
pub struct Asked {
    /// Its name.
    pub operation: OperationId,
    /// The trace of the request that asks for it.
    pub trace: Option<TraceContext>,
    /// What is to be run.
    pub code: Source,
    /// Time for the code itself.
    pub timeout: Duration,
    /// When its caller stops waiting.
    pub expires: Instant,
    /// Its caller wants to know more than the contract tells.
    pub detailed: bool,
}

/// An execution that was accepted and has not started.
#[derive(Debug)]
pub struct Waiting {
    /// What is to be run.
    pub asked: Asked,
    /// Who is told.
    pub caller: Caller,
}

/// The executions that wait, oldest first; never more than [`limits::SESSION_QUEUE`].
#[derive(Debug, Default)]
pub struct WaitingQueue(VecDeque<Waiting>);

impl Asked {
    /// The time that the pool allows of what the caller asked for, who waits for it or does not.
    #[must_use]
    pub fn timeout(asked_ms: u64, waits: bool, limits: &Limits) -> Duration {
        let ceiling = match waits {
            true => limits.execution_seconds,
            false => limits.async_execution_seconds,
        };
        let ceiling = Duration::from_secs(ceiling.into());
        Duration::from_millis(asked_ms).min(ceiling)
    }
}

impl Caller {
    /// The way back to the one who asked, without a record.
    pub fn responder(&mut self) -> Option<&mut Responder> {
        match self {
            Self::Plain(responder) => Some(responder),
            Self::Recorded(_) => None,
        }
    }
}

impl WaitingQueue {
    /// Adds an execution.
    ///
    /// # Errors
    /// The queue is full; the caller comes along with the fault for it.
    pub fn push(&mut self, execution: Waiting) -> Result<(), Box<(Caller, Fault)>> {
        if self.0.len() < limits::SESSION_QUEUE {
            self.0.push_back(execution);
            return Ok(());
        }
        let most = limits::SESSION_QUEUE;
        let words = format!("{most} executions wait in this session already");
        let fault = Fault::new(FaultCode::SessionBusy, words);
        Err(Box::new((execution.caller, fault)))
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<Waiting> {
        self.0.pop_front()
    }

    /// Takes out those whose callers have stopped waiting.
    pub fn expired(&mut self, now: Instant) -> Vec<Waiting> {
        if self.0.iter().all(|execution| execution.asked.expires > now) {
            return vec![];
        }
        let all = std::mem::take(&mut self.0).into_iter();
        let (gone, kept): (Vec<_>, Vec<_>) = all.partition(|waiting| waiting.asked.expires <= now);
        self.0 = kept.into();
        gone
    }

    /// Takes out one by its name.
    pub fn remove(&mut self, operation: &OperationId) -> Option<Waiting> {
        let index = self
            .0
            .iter()
            .position(|waiting| waiting.asked.operation == *operation)?;
        self.0.remove(index)
    }

    /// Whether this execution waits.
    #[must_use]
    pub fn has(&self, operation: &OperationId) -> bool {
        self.0
            .iter()
            .any(|waiting| waiting.asked.operation == *operation)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ways back to those who wait without a record.
    pub fn responders(&mut self) -> impl Iterator<Item = &mut Responder> {
        self.0
            .iter_mut()
            .filter_map(|waiting| waiting.caller.responder())
    }
}

/// What those hear whose time was over before their turn came.
#[must_use]
pub fn too_late() -> Fault {
    let words = "the execution's time was over before it could start; it did not run";
    Fault::new(FaultCode::Expired, words)
}
