//! What a worker tells over HTTP of its readiness, and its metrics, from the start on.

use std::net::SocketAddr;

use process::{admin::Admin, metrics::Metrics};
use proto::health::{Check, Health};

/// Has the checks say that this worker is starting, for the first time or anew. One whose bus lost its data
/// waits for nothing but that, which has a check of its own.
pub fn begin(health: &Health) {
    if health.passes(Check::BusGeneration) {
        health.fail(Check::Starting, "this worker has not finished its start");
    }
    health.pass(Check::Draining);
}

/// The checks of this worker, which is starting; they are told at `address`, if there is one, for as long
/// as the process lives.
///
/// # Errors
/// The address cannot be listened at.
pub async fn open(address: Option<SocketAddr>, metrics: Metrics) -> anyhow::Result<Health> {
    let health = Health::default();
    begin(&health);
    metrics.show("health", health.clone());
    if let Some(address) = address {
        Admin::listen(address).await?.tell(health.clone(), metrics);
    }
    Ok(health)
}
