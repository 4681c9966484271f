//! What came of a run, and whether every objective was met.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{
    objective::{Bound, Objective},
    plan::Kind,
    send::Sent,
};
use crate::statistics::milliseconds;

/// Percentiles that are told.
const PERCENTS: [f64; 6] = [50.0, 90.0, 95.0, 99.0, 99.9, 100.0];
/// If requests were sent later than this, in milliseconds, the machine that sends is too slow for the rate.
const LATE_MS: f64 = 20.0;

/// Everything that is told of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// What the random parts followed from.
    seed: u64,
    /// Of each kind that was sent, and of all.
    kinds: Vec<Figures>,
    /// The 99th percentile of how much too late requests were sent, in milliseconds.
    late_p99_ms: f64,
    /// What was to hold, and whether it did.
    objectives: Vec<Judged>,
}

/// What came of one kind of request.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figures {
    kind: &'static str,
    sent: usize,
    succeeded: usize,
    /// Requests that failed, by the code of the error.
    failed: BTreeMap<String, usize>,
    /// Milliseconds by percentile, of those that succeeded.
    percentiles_ms: BTreeMap<String, f64>,
}

/// An objective and what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Judged {
    objective: String,
    /// Milliseconds or percent; `None`: no such request succeeded, or none was sent.
    found: Option<f64>,
    holds: bool,
}

impl Report {
    /// What is told of these requests.
    #[must_use]
    pub(super) fn of(seed: u64, sent: &[Sent], objectives: &[Objective]) -> Self {
        let kinds = Kind::ALL.into_iter().map(Some).chain([None]);
        let kinds = kinds.map(|kind| Figures::of(kind, sent));
        let mut late: Vec<_> = sent.iter().map(|sent| sent.late).collect();
        late.sort_unstable();
        Self {
            seed,
            kinds: kinds.filter(|figures| figures.sent > 0).collect(),
            late_p99_ms: percentile(&late, 99.0).unwrap_or_default(),
            objectives: objectives
                .iter()
                .map(|objective| judge(*objective, sent))
                .collect(),
        }
    }

    /// Whether every objective was met.
    #[must_use]
    pub(super) fn holds(&self) -> bool {
        self.objectives.iter().all(|judged| judged.holds)
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "\n{:<10}{:>9}{:>9}", "", "sent", "failed")?;
        for percent in PERCENTS {
            write!(out, "{:>10}", format!("p{percent} ms"))?;
        }
        writeln!(out)?;
        for figures in &self.kinds {
            let failed = figures.sent - figures.succeeded;
            write!(out, "{:<10}{:>9}{failed:>9}", figures.kind, figures.sent)?;
            for percent in PERCENTS {
                match figures.percentiles_ms.get(&key(percent)) {
                    Some(found) => write!(out, "{found:>10.2}")?,
                    None => write!(out, "{:>10}", "-")?,
                }
            }
            writeln!(out)?;
        }
        if let Some(all) = self.kinds.last() {
            for (code, count) in &all.failed {
                writeln!(out, "{count} failed: {code}")?;
            }
        }
        if self.late_p99_ms > LATE_MS {
            writeln!(
                out,
                "requests were sent up to {:.0} ms too late (p99): this machine is too slow for the rate, and the \
                 times are too long by that",
                self.late_p99_ms
            )?;
        }
        for judged in &self.objectives {
            let word = if judged.holds { "met" } else { "MISSED" };
            match judged.found {
                Some(found) => writeln!(out, "{}: {found:.2} {word}", judged.objective)?,
                None => writeln!(out, "{}: nothing was measured, {word}", judged.objective)?,
            }
        }
        Ok(())
    }
}

