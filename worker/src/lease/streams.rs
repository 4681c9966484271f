//! The streams behind pools and workers. Made by whichever worker comes first.

use std::{fmt, str::FromStr};

use async_nats::jetstream::{
    Context,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use proto::{
    id::PoolId,
    limits,
    pool::{Pool, Pools},
    subject,
};
use records::{cas::StreamSpec, nats::open_stream};

use super::BusError;

/// How many servers of the bus hold each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas(u8);

/// Most replicas that a stream can have.
const REPLICAS_MAX: u8 = 5;

/// Not a number of replicas that a majority can be formed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1, 3 or 5 replicas are possible")]
pub struct ReplicasError;

impl Replicas {
    /// A bus of one server.
    pub const ONE: Self = Self(1);
}

impl From<Replicas> for usize {
    fn from(replicas: Replicas) -> Self {
        replicas.0.into()
    }
}

impl FromStr for Replicas {
    type Err = ReplicasError;
    fn from_str(text: &str) -> Result<Self, ReplicasError> {
        match text.parse() {
            // Of an even number no more may fail than of one less.
            Ok(count) if count % 2 == 1 && count <= REPLICAS_MAX => Ok(Self(count)),
            _ => Err(ReplicasError),
        }
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pool's slots: as many as it may have sessions, and not one more.
#[must_use]
pub fn slots(pool: &Pool, replicas: Replicas) -> StreamSpec {
    StreamSpec {
        most_records: Some(pool.max_sessions),
        ..spec(
            subject::slots_stream(&pool.id),
            subject::slot_wildcard(&pool.id),
            replicas,
        )
    }
}

/// A pool's leases.
#[must_use]
pub fn leases(pool: &Pool, replicas: Replicas) -> StreamSpec {
    StreamSpec {
        lives: true,
        ..spec(
            subject::leases_stream(&pool.id),
            subject::leases_bucket(&pool.id),
            replicas,
        )
    }
}

/// The workers' keys: a key without a beat is gone after [`limits::WORKER_TTL`].
pub(super) fn workers(replicas: Replicas) -> StreamSpec {
    StreamSpec {
        max_age: Some(limits::WORKER_TTL),
        ..spec(
            subject::WORKERS_STREAM.to_owned(),
            subject::WORKERS_BUCKET.to_owned(),
            replicas,
        )
    }
}

/// The records of executions, with room for `bytes` of them. Each is kept for as long as its own last
/// write says; a stream that is full refuses new ones instead of forgetting what has run.
pub(crate) fn executions(bytes: u64, replicas: Replicas) -> StreamSpec {
    StreamSpec {
        most_bytes: Some(bytes),
        lives: true,
        ..spec(
            subject::EXECUTIONS_STREAM.to_owned(),
            subject::EXECUTIONS.to_owned(),
            replicas,
        )
    }
}

fn spec(name: String, subjects: String, replicas: Replicas) -> StreamSpec {
    StreamSpec {
        name,
        subjects,
        most_records: None,
        most_bytes: None,
        max_age: None,
        lives: false,
        replicas: replicas.into(),
    }
}

/// Opens the queues of asynchronous executions. A job lies there until it is acknowledged, and
/// no longer than its record; a session or a server that has too many refuses new ones.
pub(crate) async fn open_queues(
    context: &Context,
    pools: &Pools,
    replicas: Replicas,
) -> Result<Vec<(PoolId, PullConsumer)>, BusError> {
    let jobs = Config {
        name: subject::JOBS_STREAM.to_owned(),
        subjects: vec![subject::JOBS.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        max_messages_per_subject: limits::QUEUED_OF_SESSION,
        max_bytes: limits::QUEUE_BYTES,
        max_age: limits::RECORD_LIFE,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        storage: StorageType::File,
        allow_direct: true,
        num_replicas: replicas.into(),
        ..Config::default()
    };
    let stream = open_stream(context, jobs).await?;
    let mut queues = vec![];
    for pool in &pools.pool {
        queues.push((pool.id.clone(), open_queue(&stream, pool).await?));
    }
    Ok(queues)
}

/// Opens the queue of one pool, which all its workers share out.
async fn open_queue(stream: &Stream<()>, pool: &Pool) -> Result<PullConsumer, BusError> {
    let config = pull::Config {
        durable_name: Some(subject::queue_consumer(&pool.id)),
        filter_subject: subject::queue(&pool.id),
        ack_policy: AckPolicy::Explicit,
        ack_wait: limits::QUEUE_SILENCE,
        max_ack_pending: limits::QUEUED_AT_WORKERS,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await;
    consumer.map_err(|error| BusError::new("queue was not opened", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_numbers_that_have_a_majority() {
        for good in ["1", "3", "5"] {
            assert_eq!(good.parse::<Replicas>().unwrap().to_string(), good);
        }
        for bad in ["0", "2", "4", "7", "-1", "", "three"] {
            assert_eq!(bad.parse::<Replicas>(), Err(ReplicasError), "{bad}");
        }
    }
}
