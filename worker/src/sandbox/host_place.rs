//! A worker's place on its host: its directories, which say so, and the locks of its id. Whoever has it knows
//! that no other worker of this id lives on this host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Sandboxes;
use super::cgroup::Hierarchies;
use super::config::Config;
use super::error::StartError;
use super::host_lock::{self, HostLock};
use super::own_directory::OwnDirectory;

/// The place of one worker. Dropped before sandboxes were made in it, it is as it was found.
#[derive(Debug)]
pub struct HostPlace {
    config: Config,
    hierarchies: Arc<Hierarchies>,
    own: [OwnDirectory; 2],
    lock: HostLock,
    /// Nothing was made in it yet, or everything is gone again.
    is_unused: bool,
}

impl HostPlace {
    /// Takes the worker's directories and, as soon as an earlier run has tidied up, the locks of its id.
    /// Nothing of that run is removed yet.
    ///
    /// # Errors
    /// A directory is not this worker's, or another worker has the same id on this host.
    pub async fn take(config: Config) -> Result<Self, StartError> {
        let hierarchies = Hierarchies::discover().map_err(StartError::Cgroups)?;
        let mut elsewhere: Vec<&Path> = vec![&config.image, &config.uid_dir];
        elsewhere.extend(config.elsewhere.iter().map(PathBuf::as_path));
        let paths = [config.state_dir.as_path(), config.data_dir.as_path()];
        let mut own = OwnDirectory::take(paths, &elsewhere, &config.owner())?;
        match lock(&config, &hierarchies, &mut own).await {
            Ok(lock) => Ok(Self {
                config,
                hierarchies,
                own,
                lock,
                is_unused: true,
            }),
            Err(error) => {
                give_back(&own);
                Err(error)
            }
        }
    }

    /// Makes sandboxes possible here; see [`Sandboxes::start`].
    ///
    /// # Errors
    /// When this host cannot run sandboxes. The place is as it was found then.
    pub async fn start(mut self) -> Result<Sandboxes, StartError> {
        // Helpers may outlive whoever stops waiting: their directories stay marked.
        self.is_unused = false;
        let started = Sandboxes::start_in(
            self.config.clone(),
            &self.own,
            Arc::clone(&self.hierarchies),
            &self.lock,
        );
        let started = started.await;
        self.is_unused = started.is_err();
        started
    }
}

impl Drop for HostPlace {
    /// Before the locks are free.
    fn drop(&mut self) {
        if !self.is_unused {
            return;
        }
        let worker = self.config.worker.as_str();
        if let Err(error) = self.hierarchies.remove_worker(worker) {
            tracing::debug!(%error, "this worker's cgroups stay");
        }
        give_back(&self.own);
    }
}

async fn lock(
    config: &Config,
    hierarchies: &Hierarchies,
    own: &mut [OwnDirectory],
) -> Result<HostLock, StartError> {
    let lock = HostLock::take(config, hierarchies, host_lock::TIDYING_UP).await?;
    // Whoever had the locks until now took the marks away when it ended.
    for directory in own {
        directory.mark_again(&config.owner())?;
    }
    Ok(lock)
}

fn give_back(own: &[OwnDirectory]) {
    for directory in own {
        if let Err(error) = directory.give_back() {
            tracing::warn!(%error, "failed to remove the marker of a directory");
        }
    }
}
