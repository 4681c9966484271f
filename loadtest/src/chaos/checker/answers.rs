//! One operation id has one answer.

use std::collections::BTreeMap;

use super::{Case, Findings, Kind, told};
use crate::chaos::history::{Answer, Call};

pub(super) fn check(case: &Case<'_>, found: &mut Findings) {
    let mut first: BTreeMap<(&str, &str), &Call> = BTreeMap::new();
    for call in &case.evidence.calls {
        let (Some(sent), Some(reply)) = (&call.sent_id, &call.reply) else {
            continue;
        };
        if let Some(named) = &reply.id
            && named != sent
        {
            let what = format!("operation {sent} was answered as {named}");
            found.add(Kind::OtherAnswer, &call.session, what, vec![told(call)]);
        }
        if !matches!(reply.answer, Answer::Shown { .. }) {
            continue;
        }
        let before = *first.entry((&call.session, sent)).or_insert(call);
        if before.answer() != call.answer() {
            let what = format!("operation {sent} was answered in two ways");
            let lines = vec![told(before), told(call)];
            found.add(Kind::OtherAnswer, &call.session, what, lines);
        }
    }
    recovered(case, found);
}

/// Every question about what is left was answered in the end.
fn recovered(case: &Case<'_>, found: &mut Findings) {
    let mut open: BTreeMap<u32, (&Call, bool)> = BTreeMap::new();
    for call in case.evidence.calls.iter().filter(|call| call.last) {
        let (last, answered) = open.entry(call.operation).or_insert((call, false));
        *last = call;
        *answered |= call
            .answer()
            .is_some_and(|answer| answer.answers() || is_wrong(answer));
    }
    for (call, _) in open.into_values().filter(|(_, answered)| !answered) {
        let what = "a question after everything had recovered was not answered".to_owned();
        found.add(Kind::NotRecovered, &call.session, what, vec![told(call)]);
    }
}

/// Whether the answer is wrong, which others tell.
fn is_wrong(answer: &Answer) -> bool {
    matches!(answer, Answer::Alien(_))
}
