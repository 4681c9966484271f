//! Commits as objects: how they come into the log and how their headers are read.

use std::time::Duration;

use bytes::Bytes;

use super::{
    codec::{self, CommitError, Header},
    commit::{Commit, Seq},
    frame,
    key::LogKey,
};
use crate::{Store, StoreError};

/// Bytes read to get a header. Most commits are shorter as a whole.
const FIRST_READ: u64 = 64 * 1024;
/// How often a place is tried again that was refused as taken and turned out to be free.
const TRIES: u32 = 8;
/// Pause before the second try, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Why a commit could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is there is no commit that this version can read.
    #[error("failed to read commit {0}")]
    Commit(Seq, #[source] CommitError),
    /// The store says again and again that a place is taken where there is nothing.
    #[error("place {0} is neither taken nor free")]
    Undecided(Seq),
}

/// Who has a place in the log.
#[derive(Debug)]
pub(super) enum Claim {
    /// This commit, by this request or by an earlier one whose answer was lost.
    Ours,
    /// Another one; `None` if this version cannot read it.
    Taken(Option<Box<Entry>>),
}

/// A commit in the log, without its pack.
#[derive(Debug)]
pub(super) struct Entry {
    pub commit: Commit,
    /// Bytes of its pack, compressed.
    pub pack_bytes: u64,
}

/// Puts an encoded commit at `seq` unless one is there. The nonce tells whether it is this one: a
/// store may say "exists" to the repetition of a write that succeeded, and S3 may say so to one of
/// several writes at the same time when nothing has been written yet.
pub(super) async fn claim(
    store: &Store,
    place: &LogKey,
    seq: Seq,
    bytes: &Bytes,
    nonce: &str,
) -> Result<Claim, EntryError> {
    let key = place.commit(seq);
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        if store.create(&key, bytes.clone()).await? {
            return Ok(Claim::Ours);
        }
        match read(store, place, seq).await {
            Ok(Some(entry)) if entry.commit.nonce == nonce => return Ok(Claim::Ours),
            // Whatever this version cannot read it has not written.
            Err(EntryError::Commit(..)) => return Ok(Claim::Taken(None)),
            Ok(Some(entry)) => return Ok(Claim::Taken(Some(Box::new(entry)))),
            Ok(None) => tokio::time::sleep(pause).await,
            Err(error) => return Err(error),
        }
        pause *= 2;
    }
    Err(EntryError::Undecided(seq))
}

/// Reads the commit at `seq`, if there is one.
pub(super) async fn read(
    store: &Store,
    place: &LogKey,
    seq: Seq,
) -> Result<Option<Entry>, EntryError> {
    let key = place.commit(seq);
    let wrong = |error| EntryError::Commit(seq, error);
    let Some(part) = store.get_range(&key, 0..FIRST_READ).await? else {
        return Ok(None);
    };
    let end = codec::header_end(&part.bytes).map_err(wrong)?;
    let size = part.size;
    let header = if end > part.bytes.len() as u64 {
        // Whole again rather than glued: it is rare, and the object may have been hollowed between.
        let Some(part) = store.get_range(&key, 0..end).await? else {
            return Ok(None);
        };
        part.bytes
    } else {
        part.bytes
    };
    let decoded = frame::run_blocking(header.len(), move || codec::decode_header(&header)).await;
    let Header { commit, pack_at } = decoded.map_err(wrong)?;
    Ok(Some(Entry {
        commit,
        pack_bytes: size.saturating_sub(pack_at),
    }))
}
