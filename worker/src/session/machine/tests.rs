use proptest::prelude::*;
use proto::fault::FaultCode;

use super::*;

/// A session of numbers: each execution is one, and so is its answer.
#[derive(Debug, Default)]
struct Numbers {
    waiting: Vec<u32>,
    started: Vec<u32>,
    /// In this order.
    did: Vec<Did>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Opened,
    NotOpened,
    Ran(u32),
    Refused(u32),
    Interrupted(u32),
    Killed(u32),
    Save,
    Answered(u32, Verdict),
    AnsweredUnsaved(u32),
    RefusedWaiting,
    NotedLoss,
    Restarted,
}

/// A kernel, a cell at work, a sandbox and so on: that they are there is all that counts.
#[derive(Debug, PartialEq, Eq)]
struct There;

impl Effects for Numbers {
    type Opening = There;
    type Opened = There;
    type Sandbox = There;
    type Kernel = There;
    type Waiting = u32;
    type Execution = u32;
    type Cell = There;
    type Ran = There;
    type Saving = There;
    type Saved = There;
    type Restart = There;
    type Stopper = u32;

    fn opened(&mut self, _: There, _: There) -> (There, There) {
        self.did.push(Did::Opened);
        (There, There)
    }

    fn not_opened(&mut self, _: There, _: &Fault) {
        self.did.push(Did::NotOpened);
    }

    fn next(&mut self) -> Option<u32> {
        self.waiting.pop()
    }

    fn run(&mut self, _: &mut There, _: There, waiting: u32) -> (u32, There) {
        self.started.push(waiting);
        self.did.push(Did::Ran(waiting));
        (waiting, There)
    }

    fn refuse(&mut self, execution: u32, _: Fault) {
        self.did.push(Did::Refused(execution));
    }

    fn interrupt(&mut self, execution: &mut u32) {
        self.did.push(Did::Interrupted(*execution));
    }

    fn kill(&mut self, execution: &mut u32) {
        self.did.push(Did::Killed(*execution));
    }

    fn save(&mut self, _: &mut There, _: Option<&mut u32>) -> There {
        self.did.push(Did::Save);
        There
    }

    fn answer(&mut self, _: &mut There, ended: Ended<Self>, _: There) {
        self.did.push(Did::Answered(ended.execution, ended.verdict));
    }

    fn answer_unsaved(&mut self, ended: Ended<Self>, _: Fault) {
        self.did.push(Did::AnsweredUnsaved(ended.execution));
    }

    fn refuse_waiting(&mut self) {
        self.waiting.clear();
        self.did.push(Did::RefusedWaiting);
    }

    fn note_loss(&mut self) {
        self.did.push(Did::NotedLoss);
    }

    fn restart(&mut self, _: &mut There) -> There {
        self.did.push(Did::Restarted);
        There
    }
}

/// Steps through events; what was done on the way.
fn walk(
    numbers: &mut Numbers,
    phase: Phase<Numbers>,
    events: impl IntoIterator<Item = impl Into<Event<Numbers>>>,
) -> (Phase<Numbers>, Vec<Did>) {
    numbers.did.clear();
    let step = |phase: Phase<Numbers>, event| phase.on(event, numbers);
    let phase = events.into_iter().fold(phase, step);
    (phase, std::mem::take(&mut numbers.did))
}

fn idle() -> Phase<Numbers> {
    Phase::Open(There, Stage::Idle(There))
}

fn running(execution: u32) -> Phase<Numbers> {
    let running = Running {
        execution,
        cell: There,
        stop: Stop::No,
    };
    Phase::Open(There, Stage::Running(running))
}

fn unsaved(kernel: Option<There>) -> Phase<Numbers> {
    Phase::Open(There, Stage::Unsaved(kernel))
}

fn fault() -> Fault {
    Fault::new(FaultCode::StorageUnavailable, "no")
}

fn finished() -> Progress<Numbers> {
    Progress::Finished(There, There)
}

/// Why it ends, if it does.
fn end(phase: &Phase<Numbers>) -> Option<SessionEnd> {
    match phase {
        Phase::Ending(ending) => Some(ending.why),
        Phase::Opening(_) | Phase::Open(..) => None,
    }
}

