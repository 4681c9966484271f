//! Fills an empty data directory with the tree of a log.
//!
//! Contents come source by source, each fetched once whatever number of files has a part in it;
//! sources of small files come first. A file gets its attributes from whoever writes the last of
//! it, directories get theirs at the end, since everything put into them moves their times.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use cap_std::fs::Dir;
use futures_util::{StreamExt, TryStreamExt, stream};
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Timestamps, Uid},
    io::Errno,
};
use store::log::{
    commit::{Extent, File, Node, SMALL_FILE_BYTES, Source, TreePath},
    manifest::Manifest,
    source::{self, SourceError},
    writer::Writer,
};

use super::{
    beneath,
    gather::CLOCK_TICK_NS,
    run_blocking,
    scan::{self, ScanError},
    transfer::{Stopped, Transfers},
    tree::{Limit, Tree},
};
use crate::files::DataDir;

/// Sources that are fetched at once. Most are small, and each takes a request.
const AT_ONCE: usize = 16;

/// Why a data directory is not what its log says. What was written by then is left there.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The session's filesystem has not enough room.
    #[error("the session's disk is full: /mnt/data and ~/.local share it")]
    Full,
    /// The store does not give what the log says.
    #[error(transparent)]
    Store(#[from] SourceError),
    /// Contents are not those whose hash the log has.
    #[error("contents in the store are damaged")]
    Damaged,
    /// The tree is beyond a limit, though it was kept.
    #[error(transparent)]
    Limit(#[from] Limit),
    /// Anything else that the host's filesystem said, or the directory is not empty.
    #[error("the file system failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full,
            _ => Self::Io(error),
        }
    }
}

impl From<Errno> for RestoreError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<ScanError> for RestoreError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Limit(limit) => limit.into(),
            ScanError::Io(error) => error.into(),
        }
    }
}

impl From<Stopped> for RestoreError {
    fn from(error: Stopped) -> Self {
        Self::Io(io::Error::other(error))
    }
}

/// Makes everything that the writer's log holds, and returns how it looks.
pub(super) async fn restore(
    writer: &Writer,
    data: &DataDir,
    transfers: &Transfers,
) -> Result<Tree, RestoreError> {
    let site = Arc::new(Site::new(data));
    let (manifest, there) = (Arc::clone(writer.manifest()), Arc::clone(&site));
    let work = run_blocking(move || {
        let work = Work::of(&manifest);
        there.prepare(&manifest, &work)?;
        Ok::<_, RestoreError>(work)
    });
    let Work { files, batches } = work.await??;
    let files = Arc::new(files);
    stream::iter(batches)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |batch| {
            let (site, files) = (Arc::clone(&site), Arc::clone(&files));
            async move {
                let room = transfers.room().await?;
                let bytes = source::fetch(writer.store(), writer.place(), &batch.source).await?;
                let written = run_blocking(move || site.write(&files, &batch, &bytes)).await?;
                drop(room);
                written
            }
        })
        .await?;
    let manifest = Arc::clone(writer.manifest());
    let site_done = Arc::clone(&site);
    run_blocking(move || site_done.finish_directories(&manifest)).await??;
    if !files.is_empty() {
        // A write after this leaves other times than the files have now.
        let tick = std::time::Duration::from_nanos(CLOCK_TICK_NS.unsigned_abs());
        tokio::time::sleep(tick).await;
    }
    Ok(run_blocking(move || scan::scan(site.root())).await??)
}

/// What is to be fetched and written.
struct Work {
    files: Vec<Target>,
    batches: Vec<Batch>,
}

/// A file to be made.
struct Target {
    path: TreePath,
    file: File,
    /// Sources whose bytes it still lacks.
    lacks: AtomicUsize,
}

/// Everything that comes from one source.
struct Batch {
    source: Source,
    /// Numbers of files and of extents in them, file by file.
    extents: Vec<(usize, usize)>,
}

impl Work {
    fn of(manifest: &Manifest) -> Self {
        let mut files = Vec::new();
        let mut numbers = HashMap::new();
        let mut batches: Vec<Batch> = Vec::new();
        let mut urgent = Vec::new();
        for (path, node) in manifest.iter() {
            let Node::File(file) = node else { continue };
            let mut sources = HashSet::new();
            for (number, extent) in file.extents.iter().enumerate() {
                let batch = *numbers.entry(&extent.source).or_insert_with(|| {
                    urgent.push(false);
                    batches.push(Batch {
                        source: extent.source.clone(),
                        extents: Vec::new(),
                    });
                    batches.len() - 1
                });
                if let (Some(batch), Some(urgent)) = (batches.get_mut(batch), urgent.get_mut(batch))
                {
                    batch.extents.push((files.len(), number));
                    *urgent |= file.size <= SMALL_FILE_BYTES;
                }
                sources.insert(&extent.source);
            }
            files.push(Target {
                path: path.clone(),
                file: file.clone(),
                lacks: sources.len().into(),
            });
        }
        let (first, then): (Vec<_>, Vec<_>) = batches
            .into_iter()
            .zip(urgent)
            .partition(|(_, urgent)| *urgent);
        let batches = first.into_iter().chain(then).map(|(batch, _)| batch);
        Self {
            batches: batches.collect(),
            files,
        }
    }
}

