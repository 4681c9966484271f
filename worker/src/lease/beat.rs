//! The worker's key: proof of life on the bus, and what placement may expect of it.

use async_nats::jetstream::{Context, stream::Stream};
use proto::{id::WorkerId, lease::WorkerBeat, limits, subject};
use records::cas;
use tokio::time::Instant;

use super::{
    BusError,
    streams::{self, Replicas},
};

/// Writes the worker's key.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    context: Context,
    stream: Stream<()>,
    subject: String,
}

impl Heartbeat {
    /// Creates the workers' stream if it is missing.
    ///
    /// # Errors
    /// The bus is gone or refuses.
    pub async fn open(
        context: Context,
        worker: &WorkerId,
        replicas: Replicas,
    ) -> Result<Self, BusError> {
        Ok(Self {
            stream: streams::open_workers(&context, replicas).await?,
            context,
            subject: subject::worker(worker),
        })
    }

    /// The workers' stream.
    #[must_use]
    pub fn stream(&self) -> Stream<()> {
        self.stream.clone()
    }

    /// Beats once. Returns the time taken *before* sending: from then on counts how long the
    /// fleet believes that this worker lives.
    ///
    /// # Errors
    /// The beat was not acknowledged in time.
    pub async fn beat(&self, beat: &WorkerBeat) -> Result<Instant, BusError> {
        let taken = Instant::now();
        let payload = cas::encode(beat)?;
        let write = async {
            let acknowledged = self
                .context
                .publish(self.subject.clone(), payload.into())
                .await?;
            acknowledged.await.map(drop)
        };
        match tokio::time::timeout(limits::WORKER_BEAT, write).await {
            Ok(Ok(())) => Ok(taken),
            Ok(Err(error)) => Err(BusError::new("beat was refused", error)),
            Err(late) => Err(BusError::new("beat was not acknowledged", late)),
        }
    }
}
