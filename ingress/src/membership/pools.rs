//! The pools of this ingress beside those of the workers.

use std::{sync::Arc, time::Duration};

use proto::health::{Check, Health};
use records::fleet::{FleetStream, POOLS_LIFE};
use routing::disagreement;
use tokio::sync::watch;

use crate::bus::Bus;

/// Time between two looks at the workers' pools, which keep new sessions from waiting for one.
const COMPARE_EVERY: Duration = Duration::from_secs(4);
/// This ingress's pools are told so often.
const TELL_EVERY: Duration = Duration::from_secs(10);

const _: () = assert!(TELL_EVERY.as_secs() * 2 < POOLS_LIFE.as_secs());

/// Tells the fleet this ingress's pools, for ever, once it has `joined`: nothing is written to a bus of which
/// it is not known whose it is.
pub(super) async fn tell(
    stream: FleetStream,
    instance: String,
    own: Arc<disagreement::Own>,
    mut joined: watch::Receiver<bool>,
) {
    if joined.wait_for(|joined| *joined).await.is_err() {
        return;
    }
    loop {
        if let Err(error) = stream.tell_pools(&instance, &own.pools).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "this ingress's pools were not told");
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

/// Compares this ingress's pools with those of the workers, for ever.
pub(super) async fn compare(bus: Bus, own: Arc<disagreement::Own>, health: Health) {
    loop {
        if let Ok(workers) = bus.workers().await {
            let wrong = own.with_workers(&workers);
            if wrong.is_empty() {
                health.pass(Check::Configuration);
            } else {
                let wrong = wrong.join("; ");
                if health.fail(Check::Configuration, &*wrong) {
                    tracing::error!("{wrong}: compare --pools of ingresses and workers");
                }
            }
        }
        tokio::time::sleep(COMPARE_EVERY).await;
    }
}