impl Figures {
    fn of(kind: Option<Kind>, sent: &[Sent]) -> Self {
        let all: Vec<_> = of_kind(kind, sent).collect();
        let times = times(kind, sent);
        let mut failed = BTreeMap::new();
        for code in all.iter().filter_map(|sent| sent.outcome.as_ref().err()) {
            *failed.entry(code.clone()).or_default() += 1;
        }
        let percentiles = PERCENTS
            .into_iter()
            .filter_map(|percent| Some((key(percent), percentile(&times, percent)?)));
        Self {
            kind: kind.map_or("all", Kind::name),
            sent: all.len(),
            succeeded: times.len(),
            failed,
            percentiles_ms: percentiles.collect(),
        }
    }
}

fn key(percent: f64) -> String {
    format!("p{percent}")
}

fn of_kind(kind: Option<Kind>, sent: &[Sent]) -> impl Iterator<Item = &Sent> {
    let is_wanted = move |sent: &&Sent| kind.is_none_or(|kind| sent.kind == kind);
    sent.iter().filter(is_wanted)
}

/// The times of those that succeeded, the shortest first.
pub(super) fn times(kind: Option<Kind>, sent: &[Sent]) -> Vec<Duration> {
    let sent = of_kind(kind, sent);
    let mut times: Vec<_> = sent
        .filter_map(|sent| sent.outcome.as_ref().ok().copied())
        .collect();
    times.sort_unstable();
    times
}

/// Nearest rank, in milliseconds.
fn percentile(sorted: &[Duration], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let reached = |place: usize| (place + 1) as f64 >= sorted.len() as f64 * percent / 100.0;
    let place = (0..last).find(|place| reached(*place)).unwrap_or(last);
    sorted.get(place).map(|time| milliseconds(*time))
}

fn judge(objective: Objective, sent: &[Sent]) -> Judged {
    let times = times(objective.kind, sent);
    let (found, holds) = match objective.bound {
        Bound::Percentile { percent, at_most } => {
            let found = percentile(&times, percent);
            (found, found.is_some_and(|found| found <= at_most))
        }
        Bound::Succeeded { at_least } => {
            let all = of_kind(objective.kind, sent).count();
            let found = (all > 0).then(|| times.len() as f64 * 100.0 / all as f64);
            (found, found.is_some_and(|found| found >= at_least))
        }
    };
    Judged {
        objective: objective.to_string(),
        found,
        holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(kind: Kind, outcome: Result<u64, &str>) -> Sent {
        Sent {
            kind,
            due: Duration::ZERO,
            late: Duration::from_millis(1),
            outcome: outcome.map(Duration::from_millis).map_err(str::to_owned),
        }
    }

    fn run() -> Vec<Sent> {
        let warm = (1..=99).map(|time| sent(Kind::Warm, Ok(time)));
        let failed = [sent(Kind::Warm, Err("Busy")), sent(Kind::New, Err("Busy"))];
        warm.chain(failed).collect()
    }

    #[test]
    fn figures_are_told_by_kind_and_of_all() {
        let report = Report::of(1, &run(), &[]);
        let told = |kind| {
            report
                .kinds
                .iter()
                .find(|figures| figures.kind == kind)
                .unwrap()
        };
        assert_eq!((told("warm").sent, told("warm").succeeded), (100, 99));
        assert_eq!(told("warm").percentiles_ms["p50"], 50.0);
        assert_eq!(told("warm").percentiles_ms["p100"], 99.0);
        assert_eq!(told("new").failed["Busy"], 1);
        assert!(told("new").percentiles_ms.is_empty());
        assert_eq!(told("all").failed["Busy"], 2);
        assert_eq!(report.kinds.len(), 3);
        let mut text = vec![];
        report.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("2 failed: Busy"), "{text}");
    }

    #[test]
    fn an_objective_holds_or_is_missed() {
        for (objective, holds) in [
            ("warm:p50<=50ms", true),
            ("warm:p50<=49ms", false),
            ("warm:ok>=99%", true),
            ("warm:ok>=99.1%", false),
            ("all:ok>=98%", true),
            // Nothing was measured.
            ("new:p50<=1000ms", false),
            ("upload:ok>=0%", false),
        ] {
            let report = Report::of(1, &run(), &[objective.parse().unwrap()]);
            assert_eq!(report.holds(), holds, "{objective}");
        }
    }
}
