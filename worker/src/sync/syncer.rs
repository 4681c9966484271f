//! One session's committer.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use proto::file::FilePath;
use store::log::{
    commit::{Body, Change, File, Node, Seq, TreePath},
    source::SourceError,
    upkeep::UpkeepError,
    writer::{AppendError, Writer},
};

use super::{
    beneath,
    delta::{ChangedFile, Delta},
    empty::Stamp,
    look::{Found, Known, Look, LookError, Looked},
    resolve::{Last, resolve},
    restore::{self, RestoreError},
    run_blocking,
    still::Still,
    transfer::{PartSink, Transfers, upload},
    tree::{Limit, Stat, Tree},
};
use crate::{allowance::Allowance, files::DataDir, sandbox::Cage};

/// What it takes to encode, store and remember one change. It is not measured, since the store is waited
/// for meanwhile.
const CHANGE: Duration = Duration::from_micros(4);

/// Commits one session's files. All that it knows beside the log is a memory of what it saw; it is
/// right to forget any of it at any time.
///
/// It holds the data directory open, so it has to go before the cage can be destroyed.
#[derive(Debug)]
pub struct Syncer {
    writer: Writer,
    data: DataDir,
    transfers: Transfers,
    /// What was seen when the log came to hold it. An entry without doubt vouches: as long as the
    /// file has this state, its contents are those of the manifest.
    seen: Arc<Tree>,
    /// The directory when it was seen empty and the log said the same.
    empty: Option<Stamp>,
    /// Pays for looks at everything, which code can make long.
    allowance: Arc<Allowance>,
}

/// The files that a commit changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Those that are new or have new contents.
    pub files: Vec<ChangedFile>,
    /// Paths that are gone. Everything below a directory goes with it.
    pub removed: Vec<TreePath>,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Synced {
    /// The log held everything already; nothing was written.
    Unchanged,
    /// A commit was written.
    Committed {
        /// Its place in the log.
        seq: Seq,
        /// What it says of files.
        changed: Changed,
    },
}

/// Why files are not in the log. The state stays right: the next commit finds out what became of
/// this one and goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Another owner has taken the log over. Nothing of this session may be acknowledged any more.
    #[error("another owner has taken the session over")]
    Fenced,
    /// The store failed. What was to be written may or may not be there.
    #[error("failed to store the files")]
    Store(#[source] StoreFault),
    /// There is too much of something; nothing was written. It stays so until the session removes
    /// some of it.
    #[error("the files cannot be kept")]
    Unkeepable(#[source] Limit),
    /// The session's filesystem or its cage failed.
    #[error("failed to read the files")]
    Io(#[source] io::Error),
}

/// What the store failed at.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The commit itself.
    #[error("the commit")]
    Append(#[source] AppendError),
    /// Contents that the commit was to point to.
    #[error("contents")]
    Source(#[source] SourceError),
}

impl From<AppendError> for SyncError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Fenced => Self::Fenced,
            error => Self::Store(StoreFault::Append(error)),
        }
    }
}

impl From<SourceError> for SyncError {
    fn from(error: SourceError) -> Self {
        Self::Store(StoreFault::Source(error))
    }
}

impl From<LookError> for SyncError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Limit(limit) => Self::Unkeepable(limit),
            LookError::Io(error) => Self::Io(error),
        }
    }
}

impl From<io::Error> for SyncError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Which part of the directory a look was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Whole,
    Path,
}

impl Syncer {
    /// The committer of a session whose log is empty.
    #[must_use]
    pub fn fresh(writer: Writer, data: DataDir, transfers: Transfers) -> Self {
        Self {
            writer,
            data,
            transfers,
            seen: Arc::default(),
            empty: None,
            allowance: Arc::default(),
        }
    }

    /// Has this pay for what the session's code makes the committer do.
    #[must_use]
    pub fn paid_by(self, allowance: &Arc<Allowance>) -> Self {
        Self {
            allowance: Arc::clone(allowance),
            ..self
        }
    }

