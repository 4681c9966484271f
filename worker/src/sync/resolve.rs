//! Where a path of a caller really is. Callers' paths go through links below the root, as everybody
//! who opens them there goes; the log has files under the names of their own directories.

use std::{collections::VecDeque, os::fd::BorrowedFd};

use rustix::io::Result;

use super::{beneath, tree::split};

/// Links on one way; more are a loop, as for the kernel.
const LINKS: usize = 40;

/// What to do when the path itself is a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// It leads on.
    Follow,
    /// It is meant itself.
    Keep,
}

/// A path without links on it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Empty for the root itself.
    pub(super) path: Vec<u8>,
    /// The links that led there.
    pub(super) links: Vec<Vec<u8>>,
}

/// Resolves a path; nothing if it leads out or in circles. What does not exist is no link.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &[u8], last: Last) -> Result<Option<Way>> {
    let mut way = Way::default();
    let mut parts: VecDeque<Vec<u8>> = names(path).collect();
    while let Some(part) = parts.pop_front() {
        if part == b".." {
            if way.path.is_empty() {
                return Ok(None);
            }
            let above = split(&way.path).0.map_or(0, <[u8]>::len);
            way.path.truncate(above);
            continue;
        }
        let mut next = way.path.clone();
        if !next.is_empty() {
            next.push(b'/');
        }
        next.extend(part);
        let target = if parts.is_empty() && last == Last::Keep {
            None
        } else {
            beneath::link(root, &next)?
        };
        match target {
            None => way.path = next,
            Some(target) if target.starts_with(b"/") || way.links.len() == LINKS => {
                return Ok(None);
            }
            Some(target) => {
                way.links.push(next);
                for part in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    parts.push_front(part);
                }
            }
        }
    }
    Ok(Some(way))
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::AsFd, unix::fs::symlink},
        path::Path,
    };

    use super::*;

    fn way(root: &Path, path: &str, last: Last) -> Option<(String, usize)> {
        let root = std::fs::File::open(root).unwrap();
        let way = resolve(root.as_fd(), path.as_bytes(), last).unwrap();
        way.map(|way| (String::from_utf8(way.path).unwrap(), way.links.len()))
    }

    #[test]
    fn links_lead_where_they_lead_and_never_out() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "x").unwrap();
        symlink("a/b", root.join("into")).unwrap();
        symlink("../../into/./file", root.join("a/b/back")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("round", root.join("round")).unwrap();
        let is = |path: &str, links| Some((path.to_owned(), links));
        assert_eq!(way(root, "a/b/file", Last::Follow), is("a/b/file", 0));
        assert_eq!(way(root, "into/file", Last::Keep), is("a/b/file", 1));
        assert_eq!(way(root, "into/back", Last::Keep), is("a/b/back", 1));
        assert_eq!(way(root, "into/back", Last::Follow), is("a/b/file", 3));
        assert_eq!(way(root, "new/file", Last::Follow), is("new/file", 0));
        assert_eq!(way(root, "absolute", Last::Keep), is("absolute", 0));
        for leaves in ["absolute", "out", "round"] {
            assert_eq!(way(root, leaves, Last::Follow), None, "{leaves}");
        }
    }
}
