//! Keeps what is below a session's `/mnt/data` in its commit log.
//!
//! ```text
//! scan ─> plan ─> gather ─> delta ─> commit        what is there ─> what the log must say
//! manifest ─> restore                              what the log says ─> what is there
//! ```
//!
//! A [`Syncer`] is one session's committer. After a cell it looks at the whole directory, with
//! everything in the cage standing still as long as small files are read; after an upload or a
//! removal it looks at that one path only. A directory that was empty and was not changed since is not
//! looked into (`empty.rs`). Whatever it cannot be sure about it looks at again the
//! next time: what was changed while it was read, what was changed so shortly before that a later
//! change would show the same times, and what can be written through a mapping.
//!
//! The session controls every name, link and byte in there. Nothing is resolved through a link
//! (`beneath.rs`), and what is too much is a [`Limit`], not a failure of the worker.

mod beneath;
mod delta;
mod empty;
mod gather;
mod look;
mod mapped;
mod pack;
mod pieces;
mod plan;
mod resolve;
mod restore;
mod scan;
mod still;
mod syncer;
mod transfer;
mod tree;

#[cfg(test)]
mod tests;

use std::io;

pub use delta::ChangedFile;
pub use restore::RestoreError;
pub use syncer::{Changed, StoreFault, SyncError, Synced, Syncer};
pub use transfer::Transfers;
pub use tree::Limit;

/// Runs work where it does not hold up the runtime.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
}
