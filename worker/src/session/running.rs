//! The execution that runs: it is started, interrupted, killed, and answered when its files are saved.

use std::{
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::{
    execution::{Details, Outcome},
    fault::Fault,
    id::OperationId,
};
use store::StagingScope;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{
    answer::{self, Finished},
    grace::{self, Grace, Next},
    machine::Ended,
    opening::Sandbox,
    ports::{KernelPort, SignalsPort},
    program::{self, Beginning, CellAtWork, Handover},
    queue::{Caller, Waiting},
    saver::Saved,
    state::Session,
    table::Note,
};
use crate::{bus::with_heartbeats, outlet::Outlet, record::ExecutionEnd, sandbox::Meter, trace};

/// An execution that has started.
#[derive(Debug)]
pub struct Execution {
    /// Its name.
    pub operation: OperationId,
    /// Who is told.
    pub caller: Caller,
    /// Whether its code was handed to the kernel.
    handover: Handover,
    /// The interpreter's process.
    kernel: Arc<dyn SignalsPort>,
    /// Whether it has obeyed an interrupt, and only its answer is missing.
    obeyed: Arc<AtomicBool>,
    /// What is granted to it after an interrupt.
    grace: Grace,
    /// When it ended; what comes after is the saving of its files.
    pub ended: Option<Instant>,
    /// When it is interrupted or, once it was, killed.
    alarm: Alarm,
    /// The way of its output, if it is streamed.
    pub outlet: Option<Arc<Outlet>>,
    /// The interpreter had ended before it, and its caller is the first to be told.
    lost_before: bool,
    /// What is told beyond the contract, if it is asked for.
    details: Option<Box<Details>>,
    /// Measures what it uses, if that is told.
    meter: Option<Meter>,
    /// What is logged while it runs belongs to it.
    pub span: Span,
}

/// When something is to be done about an execution by itself.
#[derive(Clone, Copy, Debug)]
enum Alarm {
    /// So long after its code began.
    AfterBeginning(Duration),
    /// At this moment.
    At(Instant),
    /// Never: it was killed, or its code has ended.
    Off,
}

impl Execution {
    /// When it is interrupted or, once it was, killed. Its time begins with its code.
    #[must_use]
    pub fn alarm(&self) -> Option<Instant> {
        match self.alarm {
            Alarm::AfterBeginning(time) => Some(self.begun()? + time),
            Alarm::At(at) => Some(at),
            Alarm::Off => None,
        }
    }

    /// Interrupts its code, and grants it a moment to obey. Code that has not begun never does.
    pub fn interrupt(&mut self) {
        self.alarm = Alarm::At(Instant::now() + grace::STEP);
        self.handover.withdraw();
        if self.has_begun() {
            self.signal();
        }
    }

    fn signal(&self) {
        if let Err(error) = self.kernel.interrupt() {
            // It is ending by itself, or the grace ends it.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "kernel not interrupted"
            );
        }
    }

    /// When its code began, if it did.
    #[must_use]
    pub fn begun(&self) -> Option<Instant> {
        self.handover.begun()
    }

    /// Whether its code may have had effects.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun().is_some()
    }

    /// Whether its code is on its way to the kernel, so that it may be run elsewhere instead.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.handover.is_open()
    }

    /// Kills its kernel.
    pub fn kill(&mut self) {
        self.alarm = Alarm::Off;
        self.kernel.kill();
    }

    /// What becomes of it when it goes on after an interrupt; whether its time is over.
    pub fn is_grace_over(&mut self) -> bool {
        if !self.has_begun() {
            // What was withdrawn is about to say so, and its kernel has nothing to do with it.
            self.alarm = Alarm::At(Instant::now() + grace::STEP);
            return false;
        }
        let next = self.grace.next(self.obeyed.load(Ordering::Relaxed));
        if next == Next::Again {
            self.signal();
        }
        self.alarm = match next {
            Next::Again | Next::Wait => Alarm::At(Instant::now() + grace::STEP),
            Next::Over => Alarm::Off,
        };
        next == Next::Over
    }

    /// Its code has ended, and its files are about to be read.
    pub fn end(&mut self) {
        // Its time is over, not that of its files.
        self.alarm = Alarm::Off;
        self.ended.get_or_insert_with(Instant::now);
        // Before the files are read, which is not the cell's doing.
        if let (Some(meter), Some(details)) = (self.meter.take(), &mut self.details) {
            details.resources = Some(meter.read());
        }
    }

    /// How long the code ran, so far.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let until = self.ended.unwrap_or_else(Instant::now);
        let since = self.begun().unwrap_or(until);
        until.saturating_duration_since(since)
    }
}

