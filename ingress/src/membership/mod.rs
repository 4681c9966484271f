//! This ingress's place in its fleet: store, bus, cluster key and pools agree with those of the others, at
//! the start and ever after.

mod comparison;
mod key_change;
mod misfit;
mod pools;

use std::{sync::Arc, time::Duration};

use fleet::{Fleet, Role};
use proto::{health::Health, id::ClusterKey, pool::Pools, subject};
use records::fleet::{Digests, FleetStream, State};
use routing::{
    bus::{
        connect::Peer,
        rights::{self, RightsError},
    },
    disagreement,
};
use store::Store;
use tokio::{sync::watch, time::timeout};

use self::comparison::Comparison;
pub use self::{key_change::accept_new_key, misfit::Misfit};
use crate::{
    bus::{Bus, NatsAuth},
    config::Config,
};

/// How long the end may be put off to say that it is one.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The place in the fleet, while the process runs.
#[derive(Debug)]
pub struct Membership {
    stream: FleetStream,
    instance: String,
    joined: watch::Receiver<bool>,
    misfit: watch::Receiver<Option<Misfit>>,
}

impl Membership {
    /// Makes sure of the place, and goes on doing so. Where the store is down this ingress serves what lives, and no
    /// session is placed until the store has told that the bus is its own.
    ///
    /// # Errors
    /// The bus does not tell the fleet's cluster key or has another one, the store refuses this process, or the bus
    /// belongs to another store.
    pub async fn take(
        store: Store,
        bus: &Bus,
        instance: &str,
        key: &ClusterKey,
        pools: &Pools,
        health: &Health,
    ) -> anyhow::Result<Self> {
        let own = Arc::new(disagreement::Own::from(pools));
        bus.know_pools(own.pools.clone());
        let standing = bus.standing();
        standing.set(State::Doubtful);
        let mut comparison = Comparison {
            fleet: Fleet::new(
                store.clone(),
                bus.jetstream(),
                Role::Ingress,
                standing,
                health.clone(),
            ),
            store,
            key: key.fingerprint(),
        };
        let compared = comparison.begin().await?;
        let stream = comparison.fleet.stream().clone();
        let (has_joined, joined) = watch::channel(false);
        let (found, misfit) = watch::channel(None);
        tokio::spawn(comparison.go_on(compared, has_joined, found));
        tokio::spawn(pools::tell(
            stream.clone(),
            instance.to_owned(),
            own.clone(),
            joined.clone(),
        ));
        tokio::spawn(pools::compare(bus.clone(), own, health.clone()));
        Ok(Self {
            stream,
            instance: instance.to_owned(),
            joined,
            misfit,
        })
    }

    /// Says that this ingress ends: nobody has to agree with it any more.
    pub async fn leave(&self) {
        if !*self.joined.borrow() {
            return;
        }
        let none = Digests::new();
        let told = self.stream.tell_pools(&self.instance, &none);
        if !matches!(timeout(LEAVE_WITHIN, told).await, Ok(Ok(()))) {
            tracing::debug!("the fleet was not told that this ingress ends");
        }
    }

    /// Returns once this ingress does not belong to its fleet any more.
    pub async fn ended(&self) -> Misfit {
        let mut misfit = self.misfit.clone();
        loop {
            if let Some(misfit) = misfit.borrow_and_update().clone() {
                return misfit;
            }
            if misfit.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Refuses an ingress that lacks a right on the bus: it could not compare itself with its fleet, or would fail at
/// whatever the right is for.
///
/// # Errors
/// The credentials cannot be read, no server can be reached, or a right is missing.
pub async fn demand_rights(config: &Config, instance: &str) -> anyhow::Result<()> {
    let auth = NatsAuth::read(&config.fleet.bus.nats_auth)?;
    let peer = Peer {
        name: format!("ingress {instance}, trying its rights"),
        inbox_prefix: subject::ingress_inbox(&format!("{instance}-rights")),
        subscription_capacity: 64,
    };
    let needed = (rights::INGRESS, subject::EXECUTIONS_STREAM);
    let demanded = rights::demand(&config.fleet.bus.nats, auth, peer, needed).await;
    demanded.map_err(|error: RightsError| error.into())
}
