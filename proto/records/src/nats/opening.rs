//! Streams of JetStream as they are wanted. Made by whichever worker comes first.

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamError, CreateStreamErrorKind, UpdateStreamError},
    stream::{Config, Stream},
};

use crate::cas::BusError;

/// How often more a stream is created when the servers do not answer.
const TRIES: u32 = 3;

/// Makes a stream, or changes it to what is wanted.
///
/// # Errors
/// The bus did not answer, or refuses.
pub async fn open_stream(context: &Context, config: Config) -> Result<Stream<()>, BusError> {
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
        let wanted = Config {
            num_replicas: 1,
            ..Config::default()
        };
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
}
