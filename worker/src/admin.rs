//! What a worker tells over HTTP of its readiness, from the start on.

use std::net::SocketAddr;

use process::admin::Admin;
use proto::health::{Check, Health};

/// The checks of this worker, which is starting; they are told at `address`, if there is one, for as long
/// as the process lives.
///
/// # Errors
/// The address cannot be listened at.
pub async fn open(address: Option<SocketAddr>) -> anyhow::Result<Health> {
    let health = Health::default();
    health.fail(Check::Starting, "this worker has not finished its start");
    health.pass(Check::Draining);
    if let Some(address) = address {
        Admin::listen(address).await?.tell(health.clone());
    }
    Ok(health)
}