/// The directory that is being filled.
struct Site {
    root: Arc<Dir>,
    owner: (Uid, Gid),
}

impl Site {
    fn new(data: &DataDir) -> Self {
        let (user, group) = data.owner();
        Self {
            root: Arc::clone(data.root()),
            owner: (Uid::from_raw(user), Gid::from_raw(group)),
        }
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Makes directories, links, and the files that nobody else makes: those that come from no
    /// source, and those that come from several.
    fn prepare(&self, manifest: &Manifest, work: &Work) -> Result<(), RestoreError> {
        for (path, node) in manifest.iter() {
            let (parent, name) = beneath::parent(self.root(), path.as_bytes())?;
            match node {
                Node::Directory { .. } => rustix::fs::mkdirat(&parent, name, Mode::RWXU)?,
                Node::Symlink { target } => {
                    rustix::fs::symlinkat(&**target, &parent, name)?;
                    let (user, group) = self.owner;
                    let itself = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(&parent, name, Some(user), Some(group), itself)?;
                }
                Node::File(_) => {}
            }
        }
        for target in &work.files {
            match target.lacks.load(Ordering::Relaxed) {
                0 => self.finish_file(&self.create(target)?, &target.file)?,
                1 => {}
                _ => drop(self.create(target)?),
            }
        }
        Ok(())
    }

    fn create(&self, target: &Target) -> Result<OwnedFd, RestoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let path = target.path.as_bytes();
        let file = beneath::open(self.root(), path, flags, Mode::RUSR | Mode::WUSR)?;
        let last = target.file.extents.last();
        let end = last.map_or(0, |last| last.at + u64::from(last.len));
        if end < target.file.size {
            rustix::fs::ftruncate(&file, target.file.size)?;
        }
        Ok(file)
    }

    /// Writes everything that comes from a source whose bytes these are.
    fn write(&self, files: &[Target], batch: &Batch, bytes: &Bytes) -> Result<(), RestoreError> {
        for extents in batch.extents.chunk_by(|one, next| one.0 == next.0) {
            let Some(target) = extents.first().and_then(|(file, _)| files.get(*file)) else {
                continue;
            };
            let file = if target.file.extents.len() == extents.len() {
                self.create(target)?
            } else {
                beneath::open(
                    self.root(),
                    target.path.as_bytes(),
                    OFlags::WRONLY,
                    Mode::empty(),
                )?
            };
            for (_, number) in extents {
                if let Some(extent) = target.file.extents.get(*number) {
                    write_at(&file, contents(extent, bytes)?, extent.at)?;
                }
            }
            // Whoever comes last finds all that the others wrote.
            if target.lacks.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.finish_file(&file, &target.file)?;
            }
        }
        Ok(())
    }

    fn finish_file(&self, opened: &OwnedFd, file: &File) -> Result<(), RestoreError> {
        self.finish(opened, file.mode, file.modified_ns)
    }

    fn finish_directories(&self, manifest: &Manifest) -> Result<(), RestoreError> {
        for (path, node) in manifest.iter() {
            if let Node::Directory { mode, modified_ns } = node {
                let opened = beneath::listing(self.root(), Some(path.as_bytes()))?;
                self.finish(&opened, *mode, *modified_ns)?;
            }
        }
        Ok(())
    }

    fn finish(&self, opened: &OwnedFd, mode: u32, modified_ns: i64) -> Result<(), RestoreError> {
        let (user, group) = self.owner;
        rustix::fs::fchown(opened, Some(user), Some(group))?;
        rustix::fs::fchmod(opened, Mode::from_raw_mode(mode))?;
        let time = beneath::timespec(modified_ns);
        rustix::fs::futimens(
            opened,
            &Timestamps {
                last_access: time,
                last_modification: time,
            },
        )?;
        Ok(())
    }
}

/// An extent's bytes out of its source, if they are the right ones.
fn contents<'a>(extent: &Extent, source: &'a [u8]) -> Result<&'a [u8], RestoreError> {
    let start = extent.start as usize;
    let bytes = source.get(start..start.saturating_add(extent.len as usize));
    bytes
        .filter(|bytes| *blake3::hash(bytes).as_bytes() == extent.hash.0)
        .ok_or(RestoreError::Damaged)
}

fn write_at(file: &OwnedFd, bytes: &[u8], at: u64) -> Result<(), RestoreError> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(file, rest, at + written as u64) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
