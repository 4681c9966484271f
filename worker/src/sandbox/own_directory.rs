//! The directories that a worker empties as root: only those that say that they are its own.
//!
//! A file in the directory names fleet and worker. A directory without one is taken over if it is empty, or
//! if all that is in it are files of the names that a worker makes, as workers left them that wrote no such
//! file yet. Any other is refused before anything in it, or in another directory, is changed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use proto::id::WorkerId;
use serde::{Deserialize, Serialize};

/// Name of the file that says whose directory it is.
pub(super) const MARKER: &str = ".hearth-worker";

/// What a marker that is being written is called, with the writer's process number behind it.
const UNFINISHED: &str = ".hearth-worker.new-";

/// What a marker says to people.
const NOTICE: &str =
    "# A worker of Hearth empties this directory at its start. Keep nothing here.\n";

/// No marker is longer, in bytes.
const MARKER_BYTES_MAX: u64 = 4096;

/// Name of the lock file in the state directory.
pub(super) const LOCK: &str = "lock";

/// Whose a directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryOwner {
    /// The fleet's name.
    pub fleet: String,
    /// The worker.
    pub worker: WorkerId,
}

impl fmt::Display for DirectoryOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker `{}` of fleet {}", self.worker, self.fleet)
    }
}

/// Why a directory cannot be a worker's own.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// Something in it was not made by this worker.
    #[error(
        "directory {path} is not empty and has no file `{MARKER}`: a worker empties its directories, and \
         `{entry}` may be somebody else's; name an empty directory, or empty this one yourself"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The name of something in it.
        entry: String,
    },
    /// Another worker, or one of another fleet, has it.
    #[error(
        "directory {path} belongs to {found} and not to {wanted}, says its file `{MARKER}`: every worker \
         needs directories of its own; if that worker is gone for good, remove the directory"
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: Box<DirectoryOwner>,
        /// Who wants it.
        wanted: Box<DirectoryOwner>,
    },
    /// Its marker is damaged.
    #[error(
        "file `{MARKER}` in directory {path} does not say whose the directory is; if it is this worker's, \
         remove the file's directory"
    )]
    Unreadable {
        /// The directory.
        path: PathBuf,
    },
    /// A file system is mounted inside, and emptying the directory would empty it, too.
    #[error("a file system is mounted at {mount}, inside directory {path}, which a worker empties")]
    Mounted {
        /// The directory.
        path: PathBuf,
        /// The mount point.
        mount: PathBuf,
    },
    /// Emptying one directory would empty another.
    #[error("a worker empties directory {outer}, so {inner} must lie elsewhere")]
    Nested {
        /// The directory.
        outer: PathBuf,
        /// What is inside it.
        inner: PathBuf,
    },
    /// It is not a directory, or cannot be read or written.
    #[error("directory {path}")]
    File {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A directory that is this worker's.
#[derive(Debug)]
pub(super) struct OwnDirectory {
    path: PathBuf,
    /// Whether it was marked just now.
    fresh: bool,
}

impl OwnDirectory {
    /// Makes sure that these directories, each of which is made if it is missing, are this worker's, and
    /// marks them. Nothing in any of them is changed if one is refused, as it is if one of `others` lies
    /// inside.
    pub(super) fn take<const N: usize>(
        paths: [&Path; N],
        others: &[&Path],
        owner: &DirectoryOwner,
    ) -> Result<[Self; N], OwnershipError> {
        Self::look(paths, others, owner)?;
        let mut taken = Vec::with_capacity(N);
        for path in paths {
            taken.push(Self::mark(path, owner)?);
        }
        taken.try_into().map_err(|_| OwnershipError::File {
            path: PathBuf::new(),
            source: io::ErrorKind::InvalidInput.into(),
        })
    }

    /// Whether [`Self::take`] would take these directories. Changes nothing.
    pub(super) fn look<const N: usize>(
        paths: [&Path; N],
        others: &[&Path],
        owner: &DirectoryOwner,
    ) -> Result<(), OwnershipError> {
        apart(&paths, others)?;
        paths.into_iter().try_for_each(|path| inspect(path, owner))
    }

    fn mark(path: &Path, owner: &DirectoryOwner) -> Result<Self, OwnershipError> {
        let failed = |source| file_error(path, source);
        fs::create_dir_all(path).map_err(failed)?;
        let fresh = write_marker(path, owner).map_err(failed)?;
        // Another worker may have been faster.
        inspect(path, owner)?;
        Ok(Self {
            path: path.to_owned(),
            fresh,
        })
    }

    /// Marks it once more, now that nobody else can take the mark away.
    pub(super) fn mark_again(&mut self, owner: &DirectoryOwner) -> Result<(), OwnershipError> {
        inspect(&self.path, owner)?;
        self.fresh |= Self::mark(&self.path, owner)?.fresh;
        Ok(())
    }

    /// Removes all that is in it but the marker and the lock file.
    pub(super) fn empty(&self) -> Result<(), OwnershipError> {
        let failed = |source| file_error(&self.path, source);
        unmounted(&self.path)?;
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == MARKER || name == LOCK {
                continue;
            }
            let is_directory = entry.file_type().map_err(failed)?.is_dir();
            let removed = if is_directory {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            removed.map_err(failed)?;
        }
        Ok(())
    }

    /// Empties it for good: what somebody puts there from now on is not this worker's.
    pub(super) fn leave(&self) -> Result<(), OwnershipError> {
        self.empty()?;
        self.unmark()
    }

    /// Takes the marker back that a start wrote which failed.
    pub(super) fn give_back(&self) -> Result<(), OwnershipError> {
        if self.fresh { self.unmark() } else { Ok(()) }
    }

    fn unmark(&self) -> Result<(), OwnershipError> {
        fs::remove_file(self.path.join(MARKER)).map_err(|source| file_error(&self.path, source))
    }
}

/// Decides whether a directory is this worker's, or may become it. Changes nothing.
fn inspect(path: &Path, owner: &DirectoryOwner) -> Result<(), OwnershipError> {
    let failed = |source| file_error(path, source);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    unmounted(path)?;
    let mut foreign = None;
    let mut marked = false;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().map_err(failed)?.is_file();
        if name == MARKER && is_file {
            marked = true;
        } else if !(is_file && is_of_a_worker(&name, &owner.worker)) {
            foreign = Some(name);
        }
    }
    match (marked, foreign) {
        (true, _) => check_marker(path, owner),
        (false, Some(entry)) => Err(OwnershipError::Foreign {
            path: path.to_owned(),
            entry,
        }),
        (false, None) => Ok(()),
    }
}

