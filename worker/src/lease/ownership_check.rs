//! Whether an owner still is one, asked only when there is reason to doubt it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::pool::Pool;
use tokio::time::Instant;

use super::{LeaseError, Ownership};
use crate::bus::Interruptions;

/// How long, and how often, a doubtful ownership is asked for while the bus does not answer: for longer than
/// it needs to find a new leader.
const ASK_WITHIN: Duration = Duration::from_secs(12);
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// A moment at which, or after which, the bus said that the lease is its owner's.
#[derive(Clone, Copy, Debug)]
pub struct Confirmation {
    interruptions: u64,
    at: Instant,
}

/// Whether this worker owns a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owns {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The bus did not tell for [`ASK_WITHIN`].
    Unknown,
}

/// An ownership and when it was last made sure of. The clones of one share what they found out.
#[derive(Clone, Debug)]
pub struct OwnershipCheck {
    ownership: Ownership,
    interruptions: Interruptions,
    sure: Arc<Mutex<Confirmation>>,
    /// How long the bus's word is good. Far shorter than the lease lives: what is answered on the strength
    /// of it is not yet forgotten.
    sure_for: Duration,
}

impl Confirmation {
    /// Now, before the bus is asked.
    #[must_use]
    pub fn now(interruptions: &Interruptions) -> Self {
        let interruptions = interruptions.count();
        let at = Instant::now();
        Self { interruptions, at }
    }

    /// Whether nothing has happened since and it is not long ago.
    fn holds(&self, now: &Self, sure_for: Duration) -> bool {
        self.interruptions == now.interruptions && now.at.duration_since(self.at) <= sure_for
    }
}

impl OwnershipCheck {
    /// An ownership that was claimed after `sure`.
    #[must_use]
    pub fn new(
        ownership: Ownership,
        interruptions: Interruptions,
        sure: Confirmation,
        pool: &Pool,
    ) -> Self {
        Self {
            ownership,
            interruptions,
            sure: Arc::new(Mutex::new(sure)),
            // A session in use is sure all the time, by its renewals.
            sure_for: pool.renewed_every() * 2,
        }
    }

    /// Now, for whoever is about to ask the bus.
    #[must_use]
    pub fn now(&self) -> Confirmation {
        Confirmation::now(&self.interruptions)
    }

    /// The bus has said after `sure` that the lease is this owner's.
    pub fn note(&self, sure: Confirmation) {
        let mut known = self.known();
        if known.at < sure.at {
            *known = sure;
        }
    }

    /// Whether the bus need not be asked. `false` says nothing about who owns the session.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.known().holds(&self.now(), self.sure_for)
    }

    /// Whether this worker owns the session; `false` also when the bus does not tell for [`ASK_WITHIN`].
    pub async fn owns(&self) -> bool {
        self.ask().await == Owns::Yes
    }

    /// Whether this worker owns the session. Costs nothing unless there is a doubt or the lease was not
    /// renewed for long.
    pub async fn ask(&self) -> Owns {
        let now = self.now();
        if self.known().holds(&now, self.sure_for) {
            return Owns::Yes;
        }
        let deadline = now.at + ASK_WITHIN;
        loop {
            match self.ownership.confirm().await {
                Ok(()) => {
                    self.note(now);
                    return Owns::Yes;
                }
                Err(LeaseError::Lost) => return Owns::No,
                Err(LeaseError::Bus(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to confirm the owner of a session"
                    );
                }
            }
            if Instant::now() > deadline {
                return Owns::Unknown;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, Confirmation> {
        self.sure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_word_of_the_bus_is_good_for_a_while_and_until_something_happens() {
        let interruptions = Interruptions::default();
        let watching = tokio::spawn(interruptions.clone().watch_clock());
        let while_good = Duration::from_secs(30);
        let sure = Confirmation::now(&interruptions);
        tokio::time::sleep(while_good).await;
        assert!(sure.holds(&Confirmation::now(&interruptions), while_good));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(
            !sure.holds(&Confirmation::now(&interruptions), while_good),
            "too long ago"
        );
        let sure = Confirmation::now(&interruptions);
        watching.abort();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(
            !sure.holds(&Confirmation::now(&interruptions), while_good),
            "a standstill"
        );
    }
}
