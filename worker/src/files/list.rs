//! Listing a directory that somebody else may be changing.

use std::io;

use cap_std::fs::Dir;
use proto::{file::FileEntry, limits::FILE_PATH_BYTES};

use super::{FileError, entry};

/// Files and directories below `directory`, sorted by path, at most `limit`. A symlink is shown as
/// the file that it leads to when that is inside; links to directories are not entered, so a loop
/// of links ends.
pub(super) fn list(
    root: &Dir,
    directory: &str,
    recursive: bool,
    limit: usize,
) -> Result<Vec<FileEntry>, FileError> {
    let top = open(root, directory)?;
    let mut found = Vec::new();
    // Paths, not open directories, of which there may be more than this process may have open files.
    let mut waiting = vec![String::new()];
    while let Some(prefix) = waiting.pop() {
        let below = if prefix.is_empty() {
            None
        } else {
            // It may be gone or something else by now.
            let Ok(below) = top.open_dir(&prefix) else {
                continue;
            };
            Some(below)
        };
        let dir = below.as_ref().unwrap_or(&top);
        for item in dir.entries()? {
            if found.len() >= limit {
                break;
            }
            let name = item?.file_name();
            let shown = name.to_string_lossy();
            let path = format!("{prefix}{shown}");
            // No request could name a longer one.
            if path.len() > FILE_PATH_BYTES {
                continue;
            }
            // What vanished or leads out between the two calls is left out.
            let Ok(metadata) = root_relative(dir, root, directory, &path, &name) else {
                continue;
            };
            let Some(told) = entry(&path, &metadata) else {
                continue;
            };
            if recursive && dir.symlink_metadata(&name).is_ok_and(|own| own.is_dir()) {
                waiting.push(format!("{path}/"));
            }
            found.push(told);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn open(root: &Dir, directory: &str) -> io::Result<Dir> {
    if directory.is_empty() {
        root.try_clone()
    } else {
        root.open_dir(directory)
    }
}

/// Metadata of an entry, through a link if it is one. Links are resolved from the data root, since
/// they may lead up and down again below it.
fn root_relative(
    dir: &Dir,
    root: &Dir,
    directory: &str,
    path: &str,
    name: &std::ffi::OsStr,
) -> io::Result<cap_std::fs::Metadata> {
    let own = dir.symlink_metadata(name)?;
    if !own.is_symlink() {
        return Ok(own);
    }
    let through = if directory.is_empty() {
        root.metadata(path)?
    } else {
        root.metadata(format!("{directory}/{path}"))?
    };
    if through.is_file() {
        Ok(through)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}
