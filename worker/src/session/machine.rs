//! The life of a session: each phase holds what there is only then, and [`Phase::on`] says what comes next. What
//! has to be done on the way are calls of [`Effects`], which the actor performs.
//!
//! ```text
//!           Opened         run               Deadline/Cancel               GraceOver
//!  Opening ──────> Idle ───────> Running ───────────────────> interrupted ─────────> killed
//!                   ^ │             │ Finished/DiedWith           │ Finished/DiedWith  │
//!             Saved │ │ Died        v                             v                    v
//!    (kernel alive) │ │           Saving <─────────────────────────────────────────────┘
//!                   │ v             │ │
//!                Restarting <───────┘ └──────> Unsaved   the object store did not take the files:
//!                (kernel dead)        NotSaved           the next execution waits for it first
//!
//!  `Unkeepable` leads on as `Saved` does: only code can make room, so the next execution runs
//!
//!  Ending   after Expired, Stop, HandOver, LeaseLost, DiskFull or Failed
//! ```
//!
//! An execution is answered when the files that it left are saved, never before. Nothing here knows
//! time, processes, the store or the bus. Whoever waits for an answer is owned by exactly one phase, so that
//! none is lost on the way from one to the next.

use proto::fault::Fault;

mod shown;

/// Why a running cell is being interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptReason {
    /// Its time is over.
    Deadline,
    /// Its caller cancelled it or hung up.
    Cancel,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Nobody used it for its pool's cooldown.
    Expired,
    /// A caller or the worker's own end asked for it.
    Stopped,
    /// Another worker owns it now. Nothing may be written for it any more.
    Fenced,
    /// The worker ends: the session goes to another, with its files and what can be carried of its
    /// variables.
    HandedOver,
    /// Its sandbox could not be made or kept, or its files not be had.
    Broken,
    /// It took much of the worker's disk when its reserve was reached. What was saved goes on elsewhere.
    DiskFull,
}

impl SessionEnd {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Expired,
        Self::Stopped,
        Self::Fenced,
        Self::HandedOver,
        Self::Broken,
        Self::DiskFull,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Stopped => "stopped",
            Self::Fenced => "fenced",
            Self::HandedOver => "handed_over",
            Self::Broken => "broken",
            Self::DiskFull => "disk_full",
        }
    }
}

/// What a session consists of, and what is done for it when it goes from one phase to the next. Nothing of it waits:
/// what takes time is a future that the next phase holds.
pub trait Effects: Sized {
    /// A sandbox on its way, with whoever waits for nothing else.
    type Opening;
    /// What came of that.
    type Opened;
    /// Where the session's code runs.
    type Sandbox;
    /// An interpreter that waits.
    type Kernel;
    /// An execution that was accepted and has not started, with its caller.
    type Waiting;
    /// An execution that has started, with its caller.
    type Execution;
    /// Its code at work.
    type Cell;
    /// What the code left.
    type Ran;
    /// Files on their way to the object store.
    type Saving;
    /// What is known of files that are there.
    type Saved;
    /// Another interpreter on its way into the same sandbox.
    type Restart;
    /// Who asked for the session's end.
    type Stopper;

