//! What the workers' journals prove, alone and together with what callers heard.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    id::{Epoch, Incarnation, SessionKey, WorkerId},
    journal::Start,
    limits,
};

use super::{Case, Findings, Kind, noted, told};
use crate::chaos::history::{Answer, Call, Effect};

pub(super) fn check(case: &Case<'_>, found: &mut Findings) {
    once(case, found);
    refusals(case, found);
    unstarted(case, found);
    owners(case, found);
    for (life, starts) in &lives(&case.evidence.starts) {
        let name = case.name_of(life.0);
        rising(&name, starts, found);
        late(&name, starts, found);
    }
    fenced(case, found);
}

/// A life of a session.
type Life<'a> = (&'a SessionKey, Incarnation);

fn lives(starts: &[Start]) -> BTreeMap<Life<'_>, Vec<&Start>> {
    let mut lives: BTreeMap<Life<'_>, Vec<&Start>> = BTreeMap::new();
    for start in starts {
        let life = (&start.session, start.incarnation);
        lives.entry(life).or_default().push(start);
    }
    lives
}

/// No execution was started twice.
fn once(case: &Case<'_>, found: &mut Findings) {
    for (id, starts) in &case.starts {
        // Two sessions may use the same id.
        let mut sessions: BTreeMap<&SessionKey, Vec<&Start>> = BTreeMap::new();
        for start in starts {
            sessions.entry(&start.session).or_default().push(start);
        }
        for (session, starts) in sessions.iter().filter(|(_, starts)| starts.len() > 1) {
            let what = format!("operation {id} was started {} times", starts.len());
            let mut lines: Vec<_> = starts.iter().map(|start| noted(start)).collect();
            let calls = case.evidence.calls.iter();
            lines.extend(calls.filter(|call| call.id() == Some(id)).map(told));
            found.add(Kind::RanTwice, &case.name_of(session), what, lines);
        }
    }
}

/// What was refused did not start.
fn refusals(case: &Case<'_>, found: &mut Findings) {
    let mut effects: BTreeMap<(&str, &str), (Effect, &Call)> = BTreeMap::new();
    for call in &case.evidence.calls {
        let Some(id) = call.id() else { continue };
        let told = effects.entry((&call.session, id));
        let (effect, _) = told.or_insert((Effect::No, call));
        *effect = call.effect().max(*effect);
    }
    for ((session, id), (effect, call)) in effects {
        if effect == Effect::No
            && let Some(start) = case.start_of(call)
        {
            let what = format!("operation {id} was refused as not done, but it was started");
            let lines = vec![told(call), noted(start)];
            found.add(Kind::RefusedButDone, session, what, lines);
        }
    }
}

/// What succeeded had started: else the journals prove nothing.
fn unstarted(case: &Case<'_>, found: &mut Findings) {
    for call in &case.evidence.calls {
        let shown = matches!(call.answer(), Some(Answer::Shown { .. }));
        if shown && case.start_of(call).is_none() {
            let what = match call.id() {
                Some(id) => format!("operation {id} succeeded, but no worker noted its start"),
                None => "an execution succeeded under an id that it does not tell".to_owned(),
            };
            found.add(
                Kind::SucceededUnstarted,
                &call.session,
                what,
                vec![told(call)],
            );
        }
    }
}

/// Each epoch of a life has one owner, by journals and leases together.
fn owners(case: &Case<'_>, found: &mut Findings) {
    let mut owners: BTreeMap<(Life<'_>, Epoch), BTreeMap<&WorkerId, String>> = BTreeMap::new();
    for start in &case.evidence.starts {
        let epoch = ((&start.session, start.incarnation), start.epoch);
        let owners = owners.entry(epoch).or_default();
        owners.entry(&start.worker).or_insert_with(|| noted(start));
    }
    for lease in &case.evidence.owners {
        let epoch = ((&lease.session, lease.incarnation), lease.epoch);
        let owners = owners.entry(epoch).or_default();
        owners
            .entry(&lease.worker)
            .or_insert_with(|| format!("{lease:?}"));
    }
    for ((life, epoch), owners) in owners.into_iter().filter(|(_, owners)| owners.len() > 1) {
        let what = format!("epoch {epoch} had {} owners", owners.len());
        let lines = owners.into_values().collect();
        found.add(Kind::TwoOwners, &case.name_of(life.0), what, lines);
    }
}

/// A worker's own epochs of a session never fall.
fn rising(name: &str, starts: &[&Start], found: &mut Findings) {
    let mut last: BTreeMap<&WorkerId, &Start> = BTreeMap::new();
    for start in starts {
        if let Some(before) = last.insert(&start.worker, start)
            && before.epoch > start.epoch
        {
            let what = format!(
                "{} went from epoch {} to {}",
                start.worker, before.epoch, start.epoch
            );
            found.add(
                Kind::EpochFell,
                name,
                what,
                vec![noted(before), noted(start)],
            );
        }
    }
}

/// Nothing is started for a session that another worker took over longer ago than a beat lives.
fn late(name: &str, starts: &[&Start], found: &mut Findings) {
    let grace = u64::try_from(limits::WORKER_TTL.as_micros()).unwrap_or(u64::MAX);
    for (start, newer) in overtaken(starts) {
        if start.at_us > newer.at_us.saturating_add(grace) {
            let what = format!(
                "epoch {} started code {} ms after epoch {} had",
                start.epoch,
                (start.at_us - newer.at_us) / 1000,
                newer.epoch
            );
            found.add(
                Kind::FencedCode,
                name,
                what,
                vec![noted(newer), noted(start)],
            );
        }
    }
}

/// Starts under an epoch when a higher one had started something already, each with the earliest
/// such start.
fn overtaken<'a>(starts: &[&'a Start]) -> Vec<(&'a Start, &'a Start)> {
    let mut first: BTreeMap<Epoch, &Start> = BTreeMap::new();
    for start in starts {
        let first = first.entry(start.epoch).or_insert(start);
        if start.at_us < first.at_us {
            *first = start;
        }
    }
    let overtaken = starts.iter().filter_map(|start| {
        let above = first
            .range(start.epoch..)
            .filter(|(epoch, _)| **epoch > start.epoch);
        let newer = above
            .map(|(_, newer)| *newer)
            .min_by_key(|newer| newer.at_us)?;
        (newer.at_us < start.at_us).then_some((*start, newer))
    });
    overtaken.collect()
}

/// Nothing succeeds that was started when another worker already ran code of the session.
fn fenced(case: &Case<'_>, found: &mut Findings) {
    let mut zombies: BTreeMap<(&SessionKey, &str), (&Start, &Start)> = BTreeMap::new();
    for starts in lives(&case.evidence.starts).values() {
        for (start, newer) in overtaken(starts) {
            zombies.insert((&start.session, start.operation.as_str()), (start, newer));
        }
    }
    let mut told_of = BTreeSet::new();
    for call in &case.evidence.calls {
        let succeeded = matches!(
            call.answer(),
            Some(Answer::Shown { .. } | Answer::Failed(_))
        );
        let key = case.evidence.sessions.get(&call.session);
        let (Some(id), Some(key), true) = (call.id(), key, succeeded) else {
            continue;
        };
        if let Some((start, newer)) = zombies.get(&(key, id))
            && told_of.insert((key, id))
        {
            let what = format!(
                "operation {id} started under epoch {} when epoch {} ran code, and was answered 200",
                start.epoch, newer.epoch
            );
            let lines = vec![noted(newer), noted(start), told(call)];
            found.add(Kind::FencedSuccess, &call.session, what, lines);
        }
    }
}
