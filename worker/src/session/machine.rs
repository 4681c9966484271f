//! The life of a session as a pure function: `(State, Event) -> (State, Actions)`.
//!
//! ```text
//!             Ready               Run                 Deadline/Cancel/Stop
//!  Starting ─────────> Idle ─────────────> Running ───────────────────────> Interrupted
//!     │ Failed          │ ^  <───────────────┘ Finished                       │      │
//!     │                 │ └───────────── Finished ────────────────────────────┘      │ GraceOver
//!     │                 │ Died                │ Died                                 v
//!     │                 └────> Restarting <───┴──────────── Died ─────────────── Killing
//!     │                            │ Ready → Idle
//!     v     Expired/Stop/Lost from everywhere
//!   Ending <───────────────────────┘
//! ```
//!
//! Nothing here knows time, processes or the bus: the actor performs the actions.

/// Why a running cell is being interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time is over.
    Deadline,
    /// Its caller cancelled it or hung up.
    Cancel,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody used it for its pool's cooldown.
    Expired,
    /// A caller or the worker's own end asked for it.
    Stopped,
    /// Another worker owns it now. Nothing may be written for it any more.
    Fenced,
    /// Its sandbox could not be made or kept.
    Broken,
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
    Interrupted(Why),
    /// The cell ignored the interrupt and its kernel was killed.
    Killing(Why),
    /// A new kernel is on its way into the same sandbox.
    Restarting,
    /// Requests are refused, the sandbox goes, then lease and slot.
    Ending(End),
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
    /// The lease belongs to someone else.
    LeaseLost,
}

/// How the actor answers the execution that just ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the kernel reported it.
    AsReported,
    /// It was interrupted; the variables are kept.
    Interrupted(Why),
    /// It was interrupted and its kernel killed; the variables are gone.
    Killed(Why),
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
    /// Answer the execution that ran.
    Answer(Verdict),
    /// Remember to tell the next caller that the variables went between executions.
    NoteLoss,
    /// Clear the sandbox and join a new kernel.
    Restart,
    /// Refuse the running and the waiting executions, and leave the bus.
    RefuseAll,
    /// Kill and remove the sandbox, then give lease and slot back unless fenced.
    TearDown(End),
}

