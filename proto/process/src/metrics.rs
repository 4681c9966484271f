//! What a process counts and measures, in the forms that Prometheus reads. Every part of a process gives its
//! figures when it is asked: nothing is kept here but who to ask.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use prometheus_client::{
    encoding::{prometheus_text, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use proto::health::Health;
use store::Errors;

/// Before the name of every metric.
const PREFIX: &str = "hearth";
/// The media type of the OpenMetrics text form.
const OPENMETRICS: &str = "application/openmetrics-text";

/// Upper bounds of durations, in seconds: from a warm call to a long execution.
const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
];

/// A histogram of durations in seconds.
#[must_use]
pub fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// A part of a process that has figures.
pub trait Figures: Send + Sync + 'static {
    /// Enters the figures as they are now. No label may name a session, a caller or a file.
    fn enter(&self, registry: &mut Registry);
}

/// The metrics of a process. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Metrics(Arc<RwLock<BTreeMap<&'static str, Box<dyn Figures>>>>);

/// Figures as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// Media type of the text.
    pub content_type: &'static str,
    /// One line a sample.
    pub text: String,
}

impl Metrics {
    /// From now on `figures` are shown, in the place of those that `part` had before.
    pub fn show(&self, part: &'static str, figures: impl Figures) {
        let mut parts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        parts.insert(part, Box::new(figures));
    }

    /// The figures of `part` are not shown any more, and what they were read from is let go.
    pub fn hide(&self, part: &'static str) {
        let mut parts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        parts.remove(part);
    }

    /// All figures as they are now, in the form that an `Accept` header prefers: OpenMetrics where it names
    /// it, otherwise the Prometheus text form.
    ///
    /// # Errors
    /// A figure cannot be written.
    pub fn expose(&self, accept: Option<&str>) -> Result<Exposition, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for part in parts.values() {
            part.enter(&mut registry);
        }
        drop(parts);
        let mut shown = String::new();
        let content_type = if accept.is_some_and(|accept| accept.contains(OPENMETRICS)) {
            text::encode(&mut shown, &registry)?;
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            prometheus_text::encode(&mut shown, &registry)?;
            prometheus_text::CONTENT_TYPE
        };
        Ok(Exposition {
            content_type,
            text: shown,
        })
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Figures for Health {
    fn enter(&self, registry: &mut Registry) {
        let checks = Family::<[(&str, &str); 1], Gauge>::default();
        for check in self.report().checks {
            let passes = checks.get_or_create(&[("check", check.name)]);
            passes.set(i64::from(check.passes));
        }
        registry.register(
            "check_passes",
            "Whether a check of readiness passes: 1 or 0",
            checks,
        );
    }
}

impl Figures for Errors {
    fn enter(&self, registry: &mut Registry) {
        let errors = Family::<[(&str, &str); 1], Counter>::default();
        for (operation, count) in self.by_operation() {
            let counted = errors.get_or_create(&[("operation", operation)]);
            counted.inc_by(count);
        }
        registry.register(
            "store_errors",
            "Requests that the object store failed or did not answer in time, by operation",
            errors,
        );
    }
}

/// Which program this is.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Its name.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Figures for Build {
    fn enter(&self, registry: &mut Registry) {
        let labels = vec![("program", self.program), ("version", self.version)];
        registry.register("build", "Which program this is", Info::new(labels));
    }
}

#[cfg(test)]
mod tests {
    use proto::health::Check;

    use super::*;

    fn metrics() -> (Metrics, Health) {
        let (metrics, health) = (Metrics::default(), Health::default());
        let build = Build {
            program: "worker",
            version: "1.2.3",
        };
        metrics.show("build", build);
        metrics.show("health", health.clone());
        (metrics, health)
    }

    #[test]
    fn figures_are_shown_as_they_are_when_asked() {
        let (metrics, health) = metrics();
        health.pass(Check::Bus);
        health.fail(Check::Disk, "full");
        let shown = metrics.expose(None).unwrap();
        assert_eq!(
            shown.content_type,
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(
            shown
                .text
                .contains("hearth_check_passes{check=\"bus\"} 1\n")
        );
        assert!(
            shown
                .text
                .contains("hearth_check_passes{check=\"disk\"} 0\n")
        );
        let build = "hearth_build_info{program=\"worker\",version=\"1.2.3\"} 1\n";
        assert!(shown.text.contains(build), "{}", shown.text);
        health.pass(Check::Disk);
        let shown = metrics.expose(None).unwrap();
        assert!(
            shown
                .text
                .contains("hearth_check_passes{check=\"disk\"} 1\n")
        );
    }

    #[test]
    fn whoever_accepts_openmetrics_gets_it() {
        let (metrics, _) = metrics();
        let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1";
        let shown = metrics.expose(Some(accept)).unwrap();
        assert!(shown.content_type.starts_with(OPENMETRICS));
        assert!(shown.text.ends_with("# EOF\n"));
        let shown = metrics.expose(Some("*/*")).unwrap();
        assert!(shown.content_type.starts_with("text/plain"));
        assert!(!shown.text.contains("# EOF"));
    }

    #[test]
    fn figures_of_a_part_replace_those_it_had() {
        let (metrics, health) = metrics();
        health.pass(Check::Bus);
        metrics.show("health", health);
        let shown = metrics.expose(None).unwrap();
        assert_eq!(shown.text.matches("# TYPE hearth_check_passes").count(), 1);
    }
}
