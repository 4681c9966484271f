//! This ingress's place in its fleet: store, bus, cluster key and pools agree with those of the others, at
//! the start and ever after.

use std::{sync::Arc, time::Duration};

use fleet::{Fleet, FleetFailure, Role};
use proto::{
    fleet::KeyFingerprint,
    health::{Check, Health},
    id::ClusterKey,
    pool::Pools,
    subject,
};
use records::fleet::{Digests, FleetStream, POOLS_LIFE, State};
use routing::{
    bus::{
        connect::Peer,
        rights::{self, RightsError},
    },
    disagreement,
};
use store::{Store, StoreError};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use ulid::Ulid;

use crate::{
    bus::{Bus, NatsAuth},
    config::{AcceptNewKey, Config, read_cluster_key},
    patience::patiently,
};

/// How long the bus may take to tell the fleet's key at the start, on a machine of usual speed,
const START_WITHIN: Duration = Duration::from_secs(20);
/// and the store to tell its generation. Longer than a bus that fails may take to be known as failing.
const STORE_WITHIN: Duration = Duration::from_secs(30);
/// Pause before one of them is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Time between two looks at the workers' pools, which keep new sessions from waiting for one.
const POOLS_EVERY: Duration = Duration::from_secs(2);
/// Time between two looks at the key's fingerprint.
const KEY_EVERY: Duration = Duration::from_secs(10);
/// The same while there is none.
const KEY_AGAIN: Duration = Duration::from_secs(1);
/// How long the end may be put off to say that it is one.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// This ingress's pools are told so often.
const TELL_EVERY: Duration = Duration::from_secs(10);

const _: () = assert!(TELL_EVERY.as_secs() * 2 < POOLS_LIFE.as_secs());

/// Why this ingress does not belong to its fleet.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Misfit {
    /// Another cluster key.
    #[error(
        "the cluster key of this ingress has fingerprint {ours}, that of its fleet {theirs}: with \
         another key every identifier is another session. Give it the fleet's key in --cluster-key, or \
         the fleet's own bus in --nats; if the key was changed on purpose, run `ingress accept-new-key`"
    )]
    Key {
        /// This ingress's.
        ours: KeyFingerprint,
        /// That of the ingress that was first.
        theirs: KeyFingerprint,
    },
    /// Another store.
    #[error(transparent)]
    Store(Arc<FleetFailure>),
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
    stream: FleetStream,
    instance: String,
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
        let own = Arc::new(Own {
            instance: instance.to_owned(),
            key: key.fingerprint(),
            pools: disagreement::Own::from(pools),
        });
        bus.know_pools(own.pools.pools.clone());
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
            own: own.clone(),
        };
        let compared = comparison.begin().await?;
        let stream = comparison.fleet.stream().clone();
        let (found, misfit) = watch::channel(None);
        tokio::spawn(comparison.go_on(compared, found));
        tokio::spawn(compare_pools(bus.clone(), own, health.clone()));
        Ok(Self {
            stream,
            instance: instance.to_owned(),
            misfit,
        })
    }

    /// Says that this ingress ends: nobody has to agree with it any more.
    pub async fn leave(&self) {
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
    let auth = NatsAuth::read(&arguments.bus.nats_auth)?;
    let bus = Bus::connect(&arguments.bus.nats, auth, &instance).await?;
    let stream = FleetStream::new(bus.jetstream());
    anyhow::ensure!(
        stream.agree_on_key(&key).await?.is_some(),
        "the bus has no generation yet: start a worker first"
    );
    Ok(stream.replace_key(&key).await?)
}

/// Whether store, bus and cluster key were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    /// They belong together.
    All,
    /// The key with the bus's, and the store is down.
    KeyAlone,
}

/// Compares this ingress with its fleet.
struct Comparison {
    fleet: Fleet,
    store: Store,
    own: Arc<Own>,
}

impl Comparison {
    /// Compares what can be compared at the start.
    async fn begin(&mut self) -> anyhow::Result<Compared> {
        let theirs = self.key_of_bus().await?;
        fits(theirs.as_ref(), &self.own.key)?;
        let within = patiently(STORE_WITHIN);
        let failure = match timeout(within, self.compare_again()).await {
            Ok(Ok(())) => return Ok(Compared::All),
            Ok(Err(CompareError::Misfit(misfit))) => return Err(misfit.into()),
            Ok(Err(CompareError::Unknown(error))) => error,
            Err(_) => FleetFailure::Store(StoreError::Slow.into()),
        };
        if !failure.is_store_outage() {
            return Err(failure.into());
        }
        self.store.check_credentials().await?;
        // A bus that knows no key tells none apart.
        if theirs.is_none() {
            return Err(failure.into());
        }
        let error = &failure as &dyn std::error::Error;
        tracing::warn!(
            error,
            "no session is placed before the store has told whether the bus is its own"
        );
        Ok(Compared::KeyAlone)
    }

