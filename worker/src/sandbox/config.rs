//! What a worker decides about its sandboxes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::id::WorkerId;

use super::own_directory::{DirectoryOwner, OwnDirectory, OwnershipError};

/// Settings of [`Sandboxes`](super::Sandboxes).
#[derive(Clone, Debug)]
pub struct Config {
    /// Names of cgroups and loop devices carry it; one running worker per id.
    pub worker: WorkerId,
    /// The fleet that the worker's directories belong to.
    pub fleet: String,
    /// The session image, an erofs file.
    pub image: PathBuf,
    /// `libzygote.so`.
    pub zygote_library: PathBuf,
    /// Private directory of this worker, best on tmpfs. Emptied at start if it is marked as this worker's.
    pub state_dir: PathBuf,
    /// Private directory of this worker on a disk with room for the data of all its sessions.
    /// Emptied at start if it is marked as this worker's.
    pub data_dir: PathBuf,
    /// What must not lie in either of them, besides the image and the lock files of user ids.
    pub elsewhere: Vec<PathBuf>,
    /// Bytes of that disk that stay free; by default a tenth of it, at most 4 GiB.
    pub disk_reserve_bytes: Option<u64>,
    /// Data filesystems take all their space on the disk when they are made.
    pub allocate_volumes: bool,
    /// Lock files of user id blocks, the same for all workers of a host.
    pub uid_dir: PathBuf,
    /// The worker's binary, run again for `caged` and the zygote.
    pub helper: PathBuf,
    /// All cages are killed when no [beat](super::Sandboxes::beat) is younger than this.
    pub beat_ttl: Duration,
    /// Joins after which a zygote is replaced, because its sessions share hash seed and address
    /// layout; at least 1.
    pub zygote_joins: u32,
    /// Age at which a zygote is replaced.
    pub zygote_age: Duration,
}

impl Config {
    /// What the marks on this worker's directories say.
    pub(super) fn owner(&self) -> DirectoryOwner {
        DirectoryOwner {
            fleet: self.fleet.clone(),
            worker: self.worker.clone(),
        }
    }

    /// The directories that this worker empties.
    pub(super) fn own(&self) -> [&Path; 2] {
        [&self.state_dir, &self.data_dir]
    }

    /// What must not lie in them.
    pub(super) fn others(&self) -> Vec<&Path> {
        let elsewhere = self.elsewhere.iter().map(PathBuf::as_path);
        [self.image.as_path(), self.uid_dir.as_path()]
            .into_iter()
            .chain(elsewhere)
            .collect()
    }

    /// Whether the worker's directories are its own, or may become so. Changes nothing.
    ///
    /// # Errors
    /// One is not, or holds what must not lie in it.
    pub fn inspect_directories(&self) -> Result<(), OwnershipError> {
        OwnDirectory::look(self.own(), &self.others(), &self.owner())
    }

    /// The usual settings for what has no usual value.
    #[must_use]
    pub fn new(worker: WorkerId, image: PathBuf, zygote_library: PathBuf) -> Self {
        let state_dir = PathBuf::from("/run/hearth").join(worker.as_str());
        let data_dir = PathBuf::from("/var/lib/hearth").join(worker.as_str());
        Self {
            worker,
            fleet: String::new(),
            image,
            zygote_library,
            state_dir,
            data_dir,
            elsewhere: Vec::new(),
            disk_reserve_bytes: None,
            allocate_volumes: false,
            uid_dir: "/run/hearth/uids".into(),
            helper: "/proc/self/exe".into(),
            beat_ttl: Duration::from_secs(8),
            zygote_joins: 1000,
            zygote_age: Duration::from_secs(3600),
        }
    }
}
