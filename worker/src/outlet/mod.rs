//! The way of a running cell's output to a reader who wants it as it happens. The kernel's side puts in
//! and never waits; the session's side takes out what the reader has room for. What does not fit between
//! the two is dropped and counted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::execution::{Bundle, Output};
use tokio::sync::Notify;

mod backlog;

use backlog::Backlog;

/// One of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The way of one execution's output. Shared by both sides.
#[derive(Debug, Default)]
pub struct Outlet {
    backlog: Mutex<Backlog>,
    changed: Notify,
}

impl Outlet {
    /// Puts in what was read from a stream; whatever is half a character waits for its other half.
    pub fn text(&self, stream: Stream, bytes: &[u8]) {
        self.change(|backlog| backlog.text(stream, bytes));
    }

    /// Puts in a display output, with the name by which it can be replaced, or that it replaces.
    pub fn display(&self, bundle: &Bundle, name: Option<u32>, update: bool) {
        self.change(|backlog| backlog.display(bundle, name, update));
    }

    /// Takes back what was shown so far.
    pub fn clear(&self) {
        self.change(Backlog::clear);
    }

    /// Nothing more comes of a stream.
    pub fn end(&self, stream: Stream) {
        self.change(|backlog| backlog.end(stream));
    }

    /// The reader has taken frames that cost so many bytes.
    pub fn credit(&self, frames: u32, bytes: u64) {
        self.change(|backlog| backlog.credit(frames, bytes));
    }

    /// The next piece, if the reader has room for it.
    pub fn take(&self) -> Option<Output> {
        self.lock().take()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Drops what waits; what is to be told of it.
    pub fn give_up(&self) -> Option<Output> {
        self.lock().give_up()
    }

    /// Waits until there is something to take. For one who waits at a time.
    pub async fn ready(&self) {
        while !self.lock().is_ready() {
            self.changed.notified().await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Backlog)) {
        let mut backlog = self.lock();
        change(&mut backlog);
        if backlog.is_ready() {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
