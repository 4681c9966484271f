//! All sandboxes of a worker.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::pool::Limits;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::cage::{Cage, Parts};
use super::caged_link::CagedLink;
use super::cgroup::Hierarchies;
use super::config::Config;
use super::error::{SandboxError, StartError};
use super::loops::LoopDevice;
use super::message::{CageLimits, Make};
use super::sys::Access;
use super::uids::UidBlock;
use super::verify::Namespaces;
use super::volume::Volumes;
use super::zygote_link::Seed;
use super::zygotes::Zygotes;
use super::{seccomp, sweep};
use crate::patience::patiently;

/// Name of the lock file in the state directory.
const LOCK: &str = "lock";

/// How long the helpers of an earlier run may take to tidy up.
const TIDYING_UP: Duration = Duration::from_secs(15);

/// Pause between two attempts to take the lock.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long the destruction of all cages may take at a stop.
const FAREWELL: Duration = Duration::from_secs(20);

/// Makes cages and joins. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Sandboxes(Arc<Shared>);

/// What cages need of their maker.
#[derive(Debug)]
pub(super) struct Shared {
    config: Config,
    hierarchies: Arc<Hierarchies>,
    pub(super) caged: Arc<CagedLink>,
    pub(super) zygotes: Arc<Zygotes>,
    volumes: Volumes,
    uids: Arc<UidBlock>,
    next: AtomicU64,
    runtime: Handle,
    cages: TaskTracker,
    helpers: TaskTracker,
    // Held, not read: the device stays attached while the worker lives.
    _image: LoopDevice,
}

impl Sandboxes {
    /// Removes what an earlier run left, takes user ids and the image, and starts the helper
    /// processes. Returns when the first zygote is warm.
    ///
    /// Makes this process the reaper of its orphaned descendants.
    ///
    /// # Errors
    /// When this host cannot run sandboxes, or another worker has the same id.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // Before any helper exists: only children born later come back to this process.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| {
            StartError::Helper {
                name: super::CAGED,
                source: error.into(),
            }
        })?;
        for directory in [&config.state_dir, &config.data_dir] {
            fs::create_dir_all(directory).map_err(|source| in_directory(directory, source))?;
        }
        let lock = lock(&config.state_dir).await?;
        let hierarchies = Hierarchies::discover().map_err(StartError::Cgroups)?;
        sweep::cages(&hierarchies, config.worker.as_str())
            .await
            .map_err(StartError::Cgroups)?;
        hierarchies.make_worker(config.worker.as_str())?;
        for (directory, keep) in [(&config.state_dir, Some(LOCK)), (&config.data_dir, None)] {
            sweep::directory(directory, keep).map_err(|error| in_directory(directory, error))?;
        }
        let uids = UidBlock::take(&config.uid_dir)?;
        let filter = seccomp::session_filter()?;
        let image = attach_image(&config)?;

        let helpers = TaskTracker::new();
        let (caged, serve_caged) = CagedLink::start(&config, image.path(), &lock).await?;
        helpers.spawn(serve_caged);
        let seed = Seed {
            config: config.clone(),
            image: image.path().to_owned(),
            filter,
        };
        let (zygotes, keep_zygotes) = match Zygotes::start(seed).await {
            Ok(started) => started,
            Err(error) => {
                caged.close();
                caged.ended().await;
                return Err(error);
            }
        };
        helpers.spawn(keep_zygotes);
        let shared = Arc::new(Shared {
            volumes: Volumes::new(config.data_dir.clone()),
            config,
            hierarchies,
            caged,
            zygotes,
            uids,
            next: AtomicU64::new(1),
            runtime: Handle::current(),
            cages: TaskTracker::new(),
            helpers,
            _image: image,
        });
        // From here on the worker must beat: nothing has to be killed that does not exist yet, and a
        // zygote takes its time to warm up.
        shared.caged.beat(Instant::now());
        Ok(Self(shared))
    }

    /// Makes an empty cage with its data filesystem.
    ///
    /// # Errors
    /// When the host or this worker has no room for it, or `caged` cannot make it.
    pub async fn cage(&self, limits: &Limits) -> Result<Cage, SandboxError> {
        let (shared, limits) = (Arc::clone(&self.0), limits.clone());
        // On its own task: when the caller stops waiting, the cage is dropped, not forgotten.
        let made = self.0.spawn(async move { shared.make_cage(&limits).await });
        made.await
            .map_err(|error| SandboxError::System(io::Error::other(error)))?
    }

    /// Tells that this worker's lease is fresh. `taken` is the time *before* its renewal was sent.
    pub fn beat(&self, taken: Instant) {
        self.0.caged.beat(taken);
    }

    /// Resolves when `caged` has ended, and every cage with it. The worker has nothing left to
    /// serve with then.
    pub async fn failed(&self) {
        self.0.caged.ended().await;
    }

    /// Kills all cages and ends the helper processes. Waits for what destruction is already under
    /// way; what is left is removed by the next start.
    pub async fn stop(self) {
        let shared = &self.0;
        shared.cages.close();
        shared.zygotes.stop();
        if tokio::time::timeout(patiently(FAREWELL), shared.cages.wait())
            .await
            .is_err()
        {
            tracing::warn!("some cages are not removed in time");
        }
        shared.caged.close();
        shared.helpers.close();
        if tokio::time::timeout(patiently(FAREWELL), shared.helpers.wait())
            .await
            .is_err()
        {
            tracing::warn!("some helper processes do not end in time");
        }
        if let Err(error) = sweep::cages(&shared.hierarchies, shared.config.worker.as_str()).await {
            tracing::warn!(%error, "some cgroups are not removed");
        }
        for (directory, keep) in [
            (&shared.config.state_dir, LOCK),
            (&shared.config.data_dir, ""),
        ] {
            if let Err(error) = sweep::directory(directory, Some(keep)) {
                tracing::warn!(%error, directory = %directory.display(), "it is not emptied");
            }
        }
    }
}

