//! The one who writes a log.
//!
//! A writer knows the tree and the log's end, and nobody else moves either while its epoch lasts.
//! What it does not always know is whether its last commit arrived: when the store fails, the commit
//! is *pending*, and until [`Writer::settle`] has found out, nothing else may be appended, since
//! whatever is planned on the old tree could be wrong on the new one.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use proto::{ambient::Ids, id::Epoch, recovery::Recovery};

use super::{
    codec::{self, CommitError},
    commit::{Body, Change, Commit, Node, Packed, Seq, Source, VERSION, Variables},
    entry::{self, Claim, EntryError},
    frame,
    history::{self, Base, History, HistoryError},
    key::LogKey,
    manifest::Manifest,
    source::{self, SourceError},
};
use crate::Store;

/// Collisions of one take-over. Each is a commit that somebody else wrote at the same moment.
const COLLISIONS: usize = 100;

/// The end of a log and the right to go on with it.
#[derive(Debug)]
pub struct Writer {
    pub(super) store: Store,
    pub(super) place: LogKey,
    pub(super) epoch: Epoch,
    pub(super) manifest: Arc<Manifest>,
    pub(super) head: Seq,
    /// What the commit at the head carries, when it carries variables.
    pub(super) variables: Option<Variables>,
    pub(super) base: Base,
    /// Sources that commits made superfluous since the last checkpoint.
    pub(super) released: HashSet<Source>,
    /// All that a checkpoint may have declared dead. No commit points there any more.
    pub(super) condemned: HashSet<Source>,
    pending: Option<Attempt>,
    fenced: bool,
    /// What is to be written beside the log once there is something in it.
    recovery: Option<Recovery>,
    /// Bytes written since somebody asked.
    written: AtomicU64,
}

/// A log on its way to a new owner: read, and not fenced yet.
#[derive(Debug)]
pub struct TakeOver {
    store: Store,
    place: LogKey,
    epoch: Epoch,
    history: History,
}

/// A commit whose fate is not known.
#[derive(Debug)]
struct Attempt {
    seq: Seq,
    commit: Commit,
    bytes: Bytes,
}

/// Why a log cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The log has reached this epoch already. Whoever takes it over needs a higher one.
    #[error("the log is at epoch {log} already")]
    Behind {
        /// The log's.
        log: Epoch,
    },
    /// The log cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The fence cannot be written. Whether it was is not known: the next take-over will see.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The fence cannot be encoded.
    #[error("failed to encode the fence")]
    Commit(#[from] CommitError),
    /// Others wrote all the time.
    #[error("failed to reach the log's end")]
    Contended,
}

/// Why something was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else has written here: this writer's epoch is over. Nothing of what it has not
    /// been told to be in the log is.
    #[error("another owner has taken the log over")]
    Fenced,
    /// An earlier commit is pending; nothing was written.
    #[error("an earlier commit is not settled")]
    Unsettled,
    /// The commit breaks a limit; nothing was written.
    #[error("the commit cannot be")]
    Commit(#[from] CommitError),
    /// It points to what a checkpoint has declared dead; nothing was written. It was planned on a
    /// tree that is long gone.
    #[error("the commit points to contents that were given up")]
    Dead,
    /// Only a take-over writes fences.
    #[error("not the body of a commit that may be appended")]
    Body,
    /// The store failed; the commit is pending.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl TakeOver {
    /// Reads a log. Its owner may go on with it.
    ///
    /// # Errors
    /// The log is at `epoch` or beyond, or the store failed.
    pub async fn read(store: Store, place: LogKey, epoch: Epoch) -> Result<Self, TakeOverError> {
        let history = history::read(&store, &place).await?;
        let read = Self {
            store,
            place,
            epoch,
            history,
        };
        read.check()?;
        Ok(read)
    }

    /// The tree as it was read.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.history.manifest
    }

    /// Fences the log at its present end: nobody goes on with it but the new writer. The variables are
    /// those that the owner before left directly before this fence; no later take-over finds them. They
    /// are not part of any tree, so a checkpoint may give their blob up: it is to be fetched within
    /// [`proto::limits::DEAD_GRACE`].
    ///
    /// # Errors
    /// The log is at the new epoch or beyond by now, or the store failed.
    pub async fn fence(mut self) -> Result<(Writer, Option<Variables>), TakeOverError> {
        let commit = Commit::new(self.store.ids(), self.epoch, Body::Fence);
        let (commit, bytes) = encode(commit, vec![]).await?;
        for _ in 0..COLLISIONS {
            self.check()?;
            let Self {
                store,
                place,
                history,
                ..
            } = &mut self;
            let seq = history.head.next();
            match entry::claim(store, place, seq, &bytes, &commit.nonce).await? {
                Claim::Ours => {
                    let variables = history.variables.take();
                    history.head = seq;
                    let Self {
                        store,
                        place,
                        epoch,
                        history,
                    } = self;
                    return Ok((Writer::at(store, place, epoch, history), variables));
                }
                // Reading just this one, not all that may have come since, is what gives a chance
                // against an owner that goes on committing.
                Claim::Taken(Some(entry)) => match history.take(seq, *entry) {
                    Err(HistoryError::Overtaken) => *history = history::read(store, place).await?,
                    taken => taken?,
                },
                Claim::Taken(None) => history.follow(store, place).await?,
            }
        }
        Err(TakeOverError::Contended)
    }

    fn check(&self) -> Result<(), TakeOverError> {
        let log = self.history.epoch;
        if log >= self.epoch {
            return Err(TakeOverError::Behind { log });
        }
        Ok(())
    }
}

