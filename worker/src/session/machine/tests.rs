use proptest::prelude::*;

use super::*;

const EVENTS: [Event; 16] = [
    Event::Ready,
    Event::Failed,
    Event::Queued,
    Event::Finished,
    Event::Died,
    Event::Saved,
    Event::NotSaved,
    Event::Unkeepable,
    Event::Deadline,
    Event::Cancel,
    Event::GraceOver,
    Event::Expired,
    Event::Stop,
    Event::HandOver,
    Event::LeaseLost,
    Event::DiskFull,
];

/// Steps through events, none of which may be followed by an execution that waits.
fn walk(from: State, events: &[Event]) -> (State, Vec<Action>) {
    events
        .iter()
        .fold((from, vec![]), |(state, _), event| on(state, *event, false))
}

#[test]
fn a_cell_runs_is_saved_and_answered_and_the_session_waits_for_the_next() {
    let (state, actions) = on(State::Idle, Event::Queued, true);
    assert_eq!((state, actions), (State::Running, vec![Action::RunNext]));
    let (state, actions) = on(state, Event::Finished, false);
    assert_eq!(actions, vec![Action::Save]);
    let answered = vec![Action::Answer(Verdict::AsReported)];
    assert_eq!(on(state, Event::Saved, false), (State::Idle, answered));
}

#[test]
fn a_cell_that_obeys_the_interrupt_keeps_its_variables() {
    let (state, actions) = on(State::Running, Event::Deadline, false);
    assert_eq!(actions, vec![Action::Interrupt]);
    let (state, actions) = walk(state, &[Event::Finished, Event::Saved]);
    assert_eq!(state, State::Idle);
    assert_eq!(
        actions,
        vec![Action::Answer(Verdict::Interrupted(
            InterruptReason::Deadline
        ))]
    );
}

#[test]
fn a_cell_that_ignores_the_interrupt_is_killed_saved_and_the_kernel_restarted() {
    let (state, actions) = walk(State::Running, &[Event::Deadline, Event::GraceOver]);
    assert_eq!(actions, vec![Action::KillKernel]);
    let (state, actions) = on(state, Event::Died, true);
    assert_eq!(actions, vec![Action::Save]);
    let (state, actions) = on(state, Event::Saved, true);
    assert_eq!(state, State::Restarting);
    assert_eq!(
        actions,
        vec![
            Action::Answer(Verdict::Killed(InterruptReason::Deadline)),
            Action::Restart
        ]
    );
    assert_eq!(
        on(state, Event::Ready, true),
        (State::Running, vec![Action::RunNext])
    );
}

#[test]
fn a_session_that_fills_the_disk_ends_at_once_but_for_files_that_are_being_saved() {
    let end = SessionEnd::DiskFull;
    for state in [
        State::Idle,
        State::Running,
        State::Killing(InterruptReason::Cancel),
    ] {
        let (ended, actions) = on(state, Event::DiskFull, true);
        assert_eq!(ended, State::Ending(end));
        assert_eq!(actions, vec![Action::RefuseAll, Action::TearDown(end)]);
    }
    let (saving, _) = on(State::Running, Event::Finished, false);
    assert_eq!(on(saving, Event::DiskFull, false), (saving, vec![]));
    let (saved, _) = on(saving, Event::Saved, false);
    assert_eq!(on(saved, Event::DiskFull, false).0, State::Ending(end));
}

#[test]
fn a_kernel_that_dies_while_its_files_are_saved_is_missed_by_the_next_caller() {
    let (state, actions) = walk(State::Running, &[Event::Finished, Event::Died]);
    assert_eq!(actions, vec![Action::NoteLoss]);
    let (state, actions) = on(state, Event::Saved, true);
    assert_eq!(state, State::Restarting);
    let expected = vec![Action::Answer(Verdict::AsReported), Action::Restart];
    assert_eq!(actions, expected);
}

#[test]
fn no_cell_runs_before_the_files_of_the_last_are_saved() {
    let (state, actions) = walk(State::Running, &[Event::Finished, Event::NotSaved]);
    assert_eq!(state, State::Unsaved(Kernel::Alive));
    assert_eq!(actions, vec![Action::AnswerUnsaved, Action::RefuseWaiting]);
    let (state, actions) = on(state, Event::Queued, true);
    assert_eq!(actions, vec![Action::Save]);
    let (again, actions) = on(state, Event::NotSaved, true);
    assert_eq!(again, State::Unsaved(Kernel::Alive));
    assert_eq!(actions, vec![Action::RefuseWaiting]);
    assert_eq!(
        on(state, Event::Saved, true),
        (State::Running, vec![Action::RunNext])
    );
}

