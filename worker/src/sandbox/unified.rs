//! Handing controllers down the version 2 hierarchy.
//!
//! There, a limit can be set in a cgroup only if every cgroup above it hands the limit's controller
//! down, which it says in its `cgroup.subtree_control`. The root's file is shared with systemd,
//! which adds what its units need and takes away what they do not; the kernel refuses to take away
//! what a cgroup below hands down in turn, and ours does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What the limits of a cage need. Freezing needs no controller on version 2.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Controllers that a cgroup has.
const AVAILABLE: &str = "cgroup.controllers";

/// Controllers that the cgroups inside it have.
const HANDED_DOWN: &str = "cgroup.subtree_control";

/// How often others may undo a step before this gives up: a worker that stops removes the family's
/// directory when it is empty, and systemd changes the root's controllers.
const ATTEMPTS: u32 = 10;

/// Why no limits can be set below a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum HandDownError {
    /// The kernel lacks it, or was told to disable it, or keeps it from this container.
    #[error("cgroup {directory} has no `{controller}` controller")]
    Withheld {
        /// The cgroup.
        directory: PathBuf,
        /// The controller.
        controller: &'static str,
    },
    /// Only the root of the hierarchy can have both processes and controlled cgroups inside.
    #[error(
        "cgroup {0} holds processes; where it is not the host's root, they must be in a cgroup inside it"
    )]
    Occupied(PathBuf),
    /// A file or directory of the hierarchy.
    #[error("cgroup file {path}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl HandDownError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether somebody else may have caused it, at just this moment.
    fn may_pass(&self) -> bool {
        match self {
            Self::Withheld { .. } => true,
            Self::Occupied(_) => false,
            Self::File { source, .. } => matches!(
                Errno::from_io_error(source),
                Some(Errno::NOENT | Errno::NODEV)
            ),
        }
    }
}

/// Makes cgroups below `root`, each name inside the one before. Inside the last all controllers can
/// be used. What is there already is kept.
pub(super) fn make(root: &Path, names: &[&str]) -> Result<(), HandDownError> {
    let mut made = make_once(root, names);
    for _ in 1..ATTEMPTS {
        match &made {
            Err(error) if error.may_pass() => made = make_once(root, names),
            _ => break,
        }
    }
    made
}

/// Whether the root would hand all controllers down; changes nothing.
pub(super) fn look(root: &Path) -> Result<(), HandDownError> {
    if missing(root)?.is_empty() {
        return Ok(());
    }
    // The host's root alone has no such file, and alone can have both processes and controlled cgroups.
    let is_hosts_root = !root.join("cgroup.type").exists();
    let path = root.join("cgroup.procs");
    let processes = fs::read_to_string(&path).map_err(|error| HandDownError::file(&path, error))?;
    if is_hosts_root || processes.is_empty() {
        Ok(())
    } else {
        Err(HandDownError::Occupied(root.to_owned()))
    }
}

/// Makes a cgroup for processes.
pub(super) fn make_leaf(directory: &Path) -> Result<(), HandDownError> {
    fs::create_dir(directory).map_err(|error| HandDownError::file(directory, error))
}

fn make_once(root: &Path, names: &[&str]) -> Result<(), HandDownError> {
    let mut directory = root.to_owned();
    hand_down(&directory)?;
    for name in names {
        directory.push(name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(HandDownError::file(&directory, error));
            }
            _ => hand_down(&directory)?,
        }
    }
    Ok(())
}

/// What must be written so that a cgroup hands all controllers down.
fn missing(directory: &Path) -> Result<String, HandDownError> {
    let read = |name| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|error| HandDownError::file(&path, error))
    };
    let change = change(&read(AVAILABLE)?, &read(HANDED_DOWN)?);
    change.map_err(|controller| HandDownError::Withheld {
        directory: directory.to_owned(),
        controller,
    })
}

