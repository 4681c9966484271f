//! What all processes of a fleet must agree on, as it lies on the bus: the generation, the fingerprint of
//! the cluster key, the workers' marks, and the pools that each ingress knows. One small stream.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    message::PublishMessage,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use proto::{
    fleet::{FleetRecord, Found, KeyFingerprint, PoolDigest},
    id::PoolId,
    subject, wire,
};
use tokio::sync::Notify;

use crate::{
    cas::{self, BusError, Written},
    nats,
};

/// How long it is believed which pools an ingress knows.
pub const POOLS_LIFE: Duration = Duration::from_secs(30);

/// How often more the stream is created when the servers do not answer.
const TRIES: u32 = 3;

/// Pools by their settings, as a process tells them.
pub type Digests = BTreeMap<PoolId, PoolDigest>;

/// How the bus stands. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: RwLock<State>,
    /// Losses and returns of the connection: behind each may be another bus.
    doubts: AtomicU64,
    changed: Notify,
}

/// How the bus stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody has looked, or the fleet has no generation yet.
    #[default]
    Unknown,
    /// It has the generation that the store knows.
    Sound,
    /// It seems to have lost its data, did not answer when it was last looked at, or was not looked at since
    /// the connection was made.
    Doubtful,
    /// It lost its data; the text says how.
    Lost(Arc<str>),
}

impl Standing {
    /// How it stands.
    #[must_use]
    pub fn now(&self) -> State {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// How it lost its data, if it did.
    #[must_use]
    pub fn loss(&self) -> Option<Arc<str>> {
        match &*self.0.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Lost(how) => Some(how.clone()),
            State::Unknown | State::Sound | State::Doubtful => None,
        }
    }

    /// Says how it stands. Returns whether that is new.
    pub fn set(&self, state: State) -> bool {
        let mut now = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = *now != state;
        *now = state;
        drop(now);
        if is_new {
            self.0.changed.notify_waiters();
        }
        is_new
    }

    /// Whether it may have lost its data: what it says of sessions that are not there is not to be believed.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.now() == State::Doubtful
    }

    /// Says that the connection was lost or made. What was sound is in doubt until it is looked at again.
    pub fn doubt(&self) {
        let mut now = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        self.0.doubts.fetch_add(1, Ordering::AcqRel);
        if *now == State::Sound {
            *now = State::Doubtful;
        }
        drop(now);
        self.0.changed.notify_waiters();
    }

    /// How often the connection was lost or made.
    #[must_use]
    pub fn doubts(&self) -> u64 {
        self.0.doubts.load(Ordering::Acquire)
    }

    /// Says that it is sound, by a look that began when there were so many doubts. Not believed if there are
    /// more now: the look may have been at another bus. Returns whether it is believed.
    pub fn trust(&self, doubts: u64) -> bool {
        let mut now = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        if self.doubts() != doubts {
            return false;
        }
        *now = State::Sound;
        drop(now);
        self.0.changed.notify_waiters();
        true
    }

    /// Returns once it has lost its data, and how.
    pub async fn lost(&self) -> Arc<str> {
        self.until(|| self.loss()).await
    }

    /// Returns once it is sound.
    pub async fn sound(&self) {
        self.until(|| (self.now() == State::Sound).then_some(()))
            .await;
    }

    /// Returns once it is not in doubt.
    pub async fn known(&self) {
        self.until(|| (!self.is_in_doubt()).then_some(())).await;
    }

    /// Returns once there are other doubts than so many.
    pub async fn doubted_since(&self, doubts: u64) {
        self.until(|| (self.doubts() != doubts).then_some(())).await;
    }

    async fn until<T>(&self, found: impl Fn() -> Option<T>) -> T {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = found() {
                return found;
            }
            changed.await;
        }
    }
}

/// The fleet's stream behind this connection.
#[derive(Clone)]
pub struct FleetStream {
    context: Context,
}

impl fmt::Debug for FleetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetStream(..)")
    }
}

impl FleetStream {
    /// Over a connection. Nothing is sent.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    /// What the bus says of its generation, read from the stream's leader.
    ///
    /// # Errors
    /// The bus did not answer, or holds something else there: nothing is known.
    pub async fn find(&self) -> Result<Found, BusError> {
        if self.stream().await?.is_none() {
            return Ok(Found::NoStream);
        }
        Ok(match self.decoded(subject::FLEET_GENERATION).await? {
            Some(record) => Found::Record(record, self.last_mark().await?),
            None => Found::NoRecord,
        })
    }