    /// Serves whoever waited for the sandbox alone.
    fn opened(
        &mut self,
        opening: Self::Opening,
        opened: Self::Opened,
    ) -> (Self::Sandbox, Self::Kernel);
    /// Refuses whoever waited for the sandbox alone.
    fn not_opened(&mut self, opening: Self::Opening, fault: &Fault);
    /// Takes the oldest waiting execution, if there is one that may run here.
    fn next(&mut self) -> Option<Self::Waiting>;
    /// Hands an execution to the kernel.
    fn run(
        &mut self,
        sandbox: &mut Self::Sandbox,
        kernel: Self::Kernel,
        waiting: Self::Waiting,
    ) -> (Self::Execution, Self::Cell);
    /// Refuses an execution whose code did not begin.
    fn refuse(&mut self, execution: Self::Execution, fault: Fault);
    /// SIGINT to the kernel and its foreground group; the grace begins.
    fn interrupt(&mut self, execution: &mut Self::Execution);
    /// SIGKILL to the kernel.
    fn kill(&mut self, execution: &mut Self::Execution);
    /// Brings what changed in `/mnt/data` to the object store, after an execution or for the next one.
    fn save(
        &mut self,
        sandbox: &mut Self::Sandbox,
        after: Option<&mut Self::Execution>,
    ) -> Self::Saving;
    /// Answers an execution whose files are saved.
    fn answer(&mut self, sandbox: &mut Self::Sandbox, ended: Ended<Self>, saved: Self::Saved);
    /// Answers an execution whose files are not saved.
    fn answer_unsaved(&mut self, ended: Ended<Self>, fault: Fault);
    /// Refuses the executions that wait: they did not run.
    fn refuse_waiting(&mut self);
    /// Remembers to tell the next caller that the variables went between executions.
    fn note_loss(&mut self);
    /// Clears the sandbox and joins a new kernel.
    fn restart(&mut self, sandbox: &mut Self::Sandbox) -> Self::Restart;
}

/// Where a session stands.
pub enum Phase<E: Effects> {
    /// Its sandbox is on its way; executions wait.
    Opening(E::Opening),
    /// It can be served.
    Open(E::Sandbox, Stage<E>),
    /// Requests are refused, the sandbox goes, then lease and slot.
    Ending(Ending<E>),
}

/// How far a session with a sandbox is.
pub enum Stage<E: Effects> {
    /// Its kernel waits for a cell.
    Idle(E::Kernel),
    /// Its kernel runs a cell.
    Running(Running<E>),
    /// The cell ended, and its files are on their way to the object store.
    Saving(Saving<E>),
    /// The object store did not take the files. No cell runs before it does. The kernel may be dead.
    Unsaved(Option<E::Kernel>),
    /// A new kernel is on its way into the same sandbox.
    Restarting(E::Restart),
}

/// A cell that runs.
pub struct Running<E: Effects> {
    /// For whom.
    pub execution: E::Execution,
    /// The code at work.
    pub cell: E::Cell,
    /// Whether it is to stop.
    pub stop: Stop,
}

/// Whether a running cell is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It goes on.
    No,
    /// It was interrupted and has a moment to end.
    Interrupted(InterruptReason),
    /// It ignored the interrupt and its kernel was killed.
    Killed(InterruptReason),
}

/// Files on their way.
pub struct Saving<E: Effects> {
    /// The execution that left them. Without one they are those of an earlier one, which was answered.
    pub after: Option<Ended<E>>,
    /// The kernel, unless it is dead.
    pub kernel: Option<E::Kernel>,
    /// The way itself.
    pub saving: E::Saving,
}

/// An execution that ended.
pub struct Ended<E: Effects> {
    /// Which, and for whom.
    pub execution: E::Execution,
    /// What its code left.
    pub ran: E::Ran,
    /// What is made of it.
    pub verdict: Verdict,
}

/// A session's end.
pub struct Ending<E: Effects> {
    /// Why it ends.
    pub why: SessionEnd,
    /// What is told of a sandbox that could not be made or kept.
    pub broken: Option<Fault>,
    /// Who asked for it.
    pub stoppers: Vec<E::Stopper>,
    /// What there was when it began.
    pub left: Left<E>,
}

/// What there is when a session begins to end.
pub enum Left<E: Effects> {
    /// A sandbox on its way.
    Opening(E::Opening),
    /// A sandbox, and what goes on in it.
    Open(E::Sandbox, Stage<E>),
    /// A sandbox without a kernel.
    Bare(E::Sandbox),
    /// Nothing.
    Nothing,
}

/// What happens to a session.
pub enum Event<E: Effects> {
    /// Something that ends it, in whatever phase it is.
    End(End<E>),
    /// Something that leads on.
    Progress(Progress<E>),
}

/// What ends a session in whatever phase it is.
pub enum End<E: Effects> {
    /// Someone asked for it.
    Stop(E::Stopper),
    /// The lease belongs to someone else.
    LeaseLost,
    /// The session filled the worker's disk.
    DiskFull,
}

