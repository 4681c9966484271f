//! Watches that store and bus belong together and that the bus did not lose its data: both keep the same
//! generation ([`proto::fleet`]), and the store the last mark that was on
//! the bus.
//!
//! Workers give a new fleet its generation and raise the mark; ingresses only look. A bus that does not
//! answer is in doubt and nothing more; one is lost when it says so itself several times in a row.
#![forbid(unsafe_code)]

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::Context;
use proto::{
    ambient::Ids,
    fleet::{FleetRecord, Found, Generation, KeyFingerprint, Known, Loss, Verdict, judge},
    health::{Check, Health},
};
use records::{
    cas::BusError,
    fleet::{FleetStream, Standing, State},
};
use store::{FleetError, Store};
use tokio::time::Instant;

mod accept;
mod look;

pub use accept::Acceptance;
pub use look::look;

/// Time between two looks. A loss shows within 10 seconds, and what a look costs, the idle pay, too.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// Time between two looks at a bus that seems to have lost its data.
const DOUBT_EVERY: Duration = Duration::from_secs(1);
/// Time between two looks at a bus that has not answered since the connection was made: callers wait.
const ANSWER_EVERY: Duration = Duration::from_millis(500);
/// Looks in a row that must find the data gone.
const LOOKS: u32 = 3;
/// Time between two marks, by whichever worker is first: a bus that was put back by less is not noticed.
const MARK_EVERY: Duration = Duration::from_secs(10);
/// Looks between two that read the store, too, while all is well.
const STORE_EVERY: u32 = 3;
/// How long the store may take in such a look: what it said before is as good.
const STORE_WITHIN: Duration = Duration::from_secs(5);
/// How long a bus that is asked for the first time may be without an answer.
const JOIN_WITHIN: Duration = Duration::from_secs(20);
/// Streams that are looked for at each look.
const STREAMS_AT_ONCE: usize = 4;

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It gives a new fleet its generation and raises the mark. So many servers of the bus hold each record.
    Worker {
        /// How many.
        replicas: usize,
    },
    /// It only looks.
    Ingress,
}

/// Why this process does not belong to this fleet, or does not know.
#[derive(Debug, thiserror::Error)]
pub enum FleetFailure {
    /// The store failed: nothing is known.
    #[error("failed to read the fleet's generation from the object store")]
    Store(#[from] FleetError),
    /// The bus failed: nothing is known.
    #[error("failed to read the fleet's generation from the bus")]
    Bus(#[from] BusError),
    /// It has another store than the rest of the fleet.
    #[error(
        "{0}: correct --store or --nats of this process; if the store was replaced on purpose, \
         run `worker accept-new-bus`"
    )]
    OtherStore(Verdict),
}

impl FleetFailure {
    /// Whether nothing is known because the store may be down, for every process of the fleet alike.
    #[must_use]
    pub fn is_store_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }
}

/// Store and bus as one process sees them.
#[derive(Debug)]
pub struct Fleet {
    store: Store,
    stream: FleetStream,
    role: Role,
    standing: Standing,
    health: Health,
    /// Streams that the bus must have.
    needed: Vec<String>,
    /// What the store knew when it last answered.
    known: Option<Known>,
    looks: u32,
    bad_looks: u32,
    /// The doubts that there were when the last look began, and when the store was last read.
    doubts: u64,
    known_at: u64,
    /// The one of them that was looked for last, and one that was not there.
    next: usize,
    suspect: Option<String>,
    /// The last mark and when it was first seen.
    mark: (u64, Instant),
    /// The fingerprint of the cluster key that it noted last.
    key: Option<KeyFingerprint>,
}