#[test]
fn a_cell_runs_is_saved_and_answered_and_the_session_waits_for_the_next() {
    let mut numbers = Numbers::default();
    numbers.waiting.push(1);
    let (phase, did) = walk(&mut numbers, idle(), [Progress::Queued]);
    assert_eq!((phase.name(), did), ("running", vec![Did::Ran(1)]));
    let (phase, did) = walk(&mut numbers, phase, [finished()]);
    assert_eq!((phase.name(), did), ("saving", vec![Did::Save]));
    let (phase, did) = walk(&mut numbers, phase, [Progress::Saved(There)]);
    assert_eq!(did, [Did::Answered(1, Verdict::AsReported)]);
    assert_eq!(phase.name(), "idle");
}

#[test]
fn a_cell_that_obeys_the_interrupt_keeps_its_variables() {
    let numbers = &mut Numbers::default();
    let (phase, did) = walk(numbers, running(1), [Progress::Deadline]);
    assert_eq!(
        (phase.name(), did),
        ("interrupted", vec![Did::Interrupted(1)])
    );
    let (phase, did) = walk(numbers, phase, [finished(), Progress::Saved(There)]);
    assert_eq!(phase.name(), "idle");
    let verdict = Verdict::Interrupted(InterruptReason::Deadline);
    assert_eq!(did, [Did::Save, Did::Answered(1, verdict)]);
}

#[test]
fn a_cell_that_is_being_interrupted_keeps_its_first_reason() {
    let numbers = &mut Numbers::default();
    let (phase, did) = walk(numbers, running(1), [Progress::Cancel, Progress::Deadline]);
    assert_eq!(did, [Did::Interrupted(1)]);
    let why = InterruptReason::Cancel;
    assert_eq!(phase.stop(), Some(Stop::Interrupted(why)));
}

#[test]
fn a_cell_that_ignores_the_interrupt_is_killed_saved_and_the_kernel_restarted() {
    let numbers = &mut Numbers::default();
    let (phase, did) = walk(
        numbers,
        running(1),
        [Progress::Deadline, Progress::GraceOver],
    );
    assert_eq!(did, [Did::Interrupted(1), Did::Killed(1)]);
    numbers.waiting.push(2);
    // Whether it died, or ended by itself in that very moment.
    for ended in [Progress::DiedWith(There), finished()] {
        let killed = Running {
            execution: 1,
            cell: There,
            stop: Stop::Killed(InterruptReason::Deadline),
        };
        let killed = Phase::Open(There, Stage::Running(killed));
        let (phase, did) = walk(numbers, killed, [ended, Progress::Saved(There)]);
        assert_eq!(phase.name(), "restarting");
        let verdict = Verdict::Killed(InterruptReason::Deadline);
        let expected = [Did::Save, Did::Answered(1, verdict), Did::Restarted];
        assert_eq!(did, expected);
    }
    assert_eq!(phase.name(), "killing");
    let restarting = Phase::Open(There, Stage::Restarting(There));
    let (phase, did) = walk(numbers, restarting, [Progress::Restarted(There)]);
    assert_eq!((phase.name(), did), ("running", vec![Did::Ran(2)]));
}

#[test]
fn a_session_that_fills_the_disk_ends_at_once_but_for_files_that_are_being_saved() {
    let numbers = &mut Numbers::default();
    for phase in [idle(), running(1), Phase::Opening(There)] {
        let (ended, did) = walk(numbers, phase, [End::DiskFull]);
        assert_eq!(end(&ended), Some(SessionEnd::DiskFull));
        assert_eq!(did, []);
    }
    let (saving, _) = walk(
        numbers,
        running(1),
        [finished().into(), Event::from(End::DiskFull)],
    );
    assert_eq!(saving.name(), "saving");
    let (ended, did) = walk(
        numbers,
        saving,
        [Progress::Saved(There).into(), Event::from(End::DiskFull)],
    );
    assert_eq!(did, [Did::Answered(1, Verdict::AsReported)]);
    assert_eq!(end(&ended), Some(SessionEnd::DiskFull));
}

#[test]
fn a_kernel_that_dies_while_its_files_are_saved_is_missed_by_the_next_caller() {
    let numbers = &mut Numbers::default();
    let (phase, did) = walk(
        numbers,
        running(1),
        [finished(), Progress::Died, Progress::Died],
    );
    assert_eq!(did, [Did::Save, Did::NotedLoss]);
    numbers.waiting.push(2);
    let (phase, did) = walk(numbers, phase, [Progress::Saved(There)]);
    assert_eq!(phase.name(), "restarting");
    let answered = Did::Answered(1, Verdict::AsReported);
    assert_eq!(did, [answered, Did::Restarted]);
    assert_eq!(numbers.waiting, [2], "it waits for the kernel");
}

