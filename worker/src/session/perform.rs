//! What a session does when its machine says so.

use std::{
    slice,
    sync::{Arc, atomic::Ordering},
};

use proto::{
    execution::{Details, Outcome},
    fault::{Fault, FaultCode},
    id::OperationId,
};
use store::StagingScope;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{
    actor::Actor,
    answer::{self, Finished},
    execution::{Caller, Running, Waiting},
    file_job,
    grace::{self, Grace, Next},
    machine::{Action, Verdict},
    saver::Saved,
    table::Note,
    work::Work,
};
use crate::{
    kernel::{Cell, CellEnd},
    record::ExecutionEnd,
    trace,
};

impl Actor {
    pub(super) async fn perform(&mut self, action: Action) {
        match action {
            Action::RunNext => self.run_next(),
            Action::Interrupt => self.interrupt(),
            Action::KillKernel => {
                if let Some(running) = &mut self.running {
                    running.alarm = None;
                    running.kernel.kill();
                }
            }
            Action::Save => self.save(),
            Action::Answer(verdict) => self.answer(verdict),
            Action::AnswerUnsaved => self.answer_unsaved(),
            Action::RefuseWaiting => self.refuse_waiting().await,
            Action::NoteLoss => self.lost_between = true,
            Action::Restart => {
                if let Some(sandbox) = &self.sandbox {
                    self.work = Work::restart(sandbox.cage.clone());
                }
            }
            // The actor's loop ends in this state, and `end` does both.
            Action::RefuseAll | Action::TearDown(_) => {}
        }
    }

    fn run_next(&mut self) {
        let Some(Waiting {
            asked: next,
            caller,
        }) = self.queue.pop()
        else {
            return;
        };
        // Before the kernel gets the code: a start may be noted in vain, but never missed.
        let (pool, session) = (&self.first.pool, &self.first.session);
        let ownership = self.keeper.ownership();
        let owned = (ownership.incarnation(), ownership.epoch());
        let journal = &self.context.journal;
        journal.starts(&next.operation, (pool, session), owned);
        let limits = &self.pool.limits;
        let outlet = next.code.outlet.clone();
        // Before the code begins to use anything.
        let meter = self.sandbox.as_ref().filter(|_| next.detailed);
        let mut meter = meter.map(|sandbox| sandbox.cage.meter());
        // What earlier cells made this worker do beyond their share is waited for here.
        let allowance = self.sandbox.as_ref().map(|it| it.cage.allowance().owed());
        let started = Instant::now() + allowance.unwrap_or_default();
        let store = &self.context.store;
        let span = trace::execution(next.trace);
        let run = self.work.run(next.code, store, limits, started, &span);
        let Some((kernel, obeyed)) = run else {
            return;
        };
        if let Some(meter) = &mut meter {
            meter.watch(kernel.pid());
        }
        self.running = Some(Running {
            operation: next.operation,
            caller,
            kernel,
            obeyed,
            grace: Grace::default(),
            started,
            ended: None,
            alarm: Some(started + next.timeout),
            outlet,
            span,
            details: next.detailed.then(Box::default),
            meter,
        });
    }

    fn interrupt(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.alarm = Some(Instant::now() + grace::STEP);
        running.interrupt();
    }

    /// What becomes of an execution that goes on after an interrupt; whether its time is over.
    pub(super) fn grace_is_over(&mut self) -> bool {
        let Some(running) = &mut self.running else {
            return true;
        };
        let obeyed = running.obeyed.load(Ordering::Relaxed);
        let next = running.grace.next(obeyed);
        if next == Next::Again {
            running.interrupt();
        }
        running.alarm = (next != Next::Over).then(|| Instant::now() + grace::STEP);
        next == Next::Over
    }

    fn save(&mut self) {
        if let Some(running) = &mut self.running {
            // Its time is over, not that of its files.
            running.alarm = None;
            running.ended.get_or_insert_with(Instant::now);
            // Before the files are read, which is not the cell's doing.
            if let (Some(meter), Some(details)) = (running.meter.take(), &mut running.details) {
                details.resources = Some(meter.read());
            }
        }
        if let Some(sandbox) = &self.sandbox {
            let saver = sandbox.saver.clone();
            let saving = async move { saver.after_cell().await };
            let span = self.running.as_ref().map(|running| running.span.clone());
            let saving = saving.instrument(span.unwrap_or_else(Span::current));
            self.saving = Some(Box::pin(saving));
        }
    }