#[test]
fn code_runs_that_may_make_room_for_what_cannot_be_kept() {
    let (saving, _) = on(State::Running, Event::Finished, false);
    let answered = vec![Action::AnswerUnsaved];
    let refused = on(saving, Event::Unkeepable, false);
    assert_eq!(refused, (State::Idle, answered.clone()));
    let next = [answered, vec![Action::RunNext]].concat();
    assert_eq!(on(saving, Event::Unkeepable, true), (State::Running, next));
    // The store came back, and this is what it was to take.
    let (saving, _) = on(State::Unsaved(Kernel::Alive), Event::Queued, true);
    let runs = (State::Running, vec![Action::RunNext]);
    assert_eq!(on(saving, Event::Unkeepable, true), runs);
    let (saving, _) = on(State::Unsaved(Kernel::Dead), Event::Queued, true);
    let restarts = (State::Restarting, vec![Action::Restart]);
    assert_eq!(on(saving, Event::Unkeepable, true), restarts);
}

#[test]
fn only_a_session_at_rest_expires_or_moves() {
    for (event, why) in [
        (Event::Expired, SessionEnd::Expired),
        (Event::HandOver, SessionEnd::HandedOver),
    ] {
        assert_eq!(on(State::Running, event, false).0, State::Running);
        assert_eq!(on(State::Idle, event, false).0, State::Ending(why));
    }
}

fn is_busy(state: State) -> bool {
    matches!(
        state,
        State::Running | State::Interrupted(_) | State::Killing(_) | State::Saving(Some(_), _)
    )
}

proptest! {
    /// Every execution that was handed to the kernel is answered or refused exactly once, and with
    /// success only when its files are saved.
    #[test]
    fn no_execution_is_forgotten_or_answered_twice_or_unsaved(
        events in proptest::collection::vec((0..EVENTS.len(), any::<bool>()), 0..80)
    ) {
        let (mut state, mut running) = (State::Starting, false);
        for (index, waiting) in events {
            let (before, event) = (state, EVENTS[index]);
            let (after, actions) = on(state, event, waiting);
            for action in actions {
                match action {
                    Action::RunNext => {
                        prop_assert!(!running && waiting, "{before:?}");
                        running = true;
                    }
                    Action::Answer(_) => {
                        prop_assert!(running && event == Event::Saved, "{before:?}");
                        running = false;
                    }
                    Action::AnswerUnsaved => {
                        let unsaved = matches!(event, Event::NotSaved | Event::Unkeepable);
                        prop_assert!(running && unsaved, "{before:?}");
                        running = false;
                    }
                    Action::RefuseAll => running = false,
                    Action::Interrupt | Action::KillKernel => prop_assert!(running),
                    Action::Save => prop_assert!(matches!(after, State::Saving(..))),
                    Action::NoteLoss
                    | Action::RefuseWaiting
                    | Action::Restart
                    | Action::TearDown(_) => {}
                }
            }
            state = after;
            prop_assert_eq!(is_busy(state), running, "{:?}", state);
        }
    }

    /// After the end nothing is done any more, whatever comes.
    #[test]
    fn an_ended_session_stays_ended(index in 0..EVENTS.len(), waiting in any::<bool>()) {
        let all = [SessionEnd::Expired, SessionEnd::Stopped, SessionEnd::Fenced, SessionEnd::HandedOver, SessionEnd::Broken];
        for why in all {
            let ended = (State::Ending(why), vec![]);
            prop_assert_eq!(on(State::Ending(why), EVENTS[index], waiting), ended);
        }
    }

    /// Without a lease nothing is saved: a lost one tears down as fenced from every living state.
    #[test]
    fn a_fenced_session_never_saves(
        events in proptest::collection::vec((0..EVENTS.len(), any::<bool>()), 0..20),
        later in proptest::collection::vec((0..EVENTS.len(), any::<bool>()), 0..20),
    ) {
        let step = |state, (index, waiting): &(usize, bool)| on(state, EVENTS[*index], *waiting).0;
        let mut state = events.iter().fold(State::Starting, step);
        let was_ending = matches!(state, State::Ending(_));
        let (fenced, actions) = on(state, Event::LeaseLost, true);
        if !was_ending {
            prop_assert_eq!(fenced, State::Ending(SessionEnd::Fenced));
            prop_assert!(actions.contains(&Action::TearDown(SessionEnd::Fenced)));
        }
        state = fenced;
        for (index, waiting) in later {
            let (after, actions) = on(state, EVENTS[index], waiting);
            prop_assert!(actions.is_empty());
            state = after;
        }
    }
}
