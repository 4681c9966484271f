//! Reads what a commit must carry: contents become hashes, and bytes that the log does not hold yet
//! go into a pack or become blobs.
//!
//! A file is read once. What is found out about it is only trusted if its times were the same
//! before and after and are older than the look; else it is read again at the next look. Older than
//! the look, not than the reading of the file: somebody may map a file when the look at mappings is
//! over, and only the first store through a mapping moves the times.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use proto::limits::TREE_EXTENTS;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    time::ClockId,
};
use store::log::{
    commit::{Hash, SMALL_FILE_BYTES},
    manifest::Manifest,
};

use super::{
    beneath,
    mapped::Mapped,
    pack::{Pack, PackOffset, Packer},
    pieces::{self, CutError, Piece},
    transfer::{PartSink, Stopped},
    tree::{Kind, Limit, Seen, Stat, Tree},
};

/// Writes this close together may leave the same times: the clock of filesystems ticks every 1 to
/// 10 ms.
pub(super) const CLOCK_TICK_NS: i64 = 10_000_000;

/// Blocks of `stat` are counted in units of this many bytes.
const STAT_BLOCK_BYTES: u64 = 512;

/// Why contents are not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatherError {
    #[error(transparent)]
    Limit(#[from] Limit),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<CutError> for GatherError {
    fn from(error: CutError) -> Self {
        match error {
            CutError::Limit(limit) => limit.into(),
            CutError::Io(error) => error.into(),
        }
    }
}

impl From<Errno> for GatherError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// What was read for one commit.
#[derive(Debug)]
pub(super) struct Gather {
    mapped: Mapped,
    /// Files that were changed at this time or later are not trusted; nanoseconds since 1970.
    fresh_from: i64,
    packer: Packer,
    /// Extents that there may still be.
    room: usize,
    buffer: Vec<u8>,
    drafts: Vec<Draft>,
}

/// What was found at one position of the tree.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) index: usize,
    /// As it was right before it was read.
    pub(super) stat: Stat,
    /// Whether equal times will mean equal contents.
    pub(super) trusted: bool,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    File { size: u64, runs: Vec<Run> },
    Link(Vec<u8>),
}

/// An extent whose bytes may lie in a part that has no name yet.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) hash: Hash,
    pub(super) place: PackOffset,
}

/// What came of an attempt to read while everything stands still.
enum Taken {
    Read,
    /// It is too long for that.
    Later,
}

/// A file that is about to be read.
struct Opened {
    file: OwnedFd,
    stat: Stat,
    holes: bool,
}

/// How far what is read can be trusted.
#[derive(Debug)]
pub(super) enum Trust {
    /// The look began then, nanoseconds since 1970, and these files are mapped.
    Since(i64, Mapped),
    /// Nobody has looked at mappings.
    Nothing,
}

impl Gather {
    /// Nothing yet, for a commit onto `manifest`, of whose extents so many stay.
    pub(super) fn new(manifest: Arc<Manifest>, trust: Trust, extents: usize) -> Self {
        let (fresh_from, mapped) = match trust {
            Trust::Since(begun, mapped) => (begun.saturating_sub(CLOCK_TICK_NS), mapped),
            Trust::Nothing => (i64::MIN, Mapped::default()),
        };
        Self {
            mapped,
            fresh_from,
            packer: Packer::new(manifest),
            room: TREE_EXTENTS.saturating_sub(extents),
            buffer: Vec::new(),
            drafts: Vec::new(),
        }
    }

    /// Reads links and small files, as many as one pack holds. Returns the positions of the others.
    pub(super) fn small(
        &mut self,
        root: BorrowedFd<'_>,
        tree: &Tree,
        unread: &[usize],
    ) -> Result<Vec<usize>, GatherError> {
        let mut later = Vec::new();
        for &index in unread {
            let Some(seen) = tree.get(index) else {
                continue;
            };
            let taken = match seen.stat.kind {
                Kind::Directory => Taken::Read,
                Kind::Symlink => self.link(root, index, seen)?,
                Kind::File => self.small_file(root, index, seen)?,
            };
            if let Taken::Later = taken {
                later.push(index);
            }
        }
        Ok(later)
    }

    /// Reads files of any length; full parts leave through the outlet.
    pub(super) fn rest(
        &mut self,
        root: BorrowedFd<'_>,
        tree: &Tree,
        unread: &[usize],
        outlet: &PartSink,
    ) -> Result<(), GatherError> {
        for &index in unread {
            if let Some(seen) = tree.get(index)
                && let Some(opened) = self.open(root, seen)?
            {
                self.file(index, opened, Some(outlet))?;
            }
        }
        Ok(())
    }

    /// The commit's own pack, and all that was found.
    pub(super) fn finish(self) -> (Pack, Vec<Draft>) {
        (self.packer.finish(), self.drafts)
    }

    fn link(
        &mut self,
        root: BorrowedFd<'_>,
        index: usize,
        seen: Seen<'_>,
    ) -> Result<Taken, GatherError> {
        if let Some(target) = beneath::link(root, seen.path)? {
            let after = beneath::stat(root, seen.path)?;
            let steady = after.as_ref().and_then(Stat::of) == Some(seen.stat);
            self.drafts.push(Draft {
                index,
                stat: seen.stat,
                trusted: steady && self.is_old(seen.stat),
                content: Content::Link(target),
            });
        }
        Ok(Taken::Read)
    }

