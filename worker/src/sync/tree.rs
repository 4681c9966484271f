//! What a look at a data directory saw: every path with its times, sorted by path.

use proto::limits::{TREE_ENTRIES, TREE_EXTENTS, TREE_PATH_BYTES, TREE_PATHS_BYTES};
use rustix::fs::FileType;

/// A session's files cannot be kept, because there is too much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// One path.
    #[error("a path below /mnt/data is longer than {TREE_PATH_BYTES} bytes")]
    Path,
    /// The number of entries.
    #[error("/mnt/data holds more than {TREE_ENTRIES} files, directories and links")]
    Entries,
    /// All paths and the texts of all links together.
    #[error(
        "the paths and links below /mnt/data are longer than {TREE_PATHS_BYTES} bytes together"
    )]
    Paths,
    /// The number of pieces that all files together are kept in; only files with very many holes
    /// have that many.
    #[error("the files below /mnt/data are in more than {TREE_EXTENTS} pieces")]
    Extents,
}

/// Kinds of entries that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Symlink,
}

/// What the filesystem says of an entry. What is inside is the same as long as this is, except
/// for writes within the clock's resolution and through shared mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) kind: Kind,
    /// Permission bits, `& 0o777`.
    pub(super) mode: u32,
    pub(super) inode: u64,
    /// Bytes of a file or of what a link says; 0 for directories.
    pub(super) size: u64,
    /// Last modification, nanoseconds since 1970. The session can set it to anything.
    pub(super) modified_ns: i64,
    /// Last change of contents or attributes, nanoseconds since 1970. The session cannot set it.
    pub(super) changed_ns: i64,
}

impl Stat {
    /// What is kept of a `stat`; nothing of devices, fifos and sockets.
    pub(super) fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            _ => return None,
        };
        let size = match kind {
            Kind::Directory => 0,
            Kind::File | Kind::Symlink => u64::try_from(stat.st_size).unwrap_or_default(),
        };
        Some(Self {
            kind,
            mode: stat.st_mode & 0o777,
            inode: stat.st_ino,
            size,
            modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        })
    }
}

fn nanoseconds(seconds: i64, part: impl TryInto<i64>) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(part.try_into().unwrap_or_default())
}

/// Entries of a data directory, sorted by path once [`sorted`](Self::sorted).
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// All paths, one after the other: a tree costs two allocations, however many files it has.
    paths: Vec<u8>,
    /// Bytes of all links' texts.
    links: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    length: u32,
    stat: Stat,
    doubtful: bool,
}

/// One entry of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) path: &'a [u8],
    pub(super) stat: Stat,
    /// Whether the manifest may hold something else than was here when it had this `stat`.
    pub(super) doubtful: bool,
}

impl Tree {
    /// Adds the entry `name` of a directory that was added before, or of the root.
    pub(super) fn add(
        &mut self,
        directory: Option<usize>,
        name: &[u8],
        stat: Stat,
    ) -> Result<usize, Limit> {
        if self.entries.len() >= TREE_ENTRIES {
            return Err(Limit::Entries);
        }
        let above = directory.and_then(|index| self.entries.get(index)).copied();
        let start = self.paths.len();
        if let Some(above) = above {
            self.paths.extend_from_within(above.range());
            self.paths.push(b'/');
        }
        self.paths.extend_from_slice(name);
        let length = self.paths.len() - start;
        if length > TREE_PATH_BYTES {
            return Err(Limit::Path);
        }
        if stat.kind == Kind::Symlink {
            self.links = self.links.saturating_add(stat.size);
        }
        let together = self.links.saturating_add(self.paths.len() as u64);
        if together > TREE_PATHS_BYTES as u64 {
            return Err(Limit::Paths);
        }
        self.entries.push(Entry {
            start: u32::try_from(start).map_err(|_| Limit::Paths)?,
            length: u32::try_from(length).map_err(|_| Limit::Path)?,
            stat,
            doubtful: false,
        });
        Ok(self.entries.len() - 1)
    }

    /// The tree in order. A name that was listed twice, because it was replaced meanwhile, counts
    /// once.
    pub(super) fn sorted(mut self) -> Self {
        let paths = &self.paths;
        let path = |entry: &Entry| paths.get(entry.range()).unwrap_or_default();
        self.entries
            .sort_unstable_by(|one, other| path(one).cmp(path(other)));
        self.entries
            .dedup_by(|later, earlier| path(later) == path(earlier));
        self
    }

