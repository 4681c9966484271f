//! The log of a session: a file that executes append their number to, one after the other.
//!
//! What a correct system may do with it:
//!
//! * An execution that was answered 200 has its line in the log, durably, and so have all whose lines
//!   it showed: they were in the files that it left.
//! * One without such an answer may have its line there or not. Its line may be seen for a while, by
//!   a download that does not wait for the cell, and be gone after a failover: it was never
//!   acknowledged. Once gone it stays away, because nothing runs twice.
//! * So whatever a line was appended to is what stands before it, in every reading that has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::{id::Epoch, journal::Start};

use super::{Case, Findings, Kind, Session, noted, told};
use crate::chaos::history::{Action, Answer, Call, Effect};

/// Calls that append one number.
struct Append<'a> {
    calls: Vec<&'a Call>,
    /// The best that any of them was told.
    effect: Effect,
    sent_us: u64,
    /// When the first answer came after which its line may not be missing.
    durable_us: u64,
    /// The first call that was told of its success.
    success: Option<&'a Call>,
    start: Option<&'a Start>,
}

/// A log that somebody saw.
struct Reading<'a> {
    call: &'a Call,
    log: &'a [u32],
    /// It is not older than this. A repetition with the same operation id is told what the execution
    /// saw when it ran, which may be long before the repetition was sent.
    not_before_us: u64,
    /// Whether it was an execution's: what it shows is durable once it is answered.
    durable: bool,
}

pub(super) fn check(case: &Case<'_>, session: &Session<'_>, found: &mut Findings) {
    let readings: Vec<_> = session
        .calls
        .iter()
        .filter_map(|call| reading(session, call))
        .collect();
    let appends = appends(case, session, &readings);
    let log = Log {
        name: session.name,
        appends,
        readings,
    };
    log.strangers(found);
    log.own_line_is_last(found);
    log.nothing_is_rewritten(found);
    log.nothing_is_lost(found);
    log.epochs_rise(found);
    log.successes_survive_takeovers(case, found);
}

fn reading<'a>(session: &Session<'a>, call: &'a Call) -> Option<Reading<'a>> {
    let (log, durable) = match call.answer()? {
        Answer::Shown { log, .. } => (log, true),
        Answer::Lines(log) => (log, false),
        _ => return None,
    };
    let same = |other: &&&Call| other.operation == call.operation && other.sent_id.is_some();
    let first = session.calls.iter().filter(same).map(|other| other.sent_us);
    Some(Reading {
        call,
        log,
        not_before_us: match &call.sent_id {
            Some(_) => first.min().unwrap_or(call.sent_us),
            None => call.sent_us,
        },
        durable,
    })
}

fn appends<'a>(
    case: &Case<'a>,
    session: &Session<'a>,
    readings: &[Reading<'a>],
) -> BTreeMap<u32, Append<'a>> {
    let mut appends: BTreeMap<u32, Append<'a>> = BTreeMap::new();
    for call in &session.calls {
        let Action::Append(number) = call.action else {
            continue;
        };
        let append = appends.entry(number).or_insert(Append {
            calls: Vec::new(),
            effect: Effect::No,
            sent_us: call.sent_us,
            durable_us: u64::MAX,
            success: None,
            start: None,
        });
        append.calls.push(call);
        append.effect = append.effect.max(call.effect());
        append.sent_us = append.sent_us.min(call.sent_us);
        append.start = append.start.or_else(|| case.start_of(call));
        if call.effect() == Effect::Yes {
            append.durable_us = append.durable_us.min(call.answered_us());
            let success = append.success.get_or_insert(call);
            if call.answered_us() < success.answered_us() {
                *success = call;
            }
        }
    }
    for reading in readings.iter().filter(|reading| reading.durable) {
        for number in reading.log {
            if let Some(append) = appends.get_mut(number) {
                append.durable_us = append.durable_us.min(reading.call.answered_us());
            }
        }
    }
    appends
}

struct Log<'a> {
    name: &'a str,
    appends: BTreeMap<u32, Append<'a>>,
    readings: Vec<Reading<'a>>,
}

impl Append<'_> {
    fn told(&self) -> Vec<String> {
        let start = self.start.map(noted);
        self.calls
            .iter()
            .map(|call| told(call))
            .chain(start)
            .collect()
    }
}