    fn answer(&mut self, verdict: Verdict) {
        self.used();
        let (Some(mut running), Some(ended)) = (self.running.take(), self.ended.take()) else {
            return;
        };
        let outcome = ended.map(|cell| {
            let out_of_memory = self.memory_ran_out(&cell);
            let tasks_ran_out = self.tasks_ran_out(&cell);
            let truncated = cell.truncated;
            let duration = running.duration();
            let mut outcome = answer::outcome(Finished {
                out_of_memory,
                tasks_ran_out,
                cell,
                verdict,
                lost_between: std::mem::take(&mut self.lost_between),
                duration,
            });
            self.context.counts.executed(&outcome.ending, duration);
            let saved =
                std::mem::replace(&mut self.saved, Ok(Saved::default())).unwrap_or_default();
            outcome.durability = saved.durability;
            outcome.details = running.details.take().map(|details| {
                let files = saved.changed.map(answer::changed_files);
                Box::new(Details {
                    files,
                    truncated,
                    ..*details
                })
            });
            outcome.moved = self.moved.take();
            outcome.incarnation = Some(self.keeper.ownership().incarnation());
            outcome
        });
        if let (Caller::Plain(_), Ok(outcome)) = (&running.caller, &outcome) {
            self.recent.keep(&running.operation, outcome);
        }
        self.reply(running.operation, running.caller, outcome);
    }

    fn answer_unsaved(&mut self) {
        self.used();
        self.ended = None;
        if let Some(running) = self.running.take() {
            self.context.counts.executed_unsaved();
            let fault = self.saved.clone().err().unwrap_or_else(|| {
                let words = "the code ran, but its files are not saved";
                Fault::new(FaultCode::FilesNotDurable, words)
            });
            match running.caller {
                Caller::Plain(_) => self.reply(running.operation, running.caller, Err(fault)),
                Caller::Recorded(held) => self.recorded.finish(held, ExecutionEnd::Unsaved(fault)),
            }
        }
    }

    async fn refuse_waiting(&mut self) {
        while let Some(waiting) = self.queue.pop() {
            let words = "files of an earlier execution are not saved yet; this one did not run";
            let refused = Fault::new(FaultCode::StorageUnavailable, words);
            self.refuse(waiting.caller, refused).await;
        }
    }

    /// Whether the memory limit killed something since the last time it was asked.
    fn memory_ran_out(&mut self, cell: &Cell) -> bool {
        let (CellEnd::Died(_) | CellEnd::Exited(_), Some(sandbox)) = (&cell.end, &self.sandbox)
        else {
            return false;
        };
        let kills = sandbox.cage.oom_kills().unwrap_or(self.oom_kills);
        let more = kills > self.oom_kills;
        self.oom_kills = kills;
        more
    }

    /// How many processes and threads there may be, if a cell failed that does not say so, and more were refused since
    /// the last time it was asked.
    fn tasks_ran_out(&mut self, cell: &Cell) -> Option<u32> {
        let untold = cell.failed_without_naming_the_task_limit();
        let sandbox = self.sandbox.as_ref().filter(|_| untold)?;
        let denied = sandbox.cage.pids_denied().unwrap_or(self.pids_denied);
        let more = denied > self.pids_denied;
        self.pids_denied = denied;
        more.then_some(self.pool.limits.processes)
    }

    /// Refuses an execution that did not run.
    pub(super) async fn refuse(&mut self, caller: Caller, fault: Fault) {
        match caller {
            Caller::Plain(responder) => responder.finish(Err(fault)).await,
            Caller::Recorded(held) => self.recorded.finish(held, ExecutionEnd::Refused(fault)),
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
        let context = self.context.clone();
        let (ownership_check, tell) = (self.ownership_check.clone(), self.seat.teller());
        let answering = Arc::clone(&self.answering);
        let (pool, session) = (self.first.pool.clone(), self.first.session.clone());
        self.context.tasks.spawn(async move {
            let answer = match outcome {
                Ok(outcome) => {
                    let owner = StagingScope {
                        pool: &pool,
                        session: &session,
                        operation: &operation,
                    };
                    let carried = answer::carried(outcome, &context.store, owner);
                    file_job::with_heartbeats(slice::from_mut(&mut responder), carried).await
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
