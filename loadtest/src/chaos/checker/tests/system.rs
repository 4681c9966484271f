//! A correct system in small: one session with files, owners that come and go, requests that are
//! lost on every part of their way, and clients that repeat them. Whatever it is made to do, its
//! history is clean.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{super::Owner, *};
use crate::chaos::{
    content,
    history::{Effect, LOG},
};

const PATHS: [&str; 2] = ["a.bin", "b.bin"];
/// Time between two moves: all of them together take less than a fenced owner may live on.
const STEP_US: u64 = 1000;

/// What happens next. Numbers choose among what is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    Send(Wish),
    /// A request takes effect at the owner, which nobody but the owner's readers can see yet.
    Apply(usize, bool),
    /// Its effect gets durable.
    Commit(usize),
    /// Its client hears what came of it.
    Answer(usize),
    /// Its client gives up; the request goes on.
    GiveUp(usize),
    /// It is refused before it did anything.
    Refuse(usize),
    /// Its code is cut off between file and variable.
    CutOff(usize),
    /// A client sends its request again.
    Repeat(usize),
    /// Another worker takes over; `true` when the old one hands over in order.
    Failover(bool),
    /// The owner before this one starts a request that is still on its way to it.
    Zombie(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    Append(bool),
    Peek,
    Upload(usize),
    Download(usize),
    DownloadLog,
    Delete(usize),
    List,
}

pub(super) fn moves() -> impl Strategy<Value = Vec<Move>> {
    let path = || 0..PATHS.len();
    let wish = prop_oneof![
        4 => any::<bool>().prop_map(Wish::Append),
        1 => Just(Wish::Peek),
        3 => path().prop_map(Wish::Upload),
        3 => path().prop_map(Wish::Download),
        2 => Just(Wish::DownloadLog),
        2 => path().prop_map(Wish::Delete),
        1 => Just(Wish::List),
    ];
    let which = 0..8usize;
    let one = prop_oneof![
        8 => wish.prop_map(Move::Send),
        8 => (which.clone(), any::<bool>()).prop_map(|(which, store)| Move::Apply(which, store)),
        8 => which.clone().prop_map(Move::Commit),
        8 => which.clone().prop_map(Move::Answer),
        2 => which.clone().prop_map(Move::GiveUp),
        1 => which.clone().prop_map(Move::Refuse),
        1 => which.clone().prop_map(Move::CutOff),
        2 => (0..64usize).prop_map(Move::Repeat),
        1 => any::<bool>().prop_map(Move::Failover),
        1 => which.prop_map(Move::Zombie),
    ];
    prop::collection::vec(one, 1..250)
}

/// A request on its way.
struct Flight {
    call: usize,
    stage: Stage,
}

#[derive(Clone)]
enum Stage {
    Sent,
    Applied(Answer),
    Committed(Answer),
    /// Nothing will come of it.
    Dead,
}

/// What became of an execution with an id.
#[derive(Clone)]
enum Record {
    Running,
    Done(Answer),
    Lost,
}

#[derive(Clone, Default)]
struct Files {
    log: Vec<u32>,
    others: BTreeMap<&'static str, u32>,
}

#[derive(Default)]
pub(super) struct System {
    evidence: Evidence,
    now: u64,
    epoch: u64,
    local: Files,
    durable: Files,
    trail: Vec<u32>,
    records: BTreeMap<String, Record>,
    flights: Vec<Flight>,
    operations: u32,
}

/// The history of these moves, with last questions about everything.
pub(super) fn history(moves: &[Move]) -> Evidence {
    let mut system = System {
        epoch: 1,
        ..System::default()
    };
    system.evidence.sessions.insert(SESSION.to_owned(), key());
    for step in moves {
        system.now += STEP_US;
        system.step(*step);
    }
    system.flights.clear();
    let wishes = [
        Wish::Peek,
        Wish::DownloadLog,
        Wish::Download(0),
        Wish::Download(1),
        Wish::List,
    ];
    for wish in wishes {
        for step in [
            Move::Send(wish),
            Move::Apply(0, false),
            Move::Commit(0),
            Move::Answer(0),
        ] {
            system.now += STEP_US;
            system.step(step);
        }
        system.evidence.calls.last_mut().unwrap().last = true;
    }
    system.evidence
}

impl System {
    fn step(&mut self, step: Move) {
        match step {
            Move::Send(wish) => self.send(wish),
            Move::Apply(which, store) => self.apply(which, store),
            Move::Commit(which) => self.commit(which),
            Move::Answer(which) => self.answer(which),
            Move::GiveUp(which) => self.give_up(which),
            Move::Refuse(which) => self.refuse(which),
            Move::CutOff(which) => self.cut_off(which),
            Move::Repeat(which) => self.repeat(which),
            Move::Failover(in_order) => self.failover(in_order),
            Move::Zombie(which) => self.zombie(which),
        }
    }

