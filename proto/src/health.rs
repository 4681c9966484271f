//! Readiness: the named checks of a process and how they stand. Every part of a process reports its own
//! checks to a [`Health`]; the process's `/readyz` shows them all.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Serialize;

/// Whose fault a failing check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This process cannot do its work: whoever balances load should leave it out.
    Process,
    /// Every process of the fleet is affected alike: leaving this one out would help nobody.
    Shared,
}

macro_rules! checks {
    ($($(#[doc = $meaning:literal])+ $check:ident = $name:literal, $scope:ident;)+) => {
        /// One thing that must hold for requests to be answered as they should.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $($(#[doc = $meaning])+ $check,)+
        }

        impl Check {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$check),+];

            /// Its name in reports and documents.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$check => $name,)+
                }
            }

            /// Whose fault its failure is.
            #[must_use]
            pub fn scope(self) -> Scope {
                match self {
                    $(Self::$check => Scope::$scope,)+
                }
            }
        }
    };
}

checks! {
    /// The process has finished its start.
    Starting = "starting", Process;
    /// The process was asked to end.
    Draining = "draining", Process;
    /// The bus answers a round trip.
    Bus = "bus", Process;
    /// The bus holds the data that the store knows of.
    BusGeneration = "bus-generation", Process;
    /// The host's clock agrees with the bus's.
    Clock = "clock", Process;
    /// Pools agree with those of the fleet: a pool that does not is refused by itself, and the others go on.
    Configuration = "configuration", Shared;
    /// Sandboxes can be made.
    Sandboxes = "sandboxes", Process;
    /// The disk of the sessions' files has more room than its reserve.
    Disk = "disk", Process;
    /// The object store takes and gives objects.
    Store = "store", Shared;
    /// There is a worker with room for new sessions.
    Workers = "workers", Shared;
    /// There is room for records of executions.
    Records = "records", Shared;
}

/// How a process stands altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// Every check passes.
    Ready,
    /// Only shared checks fail.
    Degraded,
    /// A check of this process fails.
    Unready,
}

/// How one check stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The check's name.
    pub name: &'static str,
    /// `true` if it passes.
    pub passes: bool,
    /// Why it fails, for operators; no user data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All checks of a process at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// What follows from them.
    pub status: Readiness,
    /// Each of them, in a fixed order.
    pub checks: Vec<CheckReport>,
}

impl HealthReport {
    /// The report for those who are not operators, without reasons, which name pools, addresses and the like.
    #[must_use]
    pub fn without_reasons(mut self) -> Self {
        for check in &mut self.checks {
            check.reason = None;
        }
        self
    }
}

/// The checks of a process. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<RwLock<BTreeMap<Check, Option<String>>>>);

impl Health {
    /// Reports that a check passes. Returns whether it did not before.
    pub fn pass(&self, check: Check) -> bool {
        self.set(check, None)
    }

    /// Reports that a check fails. Returns whether it did not before.
    pub fn fail(&self, check: Check, reason: impl Into<String>) -> bool {
        self.set(check, Some(reason.into()))
    }

    /// Whether a check passes; one that was never reported does not count as failing.
    #[must_use]
    pub fn passes(&self, check: Check) -> bool {
        let checks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        !matches!(checks.get(&check), Some(Some(_)))
    }

    /// How all reported checks stand.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        let checks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let status = checks
            .iter()
            .filter(|(_, reason)| reason.is_some())
            .map(|(check, _)| check.scope())
            .fold(Readiness::Ready, |status, scope| match scope {
                Scope::Process => Readiness::Unready,
                Scope::Shared if status == Readiness::Ready => Readiness::Degraded,
                Scope::Shared => status,
            });
        let checks = checks.iter().map(|(check, reason)| CheckReport {
            name: check.name(),
            passes: reason.is_none(),
            reason: reason.clone(),
        });
        HealthReport {
            status,
            checks: checks.collect(),
        }
    }

    fn set(&self, check: Check, reason: Option<String>) -> bool {
        let mut checks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let fails = reason.is_some();
        let before = checks.insert(check, reason);
        before.is_none_or(|before| before.is_some() != fails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_of_the_process_itself_makes_it_unready() {
        let health = Health::default();
        assert_eq!(health.report().status, Readiness::Ready);
        health.pass(Check::Bus);
        health.fail(Check::Store, "connection refused");
        assert_eq!(health.report().status, Readiness::Degraded);
        health.fail(Check::Clock, "90 s ahead of the bus");
        assert_eq!(health.report().status, Readiness::Unready);
        health.pass(Check::Clock);
        assert_eq!(health.report().status, Readiness::Degraded);
        health.pass(Check::Store);
        assert_eq!(health.report().status, Readiness::Ready);
    }

    #[test]
    fn every_check_is_reported_with_its_reason() {
        let health = Health::default();
        health.fail(Check::Records, "full");
        health.pass(Check::Bus);
        assert_eq!(
            health.report().checks,
            [
                CheckReport {
                    name: "bus",
                    passes: true,
                    reason: None
                },
                CheckReport {
                    name: "records",
                    passes: false,
                    reason: Some("full".into())
                },
            ]
        );
    }

    #[test]
    fn a_change_is_noticed_once() {
        let health = Health::default();
        assert!(health.pass(Check::Bus));
        assert!(!health.pass(Check::Bus));
        assert!(health.fail(Check::Bus, "a"));
        assert!(!health.fail(Check::Bus, "b"));
        assert!(!health.passes(Check::Bus));
        assert!(health.passes(Check::Store));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Check::ALL.len());
    }
}