/// Whether a file in a directory without a marker has a name that only this worker gives.
fn is_of_a_worker(name: &str, worker: &WorkerId) -> bool {
    let numbered = |prefix: &str| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    name == LOCK
        || numbered(UNFINISHED)
        // Data filesystems that are being made, and what they are copied from.
        || numbered("template.")
        || numbered(&format!("hearth.{worker}."))
}

fn check_marker(path: &Path, owner: &DirectoryOwner) -> Result<(), OwnershipError> {
    let failed = |source| file_error(path, source);
    let file = File::open(path.join(MARKER)).map_err(failed)?;
    let text = io::read_to_string(io::Read::take(file, MARKER_BYTES_MAX)).map_err(failed)?;
    match toml::from_str::<DirectoryOwner>(&text) {
        Ok(found) if found == *owner => Ok(()),
        Ok(found) => Err(OwnershipError::Taken {
            path: path.to_owned(),
            found: Box::new(found),
            wanted: Box::new(owner.clone()),
        }),
        Err(_) => Err(OwnershipError::Unreadable {
            path: path.to_owned(),
        }),
    }
}

/// Writes the marker unless there is one, and says whether it did. It is never there in part.
fn write_marker(path: &Path, owner: &DirectoryOwner) -> io::Result<bool> {
    let marker = path.join(MARKER);
    if marker.exists() {
        return Ok(false);
    }
    let text = toml::to_string(owner).map_err(io::Error::other)?;
    let unfinished = path.join(format!("{UNFINISHED}{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&unfinished)?;
    file.write_all(NOTICE.as_bytes())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Another worker's marker is not overwritten.
    let linked = fs::hard_link(&unfinished, &marker);
    fs::remove_file(&unfinished)?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes sure that emptying one directory empties no other.
fn apart(paths: &[&Path], others: &[&Path]) -> Result<(), OwnershipError> {
    let resolved = |paths: &[&Path]| -> Result<Vec<PathBuf>, OwnershipError> {
        paths.iter().map(|path| resolve(path)).collect()
    };
    let (own, others) = (resolved(paths)?, resolved(others)?);
    for (number, outer) in own.iter().enumerate() {
        let rest = own.iter().enumerate().filter(|(other, _)| *other != number);
        let mut emptied = rest.map(|(_, path)| path).chain(&others);
        if let Some(inner) = emptied.find(|path| path.starts_with(outer)) {
            return Err(OwnershipError::Nested {
                outer: outer.clone(),
                inner: inner.clone(),
            });
        }
    }
    Ok(())
}

/// Where a path leads, as far as it exists.
fn resolve(path: &Path) -> Result<PathBuf, OwnershipError> {
    let failed = |source| file_error(path, source);
    let absolute = std::path::absolute(path).map_err(failed)?;
    for existing in absolute.ancestors() {
        match fs::canonicalize(existing) {
            Ok(found) => {
                let rest = absolute
                    .strip_prefix(existing)
                    .unwrap_or_else(|_| Path::new(""));
                // Joined to nothing it would get a slash at its end.
                return Ok(found.components().chain(rest.components()).collect());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(absolute)
}

/// Makes sure that no file system is mounted inside a directory.
fn unmounted(path: &Path) -> Result<(), OwnershipError> {
    let failed = |source| file_error(path, source);
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let directory = fs::canonicalize(path).map_err(failed)?;
    match mount_inside(&table, &directory) {
        None => Ok(()),
        Some(mount) => Err(OwnershipError::Mounted {
            path: path.to_owned(),
            mount,
        }),
    }
}

/// A mount point of a `mountinfo` table that lies inside a directory.
fn mount_inside(table: &str, directory: &Path) -> Option<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points = points.map(|point| PathBuf::from(unescaped(point)));
    points.find(|point| point != directory && point.starts_with(directory))
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    ["\\040 ", "\\011\t", "\\012\n", "\\134\\"]
        .iter()
        .fold(text.to_owned(), |text, escape| {
            let (code, meaning) = escape.split_at(4);
            text.replace(code, meaning)
        })
}

fn file_error(path: &Path, source: io::Error) -> OwnershipError {
    OwnershipError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(worker: &str) -> DirectoryOwner {
        DirectoryOwner {
            fleet: "f1".into(),
            worker: worker.parse().unwrap(),
        }
    }

    fn take(path: &Path, owner: &DirectoryOwner) -> Result<OwnDirectory, OwnershipError> {
        OwnDirectory::take([path], &[], owner).map(|[taken]| taken)
    }

    /// All paths below a directory with the contents of files.
    fn contents(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let mut found = vec![];
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(contents(&path));
                found.push((path, None));
            } else {
                let bytes = fs::read(&path).unwrap();
                found.push((path, Some(bytes)));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_directory_with_foreign_files_is_refused_by_name_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for foreign in [
            "backup.tar",
            "template.x",
            "hearth.w2.1",
            "lock.old",
            ".hidden",
        ] {
            fs::write(path.join(foreign), "precious").unwrap();
            let before = contents(path);
            let refused = take(path, &owner("w1")).unwrap_err();
            assert!(
                matches!(&refused, OwnershipError::Foreign { entry, .. } if entry == foreign),
                "{refused}"
            );
            assert!(refused.to_string().contains(path.to_str().unwrap()));
            assert_eq!(contents(path), before);
            fs::remove_file(path.join(foreign)).unwrap();
        }
        // A directory of a worker's name is no file that it makes.
        fs::create_dir(path.join("template.5")).unwrap();
        take(path, &owner("w1")).unwrap_err();
        assert!(path.join("template.5").is_dir());
    }

    #[test]
    fn one_refused_directory_keeps_all_others_from_being_touched() {
        let directory = tempfile::tempdir().unwrap();
        let [new, foreign] = ["new", "foreign"].map(|name| directory.path().join(name));
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("x"), "precious").unwrap();
        let before = contents(directory.path());
        OwnDirectory::take([&new, &foreign], &[], &owner("w1")).unwrap_err();
        assert_eq!(contents(directory.path()), before);
    }

    #[test]
    fn a_marked_directory_is_emptied_by_its_own_worker_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let own = take(&path, &owner("w1")).unwrap();
        fs::create_dir_all(path.join("x/y")).unwrap();
        fs::write(path.join("x/y/z"), "").unwrap();
        for other in [
            owner("w2"),
            DirectoryOwner {
                fleet: "f2".into(),
                ..owner("w1")
            },
        ] {
            let refused = take(&path, &other).unwrap_err();
            assert!(
                matches!(&refused, OwnershipError::Taken { found, .. } if **found == owner("w1")),
                "{refused}"
            );
        }
        own.empty().unwrap();
        let left: Vec<_> = contents(&path).into_iter().map(|(path, _)| path).collect();
        assert_eq!(left, [path.join(MARKER)]);
        // A crash leaves the marker, and the next run goes on.
        let again = take(&path, &owner("w1")).unwrap();
        again.give_back().unwrap();
        assert!(path.join(MARKER).exists(), "an earlier start marked it");
        again.leave().unwrap();
        assert_eq!(contents(&path), []);
        take(&path, &owner("w2")).unwrap().give_back().unwrap();
        assert_eq!(contents(&path), []);
    }

    #[test]
    fn a_mark_that_an_ending_run_takes_away_is_set_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let ending = take(path, &owner("w1")).unwrap();
        // The next run finds the mark, and waits for the lock of the first.
        let mut next = take(path, &owner("w1")).unwrap();
        ending.leave().unwrap();
        assert!(!path.join(MARKER).exists());
        next.mark_again(&owner("w1")).unwrap();
        // It crashes: what it made is its own for the one after it.
        fs::write(path.join("17.ext4"), "").unwrap();
        let after = take(path, &owner("w1")).unwrap();
        after.empty().unwrap();
        assert!(!path.join("17.ext4").exists());
        // A start that fails takes the mark back that it set.
        next.give_back().unwrap();
        assert_eq!(contents(path), []);
    }

    #[test]
    fn a_marker_that_says_nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "fleet = 1", "\u{0}"] {
            fs::write(directory.path().join(MARKER), text).unwrap();
            let refused = take(directory.path(), &owner("w1")).unwrap_err();
            assert!(
                matches!(refused, OwnershipError::Unreadable { .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn what_a_worker_without_markers_left_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["lock", "template.1048576", "hearth.w1.17"] {
            fs::write(path.join(name), "").unwrap();
        }
        let own = take(path, &owner("w1")).unwrap();
        own.empty().unwrap();
        let left: Vec<_> = contents(path).into_iter().map(|(path, _)| path).collect();
        assert_eq!(left, [path.join(MARKER), path.join(LOCK)]);
    }

    #[test]
    fn directories_that_hold_each_other_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let below = |name: &str| directory.path().join(name);
        fs::create_dir(below("real")).unwrap();
        std::os::unix::fs::symlink(below("real"), below("link")).unwrap();
        for (state, data) in [
            ("real", "real"),
            ("real", "real/data"),
            ("new/state", "new"),
            ("link/state", "real"),
            ("real/x", "real/x/../x"),
        ] {
            let (state, data) = (below(state), below(data));
            let refused = OwnDirectory::take([&state, &data], &[], &owner("w1")).unwrap_err();
            assert!(
                matches!(refused, OwnershipError::Nested { .. }),
                "{refused}"
            );
        }
        let (outer, inner) = (below("link"), below("real/sessions.erofs"));
        let refused = OwnDirectory::take([&outer], &[&inner], &owner("w1")).unwrap_err();
        assert!(
            matches!(refused, OwnershipError::Nested { .. }),
            "{refused}"
        );
        // Nothing outside is emptied.
        let inside = OwnDirectory::take([&below("real/w1")], &[&below("real")], &owner("w1"));
        let [inside] = inside.unwrap();
        inside.leave().unwrap();
        fs::remove_dir(below("real/w1")).unwrap();
        assert_eq!(contents(&below("real")), []);
        assert!(!below("new").exists());
        let (state, data) = (below("w-1"), below("w-10"));
        OwnDirectory::take([&state, &data], &[], &owner("w1")).unwrap();
    }

    #[test]
    fn what_is_mounted_inside_is_found() {
        let table = "\
22 1 0:20 / /srv rw - ext4 /dev/sda rw
23 22 0:21 / /srv/data\\040disk rw - ext4 /dev/sdb rw
24 23 0:22 /x /srv/data\\040disk/backup rw - ext4 /dev/sda rw";
        let inside = |path: &str| mount_inside(table, Path::new(path));
        assert_eq!(
            inside("/srv/data disk"),
            Some("/srv/data disk/backup".into())
        );
        assert_eq!(inside("/srv/data"), None);
        assert_eq!(inside("/srv/data disk/backup"), None);
    }
}
