//! When which request is due. Everything follows from a seed.

use std::{fmt, str::FromStr, time::Duration};

use serde::Serialize;

use crate::chance::Chance;

/// Most requests of one run.
const MOST: f64 = 10_000_000.0;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Code in a session that runs already.
    Warm,
    /// The first code of a session.
    New,
    /// A file is stored.
    Upload,
    /// A file is read.
    Download,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Warm, Self::New, Self::Upload, Self::Download];

    /// Its name.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::New => "new",
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| PlanError::Kind(text.to_owned()))
    }
}

/// Kinds of requests, each as likely as its weight says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(u32, Kind)>);

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not a kind of request.
    #[error("`{0}` is not one of warm, new, upload and download")]
    Kind(String),
    /// Not a kind and its weight.
    #[error("`{0}` is not a kind and its weight, such as warm=80")]
    Weight(String),
    /// All weights are 0.
    #[error("no kind of request has a weight above 0")]
    Nothing,
    /// The rate is no number above 0, or there would be too many requests.
    #[error("the rate must be above 0, and no more than 10 million requests may come of it")]
    Rate,
}

impl FromStr for Mix {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut kinds = vec![];
        for part in text.split(',') {
            let weight = || PlanError::Weight(part.to_owned());
            let (kind, number) = part.split_once('=').ok_or_else(weight)?;
            kinds.push((number.parse().map_err(|_| weight())?, kind.parse()?));
        }
        if kinds.iter().all(|(weight, _)| *weight == 0) {
            return Err(PlanError::Nothing);
        }
        Ok(Self(kinds))
    }
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When it is due, from the beginning on.
    pub due: Duration,
    /// What it is.
    pub kind: Kind,
}

/// All requests of a run, in the order in which they are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The requests.
    pub arrivals: Vec<Arrival>,
}

impl Plan {
    /// Draws requests that come as those of many callers do, who know nothing of each other: the time between two
    /// is exponentially distributed.
    ///
    /// # Errors
    /// The rate is not above 0, or too high.
    pub(super) fn draw(
        chance: &mut Chance,
        rate: f64,
        length: Duration,
        mix: &Mix,
    ) -> Result<Self, PlanError> {
        let expected = rate * length.as_secs_f64();
        if !(rate > 0.0 && expected <= MOST) {
            return Err(PlanError::Rate);
        }
        let mut arrivals = vec![];
        let mut due = pause(chance, rate);
        while due < length {
            let kind = *chance.weighted(&mix.0).ok_or(PlanError::Nothing)?;
            arrivals.push(Arrival { due, kind });
            due += pause(chance, rate);
        }
        Ok(Self { arrivals })
    }
}

/// The time to the next request: at most some 22 times the mean.
fn pause(chance: &mut Chance, rate: f64) -> Duration {
    const STEPS: u32 = 1 << 31;
    let step = u32::try_from(chance.below(STEPS.into())).unwrap_or_default();
    let drawn = f64::from(step + 1) / f64::from(STEPS);
    Duration::try_from_secs_f64(-drawn.ln() / rate).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, mix: &str) -> Plan {
        let mix = mix.parse().unwrap();
        Plan::draw(
            &mut Chance::new(seed),
            100.0,
            Duration::from_secs(100),
            &mix,
        )
        .unwrap()
    }

    #[test]
    fn requests_come_at_the_rate_and_in_the_mix_that_were_asked_for() {
        let plan = drawn(1, "warm=3,new=1,upload=0");
        let count = plan.arrivals.len();
        assert!((9_500..10_500).contains(&count), "{count}");
        let of = |kind| {
            plan.arrivals
                .iter()
                .filter(|arrival| arrival.kind == kind)
                .count()
        };
        let new = of(Kind::New);
        assert!((2_300..2_700).contains(&new), "{new}");
        assert_eq!(of(Kind::Upload) + of(Kind::Download), 0);
        assert!(plan.arrivals.is_sorted_by_key(|arrival| arrival.due));
    }

    #[test]
    fn the_same_seed_draws_the_same_requests() {
        assert_eq!(drawn(7, "warm=1"), drawn(7, "warm=1"));
        assert_ne!(drawn(7, "warm=1"), drawn(8, "warm=1"));
    }

    #[test]
    fn what_is_no_mix_is_refused_in_words() {
        for (text, words) in [
            ("", "`` is not a kind and its weight"),
            ("warm", "`warm` is not a kind and its weight"),
            ("warm=x", "`warm=x` is not a kind and its weight"),
            ("cold=1", "`cold` is not one of"),
            ("warm=0", "no kind of request has a weight"),
        ] {
            let refused = text.parse::<Mix>().unwrap_err().to_string();
            assert!(refused.starts_with(words), "{refused}");
        }
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            let mix = "warm=1".parse().unwrap();
            let length = Duration::from_secs(1);
            let plan = Plan::draw(&mut Chance::new(1), rate, length, &mix);
            assert_eq!(plan, Err(PlanError::Rate), "{rate}");
        }
    }
}