#[test]
fn no_cell_runs_before_the_files_of_the_last_are_saved() {
    let numbers = &mut Numbers::default();
    numbers.waiting.push(2);
    let (phase, did) = walk(
        numbers,
        running(1),
        [finished(), Progress::NotSaved(fault())],
    );
    assert_eq!(
        did,
        [Did::Save, Did::AnsweredUnsaved(1), Did::RefusedWaiting]
    );
    assert!(phase.is_unsaved());
    numbers.waiting.push(3);
    let (phase, did) = walk(numbers, phase, [Progress::Queued]);
    assert_eq!(did, [Did::Save]);
    let (phase, did) = walk(numbers, phase, [Progress::NotSaved(fault())]);
    assert_eq!(did, [Did::RefusedWaiting]);
    numbers.waiting.push(4);
    let (phase, did) = walk(numbers, phase, [Progress::Queued, Progress::Saved(There)]);
    assert_eq!(
        (phase.name(), did),
        ("running", vec![Did::Save, Did::Ran(4)])
    );
}

#[test]
fn code_runs_that_may_make_room_for_what_cannot_be_kept() {
    let numbers = &mut Numbers::default();
    let (phase, did) = walk(
        numbers,
        running(1),
        [finished(), Progress::Unkeepable(fault())],
    );
    assert_eq!(did, [Did::Save, Did::AnsweredUnsaved(1)]);
    assert_eq!(phase.name(), "idle");
    // The store came back, and this is what it was to take.
    for (kernel, next) in [(Some(There), "running"), (None, "restarting")] {
        numbers.waiting.push(2);
        let events = [Progress::Queued, Progress::Unkeepable(fault())];
        let (phase, _) = walk(numbers, unsaved(kernel), events);
        assert_eq!(phase.name(), next);
    }
}

#[test]
fn only_a_session_at_rest_expires_or_moves() {
    let numbers = &mut Numbers::default();
    for why in [SessionEnd::Expired, SessionEnd::HandedOver] {
        let event = || match why {
            SessionEnd::Expired => Progress::Expired,
            _ => Progress::<Numbers>::HandOver,
        };
        for busy in [
            Phase::Opening(There),
            running(1),
            Phase::Open(There, Stage::Restarting(There)),
        ] {
            let name = busy.name();
            assert_eq!(busy.on(event(), numbers).name(), name);
        }
        for at_rest in [idle(), unsaved(None), unsaved(Some(There))] {
            assert_eq!(end(&at_rest.on(event(), numbers)), Some(why));
        }
    }
}

#[test]
fn whoever_asks_for_the_end_is_kept_until_it_has_come() {
    let numbers = &mut Numbers::default();
    let (phase, _) = walk(numbers, idle(), [End::Stop(1), End::Stop(2)]);
    let Phase::Ending(ending) = phase else {
        panic!("{phase:?}");
    };
    assert_eq!(
        (ending.why, ending.stoppers),
        (SessionEnd::Stopped, vec![1, 2])
    );
}

#[test]
fn a_session_that_turns_out_to_be_anothers_begins_no_code_and_ends() {
    let numbers = &mut Numbers::default();
    for stop in [Stop::No, Stop::Interrupted(InterruptReason::Cancel)] {
        let running = Running {
            execution: 1,
            cell: There,
            stop,
        };
        let running = Phase::Open(There, Stage::Running(running));
        let not_begun = Progress::NotBegun(There, fault());
        let (phase, did) = walk(numbers, running, [not_begun, Progress::Queued]);
        assert_eq!(did, [Did::Refused(1)]);
        assert_eq!(end(&phase), Some(SessionEnd::Fenced));
    }
}

#[test]
fn a_sandbox_that_cannot_be_had_ends_the_session_with_its_reason() {
    let numbers = &mut Numbers::default();
    let (phase, did) = walk(numbers, Phase::Opening(There), [Progress::Failed(fault())]);
    assert_eq!(did, [Did::NotOpened]);
    let restarting = Phase::Open(There, Stage::Restarting(There));
    let (again, did) = walk(numbers, restarting, [Progress::Failed(fault())]);
    assert_eq!(did, []);
    for phase in [phase, again] {
        let Phase::Ending(ending) = phase else {
            panic!("{phase:?}");
        };
        assert_eq!(
            (ending.why, ending.broken),
            (SessionEnd::Broken, Some(fault()))
        );
    }
}

