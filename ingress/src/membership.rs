//! This ingress's place in its fleet: store, bus, cluster key and pools agree with those of the others, at
//! the start and ever after.

use std::{sync::Arc, time::Duration};

use fleet::{Fleet, FleetFailure, Role};
use proto::{
    fleet::KeyFingerprint,
    health::{Check, Health},
    id::ClusterKey,
    pool::Pools,
};
use records::fleet::{FleetStream, POOLS_LIFE};
use routing::disagreement;
use store::Store;
use tokio::{sync::watch, time::Instant};
use ulid::Ulid;

use crate::{
    bus::{Bus, NatsAuth},
    config::{AcceptNewKey, read_cluster_key},
};

/// How long the store may take to answer at the start.
const START_WITHIN: Duration = Duration::from_secs(20);
/// Pause before they are asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Time between two looks at the workers' pools, which keep new sessions from waiting for one.
const POOLS_EVERY: Duration = Duration::from_secs(2);
/// Time between two looks at the key's fingerprint.
const KEY_EVERY: Duration = Duration::from_secs(10);
/// The same while there is none.
const KEY_AGAIN: Duration = Duration::from_secs(1);
/// This ingress's pools are told so often.
const TELL_EVERY: Duration = Duration::from_secs(10);

const _: () = assert!(TELL_EVERY.as_secs() * 2 < POOLS_LIFE.as_secs());

/// Why this ingress does not belong to its fleet.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Misfit {
    /// Another cluster key.
    #[error(
        "the cluster key of this ingress has fingerprint {ours}, that of its fleet {theirs}: with \
         another key every identifier is another session. Give it the fleet's key in --cluster-key; if \
         the key was changed on purpose, run `ingress accept-new-key`"
    )]
    Key {
        /// This ingress's.
        ours: KeyFingerprint,
        /// That of the ingress that was first.
        theirs: KeyFingerprint,
    },
}

/// What this ingress tells of itself.
#[derive(Debug)]
struct Own {
    instance: String,
    key: KeyFingerprint,
    pools: disagreement::Own,
}

/// The place in the fleet, while the process runs.
#[derive(Debug)]
pub struct Membership {
    misfit: watch::Receiver<Option<Misfit>>,
}

impl Membership {
    /// Makes sure of the place, and goes on doing so.
    ///
    /// # Errors
    /// The store cannot be read, the bus belongs to another store, or the cluster key is another.
    pub async fn take(
        store: Store,
        bus: &Bus,
        instance: &str,
        key: &ClusterKey,
        pools: &Pools,
        health: &Health,
    ) -> anyhow::Result<Self> {
        let own = Arc::new(Own {
            instance: instance.to_owned(),
            key: key.fingerprint(),
            pools: disagreement::Own::from(pools),
        });
        bus.know_pools(own.pools.pools.clone());
        let mut fleet = Fleet::new(
            store.clone(),
            bus.jetstream(),
            Role::Ingress,
            bus.standing(),
            health.clone(),
        );
        let began = Instant::now();
        loop {
            match fleet.join().await {
                Ok(()) => break,
                Err(error @ FleetFailure::OtherStore(_)) => return Err(error.into()),
                // It is connected: the rest is the bus's own trouble, which may pass.
                Err(FleetFailure::Bus(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "this ingress serves without knowing its fleet");
                    break;
                }
                Err(error) if began.elapsed() < START_WITHIN => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the fleet is not known yet");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let stream = fleet.stream().clone();
        match agree(&stream, &store, &own.key).await {
            Ok(_) => {}
            Err(CompareError::Misfit(misfit)) => return Err(misfit.into()),
            Err(CompareError::Unknown(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the cluster key was not compared yet");
            }
        }
        let (found, misfit) = watch::channel(None);
        tokio::spawn(fleet.watch());
        tokio::spawn(compare_keys(stream.clone(), store, own.key.clone(), found));
        tokio::spawn(tell_pools(stream, own.clone()));
        tokio::spawn(compare_pools(bus.clone(), own, health.clone()));
        Ok(Self { misfit })
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

/// Makes the fleet take another cluster key.
///
/// # Errors
/// A setting is wrong, the bus failed, or the operator did not say so in so many words.
pub async fn accept_new_key(arguments: &AcceptNewKey) -> anyhow::Result<()> {
    let key = read_cluster_key(&arguments.cluster_key)?.fingerprint();
    if !arguments.yes {
        anyhow::bail!(
            "with the key of fingerprint {key} every identifier is another session: all that live \
             become unreachable; repeat the command with --yes to do it"
        );
    }
    let instance = Ulid::new().to_string().to_lowercase();
    let auth = NatsAuth::read(&arguments.nats_auth)?;
    let bus = Bus::connect(&arguments.nats, auth, &instance).await?;
    let stream = FleetStream::new(bus.jetstream());
    anyhow::ensure!(
        stream.agree_on_key(&key).await?.is_some(),
        "the bus has no generation yet: start a worker first"
    );
    Ok(stream.replace_key(&key).await?)
}

/// Compares this key with the fleet's; `false` where there is none yet, because no worker has started. A bus
/// that lost it gets it only from an ingress that has the one that the store knows.
async fn agree(
    stream: &FleetStream,
    store: &Store,
    ours: &KeyFingerprint,
) -> Result<bool, CompareError> {
    let mut theirs = stream.key().await.map_err(FleetFailure::from)?;
    if theirs.is_none() {
        theirs = store.known_key().await.map_err(FleetFailure::from)?;
        if theirs.as_ref().is_none_or(|theirs| theirs == ours) {
            let agreed = stream.agree_on_key(ours).await;
            theirs = agreed.map_err(FleetFailure::from)?;
        }
    }
    match theirs {
        None => Ok(false),
        Some(theirs) if theirs == *ours => Ok(true),
        Some(theirs) => Err(CompareError::Misfit(Misfit::Key {
            ours: ours.clone(),
            theirs,
        })),
    }
}

/// Why it is not known that the key is the fleet's.
enum CompareError {
    /// It is not.
    Misfit(Misfit),
    /// Bus or store did not answer.
    Unknown(FleetFailure),
}

impl From<FleetFailure> for CompareError {
    fn from(error: FleetFailure) -> Self {
        Self::Unknown(error)
    }
}

async fn compare_keys(
    stream: FleetStream,
    store: Store,
    ours: KeyFingerprint,
    found: watch::Sender<Option<Misfit>>,
) {
    let mut agreed = false;
    loop {
        match agree(&stream, &store, &ours).await {
            Ok(now) => {
                if now && !agreed {
                    tracing::info!(fingerprint = %ours, "the cluster key is the fleet's");
                }
                agreed = now;
            }
            Err(CompareError::Misfit(misfit)) => {
                found.send_replace(Some(misfit));
                return;
            }
            Err(CompareError::Unknown(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the cluster key was not compared");
            }
        }
        tokio::time::sleep(if agreed { KEY_EVERY } else { KEY_AGAIN }).await;
    }
}

async fn tell_pools(stream: FleetStream, own: Arc<Own>) {
    loop {
        if let Err(error) = stream.tell_pools(&own.instance, &own.pools.pools).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "this ingress's pools were not told");
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

async fn compare_pools(bus: Bus, own: Arc<Own>, health: Health) {
    loop {
        if let Ok(workers) = bus.workers().await {
            let wrong = own.pools.with_workers(&workers);
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