    /// Fills the empty directory with what the log holds. Nothing of the session may run and nobody
    /// may write there before this returns.
    ///
    /// # Errors
    /// See [`RestoreError`]; the directory is of no use then.
    pub async fn restore(
        writer: Writer,
        data: DataDir,
        transfers: Transfers,
    ) -> Result<Self, RestoreError> {
        let seen = restore::restore(&writer, &data, &transfers).await?;
        Ok(Self {
            seen: Arc::new(seen),
            ..Self::fresh(writer, data, transfers)
        })
    }

    /// Commits everything that is in the directory, after a cell. Unless the directory is known to be empty, the
    /// cage stands still for as long as it takes to look around and to read what is small; whatever happens, it
    /// goes on then.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn commit_all(&mut self, cage: &Cage) -> Result<Synced, SyncError> {
        self.writer.settle().await?;
        let stamp = Stamp::of(self.data.root().as_fd())?;
        if self.is_still_empty(stamp) {
            return Ok(Synced::Unchanged);
        }
        let still = Still::begin(cage).await?;
        let looked = self.look_at_all(still.processes().to_vec()).await;
        still.end()?;
        self.commit_whole(looked?, stamp).await
    }

    /// Commits one path and nothing else, after an upload or a removal, beside whatever runs. With
    /// it come the directories that hold it and the links that lead to it, as they are.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn commit_path(&mut self, path: &FilePath) -> Result<Synced, SyncError> {
        self.writer.settle().await?;
        let (root, known, path) = (Arc::clone(self.data.root()), self.known(), path.clone());
        self.empty = None;
        match run_blocking(move || Look::at_path(&root, known, &path)).await?? {
            Some(looked) => self.commit(looked, Scope::Path).await,
            // It leads out of the directory by now, so there is nothing of the session's.
            None => Ok(Synced::Unchanged),
        }
    }

    /// What the log holds of a file, if that is what the file has in it now: then its bytes can be
    /// had from the store.
    ///
    /// # Errors
    /// The session's filesystem failed.
    pub async fn describe(&self, path: &FilePath) -> io::Result<Option<File>> {
        let (root, known, path) = (Arc::clone(self.data.root()), self.known(), path.clone());
        run_blocking(move || {
            let root = root.as_fd();
            let way = resolve(root, path.as_str().as_bytes(), Last::Follow)?;
            let Some(path) = way.and_then(|way| TreePath::new(way.path).ok()) else {
                return Ok(None);
            };
            let Some(Node::File(file)) = known.manifest.get(&path) else {
                return Ok(None);
            };
            let now = beneath::stat(root, path.as_bytes())?;
            let now = now.as_ref().and_then(Stat::of);
            let seen = known.seen.at(path.as_bytes());
            let same = seen.is_some_and(|seen| !seen.doubtful && Some(seen.stat) == now);
            Ok(same.then(|| file.clone()))
        })
        .await?
    }

    /// Writes a checkpoint if it is time for one. No reply has to wait for it.
    ///
    /// # Errors
    /// See [`UpkeepError`]; only space and time are lost, unless it says fenced.
    pub async fn checkpoint_if_due(&mut self) -> Result<(), UpkeepError> {
        if self.writer.needs_checkpoint() {
            self.writer.checkpoint().await?;
        }
        Ok(())
    }

    /// The log's end, for entries that are not about files.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// As [`commit_all`](Self::commit_all), of processes that stand still by themselves or not at all.
    #[cfg(test)]
    pub(super) async fn commit_tree(&mut self, processes: &[u32]) -> Result<Synced, SyncError> {
        self.writer.settle().await?;
        let stamp = Stamp::of(self.data.root().as_fd())?;
        if self.is_still_empty(stamp) {
            return Ok(Synced::Unchanged);
        }
        let looked = self.look_at_all(processes.to_vec()).await?;
        self.commit_whole(looked, stamp).await
    }

    /// Files and links that the next look has to read, whatever their times say.
    #[cfg(test)]
    pub(super) fn doubts(&self) -> usize {
        self.seen.iter().filter(|seen| seen.doubtful).count()
    }

    fn known(&self) -> Known {
        Known {
            manifest: Arc::clone(self.writer.manifest()),
            seen: Arc::clone(&self.seen),
        }
    }

    async fn look_at_all(&self, processes: Vec<u32>) -> Result<Looked, SyncError> {
        let (root, known) = (Arc::clone(self.data.root()), self.known());
        let allowance = Arc::clone(&self.allowance);
        let look = move || allowance.pay_for(|| Look::at_all(&root, known, &processes));
        Ok(run_blocking(look).await??)
    }

    /// Whether the next look is spared, if nothing changes.
    #[cfg(test)]
    pub(super) fn knows_that_it_is_empty(&self) -> bool {
        let now = Stamp::of(self.data.root().as_fd()).unwrap();
        self.is_still_empty(now)
    }

    fn is_still_empty(&self, now: Stamp) -> bool {
        self.empty.is_some_and(|empty| empty.holds(now))
    }

    /// Commits what a look at everything found, before which `stamp` was taken.
    async fn commit_whole(&mut self, looked: Looked, stamp: Stamp) -> Result<Synced, SyncError> {
        self.empty = None;
        let synced = self.commit(looked, Scope::Whole).await?;
        let is_empty = self.writer.manifest().is_empty() && self.seen.iter().len() == 0;
        self.empty = is_empty.then_some(stamp);
        Ok(synced)
    }

    async fn commit(&mut self, looked: Looked, scope: Scope) -> Result<Synced, SyncError> {
        let found = match looked {
            Looked::All(found) => *found,
            Looked::Part(look) => self.read_on(look).await?,
        };
        let Found { now, delta, pack } = found;
        let Delta {
            changes,
            files,
            trusted,
            doubted,
        } = delta;
        if scope == Scope::Whole {
            let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
            self.allowance.charge(CHANGE.saturating_mul(count));
        }
        self.remember(now, &doubted, scope);
        let synced = if changes.is_empty() {
            Synced::Unchanged
        } else {
            let changed = Changed {
                files,
                removed: removed(&changes),
            };
            let seq = self.writer.append(Body::Delta(changes), pack).await?;
            Synced::Committed { seq, changed }
        };
        if scope == Scope::Whole {
            let seen = Arc::make_mut(&mut self.seen);
            for (index, stat) in trusted {
                seen.trust(index, stat);
            }
        }
        Ok(synced)
    }

    /// Reads what a look has left, while what was read is on its way to the store.
    async fn read_on(&self, mut look: Box<Look>) -> Result<Found, SyncError> {
        let root = Arc::clone(self.data.root());
        let (outlet, parts) = PartSink::new(&self.transfers);
        let reading = run_blocking(move || look.read_on(&root, &outlet).map(|()| look));
        let (look, blobs) = tokio::join!(reading, upload(&self.writer, parts));
        // A reader whose parts nobody takes any more fails too, and has less to say.
        let (blobs, look) = (blobs?, look??);
        Ok(run_blocking(move || look.found(blobs)).await??)
    }

    /// Takes in what was seen. What a commit is about vouches for nothing until that is in the log,
    /// and a single path not before the next look at everything.
    fn remember(&mut self, mut now: Tree, doubted: &[usize], scope: Scope) {
        match scope {
            Scope::Whole => {
                for &index in doubted {
                    now.doubt(index);
                }
                self.seen = Arc::new(now);
            }
            Scope::Path => {
                let seen = Arc::make_mut(&mut self.seen);
                for entry in now.iter() {
                    if let Some(index) = seen.find(entry.path) {
                        seen.doubt(index);
                    }
                }
            }
        }
    }
}

/// What is gone and did not only become something else. Removals come first in a commit.
fn removed(changes: &[Change]) -> Vec<TreePath> {
    let mut removed = Vec::new();
    for change in changes {
        match change {
            Change::Remove(path) => removed.push(path.clone()),
            Change::Put(path, _) if !removed.is_empty() => removed.retain(|gone| gone != path),
            Change::Put(..) => {}
        }
    }
    removed
}
