//! The streams behind pools and workers. Created by whichever worker comes first.

use std::{fmt, str::FromStr};

use async_nats::jetstream::{
    Context,
    consumer::{AckPolicy, PullConsumer, pull},
    context::{CreateStreamError, CreateStreamErrorKind, UpdateStreamError},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use proto::{
    id::PoolId,
    limits,
    pool::{Pool, Pools},
    subject,
};

use super::BusError;

/// How many servers of the bus hold each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas(u8);

/// Most replicas that a stream can have.
const REPLICAS_MAX: u8 = 5;

/// How often more a stream is created when the servers do not answer.
const TRIES: u32 = 3;

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

/// Opens a pool's slots and leases.
pub(super) async fn open_pool(
    context: &Context,
    pool: &Pool,
    replicas: Replicas,
) -> Result<(Stream<()>, Stream<()>), BusError> {
    let slots = Config {
        name: subject::slots_stream(&pool.id),
        subjects: vec![format!("h1.slots.{}.*", pool.id)],
        max_messages: pool.max_sessions.into(),
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        ..base(replicas)
    };
    let leases = Config {
        name: subject::leases_stream(&pool.id),
        subjects: vec![format!("$KV.h1_leases_{}.>", pool.id)],
        max_messages_per_subject: 1,
        allow_message_ttl: true,
        ..base(replicas)
    };
    Ok((open(context, slots).await?, open(context, leases).await?))
}

/// Opens the workers' keys: a key without a beat is gone after [`limits::WORKER_TTL`].
pub(super) async fn open_workers(
    context: &Context,
    replicas: Replicas,
) -> Result<Stream<()>, BusError> {
    let workers = Config {
        name: subject::WORKERS_STREAM.to_owned(),
        subjects: vec!["$KV.h1_workers.>".to_owned()],
        max_messages_per_subject: 1,
        max_age: limits::WORKER_TTL,
        ..base(replicas)
    };
    open(context, workers).await
}

/// Opens the records of executions, with room for `bytes` of them. Each is kept for as long as its own last
/// write says; a stream that is full refuses new ones instead of forgetting what has run.
pub(crate) async fn open_executions(
    context: &Context,
    bytes: u64,
    replicas: Replicas,
) -> Result<Stream<()>, BusError> {
    let executions = Config {
        name: subject::EXECUTIONS_STREAM.to_owned(),
        subjects: vec![subject::EXECUTIONS.to_owned()],
        max_messages_per_subject: 1,
        max_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        discard: DiscardPolicy::New,
        allow_message_ttl: true,
        ..base(replicas)
    };
    open(context, executions).await
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
        ..base(replicas)
    };
    let stream = open(context, jobs).await?;
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

fn base(replicas: Replicas) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        allow_direct: true,
        num_replicas: replicas.0.into(),
        ..Config::default()
    }
}

async fn open(context: &Context, config: Config) -> Result<Stream<()>, BusError> {
    let name = config.name.clone();
    let mut tries = 0;
    loop {
        // Asked to create one that it has, the server would want to reserve its room a second time.
        if let Ok(found) = context.get_stream(&name).await {
            if !is_same(&found.cached_info().config, &config) {
                let updated = update(context, config).await;
                updated.map_err(|error| not_made("stream was not changed", error))?;
            }
            break;
        }
        match context.create_stream(config.clone()).await {
            Ok(_) => break,
            // Another worker was faster.
            Err(error) if already_exists(error.kind()) && tries < TRIES => tries += 1,
            // Servers that are creating it for another worker may not answer this one.
            Err(error) if error.kind() == CreateStreamErrorKind::TimedOut && tries < TRIES => {
                tries += 1;
            }
            Err(error) => return Err(not_made("stream was not created", error)),
        }
    }
    let stream = context.get_stream_no_info(name).await;
    stream.map_err(|error| BusError::new("stream was not opened", error))
}

/// Why a stream is not there as it should be, with the remedy where it is the servers' limits.
fn not_made(what: &'static str, error: CreateStreamError) -> BusError {
    use async_nats::jetstream::ErrorCode;
    const LIMITS: [ErrorCode; 3] = [
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::CLUSTER_NO_PEERS,
    ];
    let what = match error.kind() {
        CreateStreamErrorKind::JetStream(refused) if LIMITS.contains(&refused.error_code()) => {
            "the servers of the bus cannot reserve the room of a stream: raise their max_file_store, \
             or lower recorded_executions of the pools"
        }
        _ => what,
    };
    BusError::new(what, error)
}

/// Whether a stream is as wanted, in everything that is said of any.
fn is_same(found: &Config, wanted: &Config) -> bool {
    let said = |config: &Config| Config {
        subjects: config.subjects.clone(),
        max_messages: unbounded(config.max_messages),
        max_messages_per_subject: unbounded(config.max_messages_per_subject),
        max_bytes: unbounded(config.max_bytes),
        max_age: config.max_age,
        discard: config.discard,
        discard_new_per_subject: config.discard_new_per_subject,
        retention: config.retention,
        storage: config.storage,
        num_replicas: config.num_replicas.max(1),
        allow_direct: config.allow_direct,
        allow_message_ttl: config.allow_message_ttl,
        ..Config::default()
    };
    said(found) == said(wanted)
}

/// Nothing said is told by the server as -1.
fn unbounded(bound: i64) -> i64 {
    if bound == 0 { -1 } else { bound }
}

fn already_exists(kind: CreateStreamErrorKind) -> bool {
    use async_nats::jetstream::ErrorCode;
    match kind {
        CreateStreamErrorKind::JetStream(error) => {
            error.error_code() == ErrorCode::STREAM_NAME_EXIST
        }
        _ => false,
    }
}

/// Changes the cap, which a pool's operator may have changed. Lowering it below the live sessions
/// would discard their slots (nats-server #2589), so it only ever follows them down.
async fn update(context: &Context, mut config: Config) -> Result<(), UpdateStreamError> {
    if config.max_messages > 0 {
        let live = context.get_stream(&config.name).await;
        let live = live.map_or(0, |stream| stream.cached_info().state.messages);
        config.max_messages = config
            .max_messages
            .max(i64::try_from(live).unwrap_or(i64::MAX));
    }
    context.update_stream(config).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_changed_only_where_something_else_is_wanted() {
        let wanted = base(Replicas::ONE);
        let told = Config {
            max_messages: -1,
            max_bytes: -1,
            max_messages_per_subject: -1,
            duplicate_window: std::time::Duration::from_secs(120),
            ..wanted.clone()
        };
        assert!(is_same(&told, &wanted));
        let capped = Config {
            max_messages: 5,
            ..wanted
        };
        assert!(!is_same(&told, &capped));
    }

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
