//! Waiting for something to become true, with a deadline and a name for the complaint.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A limit on what may hang, longer by the factor `HEARTH_PATIENCE` where this machine is slower than others,
/// as workers read it too.
#[must_use]
pub fn patiently(limit: Duration) -> Duration {
    let factor = std::env::var("HEARTH_PATIENCE").ok();
    limit * factor.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Asks `condition` until it answers `Some`, or for [`patiently`] `limit`.
///
/// # Errors
/// `what` did not happen within `limit`, or the condition itself failed.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = patiently(limit);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
