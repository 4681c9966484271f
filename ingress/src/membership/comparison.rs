//! Store, bus and cluster key of this ingress beside those of its fleet, at the start and ever after.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fleet::{Fleet, FleetFailure};
use proto::fleet::KeyFingerprint;
use records::fleet::FleetStream;
use store::{Store, StoreError};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::misfit::Misfit;
use crate::patience::patiently;

/// How long the bus may take to tell the fleet's key at the start, on a machine of usual speed.
const START_WITHIN: Duration = Duration::from_secs(20);
/// How long the store may take to tell its generation at the start. Longer than a bus that fails may take to be known as failing.
const STORE_WITHIN: Duration = Duration::from_secs(30);
/// Pause before one of them is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Time between two looks at the key's fingerprint.
const KEY_EVERY: Duration = Duration::from_secs(10);
/// Time between two looks while the fleet has no fingerprint of a key.
const KEY_AGAIN: Duration = Duration::from_secs(1);

/// Whether store, bus and cluster key were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// They belong together.
    All,
    /// The key with the bus's, and the store is down.
    KeyAlone,
}

/// Compares this ingress with its fleet.
pub(super) struct Comparison {
    /// The fleet's place on the bus and in the store.
    pub fleet: Fleet,
    /// The store.
    pub store: Store,
    /// This ingress's key.
    pub key: KeyFingerprint,
}

impl Comparison {
    /// Compares what can be compared at the start.
    pub(super) async fn begin(&mut self) -> anyhow::Result<Compared> {
        let theirs = self.key_of_bus().await?;
        fits(theirs.as_ref(), &self.key)?;
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
        let credentials = timeout(within, self.store.check_credentials());
        let got = credentials
            .await
            .context("failed to get credentials for the object store in time")?;
        got?;
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

    /// Goes on comparing, for ever or until something does not fit, which `misfit` hears. `joined` hears when
    /// everything was compared.
    pub(super) async fn go_on(
        mut self,
        mut compared: Compared,
        joined: watch::Sender<bool>,
        misfit: watch::Sender<Option<Misfit>>,
    ) {
        while compared == Compared::KeyAlone {
            tokio::time::sleep(AGAIN_AFTER).await;
            match self.compare().await {
                Ok(()) => compared = Compared::All,
                Err(CompareError::Misfit(found)) => {
                    misfit.send_replace(Some(found));
                    return;
                }
                Err(CompareError::Unknown(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "the fleet is not known yet");
                }
            }
        }
        joined.send_replace(true);
        let stream = self.fleet.stream().clone();
        let keys = compare_keys(stream, self.store, self.key, misfit);
        tokio::join!(self.fleet.watch(), keys);
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
        fits(theirs.as_ref(), &self.key)?;
        self.fleet.join().await?;
        agree(&stream, &self.store, &self.key).await?;
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
    misfit: watch::Sender<Option<Misfit>>,
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
            Err(CompareError::Misfit(found)) => {
                misfit.send_replace(Some(found));
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
