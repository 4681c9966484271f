//! What `check` finds of a host and its settings, and how it says so.

pub mod bus;
pub mod fleet;
pub mod ports;
pub mod store;
pub mod visit;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    failure::{causes, one_line},
    remedy::{HasRemedy, Remedy},
};

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it must be.
    Ok,
    /// It serves, but not in every case.
    Warn,
    /// It would not start, or not serve.
    Fail,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub outcome: Outcome,
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, what: impl AsRef<str>) -> Self {
        Self::new(Outcome::Ok, name, what.as_ref(), None)
    }

    /// It serves, but not in every case.
    #[must_use]
    pub fn warn(name: &'static str, what: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(Outcome::Warn, name, what.as_ref(), Some(remedy.as_ref()))
    }

    /// It would not start, or not serve.
    #[must_use]
    pub fn fail(name: &'static str, what: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(Outcome::Fail, name, what.as_ref(), Some(remedy.as_ref()))
    }

    /// It would not start, or not serve, for this cause.
    #[must_use]
    pub fn refused<E: HasRemedy>(name: &'static str, error: &E) -> Self {
        let remedy = error.remedy().map_or("", Remedy::text);
        Self::fail(name, causes(error), remedy)
    }

    fn new(outcome: Outcome, name: &'static str, what: &str, remedy: Option<&str>) -> Self {
        Self {
            outcome,
            name,
            what: one_line(what),
            remedy: remedy.map(one_line).filter(|remedy| !remedy.is_empty()),
        }
    }
}

/// How findings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// One line for each.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preflight {
    /// The worst outcome.
    pub outcome: Outcome,
    /// In the order in which things were looked at.
    pub findings: Vec<Finding>,
}

impl Preflight {
    /// All findings together.
    #[must_use]
    pub fn of(findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|finding| finding.outcome).max();
        Self {
            outcome: worst.unwrap_or(Outcome::Ok),
            findings,
        }
    }

    /// Whether the process would serve.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.outcome != Outcome::Fail
    }

    /// The exit status of `check`.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.passes() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Writes it to standard output.
    ///
    /// # Errors
    /// Nobody reads there.
    pub fn print(&self, output: Output) -> io::Result<()> {
        let text = match output {
            Output::Text => self.text(),
            Output::Json => serde_json::to_string_pretty(self)? + "\n",
        };
        io::stdout().write_all(text.as_bytes())
    }

    fn text(&self) -> String {
        let wide = self.findings.iter().map(|finding| finding.name.len()).max();
        let wide = wide.unwrap_or(0);
        let line = |finding: &Finding| {
            let Finding { name, what, .. } = finding;
            let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}"));
            let remedy = remedy.unwrap_or_default();
            format!(
                "{:<4}  {name:<wide$}  {what}{remedy}\n",
                finding.outcome.name()
            )
        };
        self.findings.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_all_and_a_warning_does_not() {
        let fine = vec![
            Finding::ok("bus", "answers in 1 ms"),
            Finding::warn("memory", "not for all\nsessions", "lower --max-sessions"),
        ];
        let warned = Preflight::of(fine.clone());
        assert_eq!((warned.outcome, warned.passes()), (Outcome::Warn, true));
        assert_eq!(
            warned.text(),
            "ok    bus     answers in 1 ms\n\
             warn  memory  not for all sessions; lower --max-sessions\n"
        );
        let failing = Finding::fail("store", "gone", "");
        let failed = Preflight::of([fine, vec![failing]].concat());
        assert!(!failed.passes());
        assert!(failed.text().ends_with("fail  store   gone\n"));
        assert!(Preflight::of(vec![]).passes());
    }

    #[test]
    fn programs_read_the_same_as_people() {
        let json = serde_json::to_value(Preflight::of(vec![Finding::fail("a", "b", "c")])).unwrap();
        let wanted = serde_json::json!({
            "outcome": "fail",
            "findings": [{ "outcome": "fail", "name": "a", "what": "b", "remedy": "c" }],
        });
        assert_eq!(json, wanted);
    }
}
