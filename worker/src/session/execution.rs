//! Executions of a session: those that wait and the one that runs.

use std::{collections::VecDeque, time::Duration};

use proto::{
    blob::Blob,
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    pool::Limits,
};
use tokio::time::Instant;

use crate::{bus::Responder, sandbox::KernelHandle};

/// An execution that was accepted and has not started.
#[derive(Debug)]
pub struct Waiting {
    /// Its name.
    pub operation: OperationId,
    /// The way back to its caller.
    pub responder: Responder,
    /// Source text.
    pub code: Blob,
    /// Time for the code itself.
    pub timeout: Duration,
    /// When its caller stops waiting.
    pub expires: Instant,
}

/// The execution that runs.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub operation: OperationId,
    /// The way back to its caller.
    pub responder: Responder,
    /// The interpreter's process.
    pub kernel: KernelHandle,
    /// When its code started.
    pub started: Instant,
    /// When it ended; what comes after is the saving of its files.
    pub ended: Option<Instant>,
    /// When it is interrupted or, once it was, killed.
    pub alarm: Option<Instant>,
}

impl Running {
    /// How long the code ran, so far.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now) - self.started
    }
}

/// The executions that wait, oldest first; never more than [`limits::SESSION_QUEUE`].
#[derive(Debug, Default)]
pub struct Queue(VecDeque<Waiting>);

impl Waiting {
    /// The time that the pool allows of what the caller asked for.
    #[must_use]
    pub fn timeout(asked_ms: u64, limits: &Limits) -> Duration {
        let ceiling = Duration::from_secs(limits.execution_seconds.into());
        Duration::from_millis(asked_ms).min(ceiling)
    }
}

impl Queue {
    /// Adds an execution.
    ///
    /// # Errors
    /// The queue is full; the way back to the caller comes along with the fault for it.
    pub fn push(&mut self, execution: Waiting) -> Result<(), Box<(Responder, Fault)>> {
        if self.0.len() < limits::SESSION_QUEUE {
            self.0.push_back(execution);
            return Ok(());
        }
        let most = limits::SESSION_QUEUE;
        let words = format!("{most} executions wait in this session already");
        let fault = Fault::new(FaultCode::SessionBusy, words);
        Err(Box::new((execution.responder, fault)))
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<Waiting> {
        self.0.pop_front()
    }

    /// Takes out those whose callers have stopped waiting.
    pub fn expired(&mut self, now: Instant) -> Vec<Waiting> {
        if self.0.iter().all(|execution| execution.expires > now) {
            return vec![];
        }
        let all = std::mem::take(&mut self.0).into_iter();
        let (gone, kept): (Vec<_>, Vec<_>) = all.partition(|waiting| waiting.expires <= now);
        self.0 = kept.into();
        gone
    }

    /// Takes out one by its name.
    pub fn remove(&mut self, operation: &OperationId) -> Option<Waiting> {
        let index = self
            .0
            .iter()
            .position(|waiting| waiting.operation == *operation)?;
        self.0.remove(index)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everyone who waits.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.0.iter_mut()
    }
}
