//! The checker against histories with planted violations of every kind, and against clean ones.

mod planted;
mod simulated;
mod system;

use std::collections::BTreeSet;

use proto::{
    id::{Epoch, Incarnation, SessionKey},
    journal::Start,
};
use ulid::Ulid;

use super::{Evidence, Kind, check};
use crate::chaos::history::{Action, Answer, Call, Reply};

const SESSION: &str = "chaos-1";

fn key() -> SessionKey {
    "a".repeat(26).parse().unwrap()
}

fn life() -> Incarnation {
    Incarnation::from_ulid(Ulid::nil())
}

fn epoch(number: u64) -> Epoch {
    (0..number).fold(Epoch::default(), |epoch, _| epoch.next())
}

/// The kinds that are found.
fn kinds(evidence: &Evidence) -> BTreeSet<Kind> {
    check(evidence)
        .into_iter()
        .map(|violation| violation.kind)
        .collect()
}

/// A history written by hand, in milliseconds.
#[derive(Default)]
struct Story {
    evidence: Evidence,
    operations: u32,
}

impl Story {
    fn new() -> Self {
        let mut story = Self::default();
        story.evidence.sessions.insert(SESSION.to_owned(), key());
        story
    }

    /// A call of a new operation under an id of its own, answered `to` milliseconds after the start.
    fn call(&mut self, action: Action, (from, to): (u64, u64), answer: Answer) -> &mut Call {
        self.operations += 1;
        let id = format!("op-{}", self.operations);
        self.evidence.calls.push(Call {
            number: self.evidence.calls.len(),
            operation: self.operations,
            session: SESSION.to_owned(),
            ingress: 0,
            action,
            sent_id: Some(id.clone()),
            last: false,
            sent_us: from * 1000,
            reply: Some(Reply {
                at_us: to * 1000,
                answer,
                id: Some(id),
            }),
        });
        self.evidence.calls.last_mut().unwrap()
    }

    /// A start of the latest operation.
    fn start(&mut self, worker: &str, number: u64, at: u64) {
        let operation = format!("op-{}", self.operations);
        self.evidence.starts.push(Start {
            operation: operation.parse().unwrap(),
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            session: key(),
            incarnation: life(),
            epoch: epoch(number),
            worker: worker.parse().unwrap(),
            at_us: at * 1000,
        });
    }

    /// An append that worker `w-1` starts in epoch 1 and that shows this log and variable.
    fn append(&mut self, number: u32, times: (u64, u64), log: &[u32], trail: &[u32]) {
        self.call(Action::Append(number), times, shown(log, trail));
        self.start("w-1-run", 1, times.0);
    }

    /// A call for a file.
    fn file(&mut self, action: Action, times: (u64, u64), answer: Answer) {
        self.call(action, times, answer);
    }
}

fn shown(log: &[u32], trail: &[u32]) -> Answer {
    Answer::Shown {
        log: log.to_vec(),
        trail: trail.to_vec(),
    }
}

fn upload(content: u32) -> Action {
    Action::Upload("a.bin".to_owned(), content)
}

fn download() -> Action {
    Action::Download("a.bin".to_owned())
}

fn lost() -> Answer {
    Answer::Lost("no answer".to_owned())
}

fn refused() -> Answer {
    Answer::Refused(503, "NoCapacity".to_owned())
}