/// The events, by number.
fn event(number: u8) -> Event<Numbers> {
    match number % EVENTS {
        0 => Progress::Opened(There),
        1 => Progress::Restarted(There),
        2 => Progress::Failed(fault()),
        3 | 16 => Progress::Queued,
        4 => finished(),
        5 => Progress::DiedWith(There),
        6 => Progress::Died,
        7 => Progress::Saved(There),
        8 => Progress::NotSaved(fault()),
        9 => Progress::Unkeepable(fault()),
        10 => Progress::Deadline,
        11 => Progress::Cancel,
        12 => Progress::GraceOver,
        14 => Progress::HandOver,
        15 => Progress::Expired,
        13 => return End::DiskFull.into(),
        17 => return End::Stop(0).into(),
        18 => Progress::NotBegun(There, fault()),
        _ => return End::LeaseLost.into(),
    }
    .into()
}

const EVENTS: u8 = 20;

/// The execution that a phase has in its hands, if any.
fn held(phase: &Phase<Numbers>) -> Option<u32> {
    let left = match phase {
        Phase::Ending(ending) => match &ending.left {
            Left::Open(_, stage) => stage.execution(),
            Left::Opening(_) | Left::Bare(_) | Left::Nothing => None,
        },
        phase => phase.execution(),
    };
    left.copied()
}

proptest! {
    /// Every execution that was handed to the kernel is answered exactly once, and with success only when its
    /// files are saved, or is there when the session ends, to be refused.
    #[test]
    fn no_execution_is_forgotten_or_answered_twice_or_unsaved(
        events in proptest::collection::vec((0..EVENTS, any::<bool>()), 0..80)
    ) {
        let mut numbers = Numbers::default();
        let (mut phase, mut named, mut running) = (Phase::Opening(There), 0, None);
        for (number, waits) in events {
            if waits {
                named += 1;
                numbers.waiting.insert(0, named);
            }
            let before = phase.name();
            let (after, did) = walk(&mut numbers, phase, [event(number)]);
            for did in did {
                match did {
                    Did::Ran(execution) => {
                        prop_assert_eq!(running, None, "{} {}", before, number);
                        running = Some(execution);
                    }
                    Did::Answered(execution, _) => {
                        prop_assert!(number == 7, "{} {}", before, number);
                        prop_assert_eq!(running.take(), Some(execution));
                    }
                    Did::AnsweredUnsaved(execution) => {
                        prop_assert!(number == 8 || number == 9, "{} {}", before, number);
                        prop_assert_eq!(running.take(), Some(execution));
                    }
                    Did::Refused(execution) => {
                        prop_assert_eq!(running.take(), Some(execution));
                        prop_assert_eq!(end(&after), Some(SessionEnd::Fenced));
                    }
                    Did::Interrupted(execution) | Did::Killed(execution) => {
                        prop_assert_eq!(running, Some(execution));
                    }
                    Did::Save => prop_assert!(after.is_saving()),
                    Did::Opened | Did::NotOpened | Did::RefusedWaiting | Did::NotedLoss
                    | Did::Restarted => {}
                }
            }
            phase = after;
            prop_assert_eq!(held(&phase), running, "{:?}", phase);
        }
    }

    /// From whatever phase a lease is lost, the session ends as fenced, and nothing is done for it any more.
    #[test]
    fn a_session_that_ends_does_nothing_any_more(
        before in proptest::collection::vec((0..EVENTS, any::<bool>()), 0..20),
        after in proptest::collection::vec(0..EVENTS, 0..20),
    ) {
        let mut numbers = Numbers::default();
        let mut phase = Phase::Opening(There);
        for (number, waits) in before {
            numbers.waiting.extend(waits.then_some(1));
            phase = phase.on(event(number), &mut numbers);
        }
        let ended = end(&phase);
        let (mut phase, did) = walk(&mut numbers, phase, [End::LeaseLost]);
        prop_assert_eq!(did, []);
        let why = ended.unwrap_or(SessionEnd::Fenced);
        prop_assert_eq!(end(&phase), Some(why));
        for number in after {
            let (next, did) = walk(&mut numbers, phase, [event(number)]);
            prop_assert_eq!(did, []);
            prop_assert_eq!(end(&next), Some(why));
            phase = next;
        }
    }
}
