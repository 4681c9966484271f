//! The life of a session as a pure function: `(State, Event) -> (State, Actions)`.
//!
//! ```text
//!            Ready         run               Deadline/Cancel               GraceOver
//!  Starting ──────> Idle ───────> Running ───────────────────> Interrupted ─────────> Killing
//!                    ^ │             │ Finished/Died                │ Finished/Died      │
//!              Saved │ │ Died        v                              v                    v
//!     (kernel alive) │ │           Saving <──────────────────────────────────────────────┘
//!                    │ v             │ │
//!                 Restarting <───────┘ └──────> Unsaved   the object store did not take the files:
//!                 (kernel dead)        NotSaved          the next execution waits for it first
//!
//!  `Unkeepable` leads on as `Saved` does: only code can make room, so the next execution runs
//!
//!  Ending   after Expired, Stop, HandOver, LeaseLost, DiskFull or Failed
//! ```
//!
//! An execution is answered when the files that it left are saved, never before. Nothing here knows
//! time, processes, the store or the bus: the actor performs the actions.

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

/// Whether there is a kernel that could run a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// There is.
    Alive,
    /// It died, and another must be joined.
    Dead,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its sandbox is on its way; executions wait.
    Starting,
    /// Its kernel waits for a cell.
    Idle,
    /// Its kernel runs a cell.
    Running,
    /// The cell was interrupted and has a moment to end.
    Interrupted(InterruptReason),
    /// The cell ignored the interrupt and its kernel was killed.
    Killing(InterruptReason),
    /// The cell ended, and its files are on their way to the object store.
    Saving(Option<Verdict>, Kernel),
    /// The object store did not take the files. No cell runs before it does.
    Unsaved(Kernel),
    /// A new kernel is on its way into the same sandbox.
    Restarting,
    /// Requests are refused, the sandbox goes, then lease and slot.
    Ending(SessionEnd),
}

impl State {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Interrupted(_) => "interrupted",
            Self::Killing(_) => "killing",
            Self::Saving(..) => "saving",
            Self::Unsaved(_) => "unsaved",
            Self::Restarting => "restarting",
            Self::Ending(_) => "ending",
        }
    }
}

/// What happens to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The kernel waits for its first cell.
    Ready,
    /// No kernel could be had.
    Failed,
    /// An execution was put into the queue.
    Queued,
    /// The kernel reported the end of the cell.
    Finished,
    /// The kernel's process ended or broke its protocol.
    Died,
    /// The files are saved.
    Saved,
    /// They are not, and were not for as long as is worth waiting.
    NotSaved,
    /// They are not, and cannot be before the session's code has removed some of them.
    Unkeepable,
    /// The cell's time is over.
    Deadline,
    /// The running cell's caller cancelled it.
    Cancel,
    /// The moment after an interrupt is over.
    GraceOver,
    /// Nobody used the session for its cooldown.
    Expired,
    /// Someone asked for the session's end.
    Stop,
    /// The worker ends, and nothing holds the session up.
    HandOver,
    /// The lease belongs to someone else.
    LeaseLost,
    /// The session filled the worker's disk.
    DiskFull,
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

/// What the actor does next, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand the oldest waiting execution, if any, to the kernel (it reports `Running` by itself).
    RunNext,
    /// SIGINT to the kernel and its foreground group; arm the grace timer.
    Interrupt,
    /// SIGKILL to the kernel.
    KillKernel,
    /// Bring what changed in `/mnt/data` to the object store.
    Save,
    /// Answer the execution that ran; its files are saved.
    Answer(Verdict),
    /// Answer the execution that ran: its files are not saved.
    AnswerUnsaved,
    /// Refuse the executions that wait: they did not run.
    RefuseWaiting,
    /// Remember to tell the next caller that the variables went between executions.
    NoteLoss,
    /// Clear the sandbox and join a new kernel.
    Restart,
    /// Refuse the running and the waiting executions, and leave the bus.
    RefuseAll,
    /// Kill and remove the sandbox, then give lease and slot back unless fenced.
    TearDown(SessionEnd),
}