    fn send(&mut self, wish: Wish) {
        self.operations += 1;
        let number = self.operations;
        let path = |place: usize| PATHS[place].to_owned();
        let action = match wish {
            Wish::Append(_) => Action::Append(number),
            Wish::Peek => Action::Peek,
            Wish::Upload(place) => Action::Upload(path(place), number),
            Wish::Download(place) => Action::Download(path(place)),
            Wish::DownloadLog => Action::Download(LOG.to_owned()),
            Wish::Delete(place) => Action::Delete(path(place)),
            Wish::List => Action::List,
        };
        let own = matches!(wish, Wish::Append(true));
        self.fly(Call {
            number: 0,
            operation: number,
            session: SESSION.to_owned(),
            ingress: 0,
            action,
            sent_id: own.then(|| format!("own-{number}")),
            last: false,
            sent_us: 0,
            reply: None,
        });
    }

    fn fly(&mut self, mut call: Call) {
        (call.number, call.sent_us) = (self.evidence.calls.len(), self.now);
        self.flights.push(Flight {
            call: call.number,
            stage: Stage::Sent,
        });
        self.evidence.calls.push(call);
    }

    /// The id under which the system knows a call.
    fn id(&self, call: usize) -> String {
        let own = self.evidence.calls[call].sent_id.clone();
        own.unwrap_or_else(|| format!("given-{call}"))
    }

    fn run(epoch: u64) -> String {
        format!("w-{}-run", epoch % 3)
    }

    fn start(&mut self, call: usize, number: u64) {
        self.evidence.starts.push(Start {
            operation: self.id(call).parse().unwrap(),
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            session: key(),
            incarnation: life(),
            epoch: epoch(number),
            worker: Self::run(number).parse().unwrap(),
            at_us: self.now,
        });
    }

    /// Whether an execution's effect is not committed yet; the next one waits for it.
    fn is_busy(&self) -> bool {
        self.flights.iter().any(|flight| {
            let action = &self.evidence.calls[flight.call].action;
            let executes = matches!(action, Action::Append(_) | Action::Peek);
            executes && matches!(flight.stage, Stage::Applied(_))
        })
    }

    /// A flight that nothing came of yet; its place and its call.
    fn sent(&self, which: usize) -> Option<(usize, usize)> {
        let flight = self.flights.get(which)?;
        matches!(flight.stage, Stage::Sent).then_some((which, flight.call))
    }

    fn apply(&mut self, which: usize, store: bool) {
        let Some((which, call)) = self.sent(which) else {
            return;
        };
        let seen = if store {
            self.durable.clone()
        } else {
            self.local.clone()
        };
        let action = self.evidence.calls[call].action.clone();
        let path = |path: &str| PATHS.into_iter().find(|other| *other == path);
        self.flights[which].stage = match action {
            Action::Append(_) | Action::Peek => match self.execute(call, &action) {
                Some(stage) => stage,
                None => return,
            },
            Action::Upload(name, content) => {
                self.local.others.insert(path(&name).unwrap(), content);
                Stage::Applied(Answer::Done)
            }
            Action::Delete(name) => match self.local.others.remove(path(&name).unwrap()) {
                Some(_) => Stage::Applied(Answer::Done),
                None => Stage::Committed(Answer::Missing),
            },
            Action::Download(name) if name == LOG => Stage::Committed(Answer::Lines(seen.log)),
            Action::Download(name) => {
                let content = seen.others.get(path(&name).unwrap());
                Stage::Committed(
                    content.map_or(Answer::Missing, |&content| Answer::Content(content)),
                )
            }
            Action::List => {
                let sizes = seen.others.iter();
                let sizes = sizes.map(|(name, of)| ((*name).to_owned(), content::size(*of)));
                Stage::Committed(Answer::Files(sizes.collect()))
            }
        };
    }

    fn execute(&mut self, call: usize, action: &Action) -> Option<Stage> {
        match self.records.get(&self.id(call)) {
            Some(Record::Running) => return None,
            Some(Record::Done(answer)) => return Some(Stage::Committed(answer.clone())),
            Some(Record::Lost) => return Some(Stage::Dead),
            None if self.is_busy() => return None,
            None => {}
        }
        self.records.insert(self.id(call), Record::Running);
        self.start(call, self.epoch);
        if let Action::Append(number) = action {
            self.local.log.push(*number);
            self.trail.push(*number);
        }
        Some(Stage::Applied(shown(&self.local.log, &self.trail)))
    }