    /// Entries in order.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Seen<'_>> {
        self.entries.iter().map(|entry| self.seen(entry))
    }

    /// The entry at a position.
    pub(super) fn get(&self, index: usize) -> Option<Seen<'_>> {
        self.entries.get(index).map(|entry| self.seen(entry))
    }

    /// The position of a path.
    pub(super) fn find(&self, path: &[u8]) -> Option<usize> {
        self.search(path).ok()
    }

    /// What is at a path.
    pub(super) fn at(&self, path: &[u8]) -> Option<Seen<'_>> {
        self.find(path).and_then(|index| self.get(index))
    }

    /// From now on the entry vouches for nothing.
    pub(super) fn doubt(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.doubtful = true;
        }
    }

    /// From now on the manifest holds what is at this position while it has this `stat`.
    pub(super) fn trust(&mut self, index: usize, stat: Stat) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.stat = stat;
            entry.doubtful = false;
        }
    }

    /// Sets one entry, whether it was there or not.
    pub(super) fn set(&mut self, path: &[u8], stat: Stat) -> Result<usize, Limit> {
        match self.search(path) {
            Ok(index) => {
                self.trust(index, stat);
                Ok(index)
            }
            Err(place) => {
                let added = self.add(None, path, stat)?;
                let entry = self.entries.remove(added);
                self.entries.insert(place, entry);
                Ok(place)
            }
        }
    }

    fn search(&self, path: &[u8]) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| self.seen(entry).path.cmp(path))
    }

    fn seen(&self, entry: &Entry) -> Seen<'_> {
        Seen {
            path: self.paths.get(entry.range()).unwrap_or_default(),
            stat: entry.stat,
            doubtful: entry.doubtful,
        }
    }
}

impl Entry {
    fn range(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + self.length as usize
    }
}

/// The directory that holds a path, and the name in it.
pub(super) fn split(path: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (path.get(..slash), path.get(slash + 1..).unwrap_or_default()),
        None => (None, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(kind: Kind, size: u64) -> Stat {
        Stat {
            kind,
            mode: 0o644,
            inode: 1,
            size,
            modified_ns: 0,
            changed_ns: 0,
        }
    }

    #[test]
    fn paths_come_in_the_order_of_the_log() {
        let mut tree = Tree::default();
        let directory = tree.add(None, b"a", stat(Kind::Directory, 0)).unwrap();
        for (above, name) in [
            (Some(directory), &b"z"[..]),
            (None, b"a-"),
            (None, b"\xff"),
            (Some(directory), b"b"),
            (None, b"a-"),
        ] {
            tree.add(above, name, stat(Kind::File, 0)).unwrap();
        }
        let tree = tree.sorted();
        let paths: Vec<_> = tree.iter().map(|seen| seen.path.to_vec()).collect();
        assert_eq!(paths, [&b"a"[..], b"a-", b"a/b", b"a/z", b"\xff"]);
        assert_eq!(tree.find(b"a/z"), Some(3));
        assert_eq!(tree.find(b"a/"), None);
    }

    #[test]
    fn an_entry_is_set_where_it_belongs() {
        let mut tree = Tree::default();
        for (size, name) in [b"b", b"d", b"a", b"c", b"b"].into_iter().enumerate() {
            tree.set(name, stat(Kind::File, size as u64)).unwrap();
        }
        let found: Vec<_> = tree
            .iter()
            .map(|seen| (seen.path[0], seen.stat.size))
            .collect();
        assert_eq!(found, [(b'a', 2), (b'b', 4), (b'c', 3), (b'd', 1)]);
    }

    #[test]
    fn every_limit_has_its_name() {
        let mut tree = Tree::default();
        let long = [b'n'; TREE_PATH_BYTES];
        tree.add(None, &long, stat(Kind::File, 0)).unwrap();
        let beyond = tree.add(Some(0), b"x", stat(Kind::File, 0));
        assert_eq!(beyond, Err(Limit::Path));

        let mut tree = Tree::default();
        for _ in 0..TREE_ENTRIES {
            tree.add(None, b"x", stat(Kind::File, 0)).unwrap();
        }
        let beyond = tree.add(None, b"x", stat(Kind::File, 0));
        assert_eq!(beyond, Err(Limit::Entries));

        let mut tree = Tree::default();
        for _ in 0..TREE_PATHS_BYTES / (2 * TREE_PATH_BYTES) {
            tree.add(None, &long, stat(Kind::File, 0)).unwrap();
        }
        let texts = (TREE_PATHS_BYTES / 2) as u64;
        let beyond = tree.add(None, b"x", stat(Kind::Symlink, texts));
        assert_eq!(beyond, Err(Limit::Paths));
    }
}