    fn small_file(
        &mut self,
        root: BorrowedFd<'_>,
        index: usize,
        seen: Seen<'_>,
    ) -> Result<Taken, GatherError> {
        if !self.packer.fits(seen.stat.size) {
            return Ok(Taken::Later);
        }
        match self.open(root, seen)? {
            Some(opened) if !self.packer.fits(opened.stat.size) => Ok(Taken::Later),
            Some(opened) => {
                self.file(index, opened, None)?;
                Ok(Taken::Read)
            }
            None => Ok(Taken::Read),
        }
    }

    /// Opens a file; nothing if there is none any more, which the next look will see.
    fn open(&self, root: BorrowedFd<'_>, seen: Seen<'_>) -> Result<Option<Opened>, GatherError> {
        // Without NONBLOCK the open of a fifo would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = beneath::open(root, seen.path, flags, Mode::empty());
        let Some(file) = beneath::absent(opened)? else {
            return Ok(None);
        };
        if self.mapped.contains(seen.stat.inode) {
            rustix::fs::fdatasync(&file)?;
        }
        let stat = rustix::fs::fstat(&file)?;
        let stored = u64::try_from(stat.st_blocks).unwrap_or_default();
        let kept = Stat::of(&stat).filter(|stat| stat.kind == Kind::File);
        Ok(kept.map(|stat| Opened {
            file,
            stat,
            holes: stored.saturating_mul(STAT_BLOCK_BYTES) < stat.size,
        }))
    }

    fn file(
        &mut self,
        index: usize,
        opened: Opened,
        outlet: Option<&PartSink>,
    ) -> Result<(), GatherError> {
        let stat = opened.stat;
        let pieces = if opened.holes {
            pieces::sparse(opened.file.as_fd(), stat.size, self.room)?
        } else {
            pieces::solid(stat.size, self.room)?
        };
        let (mut size, mut runs) = (stat.size, Vec::with_capacity(pieces.len()));
        for piece in pieces {
            let run = self.piece(&opened.file, piece, outlet)?;
            let read = run.as_ref().map_or(0, |run| run.len);
            runs.extend(run);
            if read < piece.1 {
                // It was cut meanwhile.
                size = piece.0 + u64::from(read);
                break;
            }
        }
        self.room = self.room.saturating_sub(runs.len());
        let after = rustix::fs::fstat(&opened.file)?;
        let steady = Stat::of(&after) == Some(stat) && self.is_old(stat);
        self.drafts.push(Draft {
            index,
            stat,
            trusted: steady && !self.mapped.writable(stat.inode),
            content: Content::File { size, runs },
        });
        Ok(())
    }

    /// Whether whatever was or is written since the look began leaves other times than these.
    fn is_old(&self, stat: Stat) -> bool {
        stat.changed_ns < self.fresh_from
    }

    /// Reads one piece, as much of it as there is, and finds a place for it.
    fn piece(
        &mut self,
        file: &OwnedFd,
        (at, length): Piece,
        outlet: Option<&PartSink>,
    ) -> Result<Option<Run>, GatherError> {
        let large = u64::from(length) > SMALL_FILE_BYTES;
        // Before the memory is taken.
        let room = match outlet {
            Some(outlet) if large => Some(outlet.room()?),
            _ => None,
        };
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.resize(length as usize, 0);
        let read = read_at(file, &mut bytes, at)?;
        bytes.truncate(read);
        let Some(len) = u32::try_from(read).ok().filter(|&len| len > 0) else {
            self.buffer = bytes;
            return Ok(None);
        };
        let hash = Hash(blake3::hash(&bytes).into());
        let place = match self.packer.known(hash, len) {
            Some(place) => {
                self.buffer = bytes;
                place
            }
            None => match room {
                Some(room) => self.packer.part((hash, len), bytes, outlet, room)?,
                None => {
                    let place = self.packer.pack((hash, len), &bytes, outlet)?;
                    self.buffer = bytes;
                    place
                }
            },
        };
        Ok(Some(Run {
            at,
            len,
            hash,
            place,
        }))
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &OwnedFd, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}

/// The clock that files' times come from, nanoseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "it is compared with what the kernel notes of files by this clock"
)]
pub(super) fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::Path};

    use super::*;
    use crate::sync::scan::scan;

    /// Whether what is in a directory with one entry would be trusted.
    fn trusts(root: &Path, trust: impl FnOnce(Stat) -> Trust) -> bool {
        let root = std::fs::File::open(root).unwrap();
        let tree = scan(root.as_fd()).unwrap();
        let trust = trust(tree.get(0).unwrap().stat);
        let mut gather = Gather::new(Arc::default(), trust, 0);
        let later = gather.small(root.as_fd(), &tree, &[0]).unwrap();
        assert!(later.is_empty());
        let (_, drafts) = gather.finish();
        assert_eq!(drafts.len(), 1);
        drafts[0].trusted
    }

    #[test]
    fn only_what_is_older_than_the_look_is_trusted() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("it");
        std::fs::write(&path, "x").unwrap();
        for _ in 0..2 {
            let since = |age| {
                trusts(root.path(), |stat| {
                    Trust::Since(stat.changed_ns + age, Mapped::default())
                })
            };
            assert!(!since(-1_000_000_000));
            assert!(!since(0));
            assert!(!since(CLOCK_TICK_NS));
            assert!(since(CLOCK_TICK_NS + 1));
            assert!(!trusts(root.path(), |_| Trust::Nothing));
            // And the same of a link.
            std::fs::remove_file(&path).unwrap();
            symlink("anywhere", &path).unwrap();
        }
    }

    #[test]
    fn what_can_be_written_through_a_mapping_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("it"), "x").unwrap();
        let mapped = |writable| {
            trusts(root.path(), |stat| {
                Trust::Since(i64::MAX, Mapped::of([(stat.inode, writable)]))
            })
        };
        assert!(!mapped(true));
        assert!(mapped(false));
    }
}