impl Fleet {
    /// Over the store and the connection of a process, which says in `standing` how the bus stands. Nothing
    /// is sent.
    #[must_use]
    pub fn new(
        store: Store,
        context: Context,
        role: Role,
        standing: Standing,
        health: Health,
    ) -> Self {
        Self {
            store,
            stream: FleetStream::new(context),
            role,
            standing,
            health,
            needed: vec![],
            known: None,
            looks: 0,
            bad_looks: 0,
            doubts: 0,
            known_at: 0,
            next: 0,
            suspect: None,
            mark: (0, Instant::now()),
            key: None,
        }
    }

    /// The fleet's stream.
    #[must_use]
    pub fn stream(&self) -> &FleetStream {
        &self.stream
    }

    /// Looks until it is known whether the bus is the fleet's. A worker waits for a bus that lost its data to
    /// have it again; an ingress returns, and says so to its callers.
    ///
    /// # Errors
    /// Store or bus failed, or the bus belongs to another store.
    pub async fn join(&mut self) -> Result<(), FleetFailure> {
        let began = Instant::now();
        loop {
            let verdict = match self.look().await {
                Ok(verdict) => verdict,
                // Whoever puts the data back may have to stop the bus.
                Err(error) if self.standing.loss().is_some() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "it is not known whether the bus has its data again"
                    );
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                // Its servers may be making the stream, or electing who keeps it.
                Err(FleetFailure::Bus(error)) if began.elapsed() < JOIN_WITHIN => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "it is not known yet whether the bus has its data"
                    );
                    tokio::time::sleep(DOUBT_EVERY).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match verdict {
                Verdict::Same(_) if self.standing.now() == State::Sound => return Ok(()),
                // The connection was made or lost meanwhile.
                Verdict::Same(_) => {}
                Verdict::New | Verdict::Begun(_) if self.role == Role::Ingress => return Ok(()),
                Verdict::New | Verdict::Begun(_) => {}
                other @ Verdict::OtherStore { .. } if self.bad_looks >= LOOKS => {
                    return Err(FleetFailure::OtherStore(other));
                }
                Verdict::Lost(_) if self.role == Role::Ingress && self.bad_looks >= LOOKS => {
                    return Ok(());
                }
                Verdict::Lost(_) | Verdict::OtherStore { .. } => {
                    tokio::time::sleep(DOUBT_EVERY).await;
                }
            }
        }
    }

    /// Waits until the bus has those of these streams that it ever had. The others may be made, and are to
    /// be noted with [`Self::note`].
    ///
    /// # Errors
    /// Store or bus failed.
    pub async fn require(&mut self, streams: &[String]) -> Result<(), FleetFailure> {
        let Some(generation) = self.generation().cloned() else {
            return Ok(());
        };
        let known = self.store.known_streams(&generation).await?;
        let needed = streams.iter().filter(|stream| known.contains(*stream));
        self.needed = needed.cloned().collect();
        for stream in self.needed.clone() {
            while !self.has_in_time(&stream).await? {
                self.suspect = Some(stream.clone());
                tokio::time::sleep(DOUBT_EVERY).await;
                self.join().await?;
            }
        }
        Ok(())
    }

    /// Whether the bus has a stream, asked for as long as its servers may take to elect who keeps it.
    async fn has_in_time(&self, stream: &str) -> Result<bool, FleetFailure> {
        let began = Instant::now();
        loop {
            match self.stream.has_stream(stream).await {
                Ok(has) => return Ok(has),
                Err(error) if began.elapsed() < JOIN_WITHIN => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        stream,
                        "it is not known yet whether the bus has a stream"
                    );
                    tokio::time::sleep(DOUBT_EVERY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Notes that the bus has these streams, and from now on sees to it that they stay.
    ///
    /// # Errors
    /// The store failed.
    pub async fn note(&mut self, streams: Vec<String>) -> Result<(), FleetFailure> {
        if let Some(generation) = self.generation() {
            for stream in streams
                .iter()
                .filter(|stream| !self.needed.contains(stream))
            {
                self.store.note_stream(generation, stream).await?;
            }
        }
        self.needed = streams;
        Ok(())
    }

    /// The generation that store and bus agreed on when they were last looked at.
    #[must_use]
    pub fn generation(&self) -> Option<&Generation> {
        Some(&self.known.as_ref()?.record.generation)
    }

    /// Looks from time to time, and at once whenever the connection was made or lost, for ever.
    pub async fn watch(mut self) {
        let standing = self.standing.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.pause()) => {}
                () = standing.doubted_since(self.doubts) => {}
            }
            let begun = standing.doubts();
            let looked = tokio::select! {
                looked = self.look() => looked,
                // What it asked may have been lost with the connection.
                () = standing.doubted_since(begun) => continue,
            };
            if let Err(error) = looked {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "it is not known whether the bus has its data");
                // What has no generation yet is as it was.
                if self.standing.now() == State::Sound {
                    self.standing.set(State::Doubtful);
                }
                continue;
            }
            if self.standing.now() == State::Sound
                && let Err(error) = self.keep_mark().await
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "failed to note how far the bus is");
            }
            if self.standing.now() == State::Sound
                && let Err(error) = self.keep_key().await
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "failed to note the fingerprint of the cluster key");
            }
        }
    }

    /// Notes the fingerprint of the cluster key in the store, for the time when the bus has lost it.
    async fn keep_key(&mut self) -> Result<(), FleetFailure> {
        if self.role == Role::Ingress {
            return Ok(());
        }
        if let Some(key) = self.stream.key().await?
            && self.key.as_ref() != Some(&key)
        {
            self.store.note_key(&key).await?;
            self.key = Some(key);
        }
        Ok(())
    }

    fn pause(&self) -> Duration {
        match (self.bad_looks, self.standing.now()) {
            (0, State::Doubtful) => ANSWER_EVERY,
            (0, _) => LOOK_EVERY,
            _ => DOUBT_EVERY,
        }
    }

    /// Looks once, and begins the generation of a new fleet if that is this process's task.
    async fn look(&mut self) -> Result<Verdict, FleetFailure> {
        self.doubts = self.standing.doubts();
        // The store first: marks rise. A store that does not answer now knew this much.
        if self.known.is_none() {
            self.known = self.store.known_fleet().await?;
        } else if self.bad_looks > 0
            || self.known_at != self.doubts
            || self.looks.is_multiple_of(STORE_EVERY)
        {
            let read = tokio::time::timeout(STORE_WITHIN, self.store.known_fleet()).await;
            if let Ok(Ok(Some(known))) = read {
                self.known = Some(known);
            }
        }
        self.known_at = self.doubts;
        self.looks = self.looks.wrapping_add(1);
        let found = self.stream.find().await?;
        let mut verdict = judge(self.known.as_ref(), &found);
        if let Verdict::Same(record) = &verdict
            && let Some(stream) = self.missing_stream().await?
        {
            let expected = record.generation.clone();
            verdict = Verdict::Lost(Loss::Stream { expected, stream });
        }
        self.conclude(&verdict, &found).await?;
        Ok(verdict)
    }

    async fn conclude(&mut self, verdict: &Verdict, found: &Found) -> Result<(), FleetFailure> {
        match verdict {
            Verdict::Same(record) => {
                self.bad_looks = 0;
                if let (Role::Worker { .. }, Found::Record(_, last)) = (self.role, found)
                    && self
                        .known
                        .as_ref()
                        .is_some_and(|known| known.mark.is_none())
                {
                    self.note_mark(&record.generation, *last).await?;
                }
                if self.standing.loss().is_some() {
                    tracing::info!(%verdict, "the bus has its data again");
                }
                self.standing.trust(self.doubts);
                self.health.pass(Check::BusGeneration);
            }
            Verdict::New => {
                self.bad_looks = 0;
                self.forget_doubt();
                if let Role::Worker { .. } = self.role {
                    let record = FleetRecord {
                        store: new_id(self.store.ids())?,
                        generation: new_id(self.store.ids())?,
                        previous: None,
                    };
                    self.store.create_fleet_record(&record).await?;
                }
            }
            Verdict::Begun(record) => {
                self.bad_looks = 0;
                self.forget_doubt();
                if let Role::Worker { replicas } = self.role {
                    self.stream.begin(record, replicas).await?;
                    tracing::info!(generation = %record.generation, store = %record.store,
                        "store and bus were given a generation");
                }
            }
            Verdict::Lost(loss) => {
                self.bad_looks = self.bad_looks.saturating_add(1);
                if self.bad_looks >= LOOKS {
                    self.mark_lost(&loss.to_string());
                } else if self.standing.loss().is_none() {
                    self.standing.set(State::Doubtful);
                }
            }
            Verdict::OtherStore { .. } => {
                self.bad_looks = self.bad_looks.saturating_add(1);
                if self.bad_looks >= LOOKS {
                    self.mark_lost(&verdict.to_string());
                } else if self.standing.loss().is_none() {
                    self.standing.set(State::Doubtful);
                }
            }
        }
        Ok(())
    }

    /// What has no generation cannot have lost it.
    fn forget_doubt(&self) {
        if self.standing.is_in_doubt() {
            self.standing.set(State::Unknown);
        }
    }

    fn mark_lost(&self, how: &str) {
        if self.standing.set(State::Lost(Arc::from(how))) {
            tracing::error!(
                "{how}; nothing is served or removed until the data is back, or an operator \
                 accepts the loss with `worker accept-new-bus`"
            );
        }
        self.health.fail(Check::BusGeneration, how);
    }

    /// A stream that must be there and is not. Each look is at some of them only.
    async fn missing_stream(&mut self) -> Result<Option<String>, FleetFailure> {
        // Kept until it is found: this may be broken off.
        if let Some(suspect) = self.suspect.clone() {
            if !self.stream.has_stream(&suspect).await? {
                return Ok(Some(suspect));
            }
            self.suspect = None;
        }
        for _ in 0..STREAMS_AT_ONCE.min(self.needed.len()) {
            self.next = (self.next + 1) % self.needed.len();
            let Some(stream) = self.needed.get(self.next) else {
                continue;
            };
            if !self.stream.has_stream(stream).await? {
                self.suspect = Some(stream.clone());
                return Ok(self.suspect.clone());
            }
        }
        Ok(None)
    }

    /// Raises the mark if no other worker has for a while, and notes it in the store.
    async fn keep_mark(&mut self) -> Result<(), FleetFailure> {
        let (Role::Worker { .. }, Some(generation)) = (self.role, self.generation().cloned())
        else {
            return Ok(());
        };
        let last = self.stream.last_mark().await?;
        if last != self.mark.0 {
            self.mark = (last, Instant::now());
        }
        if last != 0 && self.mark.1.elapsed() < MARK_EVERY {
            return Ok(());
        }
        // Of a bus that was just put back to an earlier time another worker may have known more.
        let known = self.store.known_fleet().await?;
        self.known = known.or_else(|| self.known.take());
        if self.generation() != Some(&generation) {
            return Ok(());
        }
        let expected = self.known.as_ref().and_then(|known| known.mark);
        if expected.is_some_and(|expected| last < expected) {
            return Ok(());
        }
        if let Some(mark) = self.stream.mark(last).await? {
            self.mark = (mark, Instant::now());
            self.note_mark(&generation, mark).await?;
        }
        Ok(())
    }

    async fn note_mark(&mut self, generation: &Generation, mark: u64) -> Result<(), FleetFailure> {
        let mark = self.store.note_fleet_mark(generation, mark).await?;
        if let Some(known) = &mut self.known {
            known.mark = Some(mark);
        }
        Ok(())
    }
}

/// A new name.
fn new_id<T: std::str::FromStr<Err = proto::id::IdError>>(ids: &Ids) -> Result<T, FleetFailure> {
    let id = ids.next().to_string().parse();
    id.map_err(|error| BusError::new("no name was made", error).into())
}
