//! All that must come back of a directory.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Thing {
    mode: u32,
    modified: (i64, i64),
    is: Is,
}

#[derive(PartialEq, Eq)]
enum Is {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

impl std::fmt::Debug for Is {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory => write!(f, "directory"),
            Self::File(bytes) => write!(f, "file of {} {}", bytes.len(), blake3::hash(bytes)),
            Self::Link(target) => write!(f, "link to {:?}", String::from_utf8_lossy(target)),
        }
    }
}

pub(super) type Picture = BTreeMap<Vec<u8>, Thing>;

pub(super) fn of(root: &Path) -> Picture {
    let mut picture = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for item in fs::read_dir(directory).unwrap() {
            let path = item.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let mut thing = Thing {
                mode: metadata.permissions().mode() & 0o777,
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                is: Is::Directory,
            };
            if metadata.is_dir() {
                waiting.push(path.clone());
            } else if metadata.is_file() {
                thing.is = Is::File(fs::read(&path).unwrap());
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                thing.is = Is::Link(target.as_os_str().as_bytes().to_vec());
                // Links have no attributes of their own here.
                (thing.mode, thing.modified) = (0, (0, 0));
            } else {
                continue;
            }
            let below = path.strip_prefix(root).unwrap();
            picture.insert(below.as_os_str().as_bytes().to_vec(), thing);
        }
    }
    picture
}

pub(super) fn assert_same(one: &Path, other: &Path) {
    assert_equal(&of(one), &of(other));
}

pub(super) fn assert_equal(one: &Picture, other: &Picture) {
    for (path, thing) in one {
        let shown = String::from_utf8_lossy(path);
        assert_eq!(Some(thing), other.get(path), "{shown:?}");
    }
    for path in other.keys() {
        assert!(
            one.contains_key(path),
            "{:?} is new",
            String::from_utf8_lossy(path)
        );
    }
}