/// What leads a session on. Nobody who waits is part of it.
pub enum Progress<E: Effects> {
    /// The sandbox is there, and its kernel waits for its first cell.
    Opened(E::Opened),
    /// Another kernel waits for its first cell.
    Restarted(E::Kernel),
    /// No sandbox or no kernel could be had, for this reason.
    Failed(Fault),
    /// An execution was put into the queue.
    Queued,
    /// The kernel reported the end of the cell.
    Finished(E::Kernel, E::Ran),
    /// The kernel was not given the code, since the session is another worker's.
    NotBegun(E::Kernel, Fault),
    /// The kernel's process ended with the cell that it ran, or broke its protocol.
    DiedWith(E::Ran),
    /// The same while nothing ran.
    Died,
    /// The files are saved.
    Saved(E::Saved),
    /// They are not, and were not for as long as is worth waiting.
    NotSaved(Fault),
    /// They are not, and cannot be before the session's code has removed some of them.
    Unkeepable(Fault),
    /// The cell's time is over.
    Deadline,
    /// The running cell's caller cancelled it.
    Cancel,
    /// The moment after an interrupt is over.
    GraceOver,
    /// Nobody used the session for its cooldown.
    Expired,
    /// The worker ends, and nothing holds the session up.
    HandOver,
}

impl<E: Effects> From<End<E>> for Event<E> {
    fn from(end: End<E>) -> Self {
        Self::End(end)
    }
}

impl<E: Effects> From<Progress<E>> for Event<E> {
    fn from(progress: Progress<E>) -> Self {
        Self::Progress(progress)
    }
}

/// How the actor answers the execution that just ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the kernel reported it.
    AsReported,
    /// It was interrupted; the variables are kept.
    Interrupted(InterruptReason),
    /// It was interrupted and its kernel killed; the variables are gone.
    Killed(InterruptReason),
    /// Its kernel died: out of memory or a crash.
    Crashed,
}

impl<E: Effects> Default for Phase<E> {
    /// What is left of a session whose step panicked.
    fn default() -> Self {
        Self::Ending(Ending::new(SessionEnd::Broken, Left::Nothing))
    }
}

impl<E: Effects> Phase<E> {
    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opening(_) => "starting",
            Self::Open(_, stage) => stage.name(),
            Self::Ending(_) => "ending",
        }
    }

    /// The execution that has started and is not answered, if there is one.
    #[must_use]
    pub fn execution(&self) -> Option<&E::Execution> {
        match self {
            Self::Open(_, stage) => stage.execution(),
            Self::Opening(_) | Self::Ending(_) => None,
        }
    }

    /// The same, to change it.
    pub fn execution_mut(&mut self) -> Option<&mut E::Execution> {
        match self {
            Self::Open(_, stage) => stage.execution_mut(),
            Self::Opening(_) | Self::Ending(_) => None,
        }
    }

    /// The sandbox, if there is one.
    #[must_use]
    pub fn sandbox(&self) -> Option<&E::Sandbox> {
        match self {
            Self::Open(sandbox, _) => Some(sandbox),
            Self::Opening(_) | Self::Ending(_) => None,
        }
    }

    /// Whether the object store has not taken the files of an execution that was answered, and no cell runs before
    /// it does.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        match self {
            Self::Open(_, Stage::Unsaved(_)) => true,
            Self::Open(_, Stage::Saving(saving)) => saving.after.is_none(),
            Self::Opening(_) | Self::Open(..) | Self::Ending(_) => false,
        }
    }

    /// Whether files are on their way to the object store.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        matches!(self, Self::Open(_, Stage::Saving(_)))
    }

    /// Whether a cell runs, and how it is to stop.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        match self {
            Self::Open(_, Stage::Running(running)) => Some(running.stop),
            Self::Opening(_) | Self::Open(..) | Self::Ending(_) => None,
        }
    }

    /// What comes next.
    #[must_use]
    pub fn on(self, event: impl Into<Event<E>>, effects: &mut E) -> Self {
        match (self, event.into()) {
            (phase, Event::End(end)) => phase.end(end),
            // An ending session hears nothing any more.
            (ending @ Self::Ending(_), Event::Progress(_)) => ending,
            (Self::Opening(opening), Event::Progress(event)) => on_opening(opening, event, effects),
            (Self::Open(sandbox, stage), Event::Progress(event)) => {
                on_open(sandbox, stage, event, effects)
            }
        }
    }

    fn end(self, end: End<E>) -> Self {
        match (self, end) {
            (Self::Ending(mut ending), end) => {
                if let End::Stop(stopper) = end {
                    ending.stoppers.push(stopper);
                }
                Self::Ending(ending)
            }
            (phase, End::Stop(stopper)) => Self::Ending(Ending {
                stoppers: vec![stopper],
                ..Ending::new(SessionEnd::Stopped, phase.left())
            }),
            (phase, End::LeaseLost) => Self::Ending(Ending::new(SessionEnd::Fenced, phase.left())),
            // What is on its way to the store needs no more of the disk; the actor tells it again.
            (phase @ Self::Open(_, Stage::Saving(_)), End::DiskFull) => phase,
            (phase, End::DiskFull) => Self::Ending(Ending::new(SessionEnd::DiskFull, phase.left())),
        }
    }

    fn left(self) -> Left<E> {
        match self {
            Self::Opening(opening) => Left::Opening(opening),
            Self::Open(sandbox, stage) => Left::Open(sandbox, stage),
            Self::Ending(ending) => ending.left,
        }
    }
}

