//! The servers of the bus.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::ambient::WallClock;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    connection::Connection,
    server::{Change, Record, Server},
};

/// When every model begins.
const BEGINNING: OffsetDateTime = time::macros::datetime!(2026-01-01 00:00 UTC);

/// The servers of a bus in memory. Clones are the same servers.
#[derive(Clone, Debug)]
pub struct Model(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server: Mutex<Server>,
    began: Instant,
    /// How far its clock was put forward.
    ahead: Mutex<time::Duration>,
    is_stopped: AtomicBool,
    starts: AtomicU64,
}

impl Default for Model {
    fn default() -> Self {
        Self(Arc::new(Shared {
            server: Mutex::default(),
            began: Instant::now(),
            ahead: Mutex::default(),
            is_stopped: AtomicBool::new(false),
            starts: AtomicU64::new(1),
        }))
    }
}

impl Model {
    /// One process's end. Its faults come from the seed, once it has [`Connection::chances`] of any.
    #[must_use]
    pub fn connect(&self, seed: u64) -> Arc<Connection> {
        Arc::new(Connection::new(self.clone(), seed))
    }

    /// What time it is on the bus.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        BEGINNING + self.0.began.elapsed() + *lock(&self.0.ahead)
    }

    /// A clock of a process that agrees with the bus's as long as that does not jump.
    #[must_use]
    pub fn wall_clock(&self) -> WallClock {
        let began = self.0.began;
        WallClock::reading(move || (BEGINNING + began.elapsed()).into())
    }

    /// Puts the bus's clock forward: what would have ended by then has.
    pub fn put_forward(&self, by: Duration) {
        let mut ahead = lock(&self.0.ahead);
        *ahead = ahead.saturating_add(by.try_into().unwrap_or(time::Duration::MAX));
    }

    /// Puts the bus's clock back.
    pub fn put_back(&self, by: Duration) {
        let mut ahead = lock(&self.0.ahead);
        *ahead = ahead.saturating_sub(by.try_into().unwrap_or(time::Duration::MAX));
    }

    /// Stops all servers: nobody is answered. What they keep stays.
    pub fn stop(&self) {
        self.0.is_stopped.store(true, Ordering::Release);
    }

    /// Starts them again. All connections are new ones.
    pub fn start(&self) {
        if self.0.is_stopped.swap(false, Ordering::AcqRel) {
            self.0.starts.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The records of a stream, in the order of their sequences.
    #[must_use]
    pub fn records(&self, stream: &str) -> Vec<Record> {
        self.server().records(stream)
    }

    /// All that ever happened to the records of a stream.
    #[must_use]
    pub fn changes(&self, stream: &str) -> Vec<Change> {
        self.server().changes(stream)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.is_stopped.load(Ordering::Acquire)
    }

    pub(crate) fn starts(&self) -> u64 {
        self.0.starts.load(Ordering::Acquire)
    }

    /// Performs what is asked at the time that it is by now.
    pub(crate) fn perform<T>(&self, act: impl FnOnce(&mut Server, OffsetDateTime) -> T) -> T {
        let now = self.now();
        act(&mut self.server(), now)
    }

    /// What they keep now.
    fn server(&self) -> MutexGuard<'_, Server> {
        let now = self.now();
        let mut server = lock(&self.0.server);
        server.pass(now);
        server
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
