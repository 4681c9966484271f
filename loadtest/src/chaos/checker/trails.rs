//! The variable of a session: every execute appends its number to the log first, then to the
//! variable, and shows both.
//!
//! Variables may be lost at any failover, or be carried to the next owner. Then they must be those of
//! the state that the files are in: not newer, and not older than what succeeded since.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Kind, Session, told};
use crate::chaos::history::{Action, Answer, Call};

pub(super) fn check(session: &Session<'_>, found: &mut Findings) {
    let succeeded: BTreeMap<u32, &Call> = session
        .calls
        .iter()
        .filter_map(|call| match (&call.action, call.answer()) {
            (Action::Append(number), Some(Answer::Shown { .. })) => Some((*number, *call)),
            _ => None,
        })
        .collect();
    for call in &session.calls {
        let Some(Answer::Shown { log, trail }) = call.answer() else {
            continue;
        };
        let evidence = || vec![told(call)];
        let distinct: BTreeSet<_> = trail.iter().collect();
        if distinct.len() < trail.len() {
            let what = "a number stands in the variable twice".to_owned();
            found.add(Kind::RanTwice, session.name, what, evidence());
            continue;
        }
        if let Action::Append(number) = call.action
            && trail.last() != Some(&number)
        {
            let what = format!("operation {number} did not find its own number last");
            found.add(Kind::WrongVariables, session.name, what, evidence());
            continue;
        }
        match compare(log, trail, &succeeded) {
            Ok(()) => {}
            Err(Mismatch::Ahead(number)) => {
                let what = format!("the variable holds {number}, but not in the place of the log");
                found.add(Kind::WrongVariables, session.name, what, evidence());
            }
            Err(Mismatch::Stale(number)) => {
                let what = format!("{number} succeeded, but the variable is of a time before it");
                let success = succeeded.get(&number).map(|call| told(call));
                let evidence = success.into_iter().chain(evidence()).collect();
                found.add(Kind::WrongVariables, session.name, what, evidence);
            }
        }
    }
}

enum Mismatch {
    /// A number that the log does not have, or has elsewhere.
    Ahead(u32),
    /// A success after the variable's first number that the variable lacks.
    Stale(u32),
}

/// Whether the variable is the end of the log, but for executions that may have been cut off between
/// the two.
fn compare(log: &[u32], trail: &[u32], succeeded: &BTreeMap<u32, &Call>) -> Result<(), Mismatch> {
    let Some(first) = trail.first() else {
        return Ok(());
    };
    let mut lines = log.iter().skip_while(|line| *line != first);
    for number in trail {
        loop {
            match lines.next() {
                Some(line) if line == number => break,
                Some(line) if succeeded.contains_key(line) => return Err(Mismatch::Stale(*line)),
                Some(_) => {}
                None => return Err(Mismatch::Ahead(*number)),
            }
        }
    }
    match lines.find(|line| succeeded.contains_key(line)) {
        Some(line) => Err(Mismatch::Stale(*line)),
        None => Ok(()),
    }
}