    /// Goes on comparing, for ever or until something does not fit.
    async fn go_on(mut self, mut compared: Compared, found: watch::Sender<Option<Misfit>>) {
        while compared == Compared::KeyAlone {
            tokio::time::sleep(AGAIN_AFTER).await;
            match self.compare().await {
                Ok(()) => compared = Compared::All,
                Err(CompareError::Misfit(misfit)) => {
                    found.send_replace(Some(misfit));
                    return;
                }
                Err(CompareError::Unknown(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "the fleet is not known yet");
                }
            }
        }
        let (stream, own) = (self.fleet.stream().clone(), self.own);
        let (key, pools) = (own.key.clone(), tell_pools(stream.clone(), own));
        tokio::join!(
            self.fleet.watch(),
            compare_keys(stream, self.store, key, found),
            pools,
        );
    }

    /// Compares everything, again where the bus does not answer in a while: its servers may be making the stream.
    async fn compare_again(&mut self) -> Result<(), CompareError> {
        let began = Instant::now();
        loop {
            match self.compare().await {
                Err(CompareError::Unknown(FleetFailure::Bus(error)))
                    if began.elapsed() < patiently(START_WITHIN) =>
                {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the fleet is not known yet"
                    );
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                compared => return compared,
            }
        }
    }

    /// Compares everything. Nothing is written to a bus of which it is not known whose it is.
    async fn compare(&mut self) -> Result<(), CompareError> {
        let stream = self.fleet.stream().clone();
        let theirs = known_key(&stream, &self.store).await?;
        fits(theirs.as_ref(), &self.own.key)?;
        self.fleet.join().await?;
        agree(&stream, &self.store, &self.own.key).await?;
        Ok(())
    }

    /// The fingerprint that the bus has, asked for as long as its servers may take to elect who keeps it.
    async fn key_of_bus(&self) -> Result<Option<KeyFingerprint>, FleetFailure> {
        let began = Instant::now();
        loop {
            match self.fleet.stream().key().await {
                Ok(key) => return Ok(key),
                Err(error) if began.elapsed() < patiently(START_WITHIN) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the fleet's cluster key is not known yet"
                    );
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The fingerprint that the fleet has: the bus's, or the store's where the bus lost it.
async fn known_key(
    stream: &FleetStream,
    store: &Store,
) -> Result<Option<KeyFingerprint>, FleetFailure> {
    match stream.key().await? {
        Some(key) => Ok(Some(key)),
        None => Ok(store.known_key().await?),
    }
}

fn fits(theirs: Option<&KeyFingerprint>, ours: &KeyFingerprint) -> Result<(), Misfit> {
    match theirs {
        Some(theirs) if theirs != ours => Err(Misfit::Key {
            ours: ours.clone(),
            theirs: theirs.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Compares this key with the fleet's; `false` where there is none yet, because no worker has started. A bus
/// that lost it gets it only from an ingress that has the one that the store knows.
async fn agree(
    stream: &FleetStream,
    store: &Store,
    ours: &KeyFingerprint,
) -> Result<bool, CompareError> {
    fits(known_key(stream, store).await?.as_ref(), ours)?;
    let agreed = stream.agree_on_key(ours).await;
    let theirs = agreed.map_err(FleetFailure::from)?;
    fits(theirs.as_ref(), ours)?;
    Ok(theirs.is_some())
}

/// Why it is not known that this ingress fits.
enum CompareError {
    /// It does not.
    Misfit(Misfit),
    /// Bus or store did not answer.
    Unknown(FleetFailure),
}

impl From<FleetFailure> for CompareError {
    fn from(error: FleetFailure) -> Self {
        match error {
            FleetFailure::OtherStore(_) => Self::Misfit(Misfit::Store(Arc::new(error))),
            FleetFailure::Store(_) | FleetFailure::Bus(_) => Self::Unknown(error),
        }
    }
}

impl From<Misfit> for CompareError {
    fn from(misfit: Misfit) -> Self {
        Self::Misfit(misfit)
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
