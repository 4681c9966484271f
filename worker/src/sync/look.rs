//! One look at a data directory, on a thread that may wait: what is there, what of it the log does
//! not hold, and as much of the contents as can be read while everything stands still.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use cap_std::fs::Dir;
use proto::{
    file::FilePath,
    limits::{TREE_ENTRIES, TREE_PATHS_BYTES},
};
use rustix::io::Errno;
use store::log::{commit::TreePath, manifest::Manifest};

use super::{
    beneath,
    delta::{Delta, DeltaError, Parts, delta},
    gather::{Gather, GatherError, Trust, now_ns},
    mapped::Mapped,
    plan::{self, Plan},
    resolve::{Last, resolve},
    scan::{ScanError, scan},
    transfer::PartSink,
    tree::{Kind, Limit, Stat, Tree, split},
};

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error(transparent)]
    Limit(#[from] Limit),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<ScanError> for LookError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Limit(limit) => limit.into(),
            ScanError::Io(error) => error.into(),
        }
    }
}

impl From<GatherError> for LookError {
    fn from(error: GatherError) -> Self {
        match error {
            GatherError::Limit(limit) => limit.into(),
            GatherError::Io(error) => error.into(),
            GatherError::Stopped(error) => io::Error::other(error).into(),
        }
    }
}

impl From<Errno> for LookError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<DeltaError> for LookError {
    fn from(error: DeltaError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

/// What is known before a look: the log's tree, and what was seen when it became so.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) manifest: Arc<Manifest>,
    pub(super) seen: Arc<Tree>,
}

/// What came of a look.
#[derive(Debug)]
pub(super) enum Looked {
    /// All that there is to know.
    All(Box<Found>),
    /// Long files are still to be read.
    Part(Box<Look>),
}

/// A look that has left long files to be read.
#[derive(Debug)]
pub(super) struct Look {
    manifest: Arc<Manifest>,
    now: Tree,
    plan: Plan,
    gather: Gather,
    /// Positions of the files that are still to be read.
    later: Vec<usize>,
}

/// A complete look.
#[derive(Debug)]
pub(super) struct Found {
    /// What was there.
    pub(super) now: Tree,
    pub(super) delta: Delta,
    pub(super) pack: Vec<u8>,
}

impl Look {
    /// Looks at everything that `processes` have left below `root`.
    pub(super) fn at_all(root: &Dir, known: Known, processes: &[u32]) -> Result<Looked, LookError> {
        let (root, begun) = (root.as_fd(), now_ns());
        let now = scan(root)?;
        let mapped = mapped(root, &now, processes)?;
        let plan = plan::whole(&known.manifest, &known.seen, &now, &mapped);
        Self::read(
            root,
            known.manifest,
            (now, plan),
            Trust::Since(begun, mapped),
        )
    }

    /// Looks at one path, at the directories that hold it and at the links that lead to it. The next
    /// look at everything reads it again, since who has it mapped is not known here.
    pub(super) fn at_path(
        root: &Dir,
        known: Known,
        path: &FilePath,
    ) -> Result<Option<Looked>, LookError> {
        let root = root.as_fd();
        let way = resolve(root, path.as_str().as_bytes(), Last::Keep)?;
        let Some((way, leaf)) = way.and_then(|way| {
            let leaf = TreePath::new(&*way.path).ok()?;
            Some((way, leaf))
        }) else {
            return Ok(None);
        };
        let mut now = Tree::default();
        for end in way.links.iter().chain([&way.path]) {
            look_along(root, end, &mut now)?;
        }
        let plan = plan::path(&known.manifest, &leaf, &now);
        has_room(&known.manifest, &now)?;
        Self::read(root, known.manifest, (now, plan), Trust::Nothing).map(Some)
    }

    fn read(
        root: BorrowedFd<'_>,
        manifest: Arc<Manifest>,
        (now, plan): (Tree, Plan),
        trust: Trust,
    ) -> Result<Looked, LookError> {
        let mut gather = Gather::new(Arc::clone(&manifest), trust, plan.extents);
        let later = gather.small(root, &now, &plan.unread)?;
        let look = Self {
            manifest,
            now,
            plan,
            gather,
            later,
        };
        if look.later.is_empty() {
            Ok(Looked::All(Box::new(look.found(HashMap::new())?)))
        } else {
            Ok(Looked::Part(Box::new(look)))
        }
    }

    /// Reads what is left; contents leave through the outlet.
    pub(super) fn read_on(&mut self, root: &Dir, outlet: &PartSink) -> Result<(), LookError> {
        let later = std::mem::take(&mut self.later);
        Ok(self.gather.rest(root.as_fd(), &self.now, &later, outlet)?)
    }

    /// What a commit must say, with the names of the blobs that left through the outlet.
    pub(super) fn found(self, blobs: HashMap<usize, String>) -> Result<Found, LookError> {
        let (pack, drafts) = self.gather.finish();
        let parts = Parts {
            own: pack.number,
            blobs,
        };
        let delta = delta(&self.manifest, &self.now, self.plan, drafts, &parts)?;
        Ok(Found {
            now: self.now,
            delta,
            pack: pack.bytes,
        })
    }
}

/// The mapped files among those that were seen.
fn mapped(root: BorrowedFd<'_>, now: &Tree, processes: &[u32]) -> io::Result<Mapped> {
    // What is empty cannot be written through a mapping.
    if !now
        .iter()
        .any(|seen| seen.stat.kind == Kind::File && seen.stat.size > 0)
    {
        return Ok(Mapped::default());
    }
    let device = rustix::fs::fstat(root)?.st_dev;
    Mapped::by(
        processes,
        (rustix::fs::major(device), rustix::fs::minor(device)),
    )
}

/// Whether the log can take up what it does not have yet of what was seen.
fn has_room(manifest: &Manifest, now: &Tree) -> Result<(), Limit> {
    let new = now.iter().filter(|seen| {
        let path = TreePath::new(seen.path);
        path.is_ok_and(|path| manifest.get(&path).is_none())
    });
    let lengths: Vec<usize> = new.map(|seen| seen.path.len()).collect();
    if manifest.len() + lengths.len() > TREE_ENTRIES {
        return Err(Limit::Entries);
    }
    if manifest.path_bytes() + lengths.iter().sum::<usize>() > TREE_PATHS_BYTES {
        return Err(Limit::Paths);
    }
    Ok(())
}

/// Adds what is at a path and at every directory above it, as far as it is there.
fn look_along(root: BorrowedFd<'_>, path: &[u8], now: &mut Tree) -> Result<(), LookError> {
    let mut prefixes = vec![path];
    while let Some(above) = prefixes.last().and_then(|path| split(path).0) {
        prefixes.push(above);
    }
    for prefix in prefixes.into_iter().rev() {
        let stat = beneath::stat(root, prefix)?;
        match stat.as_ref().and_then(Stat::of) {
            Some(stat) => now.set(prefix, stat)?,
            None => break,
        };
    }
    Ok(())
}