    /// Whether the bus has this stream.
    ///
    /// # Errors
    /// The bus did not answer: nothing is known.
    pub async fn has_stream(&self, name: &str) -> Result<bool, BusError> {
        match self.context.get_stream(name).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error.kind()) => Ok(false),
            Err(error) => Err(BusError::new("stream was not described", error)),
        }
    }

    /// Makes the stream, unless it is there, and writes the generation, unless there is one.
    ///
    /// # Errors
    /// The bus refuses or did not answer.
    pub async fn begin(&self, record: &FleetRecord, replicas: usize) -> Result<(), BusError> {
        let config = Config {
            name: subject::FLEET_STREAM.to_owned(),
            subjects: vec![subject::FLEET.to_owned()],
            max_messages_per_subject: 1,
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            allow_direct: true,
            allow_message_ttl: true,
            num_replicas: replicas,
            ..Config::default()
        };
        let mut tries = 0;
        while self.stream().await?.is_none() {
            match self.context.create_stream(config.clone()).await {
                Ok(_) => break,
                // Another process was faster, or servers that make it for another do not answer.
                Err(error) if tries < TRIES && is_anothers(&error.kind()) => tries += 1,
                Err(error) => return Err(BusError::new("stream was not created", error)),
            }
        }
        let message = PublishMessage::build()
            .payload(cas::encode(record)?)
            .expected_last_subject_sequence(0);
        match nats::write(&self.context, subject::FLEET_GENERATION.to_owned(), message).await? {
            Written::At(_) | Written::Conflict => Ok(()),
            Written::Full => Err(BusError::new(
                "generation was not written",
                "the bus is full",
            )),
        }
    }

    /// Has this many servers keep the stream, which may have been made when there were fewer. Where there is no
    /// stream, nothing is done.
    ///
    /// # Errors
    /// The bus refuses or did not answer.
    pub async fn replicate(&self, replicas: usize) -> Result<(), BusError> {
        let Some(stream) = self.stream().await? else {
            return Ok(());
        };
        let mut config = stream.cached_info().config.clone();
        if config.num_replicas.max(1) == replicas {
            return Ok(());
        }
        config.num_replicas = replicas;
        let changed = self.context.update_stream(config).await;
        changed.map_err(|error| BusError::new("failed to replicate the fleet's stream", error))?;
        Ok(())
    }

    /// Writes another generation over whatever is there. Only an operator may ask for it.
    ///
    /// # Errors
    /// The bus refuses or did not answer.
    pub async fn replace(&self, record: &FleetRecord, replicas: usize) -> Result<(), BusError> {
        self.begin(record, replicas).await?;
        let message = PublishMessage::build().payload(cas::encode(record)?);
        let written = nats::write(&self.context, subject::FLEET_GENERATION.to_owned(), message);
        match written.await? {
            Written::At(_) => Ok(()),
            Written::Conflict | Written::Full => Err(BusError::new(
                "generation was not written",
                "the bus refused",
            )),
        }
    }

    /// The sequence of the last mark, 0 for none.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn last_mark(&self) -> Result<u64, BusError> {
        let stream = self.stream_without_info().await?;
        let last = nats::last(&stream, subject::FLEET_MARK).await?;
        Ok(last.map_or(0, |last| last.sequence))
    }

    /// Writes a mark over exactly the last one and returns its sequence, which is higher. `None` if another
    /// process was faster.
    ///
    /// # Errors
    /// The bus refuses or did not answer.
    pub async fn mark(&self, last: u64) -> Result<Option<u64>, BusError> {
        let message = PublishMessage::build()
            .payload(bytes::Bytes::new())
            .expected_last_subject_sequence(last);
        match nats::write(&self.context, subject::FLEET_MARK.to_owned(), message).await? {
            Written::At(sequence) => Ok(Some(sequence)),
            Written::Conflict | Written::Full => Ok(None),
        }
    }

    /// The fingerprint of the fleet's cluster key, if the bus has one.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn key(&self) -> Result<Option<KeyFingerprint>, BusError> {
        match self.stream().await? {
            Some(_) => self.decoded(subject::FLEET_KEY).await,
            None => Ok(None),
        }
    }

    /// The fingerprint of the fleet's cluster key: the first that was written. Writes this one if there is
    /// none. `None` while the bus has no stream of the fleet.
    ///
    /// # Errors
    /// The bus refuses or did not answer.
    pub async fn agree_on_key(
        &self,
        ours: &KeyFingerprint,
    ) -> Result<Option<KeyFingerprint>, BusError> {
        if self.stream().await?.is_none() {
            return Ok(None);
        }
        if let Some(theirs) = self.decoded(subject::FLEET_KEY).await? {
            return Ok(Some(theirs));
        }
        let message = PublishMessage::build()
            .payload(cas::encode(ours)?)
            .expected_last_subject_sequence(0);
        nats::write(&self.context, subject::FLEET_KEY.to_owned(), message).await?;
        self.decoded(subject::FLEET_KEY).await
    }

    /// Replaces the fingerprint of the cluster key. Only an operator may ask for it.
    ///
    /// # Errors
    /// The bus refuses or did not answer.
    pub async fn replace_key(&self, key: &KeyFingerprint) -> Result<(), BusError> {
        let message = PublishMessage::build().payload(cas::encode(key)?);
        nats::write(&self.context, subject::FLEET_KEY.to_owned(), message).await?;
        Ok(())
    }

    /// Says which pools this ingress knows; believed for [`POOLS_LIFE`].
    ///
    /// # Errors
    /// The bus refuses or did not answer.
    pub async fn tell_pools(&self, instance: &str, pools: &Digests) -> Result<(), BusError> {
        let message = PublishMessage::build()
            .payload(cas::encode(pools)?)
            .ttl(POOLS_LIFE);
        nats::write(&self.context, subject::fleet_pools(instance), message).await?;
        Ok(())
    }

    async fn decoded<T: serde::de::DeserializeOwned>(
        &self,
        subject: &str,
    ) -> Result<Option<T>, BusError> {
        let stream = self.stream_without_info().await?;
        let Some(message) = nats::last(&stream, subject).await? else {
            return Ok(None);
        };
        let decoded = wire::decode(&message.payload);
        decoded
            .map(Some)
            .map_err(|error| BusError::new("record was not decoded", error))
    }

    async fn stream(&self) -> Result<Option<Stream>, BusError> {
        match self.context.get_stream(subject::FLEET_STREAM).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if is_missing(&error.kind()) => Ok(None),
            Err(error) => Err(BusError::new("stream was not described", error)),
        }
    }

    async fn stream_without_info(&self) -> Result<Stream<()>, BusError> {
        let stream = self.context.get_stream_no_info(subject::FLEET_STREAM).await;
        stream.map_err(|error| BusError::new("stream was not opened", error))
    }
}

