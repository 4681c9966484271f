//! The connection to NATS of whoever sends jobs: they go out, frames come in, records are read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    Client, ServerAddr, StatusCode,
    jetstream::{self, stream::DirectGetErrorKind},
};
use bytes::Bytes;
use proto::{
    ambient::{Ids, WallClock},
    id::{PoolId, SessionKey, WorkerId},
    lease::WorkerBeat,
    record::{ExecutionRecord, Stamp},
    subject, wire,
};
use records::{
    execution::{Executions, Found, Put, Stamps},
    fleet::{Standing, State},
    nats::NatsBus,
    queue::Queue,
    room::{Entry, Room},
    share::Share,
};
use time::OffsetDateTime;

use crate::placement::LeaseView;

mod answers;
pub mod capacity;
pub mod clock;
pub mod connect;
pub mod executions;
pub mod inbox;
pub mod leases;
pub mod port;
pub mod rights;
pub mod workers;

pub use connect::{AuthError, ConnectError, Connected, NatsAuth};

use connect::Peer;
use inbox::{Inbox, Inboxes};
use workers::Workers;

use crate::served::Served;

/// Messages that wait in this process for all callers together.
const SUBSCRIPTION_CAPACITY: usize = 16 * 1024;

/// The connection. Clones share it: a [`Client`] has many parts that each would have to be cloned.
#[derive(Clone, Debug)]
pub struct Bus(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    client: Client,
    jetstream: jetstream::Context,
    inboxes: Inboxes,
    executions: Executions,
    stamps: Stamps,
    queue: Queue,
    connected: Connected,
    standing: Standing,
    workers: Workers,
}

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection is down.
    #[error("NATS is not connected")]
    Down,
    /// A message was not sent.
    #[error("failed to send a message")]
    Send(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A record was not read.
    #[error("failed to read a record")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No server holds the records' stream.
    #[error("the records' stream is not there")]
    NoStream,
    /// The bus lost its data; the text says how.
    #[error("{0}")]
    Lost(Arc<str>),
    /// It may have lost its data.
    #[error("it is not known yet whether the bus has its data")]
    InDoubt,
    /// A record was not read or written.
    #[error(transparent)]
    LeaseView(#[from] records::cas::BusError),
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
        stamps: Stamps,
    ) -> Result<Self, BusError> {
        let connected = Connected::default();
        let noted = connected.clone();
        let prefix = subject::ingress_inbox(instance);
        let peer = Peer {
            name: format!("ingress {instance}"),
            inbox_prefix: prefix.clone(),
            subscription_capacity: SUBSCRIPTION_CAPACITY,
        };
        let changed = move |link| noted.note(link);
        let client = connect::connect(servers, auth, peer, changed).await?;
        Self::over(client, &prefix, connected, stamps).await
    }

    /// A bus over the connection that a process has already. `prefix` is that of its inboxes,
    /// and whoever made the connection keeps `connected` true.
    ///
    /// # Errors
    /// The connection is closed for good.
    pub async fn over(
        client: Client,
        prefix: &str,
        connected: Connected,
        stamps: Stamps,
    ) -> Result<Self, BusError> {
        let inboxes = Inboxes::open(&client, prefix).await?;
        let jetstream = jetstream::new(client.clone());
        let records = Arc::new(NatsBus::new(jetstream.clone()));
        let executions = Executions::over(records, stamps.clone());
        let queue = Queue::open(jetstream.clone()).await?;
        Ok(Self(Arc::new(Parts {
            client,
            jetstream,
            inboxes,
            executions,
            stamps,
            queue,
            standing: connected.standing(),
            connected,
            workers: Workers::default(),
        })))
    }

    /// How often a connection to NATS was made; above 1 it was lost and came back.
    #[must_use]
    pub fn connects(&self) -> u64 {
        let statistics = self.0.client.statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    /// Where whoever uses this bus takes new ids from.
    #[must_use]
    pub fn ids(&self) -> &Ids {
        &self.0.stamps.ids
    }

    /// This host's time of day, as it was handed in.
    #[must_use]
    pub fn wall_clock(&self) -> &WallClock {
        &self.0.stamps.clock
    }

    /// The stamp of a record's version that is written now.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.0.stamps.stamp()
    }

    /// How the bus stands. Whoever watches it sets this; once it is lost, nothing is asked of the bus.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.standing.clone()
    }

    /// JetStream over this connection, for what this type does not do.
    #[must_use]
    pub fn jetstream(&self) -> jetstream::Context {
        self.0.jetstream.clone()
    }

    /// Sends a message whose frames come to the returned inbox.
    ///
    /// # Errors
    /// The connection is down.
    pub async fn send(&self, subject: String, payload: Bytes) -> Result<Inbox, BusError> {
        self.up()?;
        let inbox = self.0.inboxes.open_one();
        let sent = self
            .0
            .client
            .publish_with_reply(subject, inbox.subject(), payload)
            .await;
        sent.map_err(|error| BusError::Send(Box::new(error)))?;
        Ok(inbox)
    }

    /// How long this process has been connected without a break.
    #[must_use]
    pub fn connected_for(&self) -> Duration {
        self.0.connected.since().elapsed()
    }

    /// The session's lease record, from whichever server has it nearest: a hint.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn lease(&self, pool: &PoolId, session: &SessionKey) -> Result<LeaseView, BusError> {
        match self.known_lease(pool, session).await {
            Err(BusError::NoStream) if self.never_had(pool).await => Ok(LeaseView::None),
            other => other,
        }
    }

    /// Whether it is no loss that the bus holds no leases of this pool: no worker has made its stream yet.
    pub(super) async fn never_had(&self, pool: &PoolId) -> bool {
        self.0.standing.now() == State::Unknown || self.served(pool).await == Served::Nowhere
    }

    /// The same where a stream that is not there must not be taken for one without a record.
    ///
    /// # Errors
    /// The bus did not answer, or does not hold the pool's leases now.
    pub async fn known_lease(
        &self,
        pool: &PoolId,
        session: &SessionKey,
    ) -> Result<LeaseView, BusError> {
        let (stream, subject) = (subject::leases_stream(pool), subject::lease(pool, session));
        let Some((payload, revision)) = self.last(&stream, subject).await? else {
            return Ok(LeaseView::None);
        };
        let lease = wire::decode(&payload).map_err(|error| BusError::Read(Box::new(error)))?;
        Ok(LeaseView::Held(lease, revision))
    }

    /// What time it is on the bus.
    ///
    /// # Errors
    /// The bus did not answer, or no worker has made its streams yet.
    pub async fn time(&self) -> Result<OffsetDateTime, BusError> {
        self.up()?;
        Ok(self.0.executions.time().await?)
    }

    /// A worker's key.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn worker(&self, worker: &WorkerId) -> Result<Option<WorkerBeat>, BusError> {
        let found = self.last(subject::WORKERS_STREAM, subject::worker(worker));
        let found = self.or_nothing(found.await)?;
        Ok(found.and_then(|(payload, _)| wire::decode(&payload).ok()))
    }

    /// The record of an execution, from whichever server has it nearest: a hint.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn execution(&self, subject: &str) -> Result<Found, BusError> {
        let found = self.last(subject::EXECUTIONS_STREAM, subject.to_owned());
        let found = self.or_nothing(found.await)?;
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
        Ok(self.0.executions.read(subject).await?)
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
        Ok(self.0.executions.put(subject, record, expected).await?)
    }

    /// Whether one more execution of a pool may be recorded. If so, it counts as recorded.
    /// The entry is kept until the record is written.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn admit_record(&self, share: &Share) -> Result<Room<Entry>, BusError> {
        self.up()?;
        Ok(self.0.executions.admit(share).await?)
    }

    /// The records of executions, for whoever watches them.
    #[must_use]
    pub fn records(&self) -> &Executions {
        &self.0.executions
    }

    /// The queue of asynchronous executions.
    ///
    /// # Errors
    /// The connection is down.
    pub fn queue(&self) -> Result<&Queue, BusError> {
        self.up()?;
        Ok(&self.0.queue)
    }

    /// While the connection is down, the library would queue what is sent, to be delivered when nobody
    /// wants it any more.
    fn up(&self) -> Result<(), BusError> {
        self.sound()?;
        if self.0.client.connection_state() == async_nats::connection::State::Connected {
            Ok(())
        } else {
            Err(BusError::Down)
        }
    }

    fn sound(&self) -> Result<(), BusError> {
        match self.0.standing.loss() {
            Some(how) => Err(BusError::Lost(how)),
            None => Ok(()),
        }
    }

    /// A stream that no worker has made yet holds nothing. In a fleet that has its generation it must be
    /// there.
    fn or_nothing<T>(&self, read: Result<Option<T>, BusError>) -> Result<Option<T>, BusError> {
        match read {
            Err(BusError::NoStream) if self.0.standing.now() == State::Unknown => Ok(None),
            other => other,
        }
    }

    async fn last(&self, stream: &str, subject: String) -> Result<Option<(Bytes, u64)>, BusError> {
        let failed = |error| BusError::Read(error);
        self.sound()?;
        let stream = self.0.jetstream.get_stream_no_info(stream).await;
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
        self.up()?;
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
