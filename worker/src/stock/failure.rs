//! What fails when a sandbox is made, and how often.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{kernel::KernelError, sandbox::SandboxError};

/// Why no sandbox could be had.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// No cage.
    #[error("failed to make a sandbox")]
    Sandbox(#[from] SandboxError),
    /// No process in it.
    #[error("no interpreter could be moved into the sandbox")]
    Join(#[source] SandboxError),
    /// The interpreter did not start.
    #[error("failed to start an interpreter")]
    Kernel(#[from] KernelError),
}

impl StockError {
    /// Names of the steps that can fail.
    pub const STEPS: [&'static str; 3] = ["sandbox", "join", "interpreter"];

    /// Name of the step that failed.
    #[must_use]
    pub fn step(&self) -> &'static str {
        let [sandbox, join, interpreter] = Self::STEPS;
        match self {
            Self::Sandbox(_) => sandbox,
            Self::Join(_) => join,
            Self::Kernel(_) => interpreter,
        }
    }
}

/// How often each of [`StockError::STEPS`] failed.
#[derive(Debug, Default)]
pub(super) struct Failures([AtomicU64; StockError::STEPS.len()]);

impl Failures {
    /// Counts what failed, and passes it on.
    pub(super) fn count<T>(&self, result: Result<T, StockError>) -> Result<T, StockError> {
        if let Err(error) = &result {
            for (step, count) in StockError::STEPS.iter().zip(&self.0) {
                count.fetch_add(u64::from(*step == error.step()), Ordering::Relaxed);
            }
        }
        result
    }

    /// Names of the steps, and how often each failed.
    pub(super) fn by_step(&self) -> [(&'static str, u64); StockError::STEPS.len()] {
        let counts = self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        let mut counts = counts.into_iter();
        StockError::STEPS.map(|step| (step, counts.next().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_step() {
        let failures = Failures::default();
        for error in [SandboxError::CagesExhausted, SandboxError::CagedGone] {
            let failed = failures.count::<()>(Err(error.into()));
            failed.unwrap_err();
        }
        let failed = failures.count::<()>(Err(StockError::Join(SandboxError::NoZygote)));
        failed.unwrap_err();
        failures.count(Ok(())).unwrap();
        let expected = [("sandbox", 2), ("join", 1), ("interpreter", 0)];
        assert_eq!(failures.by_step(), expected);
    }
}
