//! Removes what an earlier run of the same worker left behind, and nothing of anybody else.
//!
//! Mounts and loop devices need no sweeping: mounts lived in the namespaces of processes that are
//! gone, and a loop device without a user detaches itself.

use std::io;

use super::cgroup::Hierarchies;

/// Kills every process in the cages of a worker and removes the cages' cgroups. The worker's own stay: their
/// directory is locked.
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
    Ok(())
}
