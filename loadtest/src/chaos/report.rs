//! What a run came to, in numbers.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    checker::Violation,
    history::{Action, Answer, Call, LOG},
    nemesis::Harm,
};
use crate::statistics::{Samples, Summary};

/// An idempotent call counts as answered when it got what it asked for within this time, all its
/// repetitions included.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// The numbers of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Operations by kind.
    operations: BTreeMap<&'static str, Outcomes>,
    /// Idempotent calls during the faults.
    idempotent: Availability,
    harm: Harm,
    /// Starts that the workers noted, and lines that kills have torn.
    starts: (usize, usize),
    violations: Vec<Violation>,
}

/// How operations ended, by the last answer to each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcomes {
    done: usize,
    failed: usize,
    lost: usize,
    refused: usize,
    unanswered: usize,
}

#[derive(Clone, Debug, Default)]
struct Availability {
    all: usize,
    in_time: usize,
    times: Samples,
}

impl Report {
    /// Counts.
    #[must_use]
    pub fn new(
        calls: &[Call],
        harm: Harm,
        starts: (usize, usize),
        violations: Vec<Violation>,
    ) -> Self {
        let mut report = Self {
            harm,
            starts,
            violations,
            ..Self::default()
        };
        let mut operations: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
        for call in calls.iter().filter(|call| !call.last) {
            operations.entry(call.operation).or_default().push(call);
        }
        for calls in operations.values() {
            let (Some(first), Some(last)) = (calls.first(), calls.last()) else {
                continue;
            };
            // A repetition after a success takes nothing back.
            let answered = calls
                .iter()
                .find(|call| call.answer().is_some_and(Answer::answers));
            let outcomes = report.operations.entry(kind(first)).or_default();
            outcomes.count(answered.unwrap_or(last).answer());
            if is_idempotent(first) {
                let took = answered.map(|call| call.answered_us().saturating_sub(first.sent_us));
                report.idempotent.count(took.map(Duration::from_micros));
            }
        }
        report
    }

    /// What went wrong.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Processes that ended of what must not harm them.
    #[must_use]
    pub fn casualties(&self) -> &[String] {
        &self.harm.casualties
    }

    /// Faults that were done.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.harm.faults.values().sum()
    }
}

impl Outcomes {
    fn count(&mut self, answer: Option<&Answer>) {
        let place = match answer {
            Some(Answer::Failed(_)) => &mut self.failed,
            Some(Answer::Refused(_, code)) if code == "ExecutionLost" => &mut self.lost,
            Some(Answer::Refused(..)) => &mut self.refused,
            Some(Answer::Lost(_)) | None => &mut self.unanswered,
            Some(_) => &mut self.done,
        };
        *place += 1;
    }
}

impl Availability {
    fn count(&mut self, took: Option<Duration>) {
        self.all += 1;
        let in_time = took.filter(|took| *took <= ANSWERED_WITHIN);
        self.in_time += usize::from(in_time.is_some());
        in_time.into_iter().for_each(|took| self.times.push(took));
    }

    /// Share of calls answered in time, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a percentage of few calls")]
    fn percent(&self) -> f64 {
        match self.all {
            0 => 100.0,
            all => self.in_time as f64 * 100.0 / all as f64,
        }
    }
}

fn kind(call: &Call) -> &'static str {
    match &call.action {
        Action::Append(_) if call.sent_id.is_some() => "execute with operation-id",
        Action::Append(_) => "execute without",
        Action::Peek => "execute that changes nothing",
        Action::Upload(..) => "upload",
        Action::Download(path) if path == LOG => "download of the log",
        Action::Download(_) => "download",
        Action::Delete(_) => "delete",
        Action::List => "list",
    }
}

/// The calls that anybody may repeat by the contract.
fn is_idempotent(call: &Call) -> bool {
    match call.action {
        Action::Append(_) => call.sent_id.is_some(),
        Action::Upload(..) | Action::Download(_) | Action::List => true,
        Action::Peek | Action::Delete(_) => false,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:30}{:>8}{:>8}{:>8}{:>9}{:>12}",
            "operations", "done", "failed", "lost", "refused", "unanswered"
        )?;
        for (
            kind,
            Outcomes {
                done,
                failed,
                lost,
                refused,
                unanswered,
            },
        ) in &self.operations
        {
            writeln!(
                f,
                "  {kind:28}{done:>8}{failed:>8}{lost:>8}{refused:>9}{unanswered:>12}"
            )?;
        }
        writeln!(f, "faults: {}", self.faults())?;
        for (kind, count) in &self.harm.faults {
            writeln!(f, "  {kind:28}{count:>8}")?;
        }
        for failure in &self.harm.failures {
            writeln!(f, "  failed: {failure}")?;
        }
        for casualty in &self.harm.casualties {
            writeln!(f, "  NOT SURVIVED: {casualty}")?;
        }
        for (member, count) in &self.harm.revived {
            writeln!(f, "  ended by itself: {member}, {count} times")?;
        }
        let (starts, torn) = self.starts;
        writeln!(f, "starts noted by workers: {starts} ({torn} torn lines)")?;
        let Summary {
            p50_ms,
            p99_ms,
            max_ms,
            ..
        } = self.idempotent.times.summary();
        writeln!(
            f,
            "availability: {:.2} % of {} idempotent calls answered within {} s \
             (p50 {p50_ms:.0} ms, p99 {p99_ms:.0} ms, max {max_ms:.0} ms)",
            self.idempotent.percent(),
            self.idempotent.all,
            ANSWERED_WITHIN.as_secs(),
        )?;
        writeln!(f, "violations: {}", self.violations.len())?;
        self.violations
            .iter()
            .try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::history::Reply;

    fn call(operation: u32, action: Action, times: (u64, u64), answer: Answer) -> Call {
        Call {
            number: 0,
            operation,
            session: "chaos-1".into(),
            ingress: 0,
            action,
            sent_id: None,
            last: false,
            sent_us: times.0 * 1_000_000,
            reply: Some(Reply {
                at_us: times.1 * 1_000_000,
                answer,
                id: None,
            }),
        }
    }

    #[test]
    fn an_operation_counts_once_with_all_its_repetitions() {
        let refused = || Answer::Refused(503, "NoCapacity".into());
        let calls = [
            call(1, Action::List, (0, 1), refused()),
            call(1, Action::List, (2, 3), Answer::Files([].into())),
            call(2, Action::List, (0, 30), Answer::Files([].into())),
            call(3, Action::List, (0, 1), refused()),
            call(4, Action::Delete("a".into()), (0, 1), refused()),
        ];
        let report = Report::new(&calls, Harm::default(), (0, 0), vec![]);
        let list = report.operations["list"];
        assert_eq!((list.done, list.refused), (2, 1));
        assert_eq!((report.idempotent.all, report.idempotent.in_time), (3, 1));
        let told = report.to_string();
        assert!(
            told.contains("availability: 33.33 % of 3 idempotent calls"),
            "{told}"
        );
        assert!(told.contains("violations: 0"), "{told}");
    }
}