/// The next state and what to do on the way there.
#[must_use]
pub fn on(state: State, event: Event, waiting: bool) -> (State, Vec<Action>) {
    use Action::{Answer, Interrupt, KillKernel, NoteLoss, RefuseAll, Restart, RunNext, TearDown};
    use Event::{
        Cancel, Deadline, Died, Expired, Failed, Finished, GraceOver, LeaseLost, Queued, Ready,
        Stop,
    };
    use State::{Ending, Idle, Interrupted, Killing, Restarting, Running, Starting};

    let end = |why| (Ending(why), vec![RefuseAll, TearDown(why)]);
    let next = || {
        if waiting {
            (Running, vec![RunNext])
        } else {
            (Idle, vec![])
        }
    };
    let answered = |verdict| {
        let (state, run) = next();
        (state, [vec![Answer(verdict)], run].concat())
    };
    match (state, event) {
        // An ending session hears nothing any more.
        (Ending(why), _) => (Ending(why), vec![]),
        (_, LeaseLost) => end(End::Fenced),
        (_, Stop) => end(End::Stopped),

        (Starting | Restarting, Ready) => next(),
        (Starting | Restarting, Failed) => end(End::Broken),
        (Starting | Restarting, Queued) => (state, vec![]),

        (Idle, Queued) => next(),
        (Idle, Died) => (Restarting, vec![NoteLoss, Restart]),
        (Idle, Expired) => end(End::Expired),

        (Running, Queued) => (Running, vec![]),
        (Running, Finished) => answered(Verdict::AsReported),
        (Running, Died) => (Restarting, vec![Answer(Verdict::Crashed), Restart]),
        (Running, Deadline) => (Interrupted(Why::Deadline), vec![Interrupt]),
        (Running, Cancel) => (Interrupted(Why::Cancel), vec![Interrupt]),

        (Interrupted(_), Queued) => (state, vec![]),
        (Interrupted(why), Finished) => answered(Verdict::Interrupted(why)),
        (Interrupted(why), Died) => (Restarting, vec![Answer(Verdict::Killed(why)), Restart]),
        (Interrupted(why), GraceOver) => (Killing(why), vec![KillKernel]),
        // A cell that is being interrupted keeps its first reason.
        (Interrupted(_), Deadline | Cancel) => (state, vec![]),

        (Killing(_), Queued) => (state, vec![]),
        // It ended by itself in the very moment; the kill is on its way all the same.
        (Killing(why), Finished | Died) => {
            (Restarting, vec![Answer(Verdict::Killed(why)), Restart])
        }
        (Killing(_), Deadline | Cancel | GraceOver) => (state, vec![]),

        // Timers and cancels that come after what they were about.
        (Starting | Idle | Restarting, Deadline | Cancel | GraceOver) => (state, vec![]),
        (Running, GraceOver) => (state, vec![]),
        // Only an idle session expires.
        (Starting | Running | Interrupted(_) | Killing(_) | Restarting, Expired) => (state, vec![]),
        // A kernel that is gone or not there yet reports nothing.
        (Starting | Restarting, Finished | Died) => (state, vec![]),
        (Idle, Finished) => (state, vec![]),
        // Only a kernel on its way becomes ready or fails to.
        (Idle | Running | Interrupted(_) | Killing(_), Ready | Failed) => (state, vec![]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 11] = [
        Event::Ready,
        Event::Failed,
        Event::Queued,
        Event::Finished,
        Event::Died,
        Event::Deadline,
        Event::Cancel,
        Event::GraceOver,
        Event::Expired,
        Event::Stop,
        Event::LeaseLost,
    ];

    #[test]
    fn a_cell_runs_and_the_session_waits_for_the_next() {
        let (state, actions) = on(State::Idle, Event::Queued, true);
        assert_eq!((state, actions), (State::Running, vec![Action::RunNext]));
        let (state, actions) = on(state, Event::Finished, false);
        assert_eq!(
            (state, actions),
            (State::Idle, vec![Action::Answer(Verdict::AsReported)])
        );
    }

    #[test]
    fn a_cell_that_obeys_the_interrupt_keeps_its_variables() {
        let (state, actions) = on(State::Running, Event::Deadline, false);
        assert_eq!(actions, vec![Action::Interrupt]);
        let (state, actions) = on(state, Event::Finished, false);
        assert_eq!(state, State::Idle);
        assert_eq!(
            actions,
            vec![Action::Answer(Verdict::Interrupted(Why::Deadline))]
        );
    }

    #[test]
    fn a_cell_that_ignores_the_interrupt_is_killed_and_the_kernel_restarted() {
        let (state, _) = on(State::Running, Event::Deadline, false);
        let (state, actions) = on(state, Event::GraceOver, false);
        assert_eq!(actions, vec![Action::KillKernel]);
        let (state, actions) = on(state, Event::Died, true);
        assert_eq!(state, State::Restarting);
        assert_eq!(
            actions,
            vec![
                Action::Answer(Verdict::Killed(Why::Deadline)),
                Action::Restart
            ]
        );
        assert_eq!(
            on(state, Event::Ready, true),
            (State::Running, vec![Action::RunNext])
        );
    }

    #[test]
    fn only_an_idle_session_expires() {
        assert_eq!(on(State::Running, Event::Expired, false).0, State::Running);
        assert_eq!(
            on(State::Idle, Event::Expired, false).0,
            State::Ending(End::Expired)
        );
    }

    proptest! {
        /// Every execution that was handed to the kernel is answered or refused exactly once.
        #[test]
        fn no_execution_is_forgotten_or_answered_twice(
            events in proptest::collection::vec((0..EVENTS.len(), any::<bool>()), 0..60)
        ) {
            let (mut state, mut running) = (State::Starting, false);
            for (index, waiting) in events {
                let before = state;
                let (after, actions) = on(state, EVENTS[index], waiting);
                for action in actions {
                    match action {
                        Action::RunNext => {
                            prop_assert!(!running && waiting, "{before:?}");
                            running = true;
                        }
                        Action::Answer(_) => {
                            prop_assert!(running, "{before:?}");
                            running = false;
                        }
                        Action::RefuseAll => running = false,
                        Action::Interrupt | Action::KillKernel => prop_assert!(running),
                        Action::NoteLoss | Action::Restart | Action::TearDown(_) => {}
                    }
                }
                state = after;
                let busy = matches!(
                    state,
                    State::Running | State::Interrupted(_) | State::Killing(_)
                );
                prop_assert_eq!(busy, running, "{:?}", state);
            }
        }

        /// After the end nothing is done any more, whatever comes.
        #[test]
        fn an_ended_session_stays_ended(index in 0..EVENTS.len(), waiting in any::<bool>()) {
            for why in [End::Expired, End::Stopped, End::Fenced, End::Broken] {
                let ended = (State::Ending(why), vec![]);
                prop_assert_eq!(on(State::Ending(why), EVENTS[index], waiting), ended);
            }
        }

        /// A lost lease tears down as fenced from every living state, so nothing is written after.
        #[test]
        fn a_fenced_session_is_torn_down_as_fenced(index in 0..EVENTS.len()) {
            let (state, _) = on(State::Idle, EVENTS[index], true);
            if !matches!(state, State::Ending(_)) {
                let (state, actions) = on(state, Event::LeaseLost, true);
                prop_assert_eq!(state, State::Ending(End::Fenced));
                prop_assert!(actions.contains(&Action::TearDown(End::Fenced)));
            }
        }
    }
}