impl<E: Effects> Stage<E> {
    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle(_) => "idle",
            Self::Running(running) => match running.stop {
                Stop::No => "running",
                Stop::Interrupted(_) => "interrupted",
                Stop::Killed(_) => "killing",
            },
            Self::Saving(_) => "saving",
            Self::Unsaved(_) => "unsaved",
            Self::Restarting(_) => "restarting",
        }
    }

    fn execution(&self) -> Option<&E::Execution> {
        match self {
            Self::Running(running) => Some(&running.execution),
            Self::Saving(saving) => saving.after.as_ref().map(|ended| &ended.execution),
            Self::Idle(_) | Self::Unsaved(_) | Self::Restarting(_) => None,
        }
    }

    fn execution_mut(&mut self) -> Option<&mut E::Execution> {
        match self {
            Self::Running(running) => Some(&mut running.execution),
            Self::Saving(saving) => saving.after.as_mut().map(|ended| &mut ended.execution),
            Self::Idle(_) | Self::Unsaved(_) | Self::Restarting(_) => None,
        }
    }
}

impl<E: Effects> Ending<E> {
    fn new(why: SessionEnd, left: Left<E>) -> Self {
        Self {
            why,
            broken: None,
            stoppers: vec![],
            left,
        }
    }

    fn broken(fault: Fault, left: Left<E>) -> Self {
        Self {
            broken: Some(fault),
            ..Self::new(SessionEnd::Broken, left)
        }
    }
}

impl<E: Effects> Running<E> {
    fn interrupt(mut self, why: InterruptReason, effects: &mut E) -> Stage<E> {
        self.stop = Stop::Interrupted(why);
        effects.interrupt(&mut self.execution);
        Stage::Running(self)
    }

    /// The files of the cell that ended go on their way; its kernel is alive unless it died with it or was killed.
    fn save(
        mut self,
        sandbox: &mut E::Sandbox,
        kernel: Option<E::Kernel>,
        ran: E::Ran,
        effects: &mut E,
    ) -> Stage<E> {
        let (verdict, kernel) = match (self.stop, kernel) {
            (Stop::No, Some(kernel)) => (Verdict::AsReported, Some(kernel)),
            (Stop::No, None) => (Verdict::Crashed, None),
            (Stop::Interrupted(why), Some(kernel)) => (Verdict::Interrupted(why), Some(kernel)),
            (Stop::Interrupted(why), None) => (Verdict::Killed(why), None),
            // It ended by itself in the very moment; the kill is on its way all the same.
            (Stop::Killed(why), _) => (Verdict::Killed(why), None),
        };
        let saving = effects.save(sandbox, Some(&mut self.execution));
        let ended = Ended {
            execution: self.execution,
            ran,
            verdict,
        };
        Stage::Saving(Saving {
            after: Some(ended),
            kernel,
            saving,
        })
    }
}

