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
    /// Doubts about this ownership alone.
    own: Arc<AtomicU64>,
    /// All doubts, counted before the bus was last asked.
    sure_at: Arc<AtomicU64>,
}

impl Certainty {
    /// An ownership that was claimed after `doubt` counted `sure_at`.
    #[must_use]
    pub fn new(ownership: Ownership, doubt: Doubt, sure_at: u64) -> Self {
        Self {
            ownership,
            doubt,
            own: Arc::default(),
            sure_at: Arc::new(AtomicU64::new(sure_at)),
        }
    }

    /// Something was done that another owner may have forbidden, such as a commit: the next question
    /// is put to the bus again.
    pub fn doubt(&self) {
        self.own.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether this worker owns the session. Costs nothing unless there was a reconnect or a
    /// standstill since the last time; `false` also when the bus does not tell.
    pub async fn owns(&self) -> bool {
        let now = self.doubt.count() + self.own.load(Ordering::Acquire);
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
