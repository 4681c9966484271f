//! One living worker of an id on a host: whoever holds its locks may sweep what an earlier run left.
//!
//! One lock is on a file in the state directory. The other is on the directory of the worker's control
//! groups, which is the same for all who see the hierarchy: a second worker of the same id finds it held
//! even if it was given other directories or lives in another mount namespace. Both are `flock`s, which end
//! with the last process that has them; that is `caged`, which outlives a worker until its cages are gone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::cgroup::Hierarchies;
use super::config::Config;
use super::error::StartError;
use super::own_directory::LOCK;

/// How long the helpers of an earlier run may take to tidy up.
pub(super) const TIDYING_UP: Duration = Duration::from_secs(15);

/// Pause between two attempts to take a lock.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Both locks of a worker.
#[derive(Debug)]
pub(super) struct HostLock {
    state: File,
    cgroup: File,
}

impl HostLock {
    /// Takes both locks, as soon as they are free.
    ///
    /// # Errors
    /// They are not free within `patience`, or they cannot be taken.
    pub(super) async fn take(
        config: &Config,
        hierarchies: &Hierarchies,
        patience: Duration,
    ) -> Result<Self, StartError> {
        let deadline = Instant::now() + patience;
        let worker = config.worker.as_str();
        let cgroup = || hierarchies.worker_directory(worker);
        let cgroup = lock(&cgroup, |path| File::open(path), deadline).await;
        let state = || Ok(config.state_dir.join(LOCK));
        let state = async { lock(&state, open_file, deadline).await };
        let in_use = |held: Held| match held {
            Held::Other(path) => StartError::InUse {
                worker: config.worker.clone(),
                path,
            },
            Held::Failed(source) => StartError::Lock(source),
        };
        Ok(Self {
            cgroup: cgroup.map_err(in_use)?,
            state: state.await.map_err(in_use)?,
        })
    }

    /// For a process that is to hold them, too.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.state.as_fd(), self.cgroup.as_fd()]
    }
}

/// Why a lock is not taken.
#[derive(Debug)]
enum Held {
    /// Another process has it.
    Other(PathBuf),
    /// It cannot be opened or locked.
    Failed(io::Error),
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

async fn lock(
    place: &impl Fn() -> io::Result<PathBuf>,
    open: impl Fn(&Path) -> io::Result<File>,
    deadline: Instant,
) -> Result<File, Held> {
    loop {
        let opened = place().and_then(|path| Ok((open(&path)?, path)));
        let (file, path) = match opened {
            // A worker that ends removes the directories of its control groups: they are made anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            opened => opened.map_err(Held::Failed)?,
        };
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => return Ok(file),
            // It was removed before it was locked: nobody else will meet this lock.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(TryLockError::WouldBlock) => return Err(Held::Other(path)),
            Err(TryLockError::Error(error)) => return Err(Held::Failed(error)),
        }
    }
}

/// Whether a path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(opened), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (opened.dev(), opened.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lock_directory(path: &Path, patience: Duration) -> Result<File, Held> {
        let place = || {
            std::fs::create_dir_all(path)?;
            Ok(path.to_owned())
        };
        lock(&place, |path| File::open(path), Instant::now() + patience).await
    }

    #[tokio::test]
    async fn a_held_lock_is_waited_for_and_then_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hearth/w1");
        let held = lock_directory(&path, Duration::ZERO).await.unwrap();
        let refused = lock_directory(&path, LOOK_AGAIN * 2).await;
        assert!(matches!(refused, Err(Held::Other(named)) if named == path));
        drop(held);
        lock_directory(&path, Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_its_holder_removes_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w1");
        let ending = lock_directory(&path, Duration::ZERO).await.unwrap();
        assert!(is_at(&ending, &path));
        let waiting = lock_directory(&path, Duration::from_secs(60));
        let removing = async {
            tokio::task::yield_now().await;
            std::fs::remove_dir(&path).unwrap();
            assert!(!is_at(&ending, &path), "its lock is worth nothing");
            drop(ending);
        };
        let (next, ()) = tokio::join!(waiting, removing);
        let next = next.unwrap();
        assert!(is_at(&next, &path));
        let refused = lock_directory(&path, Duration::ZERO).await;
        assert!(matches!(refused, Err(Held::Other(_))), "{refused:?}");
    }
}
