//! Whether what was read from one file can be explained by what was written to it: an exact search
//! over all orders that the times allow.
//!
//! The file is a register with a memory of what is not durable yet. Writes are applied one after the
//! other; readers see the newest, or, where the store answers for an absent owner or after a failover,
//! the last durable one. So the state is the **chain** of values since the durable one:
//!
//! * a write appends its value, at some moment between its sending and its answer;
//! * a read returns the chain's last value, or an earlier one, which then is what is durable: all
//!   before it leave the chain;
//! * the answer to an acknowledged write says that it is durable: all before it leave the chain;
//! * a write without an answer may be applied at any time after it was sent, once, or never. It need
//!   not be tried before a read asks for its value, because being applied later leaves no fewer values
//!   readable.
//!
//! Calls and answers are walked through in the order of their times, with the set of all states that
//! are possible so far ("just-in-time linearisation"). When the set gets empty, nothing explains the
//! last answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What a file holds: a content, or nothing when there is no file.
pub(super) type Value = Option<u32>;

/// Something done to the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) sent_us: u64,
    pub(super) kind: StepKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StepKind {
    /// Acknowledged at this time.
    Write(Value, u64),
    /// Nobody knows.
    MaybeWrite(Value),
    /// Answered at this time.
    Read(Value, u64),
}

/// One possible state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// From the durable value to the newest, with the acknowledged write that each is of.
    chain: Vec<(Value, Option<usize>)>,
    /// Steps that have happened but are not answered yet.
    happened: BTreeSet<usize>,
    /// Writes without an answer that were applied, by value.
    applied: BTreeMap<Value, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    // Of two events at the same time the call is first: that allows more orders.
    Sent(usize),
    Answered(usize),
}

/// Finds the first answer that nothing explains; its place among the steps.
pub(super) fn first_unexplained(steps: &[Step]) -> Option<usize> {
    let mut events: Vec<(u64, Event)> = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        events.push((step.sent_us, Event::Sent(place)));
        match step.kind {
            StepKind::Write(_, at) | StepKind::Read(_, at) => {
                events.push((at, Event::Answered(place)));
            }
            StepKind::MaybeWrite(_) => {}
        }
    }
    events.sort_unstable();
    let mut search = Search {
        steps,
        pending: BTreeSet::new(),
        offered: BTreeMap::new(),
        states: HashSet::from([State {
            chain: vec![(None, None)],
            happened: BTreeSet::new(),
            applied: BTreeMap::new(),
        }]),
    };
    for (_, event) in events {
        match event {
            Event::Sent(place) => search.sent(place),
            Event::Answered(place) => {
                search.answered(place);
                if search.states.is_empty() {
                    return Some(place);
                }
            }
        }
    }
    None
}

struct Search<'a> {
    steps: &'a [Step],
    /// Sent and not answered, but for writes that never will be.
    pending: BTreeSet<usize>,
    /// Writes without an answer that were sent, by value.
    offered: BTreeMap<Value, usize>,
    states: HashSet<State>,
}

