//! Checkpoints, and what they make superfluous.
//!
//! Deleting is a matter of three checkpoints. One finds that nothing needs a blob or a pack and says
//! so in its list of the dead: from then on no commit may point there. A later one, at least
//! [`limits::DEAD_GRACE`] after the first was written, deletes the blob, or *hollows* the commit that
//! carries the pack: its key stays, because a free key would let a writer that has slept through a
//! take-over believe that it still owns the log. A third one drops it from the list.
//!
//! All of this is safe in the hands of a writer that has been fenced without knowing: what it has
//! declared dead it never pointed to again, and who came after it knows no more than the log up to
//! the fence. All times are the store's own.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use proto::{id::Epoch, limits};

use super::{
    checkpoint::{self, Checkpoint, CheckpointError, Dead},
    codec::{self, CommitError},
    commit::{Body, Commit, Packed, Seq, Source},
    entry::{self, EntryError},
    frame,
    history::Base,
    key::LogKey,
    manifest::Manifest,
    source,
    writer::Writer,
};
use crate::{Store, StoreError};

/// Commits between two checkpoints.
const EVERY: u64 = 64;
/// Sources that may become superfluous before a checkpoint is made for their sake.
const RELEASED: usize = 64;
/// A blob that its own writer has not used after this time was meant for a commit that failed.
const UNUSED: Duration = Duration::from_secs(3600);
/// Commits that are hollowed at once.
const AT_ONCE: usize = 8;

/// Why a checkpoint was not made, or not all that it allows was deleted.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// Another owner has taken the log over.
    #[error("another owner has taken the log over")]
    Fenced,
    /// The last commit is pending, so what the log says is not known.
    #[error("the last commit is not settled")]
    Unsettled,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A commit whose pack is dead cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The checkpoint cannot be encoded.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A hollow commit cannot be encoded.
    #[error("a hollow commit")]
    Commit(#[from] CommitError),
}

impl Writer {
    /// Whether it is time for a checkpoint.
    #[must_use]
    pub fn needs_checkpoint(&self) -> bool {
        let commits = self.head.0.saturating_sub(self.base.seq.0);
        commits >= EVERY || (commits > 0 && self.released.len() >= RELEASED)
    }

    /// Writes a checkpoint of the log as it is, and deletes what earlier ones declared dead long
    /// enough ago. No reply has to wait for it; a failure costs space and time only, and giving the
    /// call up costs nothing else either.
    ///
    /// # Errors
    /// See [`UpkeepError`].
    pub async fn checkpoint(&mut self) -> Result<(), UpkeepError> {
        if self.is_fenced() {
            return Err(UpkeepError::Fenced);
        }
        if self.is_pending() {
            return Err(UpkeepError::Unsettled);
        }
        if self.head == self.base.seq {
            return Ok(());
        }
        let blobs = self.store.list(&self.place.blobs(), None).await?;
        let dead = Condemning {
            epoch: self.epoch,
            manifest: &self.manifest,
            base: &self.base,
            released: &self.released,
            spared: self.variables.as_ref().map(|variables| &*variables.blob),
        }
        .dead(&listed(&blobs));
        let packs = self.base.packs.clone();
        // Even if the checkpoint seems to fail, somebody may read it one day.
        let condemned = dead.iter().map(|dead| dead.source.clone());
        self.condemned.extend(condemned);
        self.write_checkpoint(packs, dead).await?;
        self.delete_dead().await
    }

    async fn write_checkpoint(
        &mut self,
        packs: Vec<Seq>,
        dead: Vec<Dead>,
    ) -> Result<(), UpkeepError> {
        let (seq, epoch) = (self.head, self.epoch);
        let variables = self.variables.clone();
        let manifest = Arc::clone(&self.manifest);
        let (listed_packs, listed_dead) = (packs.clone(), dead.clone());
        // Some hundred bytes a node.
        let encoded = frame::run_blocking(manifest.len() * 256, move || {
            let nodes = manifest.iter();
            checkpoint::encode(&Checkpoint {
                v: checkpoint::VERSION,
                seq,
                epoch,
                variables,
                nodes: nodes
                    .map(|(path, node)| (path.clone(), node.clone()))
                    .collect(),
                packs: listed_packs,
                dead: listed_dead,
            })
        });
        let bytes = encoded.await?;
        self.store
            .put(&self.place.checkpoint(seq), bytes.into())
            .await?;
        self.released.clear();
        self.base = Base {
            seq,
            // Not known before the listing that follows.
            written_ms: None,
            packs,
            dead,
        };
        Ok(())
    }

