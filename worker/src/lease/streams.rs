//! The streams behind pools and workers. Created by whichever worker comes first.

use std::{fmt, str::FromStr};

use async_nats::jetstream::{
    Context,
    context::{CreateStreamErrorKind, UpdateStreamError},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use proto::{limits, pool::Pool, subject};

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

/// Opens the records of executions. Each is kept for as long as its own last write says; a stream that
/// is full refuses new ones instead of forgetting what has run.
pub(crate) async fn open_executions(
    context: &Context,
    replicas: Replicas,
) -> Result<Stream<()>, BusError> {
    let executions = Config {
        name: subject::EXECUTIONS_STREAM.to_owned(),
        subjects: vec![subject::EXECUTIONS.to_owned()],
        max_messages_per_subject: 1,
        max_bytes: limits::RECORDS_BYTES,
        discard: DiscardPolicy::New,
        allow_message_ttl: true,
        ..base(replicas)
    };
    open(context, executions).await
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
    let failed = |error| BusError::new("stream was not created", error);
    match context.create_stream(config.clone()).await {
        Ok(_) => {}
        Err(error) if already_exists(error.kind()) => update(context, config)
            .await
            .map_err(|error| BusError::new("stream was not changed", error))?,
        Err(error) => return Err(failed(error)),
    }
    let stream = context.get_stream_no_info(name).await;
    stream.map_err(|error| BusError::new("stream was not opened", error))
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
    fn replicas_are_numbers_that_have_a_majority() {
        for good in ["1", "3", "5"] {
            assert_eq!(good.parse::<Replicas>().unwrap().to_string(), good);
        }
        for bad in ["0", "2", "4", "7", "-1", "", "three"] {
            assert_eq!(bad.parse::<Replicas>(), Err(ReplicasError), "{bad}");
        }
    }
}
