//! Opening what is below a data directory. The session controls every name and link in there, so
//! nothing is ever resolved through a link, and nothing outside is reached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec},
    io::{Errno, Result},
};

use super::tree::split;

/// Longest path in one system call, the NUL at its end counted.
const PATH_MAX: usize = 4096;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory on the way to something: the root, or opened for its path only.
pub(super) enum Parent<'a> {
    Root(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(root) => root.as_fd(),
            Self::Opened(directory) => directory.as_fd(),
        }
    }
}

/// Opens the path; `ELOOP` when it leads through a link or is one.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if path.len() < PATH_MAX {
        return rustix::fs::openat2(root, path, flags, mode, RESOLVE);
    }
    // It takes two steps, since no name is longer than 255 bytes.
    let first = path.get(..PATH_MAX - 1).unwrap_or_default();
    let (Some(first), _) = split(first) else {
        return Err(Errno::NAMETOOLONG);
    };
    let rest = path.get(first.len() + 1..).unwrap_or_default();
    let middle = directory(root, first)?;
    rustix::fs::openat2(middle, rest, flags, mode, RESOLVE)
}

/// Opens a directory for its path only.
pub(super) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open(root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// Opens a directory for listing; the root for no path.
pub(super) fn listing(root: BorrowedFd<'_>, path: Option<&[u8]>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    open(root, path.unwrap_or(b"."), flags, Mode::empty())
}

/// The directory that holds a path, and the name in it.
pub(super) fn parent<'r, 'p>(
    root: BorrowedFd<'r>,
    path: &'p [u8],
) -> Result<(Parent<'r>, &'p [u8])> {
    let (above, name) = split(path);
    let parent = match above {
        None => Parent::Root(root),
        Some(above) => Parent::Opened(directory(root, above)?),
    };
    Ok((parent, name))
}

/// What is at a path, not followed if it is a link. Nothing when there is no such thing.
pub(super) fn stat(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<rustix::fs::Stat>> {
    let found = parent(root, path)
        .and_then(|(parent, name)| rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW));
    absent(found)
}

/// What a link says. Nothing when there is no link at the path.
pub(super) fn link(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Vec<u8>>> {
    let read = parent(root, path)
        .and_then(|(parent, name)| rustix::fs::readlinkat(parent, name, Vec::new()));
    match read {
        Err(Errno::INVAL) => Ok(None),
        read => Ok(absent(read)?.map(std::ffi::CString::into_bytes)),
    }
}

/// Turns the errors of what is not there, or not any more, into nothing.
pub(super) fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A point in time for the filesystem.
pub(super) fn timespec(nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    }
}