impl Session {
    /// Hands a waiting execution to the kernel.
    pub(super) fn start(
        &mut self,
        sandbox: &Sandbox,
        kernel: Box<dyn KernelPort>,
        waiting: Waiting,
    ) -> (Execution, CellAtWork) {
        let Waiting { asked, caller } = waiting;
        let signals = kernel.signals();
        // Before the code begins to use anything.
        let meter = match asked.detailed {
            true => sandbox.cage.meter(signals.pid()),
            false => None,
        };
        // What earlier cells made this worker do beyond their share is waited for here.
        let from = Instant::now() + sandbox.cage.owed();
        let span = trace::execution(asked.trace);
        let handover = Handover::default();
        let beginning = self.beginning(asked.operation.clone(), from, handover.clone());
        let execution = Execution {
            operation: asked.operation,
            caller,
            handover,
            kernel: signals,
            obeyed: kernel.obeyed(),
            grace: Grace::default(),
            ended: None,
            alarm: Alarm::AfterBeginning(asked.timeout),
            outlet: asked.code.outlet.clone(),
            lost_before: std::mem::take(&mut self.lost_between),
            details: asked.detailed.then(Box::default),
            meter,
            span: span.clone(),
        };
        let (store, output) = (self.shared.store.clone(), self.pool.limits.output_bytes);
        let run = program::run(kernel, asked.code, store, output, beginning);
        (execution, Box::pin(run.instrument(span)))
    }

    fn beginning(&self, operation: OperationId, from: Instant, handover: Handover) -> Beginning {
        let (journal, name) = (self.shared.journal.clone(), self.name.clone());
        let ownership = self.keeper.ownership();
        let owned = (ownership.incarnation(), ownership.epoch());
        Beginning {
            from,
            ownership_check: self.ownership_check.clone(),
            // Before the kernel gets the code: a start may be noted in vain, but never missed.
            note: Box::new(move || journal.starts(&operation, (&name.pool, &name.key), owned)),
            handover,
        }
    }

    /// Answers an execution whose files are saved.
    pub(super) fn answer_saved(&mut self, sandbox: &mut Sandbox, ended: Ended<Self>, saved: Saved) {
        self.used();
        let Ended {
            mut execution,
            ran,
            verdict,
        } = ended;
        let outcome = ran.map(|cell| {
            let truncated = cell.truncated;
            let duration = execution.duration();
            let mut outcome = answer::outcome(Finished {
                out_of_memory: sandbox.has_run_out_of_memory(&cell),
                tasks_ran_out: sandbox
                    .has_run_out_of_tasks(&cell)
                    .then_some(self.pool.limits.processes),
                cell,
                verdict,
                lost_between: execution.lost_before && execution.has_begun(),
                duration,
            });
            self.shared.counts.executed(&outcome.ending, duration);
            outcome.durability = saved.durability;
            outcome.details = execution.details.take().map(|details| {
                let files = saved.changed.map(answer::changed_files);
                Box::new(Details {
                    files,
                    truncated,
                    ..*details
                })
            });
            if execution.has_begun() {
                outcome.moved = self.moved.take();
            }
            outcome.incarnation = Some(self.keeper.ownership().incarnation());
            outcome
        });
        if outcome.is_err() || !execution.has_begun() {
            // It did not run; the next one hears it.
            self.lost_between |= execution.lost_before;
        }
        if let (Caller::Plain(_), Ok(outcome)) = (&execution.caller, &outcome) {
            self.recent.keep(&execution.operation, outcome);
        }
        self.reply(execution.operation, execution.caller, outcome);
    }

    /// Answers an execution that ran, with why its files are not saved.
    pub(super) fn answer_without_files(&mut self, execution: Execution, fault: Fault) {
        self.used();
        // It is for the next one to hear.
        self.lost_between |= execution.lost_before;
        self.shared.counts.executed_unsaved();
        match execution.caller {
            Caller::Plain(_) => self.reply(execution.operation, execution.caller, Err(fault)),
            Caller::Recorded(held) => self.recorded.finish(held, ExecutionEnd::Unsaved(fault)),
        }
    }

    /// Answers an execution without making the session wait for the store or the bus. To a record a
    /// fault says that it did not run.
    pub(super) fn reply(
        &mut self,
        operation: OperationId,
        caller: Caller,
        outcome: Result<Outcome, Fault>,
    ) {
        let mut responder = match caller {
            Caller::Plain(responder) => responder,
            Caller::Recorded(held) => {
                let end = outcome.map_or_else(ExecutionEnd::Refused, |outcome| {
                    ExecutionEnd::Outcome(outcome.into())
                });
                return self.recorded.finish(held, end);
            }
        };
        let store = self.shared.store.clone();
        let (ownership_check, tell) = (self.ownership_check.clone(), self.seat.teller());
        let answering = Arc::clone(&self.answering);
        let (pool, session) = (self.name.pool.clone(), self.name.key.clone());
        self.shared.tasks.spawn(async move {
            let answer = match outcome {
                Ok(outcome) => {
                    let owner = StagingScope {
                        pool: &pool,
                        session: &session,
                        operation: &operation,
                    };
                    let carried = answer::carried(outcome, &store, owner);
                    with_heartbeats(slice::from_mut(&mut responder), carried).await
                }
                Err(fault) => Err(fault),
            };
            // Before ownership is made sure of: readers take their time.
            responder.pump_out().await;
            if !answer::give(responder, &ownership_check, answer).await {
                tell(Note::LeaseLost);
            }
            drop(answering);
        });
    }
}