fn hand_down(directory: &Path) -> Result<(), HandDownError> {
    let change = missing(directory)?;
    if change.is_empty() {
        return Ok(());
    }
    let path = directory.join(HANDED_DOWN);
    fs::write(&path, change).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => HandDownError::Occupied(directory.to_owned()),
        _ => HandDownError::file(&path, error),
    })
}

/// What to write so that all controllers are handed down, or the one that cannot be. Others' choices
/// are kept.
fn change(available: &str, handed_down: &str) -> Result<String, &'static str> {
    let has = |list: &str, name: &str| list.split_whitespace().any(|one| one == name);
    let mut change = Vec::new();
    for name in CONTROLLERS {
        if !has(available, name) {
            return Err(name);
        }
        if !has(handed_down, name) {
            change.push(format!("+{name}"));
        }
    }
    Ok(change.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_handed_down_yet_is_added() {
        let all = "cpuset cpu io memory hugetlb pids rdma misc\n";
        assert_eq!(change(all, "\n").unwrap(), "+memory +pids +cpu");
        assert_eq!(change(all, "memory pids\n").unwrap(), "+cpu");
        assert_eq!(change(all, "cpuset cpu io memory pids\n").unwrap(), "");
        // `cpuset` is not `cpu`.
        assert_eq!(change(all, "cpuset memory pids\n").unwrap(), "+cpu");
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        assert_eq!(change("cpuset io memory pids\n", "\n"), Err("cpu"));
        assert_eq!(change("cpu pids\n", "cpu pids\n"), Err("memory"));
        assert_eq!(change("\n", "\n"), Err("memory"));
    }

    /// A directory that looks like a cgroup; unlike the kernel it makes no files by itself.
    fn cgroup(directory: &Path, available: &str, handed_down: &str) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(AVAILABLE), available).unwrap();
        fs::write(directory.join(HANDED_DOWN), handed_down).unwrap();
    }

    #[test]
    fn every_cgroup_on_the_way_hands_down() {
        let root = tempfile::tempdir().unwrap();
        let [family, worker] = ["hearth", "hearth/worker-1"].map(|name| root.path().join(name));
        cgroup(root.path(), "cpu memory pids", "memory pids");
        cgroup(&family, "cpu memory pids", "");
        cgroup(&worker, "cpu memory pids", "cpu memory pids");
        make(root.path(), &["hearth", "worker-1"]).unwrap();
        let written = |directory: &Path| fs::read_to_string(directory.join(HANDED_DOWN)).unwrap();
        assert_eq!(written(root.path()), "+cpu");
        assert_eq!(written(&family), "+memory +pids +cpu");
        assert_eq!(written(&worker), "cpu memory pids");
    }

    #[test]
    fn a_look_tells_what_would_be_refused_and_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let handed_down = || fs::read_to_string(root.path().join(HANDED_DOWN)).unwrap();
        cgroup(root.path(), "cpu memory pids", "memory pids");
        fs::write(root.path().join("cgroup.procs"), "1\n").unwrap();
        look(root.path()).unwrap();
        // A container's root.
        fs::write(root.path().join("cgroup.type"), "domain\n").unwrap();
        let refused = look(root.path());
        assert!(
            matches!(refused, Err(HandDownError::Occupied(_))),
            "{refused:?}"
        );
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        look(root.path()).unwrap();
        assert_eq!(handed_down(), "memory pids");
        cgroup(root.path(), "cpu memory", "");
        let refused = look(root.path());
        assert!(
            matches!(refused, Err(HandDownError::Withheld { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn the_cgroup_that_lacks_a_controller_is_named() {
        let root = tempfile::tempdir().unwrap();
        let family = root.path().join("hearth");
        cgroup(root.path(), "cpu memory pids", "cpu memory pids");
        cgroup(&family, "cpu memory", "");
        let refused = make(root.path(), &["hearth", "worker-1"]);
        assert!(
            matches!(&refused, Err(HandDownError::Withheld { directory, controller: "pids" })
                if *directory == family),
            "{refused:?}"
        );
        assert!(!family.join("worker-1").exists());
    }
}
