//! What code does to its files, at random.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

/// One act. Paths are few, so that they meet; what a path needs to be is made so, whatever is in
/// the way.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Write {
        path: Name,
        size: u32,
        seed: u8,
    },
    /// Writes at an offset, which may lie far behind the end.
    Patch {
        path: Name,
        at: u32,
        size: u32,
        seed: u8,
    },
    Cut {
        path: Name,
        size: u32,
    },
    Directory {
        path: Name,
    },
    Deep {
        path: Name,
        depth: u8,
    },
    Link {
        path: Name,
        target: Name,
    },
    Copy {
        from: Name,
        to: Name,
    },
    Rename {
        from: Name,
        to: Name,
    },
    Remove {
        path: Name,
    },
    Mode {
        path: Name,
        mode: u32,
    },
    Time {
        path: Name,
        seconds: u32,
    },
    /// Changes bytes and sets the time of modification back.
    Forge {
        path: Name,
        seed: u8,
    },
}

/// A path of up to three parts.
#[derive(Clone, Debug)]
pub(super) struct Name(Vec<usize>);

const PARTS: [&[u8]; 6] = [b"a", b"a-", b"\xc3\xa9 \n", b"\xff\xfe", b"-", b"B"];

impl Name {
    pub(super) fn below(&self, root: &Path) -> PathBuf {
        let parts = self.0.iter().map(|&part| OsStr::from_bytes(PARTS[part]));
        parts.fold(root.to_owned(), |path, part| path.join(part))
    }
}

fn name() -> impl Strategy<Value = Name> {
    prop::collection::vec(0..PARTS.len(), 1..=3).prop_map(Name)
}

/// Mostly small, sometimes around the limits that matter.
fn size() -> impl Strategy<Value = u32> {
    prop_oneof![
        30 => 0..5000_u32,
        4 => 60_000..70_000_u32,
        1 => 1_048_570..1_048_580_u32,
        1 => 4_194_300..4_194_310_u32,
        1 => 9_000_000..9_000_100_u32,
    ]
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let write = (name(), size(), any::<u8>());
    let patch = (name(), 0..12_000_000_u32, 1..200_000_u32, any::<u8>());
    prop_oneof![
        6 => write.prop_map(|(path, size, seed)| Edit::Write { path, size, seed }),
        2 => patch.prop_map(|(path, at, size, seed)| Edit::Patch { path, at, size, seed }),
        1 => (name(), size()).prop_map(|(path, size)| Edit::Cut { path, size }),
        2 => name().prop_map(|path| Edit::Directory { path }),
        1 => (name(), 1..40_u8).prop_map(|(path, depth)| Edit::Deep { path, depth }),
        2 => (name(), name()).prop_map(|(path, target)| Edit::Link { path, target }),
        1 => (name(), name()).prop_map(|(from, to)| Edit::Copy { from, to }),
        4 => (name(), name()).prop_map(|(from, to)| Edit::Rename { from, to }),
        2 => name().prop_map(|path| Edit::Remove { path }),
        2 => (name(), 0..0o1000_u32).prop_map(|(path, mode)| Edit::Mode { path, mode }),
        2 => (name(), any::<u32>()).prop_map(|(path, seconds)| Edit::Time { path, seconds }),
        2 => (name(), any::<u8>()).prop_map(|(path, seed)| Edit::Forge { path, seed }),
    ]
}

impl Edit {
    /// Performs the act below `root`; what is not possible is not done. Nothing else writes there.
    pub(super) fn perform(&self, root: &Path) {
        match self {
            Self::Write { path, size, seed } => {
                let path = make_way(root, path);
                remove(&path);
                fs::write(path, bytes(*size, *seed)).unwrap();
            }
            Self::Patch {
                path,
                at,
                size,
                seed,
            } => {
                let file = open(&make_way(root, path));
                file.write_all_at(&bytes(*size, *seed), u64::from(*at))
                    .unwrap();
            }
            Self::Cut { path, size } => {
                let file = open(&make_way(root, path));
                file.set_len(u64::from(*size)).unwrap();
            }
            Self::Directory { path } => {
                let path = make_way(root, path);
                make_directory(&path);
            }
            Self::Deep { path, depth } => nest(make_way(root, path), *depth),
            Self::Link { path, target } => {
                let path = make_way(root, path);
                remove(&path);
                symlink(target.below(Path::new("..")), path).unwrap();
            }
            Self::Copy { from, to } => copy(&from.below(root), &make_way(root, to)),
            Self::Rename { from, to } => rename(&from.below(root), &make_way(root, to)),
            Self::Remove { path } => remove(&path.below(root)),
            Self::Mode { path, mode } => {
                let path = path.below(root);
                if path
                    .symlink_metadata()
                    .is_ok_and(|found| !found.is_symlink())
                {
                    fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
                }
            }
            Self::Time { path, seconds } => {
                set_time(&path.below(root), |_| {
                    SystemTime::UNIX_EPOCH + Duration::new(u64::from(*seconds), *seconds % 1000)
                });
            }
            Self::Forge { path, seed } => {
                let path = path.below(root);
                set_time(&path, |modified| {
                    if path.is_file() {
                        open(&path).write_all_at(&[*seed], 0).unwrap();
                    }
                    modified
                });
            }
        }
    }
}

fn nest(mut path: PathBuf, depth: u8) {
    make_directory(&path);
    for _ in 0..depth {
        path.push("d");
        make_directory(&path);
    }
    fs::write(path.join("leaf"), [depth]).unwrap();
}

/// Gives a file a second name.
fn copy(from: &Path, to: &Path) {
    // What lies beneath the other name would go with it.
    let apart = !from.starts_with(to);
    if apart && from.symlink_metadata().is_ok_and(|from| from.is_file()) {
        remove(to);
        fs::hard_link(from, to).unwrap();
    }
}

fn rename(from: &Path, to: &Path) {
    if from.symlink_metadata().is_ok() && !to.starts_with(from) {
        if !from.starts_with(to) {
            remove(to);
        }
        // A directory does not go over a full one.
        let _impossible = fs::rename(from, to);
    }
}

/// Sets the time of modification to something that may come from what it was.
fn set_time(path: &Path, time: impl FnOnce(SystemTime) -> SystemTime) {
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    if metadata.is_symlink() {
        return;
    }
    let time = time(metadata.modified().unwrap());
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn make_way(root: &Path, name: &Name) -> PathBuf {
    let path = name.below(root);
    for above in path
        .parent()
        .unwrap()
        .ancestors()
        .collect::<Vec<_>>()
        .iter()
        .rev()
    {
        if above.starts_with(root) {
            make_directory(above);
        }
    }
    path
}

fn make_directory(path: &Path) {
    if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        remove(path);
        fs::create_dir(path).unwrap();
    }
}

fn open(path: &Path) -> fs::File {
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        remove(path);
    }
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

fn bytes(size: u32, seed: u8) -> Vec<u8> {
    (0..size)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect()
}
