//! What a session has in every phase of its life.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use proto::{
    execution::Moved,
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    pool::Pool,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tracing::Instrument;

use super::{
    Shared,
    machine::{Effects, Ended},
    name::SessionName,
    opening::{Opened, Opening, Sandbox},
    ports::KernelPort,
    program::{CellAtWork, Ran},
    queue::{Caller, Waiting, WaitingQueue},
    recent::Recent,
    recorded::RecordedExecutions,
    running::Execution,
    saver::{Saved, Saving},
    table::Seat,
};
use crate::{
    bus::Responder,
    lease::{keeper::Keeper, ownership_check::OwnershipCheck},
    outlet::Outlet,
    record::ExecutionEnd,
    stock::StockError,
};

/// A session that this worker owns, without what only one phase has.
pub struct Session {
    pub(super) shared: Shared,
    pub(super) pool: Pool,
    pub(super) name: SessionName,
    pub(super) keeper: Keeper,
    pub(super) ownership_check: OwnershipCheck,
    pub(super) seat: Seat,
    /// Executions that wait for their turn.
    pub(super) queue: WaitingQueue,
    /// Executions with a record, whether they wait, run or end.
    pub(super) recorded: RecordedExecutions,
    /// What those without a record left.
    pub(super) recent: Recent,
    /// Ways of output that are in use, by their executions.
    pub(super) outlets: Vec<(OperationId, Weak<Outlet>)>,
    pub(super) file_jobs: JoinSet<()>,
    /// Held by every answer on its way.
    pub(super) answering: Arc<()>,
    /// Callers that are refused before anything else happens.
    pub(super) refused: Vec<(Responder, Fault)>,
    /// The worker ends: nothing new begins here.
    pub(super) handing_over: bool,
    pub(super) last_used: Instant,
    pub(super) next_beat: Instant,
    /// The session had another owner before, so there may be something in its log.
    pub(super) continued: bool,
    /// The interpreter ended while nothing ran, and nobody was told yet.
    pub(super) lost_between: bool,
    /// The session came from another worker, and nobody was told yet.
    pub(super) moved: Option<Moved>,
    /// There are files that cannot be kept.
    pub(super) has_unkept_files: bool,
}

impl Session {
    /// The session was used.
    pub(super) fn used(&mut self) {
        self.last_used = Instant::now();
        self.keeper.used();
    }

    /// Refuses an execution that did not run.
    pub(super) fn refuse_caller(&mut self, caller: Caller, fault: Fault) {
        match caller {
            Caller::Plain(responder) => self.refused.push((responder, fault)),
            Caller::Recorded(held) => self.recorded.finish(held, ExecutionEnd::Refused(fault)),
        }
    }

    /// Whether somebody other than the execution that runs must hear that the work goes on.
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.recorded.is_empty()
    }

    /// Has the next beat say that a job was taken, if there is no answer before.
    pub(super) fn beat_soon(&mut self, somebody_waits: bool) {
        let soon = Instant::now() + limits::ACCEPT_AFTER;
        self.next_beat = match somebody_waits {
            true => self.next_beat.min(soon),
            false => soon,
        };
    }
}

impl Effects for Session {
    type Opening = Opening;
    type Opened = Box<Opened>;
    type Sandbox = Sandbox;
    type Kernel = Box<dyn KernelPort>;
    type Waiting = Waiting;
    type Execution = Box<Execution>;
    type Cell = CellAtWork;
    type Ran = Ran;
    type Saving = Saving;
    type Saved = Saved;
    type Restart = JoinHandle<Result<Box<dyn KernelPort>, StockError>>;
    type Stopper = Responder;

    fn opened(&mut self, opening: Opening, opened: Box<Opened>) -> (Sandbox, Box<dyn KernelPort>) {
        let Opened {
            sandbox,
            kernel,
            source,
            took,
            moved,
        } = *opened;
        self.shared.counts.opened(source, took);
        self.moved = moved;
        for (job, responder) in opening.held {
            self.start_file_job(&sandbox, job, responder);
        }
        (sandbox, kernel)
    }

    fn not_opened(&mut self, opening: Opening, fault: &Fault) {
        let held = opening.held.into_iter();
        self.refused
            .extend(held.map(|(_, responder)| (responder, fault.clone())));
    }

    /// What waits while the worker ends goes to the next owner.
    fn next(&mut self) -> Option<Waiting> {
        match self.handing_over {
            true => None,
            false => self.queue.pop(),
        }
    }

    fn run(
        &mut self,
        sandbox: &mut Sandbox,
        kernel: Box<dyn KernelPort>,
        waiting: Waiting,
    ) -> (Box<Execution>, CellAtWork) {
        let (execution, cell) = self.start(sandbox, kernel, waiting);
        (Box::new(execution), cell)
    }

    fn refuse(&mut self, execution: Box<Execution>, fault: Fault) {
        self.refuse_caller(execution.caller, fault);
    }

    fn interrupt(&mut self, execution: &mut Box<Execution>) {
        execution.interrupt();
    }

    fn kill(&mut self, execution: &mut Box<Execution>) {
        execution.kill();
    }

    fn save(&mut self, sandbox: &mut Sandbox, after: Option<&mut Box<Execution>>) -> Saving {
        let span = after.map(|execution| {
            execution.end();
            execution.span.clone()
        });
        sandbox.saver.begin(span)
    }

    fn answer(&mut self, sandbox: &mut Sandbox, ended: Ended<Self>, saved: Saved) {
        self.answer_saved(sandbox, ended, saved);
    }

    fn answer_unsaved(&mut self, ended: Ended<Self>, fault: Fault) {
        self.answer_without_files(*ended.execution, fault);
    }

    fn refuse_waiting(&mut self) {
        while let Some(waiting) = self.queue.pop() {
            let words = "files of an earlier execution are not saved yet; this one did not run";
            let fault = Fault::new(FaultCode::StorageUnavailable, words);
            self.refuse_caller(waiting.caller, fault);
        }
    }

    fn note_loss(&mut self) {
        self.lost_between = true;
    }

    fn restart(&mut self, sandbox: &mut Sandbox) -> Self::Restart {
        let cage = Arc::clone(&sandbox.cage);
        tokio::spawn(async move { cage.restart().await }.in_current_span())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.name).finish()
    }
}
