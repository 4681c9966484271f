//! This worker's place in its fleet: store and bus belong together, the bus has all that it ever had, and
//! the pools are those that the others know.

use std::time::Duration;

use async_nats::jetstream::Context;
use fleet::{Fleet, FleetFailure, Role};
use proto::{
    health::{Check, Health},
    pool::Pools,
    subject,
};
use records::fleet::{Digests, Standing};
use routing::{bus::Bus, disagreement};
use store::Store;

use crate::{admin, lease::Replicas};

/// Time between two looks at the pools of the others.
const POOLS_EVERY: Duration = Duration::from_secs(5);

/// Waits until store and bus belong together and the bus has the streams that it ever had. Nothing was
/// written by then but the generation of a new fleet.
///
/// # Errors
/// Store or bus failed, or the bus belongs to another store.
pub async fn join(
    store: Store,
    context: Context,
    replicas: Replicas,
    pools: &Pools,
    standing: Standing,
    health: &Health,
) -> Result<Fleet, FleetFailure> {
    let role = Role::Worker {
        replicas: replicas.into(),
    };
    let mut fleet = Fleet::new(store, context, role, standing, health.clone());
    fleet.join().await?;
    // If it waited for the bus's data, it begins anew only now.
    admin::begin(health);
    fleet.require(&streams(pools)).await?;
    Ok(fleet)
}

/// All streams that a worker of these pools makes.
#[must_use]
pub fn streams(pools: &Pools) -> Vec<String> {
    let shared = [
        subject::WORKERS_STREAM,
        subject::EXECUTIONS_STREAM,
        subject::JOBS_STREAM,
    ];
    let of_pools = pools.pool.iter().flat_map(|pool| {
        [
            subject::slots_stream(&pool.id),
            subject::leases_stream(&pool.id),
        ]
    });
    shared
        .map(str::to_owned)
        .into_iter()
        .chain(of_pools)
        .collect()
}

/// Whether this worker would take a new session if it had room.
#[must_use]
pub fn is_accepting(health: &Health) -> bool {
    [Check::Clock, Check::Disk, Check::Sandboxes]
        .iter()
        .all(|check| health.passes(*check))
}

/// The pools with their settings, as this worker tells them.
#[must_use]
pub fn digests(pools: &Pools) -> Digests {
    pools
        .pool
        .iter()
        .map(|pool| (pool.id.clone(), pool.digest()))
        .collect()
}

/// Compares its pools with those of other workers and of the ingresses, for ever.
pub async fn compare_pools(bus: Bus, pools: Pools, health: Health) {
    let own = disagreement::Own::from(&pools);
    loop {
        let others = async {
            Ok::<_, routing::bus::BusError>((bus.workers().await?, bus.known_pools().await?))
        };
        if let Ok((workers, ingresses)) = others.await {
            let wrong = own.with_others(&workers, &ingresses);
            if wrong.is_empty() {
                health.pass(Check::Configuration);
            } else {
                let wrong = wrong.join("; ");
                if health.fail(Check::Configuration, &*wrong) {
                    tracing::error!("{wrong}: compare --pools of ingresses and workers");
                }
            }
        }
        tokio::time::sleep(POOLS_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_a_trouble_of_its_own_takes_no_new_sessions() {
        let health = Health::default();
        assert!(is_accepting(&health));
        for check in [Check::Clock, Check::Disk, Check::Sandboxes] {
            health.fail(check, "a trouble");
            assert!(!is_accepting(&health), "{check:?}");
            health.pass(check);
            assert!(is_accepting(&health), "{check:?}");
        }
    }
}
