//! What looking at the system from outside proves.

use std::collections::BTreeMap;

use proto::{journal::Start, limits};

use super::{Case, Evidence, Findings, Kernel, Kind, noted};

pub(super) fn check(case: &Case<'_>, found: &mut Findings) {
    slots(case.evidence, found);
    kernels(case.evidence, found);
}

/// No pool had more live slots than its maximum.
fn slots(evidence: &Evidence, found: &mut Findings) {
    for sample in evidence
        .slots
        .iter()
        .filter(|sample| sample.live > sample.max)
    {
        let what = format!("{} slots are taken of {}", sample.live, sample.max);
        found.add(
            Kind::TooManySlots,
            &sample.pool,
            what,
            vec![format!("{sample:?}")],
        );
    }
}

/// No kernel lives on where a session was, once another worker has run its code for longer than a
/// beat lives.
fn kernels(evidence: &Evidence, found: &mut Findings) {
    let grace = u64::try_from(limits::WORKER_TTL.as_micros()).unwrap_or(u64::MAX);
    for kernel in &evidence.kernels {
        let Some(session) = evidence.sessions.get(&kernel.session) else {
            continue;
        };
        let starts = evidence
            .starts
            .iter()
            .filter(|start| start.session == *session);
        let mut newest_here: BTreeMap<_, &Start> = BTreeMap::new();
        let mut elsewhere: Vec<&Start> = Vec::new();
        for start in starts {
            let until = start.at_us.saturating_add(grace);
            if is_of(start, kernel) {
                if start.at_us <= kernel.at_us {
                    let newest = newest_here.entry(start.incarnation).or_insert(start);
                    if start.epoch > newest.epoch {
                        *newest = start;
                    }
                }
            } else if until < kernel.at_us {
                elsewhere.push(start);
            }
        }
        let fence = elsewhere.into_iter().find(|start| {
            // A kernel is marked by its session's code, so some start here led to it; the newest
            // may be the one.
            let here = newest_here.get(&start.incarnation);
            here.is_some_and(|here| here.epoch < start.epoch)
        });
        if let Some(fence) = fence {
            let what = format!(
                "process {} on {} still lives {} ms after another worker had taken over",
                kernel.pid,
                kernel.worker,
                (kernel.at_us - fence.at_us) / 1000
            );
            let lines = vec![noted(fence), format!("{kernel:?}")];
            found.add(Kind::FencedCode, &kernel.session, what, lines);
        }
    }
}

/// Whether a start was on the worker in whose cage the kernel was, in any of its runs.
fn is_of(start: &Start, kernel: &Kernel) -> bool {
    let run = start.worker.as_str().strip_prefix(&kernel.worker);
    let run = run.and_then(|run| run.strip_prefix('-'));
    run.is_some_and(|run| !run.contains('-'))
}
