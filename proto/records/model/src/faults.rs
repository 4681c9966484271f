//! What goes wrong between a process and the bus, from a seed or on request.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use proto::ambient::Random;

/// A question to the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A stream is made or changed.
    Open,
    /// A record is written.
    Write,
    /// A record is deleted.
    Delete,
    /// The record of a subject is read.
    Last,
    /// The record at a sequence is read.
    At,
    /// Records are listed.
    List,
    /// Records are counted.
    Count,
    /// A stream is described.
    Describe,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It does not get there: nothing is done, and no answer comes.
    Lost,
    /// It is done, but the answer does not come.
    Unheard,
    /// No answer comes, and it is done so much later: it lay in a buffer or on a slow way.
    Late(Duration),
    /// The bus answers that it failed, and has done nothing.
    Failed,
}

/// How often what happens, in questions of a thousand, and how long ways are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chances {
    /// [`Fate::Lost`].
    pub lost: u64,
    /// [`Fate::Unheard`].
    pub unheard: u64,
    /// [`Fate::Late`].
    pub late: u64,
    /// Most that it is late by.
    pub latest: Duration,
    /// [`Fate::Failed`].
    pub failed: u64,
    /// The longest that a question or its answer is on its way.
    pub slowest: Duration,
}

/// The faults of one connection.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Random,
    pub(crate) chances: Chances,
    /// What was asked for, before anything comes from the seed.
    asked: VecDeque<(Operation, Fate)>,
    /// The ways to the bus that were asked for.
    slow: VecDeque<(Operation, Duration)>,
    pub(crate) is_cut: bool,
    pub(crate) asked_of_bus: BTreeMap<Operation, u64>,
}

/// What becomes of one question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    pub(crate) there: Duration,
    pub(crate) fate: Fate,
    pub(crate) back: Duration,
}

impl Faults {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            random: Random::seeded(seed),
            chances: Chances::default(),
            asked: VecDeque::new(),
            slow: VecDeque::new(),
            is_cut: false,
            asked_of_bus: BTreeMap::new(),
        }
    }

    /// The next question of this kind meets this fate.
    pub(crate) fn ask_for(&mut self, operation: Operation, fate: Fate) {
        self.asked.push_back((operation, fate));
    }

    /// The next question of this kind is on its way for so long.
    pub(crate) fn ask_for_slow(&mut self, operation: Operation, there: Duration) {
        self.slow.push_back((operation, there));
    }

    /// What becomes of the question that is asked now.
    pub(crate) fn next(&mut self, operation: Operation) -> Course {
        *self.asked_of_bus.entry(operation).or_default() += 1;
        let asked = take(&mut self.slow, operation);
        Course {
            there: asked.unwrap_or_else(|| self.upto(self.chances.slowest)),
            fate: self.fate(operation),
            back: self.upto(self.chances.slowest),
        }
    }

    fn fate(&mut self, operation: Operation) -> Fate {
        if self.is_cut {
            return Fate::Lost;
        }
        if let Some(fate) = take(&mut self.asked, operation) {
            return fate;
        }
        let Chances {
            lost,
            unheard,
            late,
            failed,
            latest,
            slowest: _,
        } = self.chances;
        let (drawn, delay) = (self.random.below(1000), self.upto(latest));
        let fates = [
            (lost, Fate::Lost),
            (unheard, Fate::Unheard),
            (late, Fate::Late(delay)),
            (failed, Fate::Failed),
        ];
        let mut below = 0;
        for (chance, fate) in fates {
            below += chance;
            if drawn < below {
                return fate;
            }
        }
        Fate::Answered
    }

    fn upto(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.below(most.saturating_add(1)))
    }
}

/// What was asked for the next question of this kind.
fn take<T>(asked: &mut VecDeque<(Operation, T)>, operation: Operation) -> Option<T> {
    let place = asked.iter().position(|(of, _)| *of == operation)?;
    asked.remove(place).map(|(_, asked)| asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_faults() {
        let chances = Chances {
            lost: 100,
            unheard: 100,
            late: 100,
            failed: 100,
            latest: Duration::from_secs(9),
            slowest: Duration::from_millis(9),
        };
        let of = |seed| {
            let mut faults = Faults::seeded(seed);
            faults.chances = chances;
            let courses = (0..1000).map(|_| faults.next(Operation::Write));
            courses
                .map(|course| format!("{course:?}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let answered = of(7)
            .iter()
            .filter(|course| course.contains("Answered"))
            .count();
        assert!((550..650).contains(&answered), "{answered}");
    }

    #[test]
    fn what_was_asked_for_comes_first_and_once() {
        let mut faults = Faults::seeded(1);
        faults.ask_for(Operation::Delete, Fate::Lost);
        assert_eq!(faults.next(Operation::Write).fate, Fate::Answered);
        assert_eq!(faults.next(Operation::Delete).fate, Fate::Lost);
        assert_eq!(faults.next(Operation::Delete).fate, Fate::Answered);
    }
}