fn on_opening<E: Effects>(opening: E::Opening, event: Progress<E>, effects: &mut E) -> Phase<E> {
    match event {
        Progress::Opened(opened) => {
            let (sandbox, kernel) = effects.opened(opening, opened);
            at_rest(sandbox, Some(kernel), effects)
        }
        Progress::Failed(fault) => {
            effects.not_opened(opening, &fault);
            Phase::Ending(Ending::broken(fault, Left::Nothing))
        }
        // Executions wait for the sandbox, and nothing can have happened in it yet.
        Progress::Restarted(_)
        | Progress::Queued
        | Progress::Finished(..)
        | Progress::NotBegun(..)
        | Progress::DiedWith(_)
        | Progress::Died
        | Progress::Saved(_)
        | Progress::NotSaved(_)
        | Progress::Unkeepable(_)
        | Progress::Deadline
        | Progress::Cancel
        | Progress::GraceOver
        | Progress::Expired
        | Progress::HandOver => Phase::Opening(opening),
    }
}

/// Nothing runs and all is saved: the next execution, or none, or another kernel first.
fn at_rest<E: Effects>(
    mut sandbox: E::Sandbox,
    kernel: Option<E::Kernel>,
    effects: &mut E,
) -> Phase<E> {
    let Some(kernel) = kernel else {
        let restart = effects.restart(&mut sandbox);
        return Phase::Open(sandbox, Stage::Restarting(restart));
    };
    let Some(waiting) = effects.next() else {
        return Phase::Open(sandbox, Stage::Idle(kernel));
    };
    let (execution, cell) = effects.run(&mut sandbox, kernel, waiting);
    let running = Running {
        execution,
        cell,
        stop: Stop::No,
    };
    Phase::Open(sandbox, Stage::Running(running))
}

fn on_open<E: Effects>(
    mut sandbox: E::Sandbox,
    stage: Stage<E>,
    event: Progress<E>,
    effects: &mut E,
) -> Phase<E> {
    let end = |why, sandbox, stage| Phase::Ending(Ending::new(why, Left::Open(sandbox, stage)));
    match (stage, event) {
        (Stage::Idle(kernel), Progress::Queued) => at_rest(sandbox, Some(kernel), effects),
        (Stage::Idle(_), Progress::Died) => {
            effects.note_loss();
            at_rest(sandbox, None, effects)
        }
        // Only a session at rest expires or moves; the actor asks again.
        (stage @ (Stage::Idle(_) | Stage::Unsaved(_)), Progress::Expired) => {
            end(SessionEnd::Expired, sandbox, stage)
        }
        (stage @ (Stage::Idle(_) | Stage::Unsaved(_)), Progress::HandOver) => {
            end(SessionEnd::HandedOver, sandbox, stage)
        }
        (Stage::Restarting(_), Progress::Restarted(kernel)) => {
            at_rest(sandbox, Some(kernel), effects)
        }
        (Stage::Restarting(_), Progress::Failed(fault)) => {
            Phase::Ending(Ending::broken(fault, Left::Bare(sandbox)))
        }
        (Stage::Running(running), Progress::NotBegun(kernel, fault)) => {
            effects.refuse(running.execution, fault);
            end(SessionEnd::Fenced, sandbox, Stage::Idle(kernel))
        }
        (Stage::Running(running), event) => on_running(sandbox, running, event, effects),
        (Stage::Saving(saving), event) => on_saving(sandbox, saving, event, effects),
        (Stage::Unsaved(kernel), Progress::Queued) => {
            let saving = Saving {
                after: None,
                kernel,
                saving: effects.save(&mut sandbox, None),
            };
            Phase::Open(sandbox, Stage::Saving(saving))
        }
        (Stage::Unsaved(Some(_)), Progress::Died) => {
            effects.note_loss();
            Phase::Open(sandbox, Stage::Unsaved(None))
        }
        // Executions wait for the kernel that is on its way, timers and cancels come after what they were about, and
        // a kernel that is gone or not there yet reports nothing.
        (
            stage @ (Stage::Idle(_) | Stage::Unsaved(_) | Stage::Restarting(_)),
            Progress::Opened(_)
            | Progress::Restarted(_)
            | Progress::Failed(_)
            | Progress::Queued
            | Progress::Finished(..)
            | Progress::NotBegun(..)
            | Progress::DiedWith(_)
            | Progress::Died
            | Progress::Saved(_)
            | Progress::NotSaved(_)
            | Progress::Unkeepable(_)
            | Progress::Deadline
            | Progress::Cancel
            | Progress::GraceOver
            | Progress::Expired
            | Progress::HandOver,
        ) => Phase::Open(sandbox, stage),
    }
}

