//! What handlers share, and how it is connected.

use std::{collections::HashMap, ops::Deref, sync::Arc, time::Duration};

use anyhow::Context;
use proto::{
    health::Health,
    pool::{Pool, Pools},
};
use records::{execution::Stamps, share::Share, watch::watch};
use store::Store;
use time::OffsetDateTime;

use crate::{
    auth::{Authenticator, keys::Keys, token::Rules},
    bus::{Bus, NatsAuth},
    config::{Config, read_cluster_key},
    membership::{self, Membership},
    metrics::Requests,
    queues::Queues,
    readiness::Readiness,
    seal::Sealer,
    service::Service,
};

/// Subscription, resource group and name of a pool.
type Address = (String, String, String);

/// What handlers share. Every layer of a router has a clone, and clones it for each request.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// How this process's checks stand.
    pub health: Health,
    /// What is measured of them.
    pub readiness: Readiness,
    /// The bus.
    pub bus: Bus,
    /// What was answered.
    pub requests: Requests,
    /// The use cases.
    pub service: Service,
    /// The place in the fleet.
    pub membership: Membership,
    pools: HashMap<Address, Arc<Pool>>,
    pools_written: OffsetDateTime,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Connects everything.
    ///
    /// # Errors
    /// A setting, the key set, the store or the bus fails.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let pools = config.fleet.read_pools()?;
        let cluster_key = read_cluster_key(&config.cluster_key)?;
        let keys = Keys::open(&config.jwks).await;
        let keys = keys.context("failed to open the key set")?;
        let rules = Rules {
            issuer: config.jwt_issuer.clone(),
            audiences: config.jwt_audience.clone(),
        };
        let authenticator = Authenticator::new(keys, rules, config.jwt_required_role.clone());
        let stamps = Stamps::real();
        let store = Store::open(&config.fleet.store, stamps.ids.clone())?;
        let instance = config.instance.clone();
        let instance = instance.unwrap_or_else(|| stamps.ids.next().to_string().to_lowercase());
        membership::demand_rights(config, &instance).await?;
        let auth = NatsAuth::read(&config.fleet.bus.nats_auth)?;
        let bus = Bus::connect(&config.fleet.bus.nats, auth, &instance, stamps).await?;
        let health = Health::default();
        let membership = Membership::take(
            store.clone(),
            &bus,
            &instance,
            &cluster_key,
            &pools,
            &health,
        );
        let membership = membership.await?;
        let wait = Duration::from_secs(config.sync_seconds.into());
        let readiness = Readiness {
            health: health.clone(),
            bus: bus.clone(),
            store: store.clone(),
        };
        let sealer = Sealer::new(&cluster_key)?;
        let service = Service::new(bus.clone(), store, cluster_key, sealer, wait);
        Box::pin(readiness.begin()).await;
        Ok(Self(Arc::new(Parts {
            authenticator,
            health,
            readiness,
            bus,
            requests: Requests::default(),
            service,
            membership,
            pools: by_address(pools),
            pools_written: config.fleet.pools_written().into(),
        })))
    }

    /// When the pool file was written that this process has read.
    #[must_use]
    pub fn pools_written(&self) -> OffsetDateTime {
        self.pools_written
    }

    /// Reports whether every pool has room for records of executions, for ever.
    pub fn watch_records(&self, health: Health) -> impl Future<Output = ()> + Send + use<> {
        let shares = self.pools.values().map(|pool| Share::from(&**pool));
        let mut shares: Vec<_> = shares.collect();
        shares.sort_by(|one, other| one.pool.cmp(&other.pool));
        watch(self.bus.records().clone(), shares, health)
    }

    /// Looks at the queue of every pool, for ever.
    #[must_use]
    pub fn watch_queues(&self) -> Queues {
        let pools = self.pools.values().map(|pool| pool.id.clone());
        let queues = Queues::new(self.bus.wall_clock().clone());
        tokio::spawn(queues.clone().watch(self.bus.clone(), pools.collect()));
        queues
    }

    /// The pool of this name; subscription and resource group are compared without case.
    #[must_use]
    pub fn pool(&self, subscription: &str, resource_group: &str, name: &str) -> Option<Arc<Pool>> {
        let address = address(subscription, resource_group, name);
        self.pools.get(&address).cloned()
    }
}

fn by_address(pools: Pools) -> HashMap<Address, Arc<Pool>> {
    let keyed = pools.pool.into_iter().map(|pool| {
        let name = pool.name.as_str();
        let address = address(&pool.subscription, &pool.resource_group, name);
        (address, Arc::new(pool))
    });
    keyed.collect()
}

fn address(subscription: &str, resource_group: &str, name: &str) -> Address {
    (
        subscription.to_ascii_lowercase(),
        resource_group.to_ascii_lowercase(),
        name.to_owned(),
    )
}
