//! All sandboxes of a worker.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::health::{Check, Health};
use proto::pool::Limits;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::cage::{Cage, Parts};
use super::caged_link::CagedLink;
use super::cgroup::Hierarchies;
use super::config::Config;
use super::disk::{Disk, Mounted};
use super::error::{SandboxError, StartError};
use super::host_lock::HostLock;
use super::host_place::HostPlace;
use super::loops::LoopDevice;
use super::message::{CageLimits, Make};
use super::own_directory::OwnDirectory;
use super::sys::Access;
use super::uids::UidBlock;
use super::verify::Namespaces;
use super::volume::{Purpose, Volumes};
use super::zygote_link::Seed;
use super::zygotes::Zygotes;
use super::{seccomp, sweep};
use crate::patience::patiently;

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
    disk: Disk,
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
    /// Takes the worker's directories and its id on this host, user ids and the image, and starts the helper
    /// processes. When all that has succeeded, and the first zygote is warm, it removes what an earlier run
    /// left: a start that fails removes nothing.
    ///
    /// Makes this process the reaper of its orphaned descendants.
    ///
    /// # Errors
    /// When this host cannot run sandboxes, a directory is not this worker's, or another worker has the same
    /// id.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        HostPlace::take(config).await?.start().await
    }

    /// The same in the place that this worker has on its host.
    pub(super) async fn start_in(
        config: Config,
        own: &[OwnDirectory],
        hierarchies: Arc<Hierarchies>,
        lock: &HostLock,
    ) -> Result<Self, StartError> {
        // Before any helper exists: only children born later come back to this process.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| {
            StartError::Helper {
                name: super::CAGED,
                source: error.into(),
            }
        })?;
        hierarchies.make_worker(config.worker.as_str())?;
        let disk = Disk::open(
            &config.data_dir,
            config.disk_reserve_bytes,
            config.allocate_volumes,
        )?;
        let uids = UidBlock::take(&config.uid_dir)?;
        let filter = seccomp::session_filter()?;
        let image = attach_image(&config)?;

        let helpers = TaskTracker::new();
        let (caged, serve_caged) = CagedLink::start(&config, image.path(), lock).await?;
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
            volumes: Volumes::new(config.data_dir.clone(), disk.clone()),
            disk,
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
        if let Err(error) = shared.sweep(own).await {
            shared.end_helpers().await;
            return Err(error);
        }
        // From here on the worker must beat: nothing has to be killed that does not exist yet, and a
        // zygote takes its time to warm up.
        shared.caged.beat(tokio::time::Instant::now().into_std());
        Ok(Self(shared))
    }

    /// Makes an empty cage with its data filesystem.
    ///
    /// # Errors
    /// When the host or this worker has no room for it, or `caged` cannot make it.
    pub async fn cage(&self, limits: &Limits) -> Result<Cage, SandboxError> {
        self.make(limits, Purpose::Session).await
    }

    /// The same to find out whether this host can make cages, for no session: the disk's reserve does not count.
    ///
    /// # Errors
    /// The same.
    pub async fn trial_cage(&self, limits: &Limits) -> Result<Cage, SandboxError> {
        self.make(limits, Purpose::Trial).await
    }

    async fn make(&self, limits: &Limits, purpose: Purpose) -> Result<Cage, SandboxError> {
        let (shared, limits) = (Arc::clone(&self.0), limits.clone());
        // On its own task: when the caller stops waiting, the cage is dropped, not forgotten.
        let made = self
            .0
            .spawn(async move { shared.make_cage(&limits, purpose).await });
        made.await
            .map_err(|error| SandboxError::System(io::Error::other(error)))?
    }

    /// The disk of the sessions' files.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.0.disk
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

    /// Reports whether sandboxes can be made, until they cannot be made ever again.
    pub async fn report(&self, health: &Health) {
        let mut zygote = self.0.zygotes.watch();
        loop {
            if zygote.borrow_and_update().is_some() {
                health.pass(Check::Sandboxes);
            } else {
                health.fail(
                    Check::Sandboxes,
                    "the zygote ended and no other is warm yet",
                );
            }
            tokio::select! {
                changed = zygote.changed() => if changed.is_err() { return },
                () = self.failed() => {
                    health.fail(Check::Sandboxes, "caged has ended, and every sandbox with it");
                    return;
                }
            }
        }
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
        shared.disk.close();
        shared.end_helpers().await;
        if let Err(error) = shared.leave().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to remove all traces"
            );
        }
    }
}

impl Shared {
    async fn end_helpers(&self) {
        self.zygotes.stop();
        self.caged.close();
        self.helpers.close();
        if tokio::time::timeout(patiently(FAREWELL), self.helpers.wait())
            .await
            .is_err()
        {
            tracing::warn!("some helper processes do not end in time");
        }
    }

    /// Removes what an earlier run left. Only with the host's lock.
    async fn sweep(&self, own: &[OwnDirectory]) -> Result<(), StartError> {
        let worker = self.config.worker.as_str();
        sweep::cages(&self.hierarchies, worker)
            .await
            .map_err(StartError::Cgroups)?;
        for directory in own {
            directory.empty()?;
        }
        Ok(())
    }

    /// Removes everything that is this worker's, now that its helpers have ended and with them the host's
    /// lock: if a new run of this worker has it by now, everything is that run's.
    async fn leave(&self) -> Result<(), StartError> {
        let (config, hierarchies) = (&self.config, &self.hierarchies);
        let lock = match HostLock::take(config, hierarchies, Duration::ZERO).await {
            Err(StartError::InUse { .. }) => return Ok(()),
            lock => lock?,
        };
        let own = OwnDirectory::take(config.own(), &[], &config.owner())?;
        self.sweep(&own).await?;
        for directory in &own {
            directory.leave()?;
        }
        hierarchies
            .remove_worker(config.worker.as_str())
            .map_err(StartError::Cgroups)?;
        drop(lock);
        Ok(())
    }

    /// Runs a task that a [`stop`](Sandboxes::stop) waits for.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.cages.spawn_on(task, &self.runtime)
    }

    async fn make_cage(
        self: Arc<Self>,
        limits: &Limits,
        purpose: Purpose,
    ) -> Result<Cage, SandboxError> {
        let uids = self.uids.range().ok_or(SandboxError::CagesExhausted)?;
        let worker = self.config.worker.as_str();
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let label = format!("hearth/{worker}/{name}");
        let volume = self
            .volumes
            .make(limits.data_bytes, purpose, &name, label)
            .await?;
        let device = volume.device;
        let made = self.caged.make(|id| Make {
            id,
            cage: name.clone(),
            uid_base: uids.base(),
            data: device.path().to_owned(),
            // What is deleted inside is free on the disk at once, unless it is to stay allocated.
            discard: !self.disk.is_whole(),
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
        let data = Arc::new(made.data);
        let entered = self.disk.enter(Mounted {
            cage: name.clone(),
            data: Arc::downgrade(&data),
            image: volume.image,
            device: device.path().to_owned(),
        });
        let parts = Parts {
            cgroups: self.hierarchies.cage(worker, &name),
            name,
            pid: made.pid,
            pidfd: made.pidfd,
            data,
            account: entered.as_ref().ok().cloned(),
            device: device.release(),
            namespaces,
            uids,
        };
        let cage = Cage::new(self, parts);
        // The cage is dropped if that failed: it could fill the disk.
        entered.map_err(SandboxError::Growth)?;
        match mismatch {
            // Dropped, and thereby destroyed.
            Some(mismatch) => Err(mismatch.into()),
            None => Ok(cage),
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
    Ok(LoopDevice::attach(&file, Access::ReadOnly, &label)?)
}
