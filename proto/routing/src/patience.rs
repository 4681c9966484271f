//! Machines that are much slower than others: emulated ones, and those with far too much to do.
//!
//! Limits on steps of making and clearing sandboxes, and on the silence of a session's owner, only guard against
//! what hangs. Where everything takes several times as long, nothing hangs yet, so these limits can be made longer by
//! one factor.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

static FACTOR: AtomicU32 = AtomicU32::new(1);

/// Sets the factor of this process, before anything is started.
pub fn set(factor: u32) {
    FACTOR.store(factor.max(1), Ordering::Relaxed);
}

/// A limit on what may hang, as long as it is on this machine.
#[must_use]
pub fn patiently(limit: Duration) -> Duration {
    limit.saturating_mul(FACTOR.load(Ordering::Relaxed))
}