    fn commit(&mut self, which: usize) {
        let Some(Flight {
            call,
            stage: Stage::Applied(answer),
        }) = self.flights.get(which)
        else {
            return;
        };
        let (call, answer) = (*call, answer.clone());
        match &self.evidence.calls[call].action {
            Action::Upload(name, _) | Action::Delete(name) => {
                let path = PATHS.into_iter().find(|other| other == name).unwrap();
                match self.local.others.get(path) {
                    Some(content) => self.durable.others.insert(path, *content),
                    None => self.durable.others.remove(path),
                };
            }
            _ => self.durable = self.local.clone(),
        }
        if let Some(record) = self.records.get_mut(&self.id(call)) {
            *record = Record::Done(answer.clone());
        }
        self.flights[which].stage = Stage::Committed(answer);
    }

    fn answer(&mut self, which: usize) {
        let answer = match self.flights.get(which).map(|flight| &flight.stage) {
            Some(Stage::Committed(answer)) => answer.clone(),
            Some(Stage::Dead) => Answer::Refused(500, "ExecutionLost".to_owned()),
            Some(Stage::Sent | Stage::Applied(_)) | None => return,
        };
        let flight = self.flights.remove(which);
        self.reply(flight.call, answer);
    }

    fn reply(&mut self, call: usize, answer: Answer) {
        let id = Some(self.id(call));
        let (now, call) = (self.now, &mut self.evidence.calls[call]);
        // A client that has given up hears nothing any more.
        call.reply.get_or_insert(Reply {
            at_us: now,
            answer,
            id,
        });
    }

    fn give_up(&mut self, which: usize) {
        if let Some(flight) = self.flights.get(which) {
            let call = &mut self.evidence.calls[flight.call];
            call.reply.get_or_insert_with(|| Reply {
                at_us: self.now,
                answer: lost(),
                id: None,
            });
        }
    }

    fn refuse(&mut self, which: usize) {
        if let Some((which, call)) = self.sent(which)
            && !self.records.contains_key(&self.id(call))
        {
            self.flights.remove(which);
            self.reply(call, refused());
        }
    }

    fn cut_off(&mut self, which: usize) {
        let Some((which, call)) = self.sent(which) else {
            return;
        };
        let Action::Append(number) = self.evidence.calls[call].action else {
            return;
        };
        if self.is_busy() || self.records.contains_key(&self.id(call)) {
            return;
        }
        self.start(call, self.epoch);
        self.local.log.push(number);
        let failed = Answer::Failed("interrupted".to_owned());
        self.records.insert(self.id(call), Record::Running);
        self.flights[which].stage = Stage::Applied(failed);
    }

    /// Uploads are sent again as they are, executions only under an id; both also after a success.
    fn repeat(&mut self, which: usize) {
        let Some(call) = self.evidence.calls.get(which) else {
            return;
        };
        let again = match &call.action {
            Action::Append(_) => call.sent_id.is_some(),
            Action::Upload(..) => call.effect() == Effect::Maybe,
            _ => false,
        };
        if again && call.reply.is_some() {
            let call = Call {
                reply: None,
                ..call.clone()
            };
            self.fly(call);
        }
    }

    fn failover(&mut self, in_order: bool) {
        if in_order {
            for which in 0..self.flights.len() {
                self.commit(which);
            }
        } else {
            self.trail.clear();
        }
        for flight in &mut self.flights {
            if matches!(flight.stage, Stage::Applied(_)) {
                flight.stage = Stage::Dead;
            }
        }
        for record in self.records.values_mut() {
            if matches!(record, Record::Running) {
                *record = Record::Lost;
            }
        }
        self.local = self.durable.clone();
        self.epoch += 1;
        self.evidence.owners.push(Owner {
            session: key(),
            incarnation: life(),
            epoch: epoch(self.epoch),
            worker: Self::run(self.epoch).parse().unwrap(),
            at_us: self.now,
        });
    }

    fn zombie(&mut self, which: usize) {
        let Some((which, call)) = self.sent(which) else {
            return;
        };
        let executes = matches!(
            self.evidence.calls[call].action,
            Action::Append(_) | Action::Peek
        );
        if executes && self.epoch > 1 && !self.records.contains_key(&self.id(call)) {
            self.start(call, self.epoch - 1);
            self.records.insert(self.id(call), Record::Lost);
            self.flights[which].stage = Stage::Dead;
        }
    }
}