impl Writer {
    /// Begins the log of a new incarnation. Nothing is read or written.
    #[must_use]
    pub fn fresh(store: Store, place: LogKey, epoch: Epoch) -> Self {
        Self::at(store, place, epoch, History::default())
    }

    /// Takes a log over: reads it and fences it; see [`TakeOver`].
    ///
    /// # Errors
    /// The log is at `epoch` or beyond, or the store failed.
    pub async fn take_over(
        store: Store,
        place: LogKey,
        epoch: Epoch,
    ) -> Result<(Self, Option<Variables>), TakeOverError> {
        TakeOver::read(store, place, epoch).await?.fence().await
    }

    fn at(store: Store, place: LogKey, epoch: Epoch, history: History) -> Self {
        let dead = history.base.dead.iter().map(|dead| dead.source.clone());
        Self {
            store,
            place,
            epoch,
            manifest: Arc::new(history.manifest),
            head: history.head,
            variables: history.variables,
            released: HashSet::new(),
            condemned: dead.collect(),
            base: history.base,
            pending: None,
            fenced: false,
            recovery: None,
            written: AtomicU64::new(0),
        }
    }

    /// Writes this beside the log together with the next commit: a session that never had a file leaves
    /// nothing.
    pub fn remember(&mut self, recovery: Recovery) {
        self.recovery = Some(recovery);
    }

    /// The tree as the log has it.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The last commit that is known to be in the log; 0 for none.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Where the log lies.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The epoch that this writer writes in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Which log it is.
    #[must_use]
    pub fn place(&self) -> &LogKey {
        &self.place
    }

