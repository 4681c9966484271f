//! What an ingress counts and measures. The names of all its metrics are here; what they say is in
//! `docs/metrics.md`, which a test holds against this file.

use std::{sync::atomic::AtomicU64, time::Duration};

use axum::http::{Method, StatusCode};
use process::metrics::{Figures, seconds};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use crate::{bus::Bus, queues::Queues};

/// What stands for a route that is none, or a method that none has.
const OTHER: &str = "other";

/// Requests that were answered. All clones count together.
#[derive(Clone, Debug)]
pub struct Requests {
    answered: Family<Answered, Counter>,
    durations: Family<Operation, Histogram, fn() -> Histogram>,
}

/// An answer. Each label has few values: routes are templates, codes a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    method: &'static str,
    route: String,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            answered: Family::default(),
            durations: Family::new_with_constructor(seconds),
        }
    }
}

impl Requests {
    /// The head of an answer was there so long after its request. `route` is the template of the path, and
    /// `code` the error's.
    pub fn answered(
        &self,
        method: &Method,
        route: Option<&str>,
        status: StatusCode,
        code: Option<&str>,
        took: Duration,
    ) {
        let route = route.unwrap_or(OTHER).to_owned();
        let method = name_of(method);
        let operation = Operation {
            method,
            route: route.clone(),
        };
        self.durations
            .get_or_create(&operation)
            .observe(took.as_secs_f64());
        let answered = Answered {
            method,
            route,
            status: status.as_u16(),
            code: code.unwrap_or_default().to_owned(),
        };
        self.answered.get_or_create(&answered).inc();
    }
}

/// A method by name, unless it is one that no operation has.
pub(crate) fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => OTHER,
    }
}

impl Figures for Requests {
    fn enter(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Requests that were answered, by method, route, status and code of the error",
            self.answered.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from a request to the head of its answer, by operation",
            Unit::Seconds,
            self.durations.clone(),
        );
    }
}

/// An ingress's connection to the bus.
#[derive(Clone, Debug)]
pub struct BusFigures(pub Bus);

impl Figures for BusFigures {
    fn enter(&self, registry: &mut Registry) {
        registry.register(
            "bus_connects",
            "Connections made to NATS; above 1 the connection was lost",
            ConstCounter::new(self.0.connects()),
        );
    }
}

impl Figures for Queues {
    fn enter(&self, registry: &mut Registry) {
        let jobs = Family::<[(&str, String); 2], Gauge>::default();
        let ages = Family::<[(&str, String); 1], Gauge<f64, AtomicU64>>::default();
        let now = self.now();
        for (pool, seen) in &*self.seen() {
            for (state, count) in [("waiting", seen.depth.waiting), ("taken", seen.depth.taken)] {
                let labels = [("pool", pool.to_string()), ("state", state.to_owned())];
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                jobs.get_or_create(&labels).set(count);
            }
            let age = ages.get_or_create(&[("pool", pool.to_string())]);
            age.set(seen.age(now).as_secs_f64());
        }
        registry.register(
            "queue_executions",
            "Asynchronous executions that have not ended, by pool: waiting for a worker, or taken by one. \
             Every ingress sees the same",
            jobs,
        );
        registry.register_with_unit(
            "queue_oldest_age",
            "Time since the oldest asynchronous execution of a pool that has not ended was asked for. Every \
             ingress sees the same",
            Unit::Seconds,
            ages,
        );
    }
}

#[cfg(test)]
mod tests {
    use process::metrics::Metrics;

    use super::*;

    #[test]
    fn whatever_callers_send_the_number_of_series_is_bounded() {
        let (requests, metrics) = (Requests::default(), Metrics::default());
        metrics.show("requests", requests.clone());
        let lines = || metrics.expose(None).unwrap().text.lines().count();
        let answer = |method: &str| {
            let method = method.parse().unwrap();
            let took = Duration::from_millis(3);
            requests.answered(
                &method,
                None,
                StatusCode::NOT_FOUND,
                Some("PathNotFound"),
                took,
            );
        };
        answer("BREW");
        let one = lines();
        for number in 0..1000 {
            answer(&format!("BREW{number}"));
        }
        assert_eq!(lines(), one);
        let text = metrics.expose(None).unwrap().text;
        let counted = "hearth_requests_total{method=\"other\",route=\"other\",status=\"404\",code=\"PathNotFound\"} 1001";
        assert!(text.contains(counted), "{text}");
    }
}
