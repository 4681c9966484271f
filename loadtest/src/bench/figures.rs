//! What was measured, beside what was to be reached: a table for people, JSON for machines.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use crate::statistics::{Samples, Summary};

/// Everything that one benchmark found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    rounds: usize,
    cores: usize,
    times: Vec<Time>,
    sizes: Vec<Size>,
    differences: Vec<Difference>,
    ratios: Vec<Ratio>,
}

/// A time and the largest median that was hoped for.
#[derive(Clone, Debug, Serialize)]
struct Time {
    name: String,
    #[serde(flatten)]
    summary: Summary,
    target_p50_ms: Option<f64>,
}

/// A size and the largest that was hoped for, in bytes.
#[derive(Clone, Debug, Serialize)]
struct Size {
    name: String,
    bytes: u64,
    target_bytes: Option<u64>,
}

/// How much longer the first takes than the second, by medians, and the most that was hoped for.
#[derive(Clone, Debug, Serialize)]
struct Difference {
    name: String,
    p50_ms: f64,
    target_ms: Option<f64>,
}

/// How many times slower the first is than the second, by medians, and the least that was hoped for.
#[derive(Clone, Debug, Serialize)]
struct Ratio {
    name: String,
    ratio: f64,
    target: Option<f64>,
}

impl Figures {
    pub(super) fn new(rounds: usize, cores: usize) -> Self {
        Self {
            rounds,
            cores,
            times: Vec::new(),
            sizes: Vec::new(),
            differences: Vec::new(),
            ratios: Vec::new(),
        }
    }

    /// Adds a time, unless it was not measured.
    pub(super) fn time(&mut self, name: &str, samples: &Samples, target_p50_ms: Option<f64>) {
        let summary = samples.summary();
        if summary.count > 0 {
            self.times.push(Time {
                name: name.to_owned(),
                summary,
                target_p50_ms,
            });
        }
    }

    /// Adds a size.
    pub(super) fn size(&mut self, name: &str, bytes: u64, target_bytes: Option<u64>) {
        self.sizes.push(Size {
            name: name.to_owned(),
            bytes,
            target_bytes,
        });
    }

    /// Adds a difference of medians, unless one side was not measured.
    pub(super) fn difference(
        &mut self,
        name: &str,
        slower: &Samples,
        faster: &Samples,
        target_ms: Option<f64>,
    ) {
        let (slower, faster) = (slower.summary(), faster.summary());
        if slower.count > 0 && faster.count > 0 {
            self.differences.push(Difference {
                name: name.to_owned(),
                p50_ms: slower.p50_ms - faster.p50_ms,
                target_ms,
            });
        }
    }

    /// Adds a ratio of medians, unless one side was not measured.
    pub(super) fn ratio(
        &mut self,
        name: &str,
        slower: &Samples,
        faster: &Samples,
        target: Option<f64>,
    ) {
        let (slower, faster) = (slower.summary(), faster.summary());
        if slower.count > 0 && faster.p50_ms > 0.0 {
            let ratio = slower.p50_ms / faster.p50_ms;
            self.ratios.push(Ratio {
                name: name.to_owned(),
                ratio,
                target,
            });
        }
    }

    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// One line per figure; `ok` or `MISSED` where there is a target.
    pub(super) fn table(&self) -> String {
        let mut table = format!("\n{} cores, {} rounds\n", self.cores, self.rounds);
        let mut line = |cells: [&str; 6]| {
            let [name, p50, p99, max, target, verdict] = cells;
            // Writing to a string cannot fail.
            let _infallible = writeln!(
                table,
                "{name:<74} {p50:>10} {p99:>10} {max:>10} {target:>10} {verdict}"
            );
        };
        line(["", "p50 ms", "p99 ms", "max ms", "target", ""]);
        for Time {
            name,
            summary,
            target_p50_ms,
        } in &self.times
        {
            let target = target_p50_ms.map_or_else(String::new, |most| format!("≤ {most}"));
            line([
                name,
                &format!("{:.2}", summary.p50_ms),
                &format!("{:.2}", summary.p99_ms),
                &format!("{:.2}", summary.max_ms),
                &target,
                verdict(target_p50_ms.map(|most| summary.p50_ms <= most)),
            ]);
        }
        line(["", "ms", "", "", "", ""]);
        for Difference {
            name,
            p50_ms,
            target_ms,
        } in &self.differences
        {
            let target = target_ms.map_or_else(String::new, |most| format!("≤ {most}"));
            let holds = target_ms.map(|most| *p50_ms <= most);
            line([
                name,
                &format!("{p50_ms:.2}"),
                "",
                "",
                &target,
                verdict(holds),
            ]);
        }
        line(["", "MiB", "", "", "", ""]);
        for Size {
            name,
            bytes,
            target_bytes,
        } in &self.sizes
        {
            let target = target_bytes.map_or_else(String::new, |most| format!("≤ {}", most >> 20));
            let size = format!("{:.1}", mebibytes(*bytes));
            let holds = target_bytes.map(|most| *bytes <= most);
            line([name, &size, "", "", &target, verdict(holds)]);
        }
        line(["", "ratio", "", "", "", ""]);
        for Ratio {
            name,
            ratio,
            target,
        } in &self.ratios
        {
            let text = target.map_or_else(String::new, |least| format!("≥ {least:.2}"));
            let holds = target.map(|least| *ratio >= least);
            line([name, &format!("{ratio:.2}"), "", "", &text, verdict(holds)]);
        }
        table
    }
}

fn verdict(holds: Option<bool>) -> &'static str {
    match holds {
        None => "",
        Some(true) => "ok",
        Some(false) => "MISSED",
    }
}

fn mebibytes(bytes: u64) -> f64 {
    // Sizes of processes are far below 2^52, so nothing is lost.
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples(milliseconds: u64) -> Samples {
        [Duration::from_millis(milliseconds)].into_iter().collect()
    }

    #[test]
    fn a_figure_stands_beside_its_target() {
        let mut figures = Figures::new(1, 2);
        figures.time("fast", &samples(1), Some(1.5));
        figures.time("slow", &samples(2), Some(1.5));
        figures.time("not measured", &Samples::default(), Some(1.5));
        figures.difference("more", &samples(3), &samples(1), Some(0.6));
        figures.ratio("how much", &samples(30), &samples(1), Some(20.0));
        let table = figures.table();
        let row = |name: &str| table.lines().find(|line| line.starts_with(name));
        assert!(row("fast").unwrap().ends_with("ok"));
        assert!(row("slow").unwrap().ends_with("MISSED"));
        assert_eq!(row("not measured"), None);
        assert!(row("more").unwrap().contains("2.00") && row("more").unwrap().ends_with("MISSED"));
        assert!(row("how much").unwrap().contains("30.0"));
    }
}
