//! The queue of asynchronous executions: a work queue on the bus. A job lies there until its
//! record has an end; what is delivered twice is told apart by the record.

use std::time::SystemTime;

use async_nats::jetstream::{
    Context,
    context::ConsumerInfoErrorKind,
    message::PublishMessage,
    stream::{DirectGetErrorKind, Stream},
};
use bytes::Bytes;
use proto::{
    id::{PoolId, SessionKey},
    subject,
};

use crate::{
    cas::{BusError, Written},
    nats,
};

/// How often a job is sent whose acknowledgement does not come.
const TRIES: u32 = 3;

/// The queues of all pools.
#[derive(Clone, Debug)]
pub struct Queue {
    context: Context,
    stream: Stream<()>,
}

/// What lies in the queue of a pool. Both together have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that no worker has taken.
    pub waiting: u64,
    /// Jobs that a worker has taken: they run, or wait for room or for their session.
    pub taken: u64,
}

impl Depth {
    /// All jobs.
    #[must_use]
    pub fn all(self) -> u64 {
        self.waiting.saturating_add(self.taken)
    }
}

impl Queue {
    /// The queues behind this connection. The stream is made by whichever worker comes first.
    ///
    /// # Errors
    /// The client library refuses the stream's name.
    pub async fn open(context: Context) -> Result<Self, BusError> {
        let stream = context.get_stream_no_info(subject::JOBS_STREAM).await;
        let stream = stream.map_err(|error| BusError::new("stream was not opened", error))?;
        Ok(Self { context, stream })
    }

    /// Adds a job. One that was added under the same `name` a short time ago is not added again; says
    /// whether there was room for it.
    ///
    /// # Errors
    /// The bus did not answer in several tries; whether the job was added is unknown.
    pub async fn add(
        &self,
        (pool, session): (&PoolId, &SessionKey),
        name: &str,
        job: Bytes,
    ) -> Result<bool, BusError> {
        let mut tries = 0;
        loop {
            let message = PublishMessage::build()
                .payload(job.clone())
                .message_id(name);
            let subject = subject::queued(pool, session);
            match nats::write(&self.context, subject, message).await {
                Ok(Written::At(_)) => return Ok(true),
                Ok(Written::Full | Written::Conflict) => return Ok(false),
                Err(error) => {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// How many jobs of a pool have not ended.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn depth(&self, pool: &PoolId) -> Result<Depth, BusError> {
        let consumer = subject::queue_consumer(pool);
        match self.stream.consumer_info(consumer).await {
            Ok(info) => Ok(Depth {
                waiting: info.num_pending,
                taken: u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX),
            }),
            Err(error) => match error.kind() {
                // No worker has served the pool yet.
                ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => {
                    Ok(Depth::default())
                }
                _ => Err(BusError::new("queue was not described", error)),
            },
        }
    }

    /// When the oldest job of a pool that has not ended was added, by the bus's clock; `None` if there is none.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn oldest(&self, pool: &PoolId) -> Result<Option<SystemTime>, BusError> {
        let first = self
            .stream
            .direct_get_first_for_subject(subject::queue(pool));
        match first.await {
            Ok(job) => Ok(Some(job.time.into())),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(BusError::new("queue was not read", error)),
        }
    }
}
