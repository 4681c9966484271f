//! What must hold: a bound on a percentile of times, or on the part of the requests that succeed.

use std::{fmt, str::FromStr};

use super::plan::Kind;

/// What must hold of one kind of request, or of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Of which; `None`: of all.
    pub kind: Option<Kind>,
    /// What.
    pub bound: Bound,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This percentile of the times of those that succeeded is at most so many milliseconds.
    Percentile {
        /// Above 0, at most 100.
        percent: f64,
        /// Milliseconds.
        at_most: f64,
    },
    /// At least so many of a hundred requests succeed.
    Succeeded {
        /// 0 to 100.
        at_least: f64,
    },
}

/// The text is no objective.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no objective, such as warm:p99<=50ms or all:ok>=99.9%")]
pub struct NoObjective(String);

impl FromStr for Objective {
    type Err = NoObjective;

    fn from_str(text: &str) -> Result<Self, NoObjective> {
        parse(text).ok_or_else(|| NoObjective(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Objective> {
    let (kind, bound) = text.split_once(':')?;
    let kind = match kind {
        "all" => None,
        kind => Some(kind.parse().ok()?),
    };
    let bound = if let Some((percent, at_most)) = bound.split_once("<=") {
        Bound::Percentile {
            percent: within(percent.strip_prefix('p')?, f64::MIN_POSITIVE, 100.0)?,
            at_most: within(at_most.strip_suffix("ms")?, 0.0, f64::MAX)?,
        }
    } else {
        let at_least = bound.strip_prefix("ok>=")?.strip_suffix('%')?;
        Bound::Succeeded {
            at_least: within(at_least, 0.0, 100.0)?,
        }
    };
    Some(Objective { kind, bound })
}

fn within(text: &str, least: f64, most: f64) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (least <= number && number <= most).then_some(number)
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("all", Kind::name);
        match self.bound {
            Bound::Percentile { percent, at_most } => write!(f, "{kind}:p{percent}<={at_most}ms"),
            Bound::Succeeded { at_least } => write!(f, "{kind}:ok>={at_least}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_is_read_as_it_is_written() {
        for text in [
            "warm:p99<=50ms",
            "all:p99.9<=1500.5ms",
            "new:ok>=99.9%",
            "all:ok>=0%",
        ] {
            assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_objective_is_refused() {
        for text in [
            "",
            "warm",
            "cold:p99<=1ms",
            "warm:p0<=1ms",
            "warm:p101<=1ms",
            "warm:p99<=1",
            "warm:99<=1ms",
            "warm:p99<=-1ms",
            "warm:p99<=NaNms",
            "all:ok>=101%",
            "all:ok>=99",
            "all:ok<=99%",
        ] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
