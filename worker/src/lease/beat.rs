//! The worker's key: proof of life on the bus, and what placement may expect of it.

use std::sync::Arc;

use proto::{id::WorkerId, lease::WorkerBeat, limits, subject};
use records::cas::{self, RecordBus, Write, Written};
use tokio::time::Instant;

use super::{
    BusError,
    streams::{self, Replicas},
};

/// Writes the worker's key.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    bus: Arc<dyn RecordBus>,
    subject: String,
}

impl Heartbeat {
    /// Creates the workers' stream if it is missing.
    ///
    /// # Errors
    /// The bus is gone or refuses.
    pub async fn open(
        bus: Arc<dyn RecordBus>,
        worker: &WorkerId,
        replicas: Replicas,
    ) -> Result<Self, BusError> {
        bus.open(&streams::workers(replicas)).await?;
        Ok(Self {
            bus,
            subject: subject::worker(worker),
        })
    }

    /// Beats once. Returns the time taken *before* sending: from then on counts how long the
    /// fleet believes that this worker lives.
    ///
    /// # Errors
    /// The beat was not acknowledged in time.
    pub async fn beat(&self, beat: &WorkerBeat) -> Result<Instant, BusError> {
        let taken = Instant::now();
        let write = self.bus.write(Write {
            subject: self.subject.clone(),
            payload: cas::encode(beat)?,
            expected: None,
            life: None,
        });
        match tokio::time::timeout(limits::WORKER_BEAT, write).await {
            Ok(Ok(Written::At(_))) => Ok(taken),
            Ok(Ok(Written::Conflict | Written::Full)) => {
                Err(BusError::new("beat was refused", "the stream is full"))
            }
            Ok(Err(error)) => Err(BusError::new("beat was not acknowledged", error)),
            Err(late) => Err(BusError::new("beat was not acknowledged", late)),
        }
    }
}