    async fn delete_dead(&mut self) -> Result<(), UpkeepError> {
        let (store, place) = (self.store.clone(), self.place.clone());
        let listed = store.list(&place.checkpoints(), None).await?;
        let mut checkpoints: Vec<(Seq, u64)> = listed
            .iter()
            .filter_map(|object| Some((Seq::of_key(&object.location)?, written_ms(object))))
            .collect();
        checkpoints.sort_unstable();
        let own = checkpoints.iter().find(|(seq, _)| *seq == self.base.seq);
        let Some(&(_, now_ms)) = own else {
            // Whoever deleted it has taken the log over.
            return Ok(());
        };
        self.base.written_ms = Some(now_ms);

        let mut keys: Vec<_> = outdated(&checkpoints, now_ms)
            .map(|seq| place.checkpoint(seq))
            .collect();
        let mut hollow = HashSet::new();
        for source in due(&self.base.dead, now_ms) {
            match source {
                Source::Blob(name) => keys.push(place.blob(name)),
                Source::Pack(seq) => drop(hollow.insert(*seq)),
                Source::Own => {}
            }
        }
        store.delete_all(keys).await?;
        let hollowed = stream::iter(hollow.clone())
            .map(|seq| hollow_out(&store, &place, seq))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>();
        hollowed.await?;
        self.base.packs.retain(|seq| !hollow.contains(seq));
        Ok(())
    }
}

/// What decides which sources are dead.
struct Condemning<'a> {
    epoch: Epoch,
    manifest: &'a Manifest,
    base: &'a Base,
    /// Sources that this writer's commits released since the last checkpoint.
    released: &'a HashSet<Source>,
    /// A blob that is needed though the tree does not say so.
    spared: Option<&'a str>,
}

/// A blob that lies in the store.
#[derive(Clone, Debug)]
struct Listed {
    name: String,
    written_ms: u64,
}

impl Condemning<'_> {
    /// The list of the next checkpoint.
    fn dead(&self, blobs: &[Listed]) -> Vec<Dead> {
        let known = self.base.dead.iter();
        let known: HashMap<&Source, Option<u64>> = known
            .map(|dead| (&dead.source, dead.since_ms.or(self.base.written_ms)))
            .collect();
        let packs = self.base.packs.iter().map(|seq| Source::Pack(*seq));
        let packs = packs.filter(|source| !self.manifest.needs(source));
        // A moment that the store's clock has passed.
        let past_ms = blobs.iter().map(|blob| blob.written_ms).max().unwrap_or(0);
        let blobs = blobs.iter().filter_map(|blob| {
            let source = Source::Blob(blob.name.clone());
            let abandoned = || {
                !self.manifest.needs(&source)
                    && self.spared != Some(&blob.name)
                    && self.is_abandoned(&source, blob, past_ms)
            };
            (known.contains_key(&source) || abandoned()).then_some(source)
        });
        packs
            .chain(blobs)
            .map(|source| Dead {
                since_ms: known.get(&source).copied().flatten(),
                source,
            })
            .collect()
    }

    /// Whether nobody can point to a blob any more that nothing points to.
    fn is_abandoned(&self, source: &Source, blob: &Listed, past_ms: u64) -> bool {
        match source::epoch_of(&blob.name) {
            // Whoever wrote it is fenced.
            Some(epoch) if epoch < self.epoch => true,
            // It may be about to be used.
            Some(epoch) if epoch == self.epoch => {
                let unused = Duration::from_millis(past_ms.saturating_sub(blob.written_ms));
                self.released.contains(source) || unused >= UNUSED
            }
            // Of an owner to come, of which this one does not know yet; or none of ours.
            _ => false,
        }
    }
}

/// What has been dead for long enough.
fn due(dead: &[Dead], now_ms: u64) -> impl Iterator<Item = &Source> {
    dead.iter()
        .filter(move |dead| dead.since_ms.is_some_and(|since| is_over(since, now_ms)))
        .map(|dead| &dead.source)
}

/// Checkpoints that nobody begins with any more: those whose successor is old enough.
fn outdated(checkpoints: &[(Seq, u64)], now_ms: u64) -> impl Iterator<Item = Seq> {
    let successors = checkpoints.iter().skip(1);
    checkpoints
        .iter()
        .zip(successors)
        .filter(move |(_, (_, succeeded_ms))| is_over(*succeeded_ms, now_ms))
        .map(|((seq, _), _)| *seq)
}

fn is_over(since_ms: u64, now_ms: u64) -> bool {
    Duration::from_millis(now_ms.saturating_sub(since_ms)) >= limits::DEAD_GRACE
}

/// Takes the pack out of a commit, and leaves what keeps its place.
async fn hollow_out(store: &Store, place: &LogKey, seq: Seq) -> Result<(), UpkeepError> {
    let Some(entry) = entry::read(store, place, seq).await? else {
        return Ok(());
    };
    if entry.commit.body == Body::Hollow {
        return Ok(());
    }
    let bytes = codec::encode(&Packed {
        commit: Commit {
            body: Body::Hollow,
            ..entry.commit
        },
        pack: vec![],
    })?;
    Ok(store.put(&place.commit(seq), bytes.into()).await?)
}

fn listed(blobs: &[ObjectMeta]) -> Vec<Listed> {
    let blobs = blobs.iter().filter_map(|object| {
        Some(Listed {
            name: object.location.filename()?.to_owned(),
            written_ms: written_ms(object),
        })
    });
    blobs.collect()
}

fn written_ms(object: &ObjectMeta) -> u64 {
    checkpoint::milliseconds(object.last_modified.into())
}

#[cfg(test)]
mod tests;