    /// Whether another owner is known to have taken over.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Whether a commit is pending.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Writes a blob for a later commit and returns its name: contents of a file, of which there may
    /// be [`super::commit::PACK_BYTES`], or variables. One that no commit takes up is given up by a
    /// later checkpoint.
    ///
    /// # Errors
    /// The store failed.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<String, SourceError> {
        let put = source::put_blob(&self.store, &self.place, self.epoch, bytes);
        let (name, written) = put.await?;
        self.written.fetch_add(written, Ordering::Relaxed);
        Ok(name)
    }

    /// Bytes of commits and blobs that were written since this was asked the last time.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(self.written.get_mut())
    }

    /// Appends a commit: a change of the tree with its pack, or variables. When it returns a number,
    /// the commit is in the log. When the store fails or the call is given up, the commit is pending.
    ///
    /// # Errors
    /// See [`AppendError`]; only [`AppendError::Entry`] leaves the commit pending.
    pub async fn append(&mut self, body: Body, pack: Vec<u8>) -> Result<Seq, AppendError> {
        if self.fenced {
            return Err(AppendError::Fenced);
        }
        if self.pending.is_some() {
            return Err(AppendError::Unsettled);
        }
        self.check(&body)?;
        let (commit, bytes) = encode(Commit::new(self.store.ids(), self.epoch, body), pack).await?;
        let seq = self.head.next();
        self.pending = Some(Attempt { seq, commit, bytes });
        self.settle().await?;
        Ok(seq)
    }

    /// Finds out about a pending commit by writing the very same bytes again. Afterwards it is in
    /// the log and in the tree; `false` if nothing was pending.
    ///
    /// # Errors
    /// Somebody else has the place, or the store failed and the commit is still pending.
    pub async fn settle(&mut self) -> Result<bool, AppendError> {
        if self.fenced {
            return Err(AppendError::Fenced);
        }
        let Some(Attempt {
            seq, commit, bytes, ..
        }) = &self.pending
        else {
            return Ok(false);
        };
        let claiming = entry::claim(&self.store, &self.place, *seq, bytes, &commit.nonce);
        let keeping = keep(&self.store, &self.place, self.recovery.as_ref());
        let (claimed, kept) = tokio::join!(claiming, keeping);
        if kept {
            self.recovery = None;
        }
        match claimed? {
            Claim::Ours => {
                if let Some(attempt) = self.pending.take() {
                    *self.written.get_mut() += attempt.bytes.len() as u64;
                    self.advance(attempt);
                }
                Ok(true)
            }
            Claim::Taken(_) => {
                self.pending = None;
                self.fenced = true;
                Err(AppendError::Fenced)
            }
        }
    }

    /// Refuses what would be wrong in the log.
    fn check(&self, body: &Body) -> Result<(), AppendError> {
        let changes = match body {
            Body::Delta(changes) => changes,
            Body::Variables(_) => return Ok(()),
            Body::Fence | Body::Hollow => return Err(AppendError::Body),
        };
        let files = changes.iter().filter_map(|change| match change {
            Change::Put(_, Node::File(file)) => Some(file),
            Change::Put(..) | Change::Remove(_) => None,
        });
        let mut sources = files
            .flat_map(|file| &file.extents)
            .map(|extent| &extent.source);
        if sources.any(|source| self.condemned.contains(source)) {
            return Err(AppendError::Dead);
        }
        Ok(())
    }

    /// Takes a commit in that is in the log.
    fn advance(&mut self, attempt: Attempt) {
        self.head = attempt.seq;
        let header = codec::header_end(&attempt.bytes).unwrap_or(0);
        let pack_bytes = (attempt.bytes.len() as u64).saturating_sub(header);
        self.base.note_pack(attempt.seq, pack_bytes);
        self.variables = None;
        match attempt.commit.body {
            Body::Delta(changes) => {
                let manifest = Arc::make_mut(&mut self.manifest);
                self.released.extend(manifest.apply(attempt.seq, &changes));
            }
            Body::Variables(variables) => self.variables = Some(variables),
            Body::Fence | Body::Hollow => {}
        }
    }
}

/// Says whether it was written. Files are not refused because of it: the next commit tries again.
async fn keep(store: &Store, place: &LogKey, recovery: Option<&Recovery>) -> bool {
    let Some(recovery) = recovery else {
        return false;
    };
    match store.keep_recovery(place, recovery).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(session.key = %place.session, error = &error as &dyn std::error::Error,
                "failed to write what the session is recovered from");
            false
        }
    }
}

impl Commit {
    /// A commit with a nonce of its own.
    pub(super) fn new(ids: &Ids, epoch: Epoch, body: Body) -> Self {
        Self {
            v: VERSION,
            epoch,
            nonce: ids.next().to_string(),
            body,
        }
    }
}

async fn encode(commit: Commit, pack: Vec<u8>) -> Result<(Commit, Bytes), CommitError> {
    let changes = match &commit.body {
        Body::Delta(changes) => changes.len(),
        Body::Fence | Body::Variables(_) | Body::Hollow => 0,
    };
    // A change takes some hundred bytes.
    let work = pack.len() + changes * 256;
    frame::run_blocking(work, move || {
        let packed = Packed { commit, pack };
        let bytes = codec::encode(&packed)?;
        Ok((packed.commit, bytes.into()))
    })
    .await
}

#[cfg(test)]
mod tests;