impl Log<'_> {
    /// Every line is some client's, once, not before it was sent, and not of one that was refused.
    fn strangers(&self, found: &mut Findings) {
        for Reading { call, log, .. } in &self.readings {
            let mut seen = BTreeSet::new();
            for number in *log {
                let evidence = |append: Option<&Append<'_>>| {
                    let append = append.map(Append::told).unwrap_or_default();
                    std::iter::once(told(call))
                        .chain(append)
                        .collect::<Vec<_>>()
                };
                let append = self.appends.get(number);
                if !seen.insert(number) {
                    let what = format!("line {number} stands in the log twice");
                    found.add(Kind::RanTwice, self.name, what, evidence(append));
                }
                match append {
                    None => {
                        let what = format!("line {number} is of no client of this session");
                        found.add(Kind::ForeignBytes, self.name, what, evidence(None));
                    }
                    Some(append) if append.sent_us > call.answered_us() => {
                        let what = format!("line {number} was read before it was sent");
                        found.add(Kind::ForeignBytes, self.name, what, evidence(Some(append)));
                    }
                    Some(append) if append.effect == Effect::No => {
                        let what = format!("line {number} was refused as not done, but is there");
                        found.add(
                            Kind::RefusedButDone,
                            self.name,
                            what,
                            evidence(Some(append)),
                        );
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// An execution appends and then shows: its own line is the last.
    fn own_line_is_last(&self, found: &mut Findings) {
        for Reading { call, log, .. } in &self.readings {
            if let Action::Append(number) = call.action
                && log.last() != Some(&number)
            {
                let what = format!("operation {number} did not find its own line last");
                found.add(Kind::Rewritten, self.name, what, vec![told(call)]);
            }
        }
    }

    /// What stands before a line is the same in all readings.
    fn nothing_is_rewritten(&self, found: &mut Findings) {
        let mut before: HashMap<u32, (Option<u32>, &Call)> = HashMap::new();
        for Reading { call, log, .. } in &self.readings {
            let mut last = None;
            for &number in *log {
                let (then, first) = *before.entry(number).or_insert((last, call));
                if then != last {
                    let words = |last: Option<u32>| match last {
                        Some(line) => line.to_string(),
                        None => "nothing".to_owned(),
                    };
                    let (then, last) = (words(then), words(last));
                    let what =
                        format!("line {number} stood behind {then} and stands behind {last}");
                    let evidence = vec![told(first), told(call)];
                    found.add(Kind::Rewritten, self.name, what, evidence);
                }
                last = Some(number);
            }
        }
    }

    /// What was durable before a reading began is in it, and before all that was sent later.
    fn nothing_is_lost(&self, found: &mut Findings) {
        let mut told_of = BTreeSet::new();
        let mut placed = BTreeSet::new();
        for Reading {
            call,
            log,
            not_before_us,
            ..
        } in &self.readings
        {
            let present: BTreeSet<u32> = log.iter().copied().collect();
            for (number, append) in &self.appends {
                let lost = append.durable_us < *not_before_us && !present.contains(number);
                if lost && told_of.insert(*number) {
                    let what = format!("line {number} was acknowledged and is not in the log");
                    let evidence = append.told().into_iter().chain([told(call)]).collect();
                    found.add(Kind::LostBytes, self.name, what, evidence);
                }
            }
            let mut earlier = BTreeSet::new();
            for number in *log {
                // What stands before a line is the same everywhere: looking once is enough.
                if placed.insert(*number)
                    && let Some(append) = self.appends.get(number)
                {
                    self.placed_last(append, *number, &earlier, found);
                }
                earlier.insert(*number);
            }
        }
    }

    fn placed_last(
        &self,
        append: &Append<'_>,
        own: u32,
        earlier: &BTreeSet<u32>,
        found: &mut Findings,
    ) {
        for (number, other) in &self.appends {
            let before = other.durable_us < append.sent_us;
            if before && *number != own && !earlier.contains(number) {
                let what = format!(
                    "line {number} was acknowledged before {own} was sent, but does not stand before it"
                );
                let evidence = other.told().into_iter().chain(append.told()).collect();
                found.add(Kind::LostBytes, self.name, what, evidence);
            }
        }
    }

    /// Along the log, epochs do not fall.
    fn epochs_rise(&self, found: &mut Findings) {
        for Reading { call, log, .. } in &self.readings {
            let starts = log
                .iter()
                .filter_map(|number| self.appends.get(number)?.start);
            let mut last: Option<&Start> = None;
            for start in starts {
                if let Some(last) = last
                    && last.incarnation == start.incarnation
                    && last.epoch > start.epoch
                {
                    let what = format!(
                        "a line of epoch {} stands behind one of epoch {}",
                        start.epoch, last.epoch
                    );
                    let evidence = vec![noted(last), noted(start), told(call)];
                    found.add(Kind::EpochFell, self.name, what, evidence);
                    return;
                }
                last = Some(start);
            }
        }
    }

    /// What succeeded under an epoch was committed before the fence of the next, so whatever runs
    /// under a higher epoch finds it, however late the success was told.
    fn successes_survive_takeovers(&self, case: &Case<'_>, found: &mut Findings) {
        let mut first: BTreeMap<Epoch, (&Start, &Reading<'_>)> = BTreeMap::new();
        for reading in self.readings.iter().filter(|reading| reading.durable) {
            if let Some(start) = case.start_of(reading.call) {
                let first = first.entry(start.epoch).or_insert((start, reading));
                if start.at_us < first.0.at_us {
                    *first = (start, reading);
                }
            }
        }
        for (number, append) in &self.appends {
            let (Some(success), Some(start)) = (append.success, append.start) else {
                continue;
            };
            let later = first
                .range(start.epoch..)
                .find_map(|(epoch, (newer, reading))| {
                    let lacks = *epoch > start.epoch
                        && newer.incarnation == start.incarnation
                        && !reading.log.contains(number);
                    lacks.then_some((newer, reading))
                });
            // Else it is told as lost.
            if let Some((newer, reading)) = later
                && append.durable_us >= reading.not_before_us
            {
                let what = format!(
                    "operation {number} succeeded under epoch {}, but epoch {} did not find it",
                    start.epoch, newer.epoch
                );
                let evidence = [
                    noted(start),
                    told(success),
                    noted(newer),
                    told(reading.call),
                ];
                found.add(Kind::FencedSuccess, self.name, what, evidence.into());
            }
        }
    }
}
