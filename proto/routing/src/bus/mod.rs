//! The connection to NATS of whoever sends jobs: they go out, frames come in, records are read.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, Event, ServerAddr, StatusCode,
    jetstream::{self, stream::DirectGetErrorKind},
};
use bytes::Bytes;
use proto::{
    id::{PoolId, SessionKey, WorkerId},
    lease::WorkerBeat,
    record::ExecutionRecord,
    subject, wire,
};
use records::{
    execution::{Executions, Found, Put},
    queue::Queue,
};
use tokio::time::Instant;

use crate::placement::Record;

mod answers;
pub mod executions;
pub mod inbox;
pub mod leases;

use inbox::{Inbox, Inboxes};

/// Oldest server that works: per-key TTL, limit markers and a fix for false 503s across nodes
/// (nats-server #8233).
const OLDEST_SERVER: (i64, i64, i64) = (2, 14, 2);
/// Messages that wait in this process for all callers together.
const SUBSCRIPTION_CAPACITY: usize = 16 * 1024;

/// The connection.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
    jetstream: jetstream::Context,
    inboxes: Inboxes,
    executions: Executions,
    queue: Queue,
    connected: Connected,
}

/// When this process last connected.
#[derive(Clone, Debug)]
pub struct Connected(Arc<Mutex<Instant>>);

/// Credentials for NATS. Has no `Debug`, so that it never reaches a log.
#[expect(missing_debug_implementations, reason = "a secret")]
pub struct NatsAuth {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl Connected {
    /// Notes that the connection was made just now.
    pub fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Default for Connected {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No server answered, or it refused the credentials.
    #[error("NATS cannot be reached")]
    Connect(#[from] async_nats::ConnectError),
    /// The server lacks what ownership needs.
    #[error("NATS {0} is too old; 2.14.2 or newer is needed")]
    TooOld(String),
    /// The connection is down.
    #[error("NATS is not connected")]
    Down,
    /// A message was not sent.
    #[error("a message was not sent")]
    Send(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A record was not read.
    #[error("a record was not read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No server holds the records' stream.
    #[error("the records' stream is not there")]
    NoStream,
    /// A record was not read or written.
    #[error(transparent)]
    Record(#[from] records::cas::BusError),
}

impl Bus {
    /// Connects as the ingress of this name.
    ///
    /// # Errors
    /// No server can be reached, or it is too old.
    pub async fn connect(
        servers: &[ServerAddr],
        auth: NatsAuth,
        instance: &str,
    ) -> Result<Self, BusError> {
        let connected = Connected::default();
        let noted = connected.clone();
        let prefix = subject::ingress_inbox(instance);
        let client = ConnectOptions::with_user_and_password(auth.user, auth.password)
            .name(format!("ingress {instance}"))
            .custom_inbox_prefix(&prefix)
            .ping_interval(Duration::from_secs(10))
            .request_timeout(Some(Duration::from_secs(5)))
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .max_reconnects(None)
            .reconnect_delay_callback(|tries| {
                Duration::from_millis(20 * u64::try_from(tries).unwrap_or(25).min(25))
            })
            .event_callback(move |event| {
                note(&event, &noted);
                async {}
            })
            .connect(servers)
            .await?;
        let (major, minor, patch) = OLDEST_SERVER;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(BusError::TooOld(client.server_info().version));
        }
        Self::over(client, &prefix, connected).await
    }

    /// The same over the connection of a process that has one already. `prefix` is that of its inboxes,
    /// and whoever made the connection keeps `connected` true.
    ///
    /// # Errors
    /// The connection is closed for good.
    pub async fn over(
        client: Client,
        prefix: &str,
        connected: Connected,
    ) -> Result<Self, BusError> {
        let inboxes = Inboxes::open(&client, prefix).await?;
        let jetstream = jetstream::new(client.clone());
        let executions = Executions::open(jetstream.clone()).await?;
        let queue = Queue::open(jetstream.clone()).await?;
        Ok(Self {
            client,
            jetstream,
            inboxes,
            executions,
            queue,
            connected,
        })
    }

    /// Sends a message whose frames come to the returned inbox.
    ///
    /// # Errors
    /// The connection is down.
    pub async fn send(&self, subject: String, payload: Bytes) -> Result<Inbox, BusError> {
        self.up()?;
        let inbox = self.inboxes.open_one();
        let sent = self
            .client
            .publish_with_reply(subject, inbox.subject(), payload)
            .await;
        sent.map_err(|error| BusError::Send(Box::new(error)))?;
        Ok(inbox)
    }

    /// How long this process has been connected without a break.
    #[must_use]
    pub fn connected_for(&self) -> Duration {
        self.connected
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    /// The session's lease record, from whichever server has it nearest: a hint.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn lease(&self, pool: &PoolId, session: &SessionKey) -> Result<Record, BusError> {
        match self.known_lease(pool, session).await {
            Err(BusError::NoStream) => Ok(Record::None),
            other => other,
        }
    }

    /// The same where a stream that is not there must not be taken for one without a record.
    ///
    /// # Errors
    /// The bus did not answer, or does not hold the pool's leases now.
    pub async fn known_lease(
        &self,
        pool: &PoolId,
        session: &SessionKey,
    ) -> Result<Record, BusError> {
        let (stream, subject) = (subject::leases_stream(pool), subject::lease(pool, session));
        let Some((payload, revision)) = self.last(&stream, subject).await? else {
            return Ok(Record::None);
        };
        let lease = wire::decode(&payload).map_err(|error| BusError::Read(Box::new(error)))?;
        Ok(Record::Held(lease, revision))
    }

    /// A worker's key.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn worker(&self, worker: &WorkerId) -> Result<Option<WorkerBeat>, BusError> {
        let found = self.last(subject::WORKERS_STREAM, subject::worker(worker));
        let found = or_nothing(found.await)?;
        Ok(found.and_then(|(payload, _)| wire::decode(&payload).ok()))
    }

    /// The record of an execution, from whichever server has it nearest: a hint.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn execution(&self, subject: &str) -> Result<Found, BusError> {
        let found = self.last(subject::EXECUTIONS_STREAM, subject.to_owned());
        let found = or_nothing(found.await)?;
        let decode =
            |(payload, revision): (Bytes, u64)| Some((wire::decode(&payload).ok()?, revision));
        Ok(found.and_then(decode))
    }

    /// The record of an execution as it is.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn read_execution(&self, subject: &str) -> Result<Found, BusError> {
        self.up()?;
        Ok(self.executions.read(subject).await?)
    }

