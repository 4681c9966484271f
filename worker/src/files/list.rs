//! Listing a directory that somebody else may be changing.

use std::io;

use cap_std::fs::Dir;
use proto::file::FileEntry;

use super::{FileError, UNFINISHED, entry};

/// Files and directories below `directory`, sorted by path, at most `limit`. A symlink is shown as
/// the file that it leads to when that is inside; links to directories are not entered, so a loop
/// of links ends.
pub(super) fn list(
    root: &Dir,
    directory: &str,
    recursive: bool,
    limit: usize,
) -> Result<Vec<FileEntry>, FileError> {
    let top = if directory.is_empty() {
        root.try_clone()?
    } else {
        root.open_dir(directory)?
    };
    let mut found = Vec::new();
    let mut waiting = vec![(top, String::new())];
    while let Some((dir, prefix)) = waiting.pop() {
        for item in dir.entries()? {
            if found.len() >= limit {
                break;
            }
            let name = item?.file_name();
            let shown = name.to_string_lossy();
            if shown.starts_with(UNFINISHED) {
                continue;
            }
            let path = format!("{prefix}{shown}");
            // What vanished or leads out between the two calls is left out.
            let Ok(metadata) = root_relative(&dir, root, directory, &path, &name) else {
                continue;
            };
            let Some(told) = entry(&path, &metadata) else {
                continue;
            };
            let enter = recursive && dir.symlink_metadata(&name).is_ok_and(|own| own.is_dir());
            if enter && let Ok(below) = dir.open_dir(&name) {
                waiting.push((below, format!("{path}/")));
            }
            found.push(told);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
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
