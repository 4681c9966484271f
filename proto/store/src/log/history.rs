//! A log as a reader finds it: the newest checkpoint and the commits behind it.

use futures_util::{StreamExt, TryStreamExt, stream};
use proto::id::Epoch;

use super::{
    checkpoint::{self, Checkpoint, CheckpointError, Dead},
    commit::{Body, Seq, Variables},
    entry::{self, Entry, EntryError},
    key::LogKey,
    manifest::Manifest,
};
use crate::{Store, StoreError};

/// Commits that are fetched at once.
const AT_ONCE: usize = 16;
/// How often reading begins anew because newer checkpoints made what was read obsolete.
const READS: usize = 4;

/// What a log says, up to its last commit.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The tree.
    pub manifest: Manifest,
    /// The last commit; 0 when there is none.
    pub head: Seq,
    /// Who wrote it.
    pub epoch: Epoch,
    /// What it carries, when it carries variables.
    pub variables: Option<Variables>,
    /// What the next checkpoint goes on from.
    pub(super) base: Base,
}

/// The newest checkpoint and what has come to its lists since.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    /// Where it is; 0 for none.
    pub seq: Seq,
    /// When it was written, by the store's clock, in milliseconds since 1970.
    pub written_ms: Option<u64>,
    /// Commits that carry a pack worth hollowing.
    pub packs: Vec<Seq>,
    /// What it declared dead.
    pub dead: Vec<Dead>,
}

/// Packs with fewer bytes stay with their commits: taking them out costs more than keeping them.
const HOLLOW_FROM: u64 = 16 * 1024;

impl Base {
    /// Takes in that a commit carries a pack of so many bytes, compressed.
    pub(super) fn note_pack(&mut self, seq: Seq, bytes: u64) {
        if bytes >= HOLLOW_FROM {
            self.packs.push(seq);
        }
    }
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A commit cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A checkpoint cannot be read.
    #[error("failed to read checkpoint {0}")]
    Checkpoint(Seq, #[source] CheckpointError),
    /// A commit is not there although a later one is.
    #[error("commit {0} is missing")]
    Missing(Seq),
    /// A commit has a lower epoch than the one before it.
    #[error("commit {0} is of an epoch that was over")]
    Epoch(Seq),
    /// Newer checkpoints made obsolete what was read, several times in a row.
    #[error("the log moved on faster than it was read")]
    Overtaken,
}

/// Reads a log; an empty one is no error.
///
/// # Errors
/// The store failed, or the log is damaged.
pub async fn read(store: &Store, place: &LogKey) -> Result<History, HistoryError> {
    for _ in 0..READS {
        match read_once(store, place).await {
            Err(HistoryError::Overtaken) => {}
            read => return read,
        }
    }
    Err(HistoryError::Overtaken)
}

async fn read_once(store: &Store, place: &LogKey) -> Result<History, HistoryError> {
    let checkpoints = store.list(&place.checkpoints(), None).await?;
    let newest = checkpoints
        .iter()
        .filter_map(|object| Seq::of_key(&object.location))
        .max();
    let mut history = match newest {
        None => History::default(),
        Some(seq) => {
            let read = checkpoint::read(store, place, seq).await;
            let read = read.map_err(|error| HistoryError::Checkpoint(seq, error))?;
            // It was there; a newer one must have replaced it.
            let (checkpoint, written_ms) = read.ok_or(HistoryError::Overtaken)?;
            History::begin(checkpoint, written_ms)
        }
    };
    history.follow(store, place).await?;
    Ok(history)
}

impl History {
    fn begin(checkpoint: Checkpoint, written_ms: u64) -> Self {
        Self {
            manifest: Manifest::of_nodes(checkpoint.nodes),
            head: checkpoint.seq,
            epoch: checkpoint.epoch,
            variables: checkpoint.variables,
            base: Base {
                seq: checkpoint.seq,
                written_ms: Some(written_ms),
                packs: checkpoint.packs,
                dead: checkpoint.dead,
            },
        }
    }

    /// Takes in the commits that came since.
    pub(super) async fn follow(
        &mut self,
        store: &Store,
        place: &LogKey,
    ) -> Result<(), HistoryError> {
        let after = place.commit(self.head);
        let listed = store.list(&place.commits(), Some(&after)).await?;
        let listed = listed.iter();
        let last = listed.filter_map(|object| Seq::of_key(&object.location));
        // Commits come one after the other, so all before the last are there, even those that a
        // listing missed because they came while it was made.
        let first = self.head.next().0;
        let seqs = first..=last.max().map_or(0, |last| last.0);
        let mut entries = stream::iter(seqs.map(Seq))
            .map(|seq| async move {
                let entry = entry::read(store, place, seq).await?;
                Ok::<_, HistoryError>((seq, entry.ok_or(HistoryError::Missing(seq))?))
            })
            .buffered(AT_ONCE);
        while let Some((seq, entry)) = entries.try_next().await? {
            self.take(seq, entry)?;
        }
        Ok(())
    }

    /// Folds in the commit that follows the head.
    pub(super) fn take(&mut self, seq: Seq, entry: Entry) -> Result<(), HistoryError> {
        if entry.commit.epoch < self.epoch {
            return Err(HistoryError::Epoch(seq));
        }
        self.variables = None;
        match entry.commit.body {
            Body::Fence => {}
            Body::Delta(changes) => drop(self.manifest.apply(seq, &changes)),
            Body::Variables(variables) => self.variables = Some(variables),
            Body::Hollow => return Err(HistoryError::Overtaken),
        }
        self.base.note_pack(seq, entry.pack_bytes);
        self.head = seq;
        self.epoch = entry.commit.epoch;
        Ok(())
    }
}