/// The next state and what to do on the way there. `waiting` says whether an execution waits that may
/// run here.
#[must_use]
#[expect(
    clippy::too_many_lines,
    reason = "one table: every state has its answer to every event here"
)]
pub fn on(state: State, event: Event, waiting: bool) -> (State, Vec<Action>) {
    use Action::{
        Answer, AnswerUnsaved, Interrupt, KillKernel, NoteLoss, RefuseAll, RefuseWaiting, Restart,
        RunNext, Save, TearDown,
    };
    use Event::{
        Cancel, Deadline, Died, DiskFull, Expired, Failed, Finished, GraceOver, HandOver,
        LeaseLost, NotSaved, Queued, Ready, Saved, Stop, Unkeepable,
    };
    use Kernel::{Alive, Dead};
    use State::{
        Ending, Idle, Interrupted, Killing, Restarting, Running, Saving, Starting, Unsaved,
    };

    let end = |why| (Ending(why), vec![RefuseAll, TearDown(why)]);
    let next = |before: Vec<Action>, kernel| match (kernel, waiting) {
        (Alive, true) => (Running, [before, vec![RunNext]].concat()),
        (Alive, false) => (Idle, before),
        (Dead, _) => (Restarting, [before, vec![Restart]].concat()),
    };
    let save = |verdict, kernel| (Saving(Some(verdict), kernel), vec![Save]);
    match (state, event) {
        // An ending session hears nothing any more.
        (Ending(why), _) => (Ending(why), vec![]),
        (_, LeaseLost) => end(SessionEnd::Fenced),
        (_, Stop) => end(SessionEnd::Stopped),
        // What is on its way to the store needs no more of the disk; the actor tells it again.
        (Saving(..), DiskFull) => (state, vec![]),
        (_, DiskFull) => end(SessionEnd::DiskFull),

        (Starting | Restarting, Ready) => next(vec![], Alive),
        (Starting | Restarting, Failed) => end(SessionEnd::Broken),
        (Starting | Restarting, Queued) => (state, vec![]),

        (Idle, Queued) => next(vec![], Alive),
        (Idle, Died) => (Restarting, vec![NoteLoss, Restart]),
        (Idle | Unsaved(_), Expired) => end(SessionEnd::Expired),
        (Idle | Unsaved(_), HandOver) => end(SessionEnd::HandedOver),

        (Running, Queued) => (Running, vec![]),
        (Running, Finished) => save(Verdict::AsReported, Alive),
        (Running, Died) => save(Verdict::Crashed, Dead),
        (Running, Deadline) => (Interrupted(InterruptReason::Deadline), vec![Interrupt]),
        (Running, Cancel) => (Interrupted(InterruptReason::Cancel), vec![Interrupt]),

        (Interrupted(_), Queued) => (state, vec![]),
        (Interrupted(why), Finished) => save(Verdict::Interrupted(why), Alive),
        (Interrupted(why), Died) => save(Verdict::Killed(why), Dead),
        (Interrupted(why), GraceOver) => (Killing(why), vec![KillKernel]),
        // A cell that is being interrupted keeps its first reason.
        (Interrupted(_), Deadline | Cancel) => (state, vec![]),

        (Killing(_), Queued) => (state, vec![]),
        // It ended by itself in the very moment; the kill is on its way all the same.
        (Killing(why), Finished | Died) => save(Verdict::Killed(why), Dead),
        (Killing(_), Deadline | Cancel | GraceOver) => (state, vec![]),

        (Saving(Some(verdict), kernel), Saved) => next(vec![Answer(verdict)], kernel),
        (Saving(None, kernel), Saved) => next(vec![], kernel),
        (Saving(Some(_), kernel), NotSaved) => {
            (Unsaved(kernel), vec![AnswerUnsaved, RefuseWaiting])
        }
        (Saving(None, kernel), NotSaved) => (Unsaved(kernel), vec![RefuseWaiting]),
        (Saving(Some(_), kernel), Unkeepable) => next(vec![AnswerUnsaved], kernel),
        (Saving(None, kernel), Unkeepable) => next(vec![], kernel),
        (Saving(verdict, Alive), Died) => (Saving(verdict, Dead), vec![NoteLoss]),
        (Saving(..), Queued) => (state, vec![]),

        (Unsaved(kernel), Queued) => (Saving(None, kernel), vec![Save]),
        (Unsaved(Alive), Died) => (Unsaved(Dead), vec![NoteLoss]),

        // Timers and cancels that come after what they were about.
        (Starting | Idle | Saving(..) | Unsaved(_) | Restarting, Deadline | Cancel | GraceOver) => {
            (state, vec![])
        }
        (Running, GraceOver) => (state, vec![]),
        // Only a session at rest expires or moves; the actor asks again.
        (
            Starting | Running | Interrupted(_) | Killing(_) | Saving(..) | Restarting,
            Expired | HandOver,
        ) => (state, vec![]),
        // A kernel that is gone or not there yet reports nothing.
        (Starting | Restarting | Saving(_, Dead) | Unsaved(Dead), Finished | Died) => {
            (state, vec![])
        }
        (Idle | Saving(_, Alive) | Unsaved(Alive), Finished) => (state, vec![]),
        // Only a kernel on its way becomes ready or fails to.
        (
            Idle | Running | Interrupted(_) | Killing(_) | Saving(..) | Unsaved(_),
            Ready | Failed,
        ) => (state, vec![]),
        // Nothing else is being saved.
        (
            Starting | Idle | Running | Interrupted(_) | Killing(_) | Unsaved(_) | Restarting,
            Saved | NotSaved | Unkeepable,
        ) => (state, vec![]),
    }
}

#[cfg(test)]
#[path = "machine/tests.rs"]
mod tests;