/// Whether the bus says that there is no such stream. That it does not answer is something else.
#[must_use]
pub fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn is_anothers(kind: &CreateStreamErrorKind) -> bool {
    match kind {
        CreateStreamErrorKind::JetStream(error) => {
            error.error_code() == ErrorCode::STREAM_NAME_EXIST
        }
        kind => *kind == CreateStreamErrorKind::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_loss_hears_of_it_and_of_nothing_else() {
        let standing = Standing::default();
        let waiting = tokio::spawn({
            let standing = standing.clone();
            async move { standing.lost().await }
        });
        assert!(standing.set(State::Sound));
        assert!(!standing.set(State::Sound));
        assert!(standing.set(State::Doubtful));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(standing.loss(), None);
        standing.set(State::Lost("wiped".into()));
        assert_eq!(&*waiting.await.unwrap(), "wiped");
        standing.set(State::Sound);
        assert_eq!(standing.loss(), None);
    }

    #[tokio::test]
    async fn a_connection_that_was_lost_or_made_is_in_doubt_until_a_look_after_it() {
        let standing = Standing::default();
        standing.doubt();
        assert_eq!(
            standing.now(),
            State::Unknown,
            "a fleet without a generation"
        );
        let before = standing.doubts();
        assert!(standing.trust(before));
        assert_eq!(standing.now(), State::Sound);
        let swept = tokio::spawn({
            let standing = standing.clone();
            standing.doubt();
            async move { standing.sound().await }
        });
        assert!(standing.is_in_doubt());
        standing.doubted_since(before).await;
        tokio::task::yield_now().await;
        assert!(!swept.is_finished());
        assert!(!standing.trust(before), "it began with the old connection");
        assert!(standing.is_in_doubt());
        assert!(standing.trust(standing.doubts()));
        swept.await.unwrap();

        standing.set(State::Lost("wiped".into()));
        standing.doubt();
        assert!(standing.loss().is_some());
    }
}
