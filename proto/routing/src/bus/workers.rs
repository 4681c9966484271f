//! Reading the keys of all workers: which pools they serve, with which settings.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_nats::{Message, header};
use proto::{
    fleet::PoolDigest,
    id::{PoolId, WorkerId},
    lease::WorkerBeat,
    subject, wire,
};
use records::fleet::Digests;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Bus, BusError, leases::time_of};
use crate::served::{Served, look};

/// Most workers that are looked at.
const WORKERS: usize = 1024;
/// Age up to which a look still tells that a pool is served.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// Age up to which a look still tells that a pool is not served: a worker that has just come must be found.
const DOUBTED_AFTER: Duration = Duration::from_millis(250);

/// What is known of the workers' pools.
#[derive(Debug, Default)]
pub(super) struct Workers {
    ours: OnceLock<Digests>,
    seen: Mutex<Option<(Instant, Arc<[WorkerBeat]>)>>,
}

/// A run of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRun {
    /// Its name: the worker's id and a part of its own.
    pub run: WorkerId,
    /// What it says of itself.
    pub beat: WorkerBeat,
    /// When it said so, by the bus's clock.
    pub at: OffsetDateTime,
}

/// Claims of ids lie there, too.
fn run_of(message: &Message) -> Option<WorkerRun> {
    let headers = message.headers.as_ref()?;
    let (_, run) = headers
        .get(header::NATS_SUBJECT)?
        .as_str()
        .rsplit_once('.')?;
    Some(WorkerRun {
        run: run.parse().ok()?,
        beat: wire::decode(&message.payload).ok()?,
        at: time_of(headers)?,
    })
}

impl Bus {
    /// Says which pools this process knows, once. Without it every pool counts as served.
    pub fn know_pools(&self, pools: Digests) {
        // The first stays.
        drop(self.0.workers.ours.set(pools));
    }

    /// The settings of a pool as this process knows them.
    #[must_use]
    pub fn pool_digest(&self, pool: &PoolId) -> Option<PoolDigest> {
        self.0.workers.ours.get()?.get(pool).cloned()
    }

    /// The keys of all workers, from whichever server has them nearest.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn workers(&self) -> Result<Arc<[WorkerBeat]>, BusError> {
        let question = json!({ "multi_last": [subject::WORKERS], "batch": WORKERS });
        let answers = self.answers(subject::WORKERS_STREAM, &question).await;
        let messages = self.or_nothing(answers.map(|(messages, _)| Some(messages)))?;
        let messages = messages.unwrap_or_default();
        let beats = messages
            .iter()
            .filter_map(|message| wire::decode(&message.payload).ok());
        let beats: Arc<[WorkerBeat]> = beats.collect();
        let seen = Some((Instant::now(), beats.clone()));
        *self
            .0
            .workers
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(beats)
    }

    /// The runs of all workers, what each says of itself, and when it said so by the bus's clock.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn worker_runs(&self) -> Result<Vec<WorkerRun>, BusError> {
        let question = json!({ "multi_last": [subject::WORKERS], "batch": WORKERS });
        let answers = self.answers(subject::WORKERS_STREAM, &question).await;
        let messages = self.or_nothing(answers.map(|(messages, _)| Some(messages)))?;
        Ok(messages.iter().flatten().filter_map(run_of).collect())
    }

    /// The pools of all ingresses, as each knows them.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn known_pools(&self) -> Result<Vec<Digests>, BusError> {
        let question = json!({ "multi_last": [subject::FLEET_POOLS], "batch": WORKERS });
        let (messages, _) = self.answers(subject::FLEET_STREAM, &question).await?;
        Ok(messages
            .iter()
            .filter_map(|message| wire::decode::<Digests>(&message.payload).ok())
            // One that has ended says that it knows none.
            .filter(|pools| !pools.is_empty())
            .collect())
    }

    /// Whether workers serve this pool as this process knows it. A bus that does not tell keeps no pool
    /// from being served.
    pub async fn served(&self, pool: &PoolId) -> Served {
        let Some(ours) = self.0.workers.ours.get().and_then(|pools| pools.get(pool)) else {
            return Served::Unknown;
        };
        let seen = self
            .0
            .workers
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, workers)) = seen {
            let served = look(pool, ours, &workers);
            let believed_for = match served {
                Served::Same => BELIEVED_FOR,
                Served::Differently | Served::Nowhere | Served::Unknown => DOUBTED_AFTER,
            };
            if at.elapsed() < believed_for {
                return served;
            }
        }
        match self.workers().await {
            Ok(workers) => look(pool, ours, &workers),
            Err(_) => Served::Unknown,
        }
    }
}