impl Search<'_> {
    fn kind(&self, place: usize) -> Option<&StepKind> {
        self.steps.get(place).map(|step| &step.kind)
    }

    fn sent(&mut self, place: usize) {
        match self.kind(place) {
            Some(StepKind::MaybeWrite(value)) => *self.offered.entry(*value).or_default() += 1,
            Some(StepKind::Write(..) | StepKind::Read(..)) => {
                self.pending.insert(place);
                let states = std::mem::take(&mut self.states);
                self.states = states
                    .into_iter()
                    .map(|state| self.at_ease(state))
                    .collect();
            }
            None => {}
        }
    }

    /// Keeps the states in which this step can have happened by now.
    fn answered(&mut self, place: usize) {
        let mut open: Vec<State> = std::mem::take(&mut self.states).into_iter().collect();
        let mut seen: HashSet<State> = open.iter().cloned().collect();
        let mut kept = HashSet::new();
        while let Some(mut state) = open.pop() {
            if state.happened.remove(&place) {
                if let Some(StepKind::Write(..)) = self.kind(place) {
                    state.is_durable(place);
                }
                kept.insert(state);
                continue;
            }
            for next in self.successors(&state) {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        self.pending.remove(&place);
        self.states = kept;
    }

    /// All states that one more pending step leads to.
    fn successors(&self, state: &State) -> Vec<State> {
        let open = self
            .pending
            .iter()
            .filter(|place| !state.happened.contains(place));
        let next = open.flat_map(|&place| match self.kind(place) {
            Some(StepKind::Write(value, _)) => vec![state.write(*value, Some(place), place)],
            Some(StepKind::Read(value, _)) => self.read(state, *value, place),
            Some(StepKind::MaybeWrite(_)) | None => vec![],
        });
        next.map(|state| self.at_ease(state)).collect()
    }

    /// The states that reading this value leads to.
    fn read(&self, state: &State, value: Value, place: usize) -> Vec<State> {
        let mut next = Vec::new();
        if let Some(found) = state.chain.iter().position(|(other, _)| *other == value) {
            let mut seen = state.clone();
            let newest = state
                .chain
                .last()
                .is_some_and(|(newest, _)| *newest == value);
            if !newest {
                seen.chain.drain(..found);
            }
            seen.happened.insert(place);
            next.push(seen);
        }
        let offered = self.offered.get(&value).copied().unwrap_or_default();
        let applied = state.applied.get(&value).copied().unwrap_or_default();
        if applied < offered {
            let mut written = state.write(value, None, place);
            *written.applied.entry(value).or_default() += 1;
            next.push(written);
        }
        next
    }

    /// Lets all pending reads of the newest value happen: nothing is lost by not waiting.
    fn at_ease(&self, mut state: State) -> State {
        let newest = state.chain.last().map(|(value, _)| *value);
        for &place in &self.pending {
            if let Some(StepKind::Read(value, _)) = self.kind(place)
                && Some(*value) == newest
            {
                state.happened.insert(place);
            }
        }
        state
    }
}

impl State {
    /// The state after a write, which the step at `place` is or makes.
    fn write(&self, value: Value, of: Option<usize>, place: usize) -> Self {
        let mut next = self.clone();
        next.chain.push((value, of));
        next.happened.insert(place);
        next
    }

    /// An acknowledged write is durable: what came before it is gone for good.
    fn is_durable(&mut self, write: usize) {
        let place = self.chain.iter().position(|(_, of)| *of == Some(write));
        if let Some(place) = place {
            self.chain.drain(..place);
        }
        if let Some((_, of)) = self.chain.iter_mut().find(|(_, of)| *of == Some(write)) {
            *of = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u32, sent_us: u64, at: u64) -> Step {
        let kind = StepKind::Write(Some(value), at);
        Step { sent_us, kind }
    }

    fn delete(sent_us: u64, at: u64) -> Step {
        let kind = StepKind::Write(None, at);
        Step { sent_us, kind }
    }

    fn maybe(value: Value, sent_us: u64) -> Step {
        let kind = StepKind::MaybeWrite(value);
        Step { sent_us, kind }
    }

    fn read(value: Value, sent_us: u64, at: u64) -> Step {
        let kind = StepKind::Read(value, at);
        Step { sent_us, kind }
    }

    #[test]
    fn what_was_acknowledged_is_read() {
        assert_eq!(
            first_unexplained(&[write(1, 0, 1), read(Some(1), 2, 3)]),
            None
        );
        assert_eq!(
            first_unexplained(&[write(1, 0, 1), read(None, 2, 3)]),
            Some(1)
        );
        let old = [write(1, 0, 1), write(2, 2, 3), read(Some(1), 4, 5)];
        assert_eq!(first_unexplained(&old), Some(2));
        assert_eq!(first_unexplained(&[read(Some(9), 0, 1)]), Some(0));
    }

    #[test]
    fn a_delete_is_a_write() {
        let gone = [write(1, 0, 1), delete(2, 3), read(None, 4, 5)];
        assert_eq!(first_unexplained(&gone), None);
        let back = [write(1, 0, 1), delete(2, 3), read(Some(1), 4, 5)];
        assert_eq!(first_unexplained(&back), Some(2));
    }

    #[test]
    fn concurrent_requests_happen_in_any_order_but_in_one() {
        let steps = |first, second| {
            [
                write(1, 0, 10),
                write(2, 0, 10),
                read(Some(first), 20, 21),
                read(Some(second), 22, 23),
            ]
        };
        assert_eq!(first_unexplained(&steps(1, 1)), None);
        assert_eq!(first_unexplained(&steps(2, 2)), None);
        assert_eq!(
            first_unexplained(&steps(1, 2)),
            Some(3),
            "both are durable by then"
        );
    }

    #[test]
    fn a_read_beside_a_write_sees_the_old_or_the_new() {
        for value in [None, Some(1)] {
            assert_eq!(
                first_unexplained(&[write(1, 0, 10), read(value, 1, 9)]),
                None
            );
        }
    }

    #[test]
    fn an_unanswered_write_may_take_effect_late_or_never() {
        let steps = |value| {
            [
                write(1, 0, 1),
                maybe(Some(2), 2),
                write(3, 4, 5),
                read(value, 6, 7),
            ]
        };
        assert_eq!(first_unexplained(&steps(Some(3))), None);
        assert_eq!(first_unexplained(&steps(Some(2))), None);
        assert_eq!(first_unexplained(&steps(Some(1))), Some(3), "3 is durable");
        assert_eq!(first_unexplained(&steps(None)), Some(3));
        let before = [read(Some(2), 0, 1), maybe(Some(2), 2)];
        assert_eq!(
            first_unexplained(&before),
            Some(0),
            "not before it was sent"
        );
    }

    #[test]
    fn an_unanswered_write_may_be_seen_and_be_taken_back() {
        let steps = [
            write(1, 0, 1),
            maybe(Some(2), 2),
            read(Some(2), 3, 4),
            read(Some(1), 5, 6),
            write(3, 7, 8),
            read(Some(3), 9, 10),
        ];
        assert_eq!(first_unexplained(&steps), None);
        let twice = [&steps[..], &[read(Some(2), 11, 12)]].concat();
        assert_eq!(
            first_unexplained(&twice),
            Some(6),
            "it happens once, and 3 came after it"
        );
    }

    #[test]
    fn an_unanswered_delete_explains_one_absence() {
        let once = [
            write(1, 0, 1),
            maybe(None, 2),
            read(None, 3, 4),
            write(2, 5, 6),
        ];
        assert_eq!(first_unexplained(&once), None);
        let again = [&once[..], &[read(None, 7, 8)]].concat();
        assert_eq!(first_unexplained(&again), Some(4));
        let two = [&[maybe(None, 0)], &again[..]].concat();
        assert_eq!(first_unexplained(&two), None);
    }

    #[test]
    fn a_repeated_upload_may_be_applied_by_either_attempt() {
        let steps = [
            maybe(Some(1), 0),
            write(1, 10, 20),
            write(2, 21, 22),
            read(Some(1), 23, 24),
            write(3, 25, 26),
            read(Some(3), 27, 28),
        ];
        assert_eq!(
            first_unexplained(&steps),
            None,
            "the first attempt came late"
        );
        let back = [&steps[..], &[read(Some(1), 29, 30)]].concat();
        assert_eq!(first_unexplained(&back), Some(6));
    }

    #[test]
    fn many_unanswered_requests_stay_tractable() {
        let mut steps = Vec::new();
        for round in 0..300u32 {
            let at = u64::from(round) * 100;
            steps.push(maybe(None, at));
            steps.push(maybe(Some(round), at + 1));
            steps.push(write(1000 + round, at + 2, at + 40));
            steps.push(write(2000 + round, at + 3, at + 41));
            let seen = [None, Some(round), Some(1000 + round), Some(2000 + round)];
            let seen = seen[round as usize % 4];
            steps.push(read(seen, at + 50, at + 60));
            steps.push(read(seen, at + 61, at + 62));
        }
        assert_eq!(first_unexplained(&steps), None);
    }
}
