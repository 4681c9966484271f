//! Removes what an earlier run of the same worker left behind, and nothing of anybody else.
//!
//! Mounts and loop devices need no sweeping: mounts lived in the namespaces of processes that are
//! gone, and a loop device without a user detaches itself.

use std::fs;
use std::io;
use std::path::Path;

use super::cgroup::Hierarchies;

/// Kills every process in the cages of a worker and removes the cages' cgroups.
pub(super) async fn cages(
    hierarchies: &std::sync::Arc<Hierarchies>,
    worker: &str,
) -> io::Result<()> {
    for name in hierarchies.cages(worker)? {
        let cage = hierarchies.cage(worker, &name);
        if cage.processes().is_ok() {
            cage.thaw()?;
            cage.kill_all_but(None).await?;
        }
        cage.remove()?;
    }
    hierarchies.remove_worker(worker)
}

/// Empties a directory, all but one entry.
pub(super) fn directory(directory: &Path, keep: Option<&str>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if keep.is_some_and(|keep| entry.file_name() == keep) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