impl Shared {
    /// Runs a task that a [`stop`](Sandboxes::stop) waits for.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.cages.spawn_on(task, &self.runtime)
    }

    async fn make_cage(self: Arc<Self>, limits: &Limits) -> Result<Cage, SandboxError> {
        let uids = self.uids.range().ok_or(SandboxError::CagesExhausted)?;
        let worker = self.config.worker.as_str();
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let label = format!("hearth/{worker}/{name}");
        let device = self.volumes.make(limits.data_bytes, &label).await?;
        let made = self.caged.make(|id| Make {
            id,
            cage: name.clone(),
            uid_base: uids.base(),
            data: device.path().to_owned(),
            limits: CageLimits {
                memory_bytes: limits.memory_bytes,
                processes: limits.processes,
                cpu_millis: limits.cpu_millis,
                scratch_bytes: limits.scratch_bytes,
            },
        });
        let made = made.await?;
        let namespaces = Namespaces::of_cage(made.pid);
        let (namespaces, mismatch) = match namespaces {
            Ok(namespaces) => (namespaces, None),
            Err(mismatch) => (Namespaces::none(), Some(mismatch)),
        };
        let parts = Parts {
            cgroups: self.hierarchies.cage(worker, &name),
            name,
            pid: made.pid,
            pidfd: made.pidfd,
            data: Arc::new(made.data),
            device: device.release(),
            namespaces,
            uids,
        };
        let cage = Cage::new(self, parts);
        match mismatch {
            // Dropped, and thereby destroyed.
            Some(mismatch) => Err(mismatch.into()),
            None => Ok(cage),
        }
    }
}

async fn lock(directory: &Path) -> Result<File, StartError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(|source| in_directory(directory, source))?;
    let deadline = tokio::time::Instant::now() + patiently(TIDYING_UP);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(TryLockError::WouldBlock) => return Err(StartError::InUse(directory.to_owned())),
            Err(TryLockError::Error(source)) => return Err(in_directory(directory, source)),
        }
    }
}

fn attach_image(config: &Config) -> Result<LoopDevice, StartError> {
    let failed = |source| StartError::Image {
        path: config.image.clone(),
        source,
    };
    let file = File::open(&config.image).map_err(failed)?;
    let label = format!("hearth/{}/image", config.worker.as_str());
    LoopDevice::attach(&file, Access::ReadOnly, &label).map_err(failed)
}

fn in_directory(path: &Path, source: io::Error) -> StartError {
    StartError::Directory {
        path: PathBuf::from(path),
        source,
    }
}