fn on_running<E: Effects>(
    mut sandbox: E::Sandbox,
    mut running: Running<E>,
    event: Progress<E>,
    effects: &mut E,
) -> Phase<E> {
    let stage = match (running.stop, event) {
        (_, Progress::Finished(kernel, ran)) => {
            running.save(&mut sandbox, Some(kernel), ran, effects)
        }
        (_, Progress::DiedWith(ran)) => running.save(&mut sandbox, None, ran, effects),
        // A cell that is being interrupted keeps its first reason.
        (Stop::No, Progress::Deadline) => running.interrupt(InterruptReason::Deadline, effects),
        (Stop::No, Progress::Cancel) => running.interrupt(InterruptReason::Cancel, effects),
        (Stop::Interrupted(why), Progress::GraceOver) => {
            running.stop = Stop::Killed(why);
            effects.kill(&mut running.execution);
            Stage::Running(running)
        }
        // The next waits, and only a session at rest expires or moves; the actor asks again.
        (
            Stop::No | Stop::Interrupted(_) | Stop::Killed(_),
            Progress::Opened(_)
            | Progress::Restarted(_)
            | Progress::Failed(_)
            | Progress::Queued
            | Progress::NotBegun(..)
            | Progress::Died
            | Progress::Saved(_)
            | Progress::NotSaved(_)
            | Progress::Unkeepable(_)
            | Progress::Deadline
            | Progress::Cancel
            | Progress::GraceOver
            | Progress::Expired
            | Progress::HandOver,
        ) => Stage::Running(running),
    };
    Phase::Open(sandbox, stage)
}

fn on_saving<E: Effects>(
    mut sandbox: E::Sandbox,
    mut saving: Saving<E>,
    event: Progress<E>,
    effects: &mut E,
) -> Phase<E> {
    match event {
        Progress::Saved(saved) => {
            if let Some(ended) = saving.after {
                effects.answer(&mut sandbox, ended, saved);
            }
            at_rest(sandbox, saving.kernel, effects)
        }
        Progress::NotSaved(fault) => {
            if let Some(ended) = saving.after {
                effects.answer_unsaved(ended, fault);
            }
            effects.refuse_waiting();
            Phase::Open(sandbox, Stage::Unsaved(saving.kernel))
        }
        Progress::Unkeepable(fault) => {
            if let Some(ended) = saving.after {
                effects.answer_unsaved(ended, fault);
            }
            at_rest(sandbox, saving.kernel, effects)
        }
        Progress::Died => {
            if saving.kernel.take().is_some() {
                effects.note_loss();
            }
            Phase::Open(sandbox, Stage::Saving(saving))
        }
        // The next waits, timers and cancels come after what they were about, and only a session at rest expires or
        // moves.
        Progress::Opened(_)
        | Progress::Restarted(_)
        | Progress::Failed(_)
        | Progress::Queued
        | Progress::Finished(..)
        | Progress::NotBegun(..)
        | Progress::DiedWith(_)
        | Progress::Deadline
        | Progress::Cancel
        | Progress::GraceOver
        | Progress::Expired
        | Progress::HandOver => Phase::Open(sandbox, Stage::Saving(saving)),
    }
}

#[cfg(test)]
#[path = "machine/tests.rs"]
mod tests;
