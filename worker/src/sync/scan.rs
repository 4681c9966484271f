//! Looks at everything below a data directory, without following a link.
//!
//! Directories wait as paths, not open, of which there may be more than this process may have open
//! files, and are not entered by recursion, since a session can nest them thousands deep.

use std::{io, mem::MaybeUninit, os::fd::BorrowedFd};

use rustix::{
    fs::{AtFlags, FileType, RawDir},
    io::Errno,
};

use super::{
    beneath,
    tree::{Kind, Limit, Stat, Tree},
};

/// Bytes of directory entries read at once.
const LISTING_BYTES: usize = 32 * 1024;

/// Why there is no picture of a data directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("the files cannot be kept")]
    Limit(#[from] Limit),
    #[error("the file system failed")]
    Io(#[from] io::Error),
}

/// Everything below `root` but devices, fifos and sockets. What changes
/// meanwhile is seen as it was before or after.
pub(super) fn scan(root: BorrowedFd<'_>) -> Result<Tree, ScanError> {
    let mut tree = Tree::default();
    let mut buffer = [const { MaybeUninit::uninit() }; LISTING_BYTES];
    let mut waiting = vec![None];
    while let Some(directory) = waiting.pop() {
        let path = directory
            .and_then(|index| tree.get(index))
            .map(|seen| seen.path);
        // It may be gone or something else by now.
        let opened = beneath::absent(beneath::listing(root, path)).map_err(io::Error::from)?;
        let Some(opened) = opened else { continue };
        let mut listing = RawDir::new(&opened, &mut buffer);
        while let Some(item) = listing.next() {
            let item = match item {
                // The directory was removed meanwhile.
                Err(Errno::NOENT) => break,
                item => item.map_err(io::Error::from)?,
            };
            let name = item.file_name();
            if !wanted(name.to_bytes(), item.file_type()) {
                continue;
            }
            let found = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW);
            let found = beneath::absent(found).map_err(io::Error::from)?;
            let Some(stat) = found.as_ref().and_then(Stat::of) else {
                continue;
            };
            let index = tree.add(directory, name.to_bytes(), stat)?;
            if stat.kind == Kind::Directory {
                waiting.push(Some(index));
            }
        }
    }
    Ok(tree.sorted())
}

fn wanted(name: &[u8], kind: FileType) -> bool {
    let kept = match kind {
        FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown => true,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            false
        }
    };
    kept && !matches!(name, b"." | b"..")
}