    /// Writes the record of an execution over exactly the revision `expected` (0: none).
    ///
    /// # Errors
    /// The bus did not answer; whether the record was written is unknown.
    pub async fn write_execution(
        &self,
        subject: &str,
        record: &ExecutionRecord,
        expected: u64,
    ) -> Result<Put, BusError> {
        self.up()?;
        Ok(self.executions.put(subject, record, expected).await?)
    }

    /// Whether one more execution may be recorded.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn have_room(&self) -> Result<bool, BusError> {
        self.up()?;
        Ok(self.executions.have_room().await?)
    }

    /// The queue of executions that nobody waits for.
    ///
    /// # Errors
    /// The connection is down.
    pub fn queue(&self) -> Result<&Queue, BusError> {
        self.up()?;
        Ok(&self.queue)
    }

    /// While the connection is down, the library would queue what is sent, to be delivered when nobody
    /// wants it any more.
    fn up(&self) -> Result<(), BusError> {
        if self.client.connection_state() == async_nats::connection::State::Connected {
            Ok(())
        } else {
            Err(BusError::Down)
        }
    }

    async fn last(&self, stream: &str, subject: String) -> Result<Option<(Bytes, u64)>, BusError> {
        let failed = |error| BusError::Read(error);
        let stream = self.jetstream.get_stream_no_info(stream).await;
        let stream = stream.map_err(|error| failed(Box::new(error)))?;
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) => Ok(Some((message.payload, message.sequence))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) if is_no_stream(&error.kind()) => Err(BusError::NoStream),
            Err(error) => Err(failed(Box::new(error))),
        }
    }

    /// Proves with a round trip that the bus answers and the credentials are good.
    ///
    /// # Errors
    /// It does not.
    pub async fn check(&self) -> Result<(), BusError> {
        let someone: WorkerId = "readiness"
            .parse()
            .map_err(|error| BusError::Read(Box::new(error)))?;
        self.worker(&someone).await.map(drop)
    }
}

/// Nobody answers for a stream that no worker has made yet, or that has no server now.
fn is_no_stream(kind: &DirectGetErrorKind) -> bool {
    matches!(kind, DirectGetErrorKind::ErrorResponse(status, _) if *status == StatusCode::NO_RESPONDERS)
}

/// A stream that no worker has made yet holds nothing.
fn or_nothing<T>(read: Result<Option<T>, BusError>) -> Result<Option<T>, BusError> {
    match read {
        Err(BusError::NoStream) => Ok(None),
        other => other,
    }
}

fn note(event: &Event, connected: &Connected) {
    match event {
        Event::Connected => {
            connected.renew();
            tracing::info!("connected to NATS");
        }
        Event::Disconnected | Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::warn!(%event, "NATS connection");
        }
        // Denied permissions arrive only here.
        Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => {
            tracing::error!(%event, "NATS connection");
        }
    }
}
