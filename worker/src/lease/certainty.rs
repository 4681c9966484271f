//! Whether an owner still is one, asked only when there is reason to doubt it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{LeaseError, Ownership};
use crate::bus::Doubt;

/// How often a doubtful ownership is asked for while the bus does not answer.
const TRIES: u32 = 3;

/// An ownership and the doubts at which it was last made sure of. The clones of one share what they
/// found out.
#[derive(Clone, Debug)]
pub struct Certainty {
    ownership: Ownership,
    doubt: Doubt,
    /// The doubts before the bus was last asked.
    sure_at: Arc<AtomicU64>,
}

impl Certainty {
    /// An ownership that was claimed after `doubt` counted `sure_at`.
    #[must_use]
    pub fn new(ownership: Ownership, doubt: Doubt, sure_at: u64) -> Self {
        Self {
            ownership,
            doubt,
            sure_at: Arc::new(AtomicU64::new(sure_at)),
        }
    }

    /// Whether this worker owns the session. Costs nothing unless there is a new doubt; `false` also when
    /// the bus does not tell.
    pub async fn owns(&self) -> bool {
        let now = self.doubt.count();
        if now == self.sure_at.load(Ordering::Acquire) {
            return true;
        }
        for _ in 0..TRIES {
            match self.ownership.confirm().await {
                Ok(()) => {
                    self.sure_at.store(now, Ordering::Release);
                    return true;
                }
                Err(LeaseError::Lost) => return false,
                Err(LeaseError::Bus(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "owner not confirmed"
                    );
                }
            }
        }
        false
    }
}
