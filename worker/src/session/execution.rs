//! Executions of a session: those that wait and the one that runs.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use proto::{
    execution::Details,
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    pool::Limits,
    trace::TraceContext,
};
use tokio::time::Instant;
use tracing::Span;

use super::{grace::Grace, work::Source};
use crate::{
    bus::Responder,
    outlet::Outlet,
    record::HeldRecord,
    sandbox::{KernelHandle, Meter},
};

/// Who is told how an execution ended.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are the large one, and few wait at once"
)]
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

/// The execution that runs.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub operation: OperationId,
    /// Who is told.
    pub caller: Caller,
    /// The interpreter's process.
    pub kernel: KernelHandle,
    /// Whether it has obeyed an interrupt, and only its answer is missing.
    pub obeyed: Arc<AtomicBool>,
    /// What is granted to it after an interrupt.
    pub grace: Grace,
    /// When its code started.
    pub started: Instant,
    /// When it ended; what comes after is the saving of its files.
    pub ended: Option<Instant>,
    /// When it is interrupted or, once it was, killed.
    pub alarm: Option<Instant>,
    /// The way of its output, if it is streamed.
    pub outlet: Option<Arc<Outlet>>,
    /// What is told beyond the contract, if it is asked for.
    pub details: Option<Box<Details>>,
    /// Measures what it uses, if that is told.
    pub meter: Option<Meter>,
    /// What is logged while it runs belongs to it.
    pub span: Span,
}

impl Running {
    /// Interrupts its code.
    pub fn interrupt(&self) {
        if let Err(error) = self.kernel.interrupt() {
            // It is ending by itself, or the grace ends it.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "kernel not interrupted"
            );
        }
    }

    /// How long the code ran, so far.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let until = self.ended.unwrap_or_else(Instant::now);
        until.saturating_duration_since(self.started)
    }
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
