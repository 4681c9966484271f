//! A cage, as the worker holds it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use zygote::wire::{SESSION_ID, Step};

use super::cgroup::Cgroups;
use super::disk::Account;
use super::error::SandboxError;
use super::kernel::{KernelHandle, KernelProcess};
use super::loops::Released;
use super::meter::Meter;
use super::sandboxes::Shared;
use super::sys;
use super::uids::UidRange;
use super::verify::{self, Namespaces};
use crate::allowance::Allowance;
use crate::patience::patiently;

/// How long a forked kernel may take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(15);

/// How long the data filesystem may stay in use after everything in the cage has ended.
const LET_GO: Duration = Duration::from_secs(5);

/// First pause between two looks at whether it still is.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// One isolated place for one session, with its data filesystem.
///
/// Dropping it begins its destruction; [`destroy`](Self::destroy) also waits for the end of it.
#[derive(Debug)]
#[must_use = "a dropped cage is destroyed"]
pub struct Cage {
    shared: Arc<Shared>,
    parts: Option<Parts>,
    allowance: Arc<Allowance>,
}

/// What a cage consists of. Everything that it holds open is released by [`Parts::destroy`].
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) data: Arc<OwnedFd>,
    /// What it takes of the disk; none if it could not be entered, and the cage is dropped.
    pub(super) account: Option<Arc<Account>>,
    pub(super) device: Released,
    pub(super) cgroups: Cgroups,
    pub(super) namespaces: Namespaces,
    pub(super) uids: UidRange,
}

impl Cage {
    pub(super) fn new(shared: Arc<Shared>, parts: Parts) -> Self {
        Self {
            shared,
            parts: Some(parts),
            allowance: Arc::default(),
        }
    }

    /// Starts a kernel in this cage and returns once it is verified from outside and about to send
    /// its first frame. There should be no other; see [`clear`](Self::clear).
    ///
    /// # Errors
    /// When no kernel can be started, or one is not locked down; it is killed then.
    pub async fn join(&self) -> Result<KernelProcess, SandboxError> {
        let parts = self.parts();
        let (socket, inner_socket) = UnixStream::pair()?;
        if let Err(error) = sys::refuse_descriptors(&socket) {
            // An older Linux: then they end the kernel when they are received.
            tracing::debug!(%error, "descriptors cannot be refused before they are sent");
        }
        let (stdout, inner_stdout) = std::io::pipe()?;
        let (stderr, inner_stderr) = std::io::pipe()?;
        let inner_socket = inner_socket.into_std()?;
        inner_socket.set_nonblocking(false)?;
        let entrances = Arc::new(parts.cgroups.entrances()?);
        let (primed, resident) = (Arc::clone(&entrances), parts.pid);
        // Beside the fork, which takes about as long.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = Cgroups::prime_move(&primed, resident) {
                tracing::debug!(%error, "failed to prime the move to the cage's control groups");
            }
        });
        let mut descriptors = vec![
            inner_socket.as_fd(),
            inner_stdout.as_fd(),
            inner_stderr.as_fd(),
            parts.pidfd.as_fd(),
        ];
        descriptors.extend(entrances.iter().map(AsFd::as_fd));
        let process = self.shared.zygotes.join(&descriptors).await?;
        drop((inner_socket, inner_stdout, inner_stderr));
        let kernel = KernelProcess {
            socket,
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
            process,
            allowance: Arc::clone(&self.allowance),
        };
        let ready = async {
            first_byte(&kernel).await?;
            let uid_base = parts.uids.base();
            let pid = kernel.process.pid();
            Ok(verify::kernel(
                pid,
                &parts.namespaces,
                &parts.cgroups,
                uid_base,
            )?)
        };
        match ready.await {
            Ok(()) => Ok(kernel),
            Err(error) => {
                kernel.process.kill();
                Err(error)
            }
        }
    }

    /// Kills everything inside but the cage itself, and returns when it is gone. `/mnt/data` and
    /// the private directories stay; what is left of shared memory and message queues goes with the
    /// next join.
    ///
    /// # Errors
    /// When the processes do not end in time; the cage must be replaced then.
    pub async fn clear(&self) -> Result<(), SandboxError> {
        let parts = self.parts();
        Ok(parts
            .cgroups
            .kill_all_but(Pid::from_raw(parts.pid.cast_signed()))
            .await?)
    }

    /// The root of the data filesystem, which [`layout`](super::layout) describes. Its files belong to
    /// the session: nothing in them may be
    /// followed or trusted. Whoever keeps a copy delays the destruction of the cage.
    #[must_use]
    pub fn data(&self) -> &Arc<OwnedFd> {
        &self.parts().data
    }

    /// Host user and group id of the session, for files put into `/mnt/data`.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        let id = self.parts().uids.base() + SESSION_ID;
        (id, id)
    }

    /// What the worker itself may spend on the session in here.
    #[must_use]
    pub fn allowance(&self) -> &Arc<Allowance> {
        &self.allowance
    }

    /// Name within the worker, for logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts().name
    }

    /// Processes that the kernel killed because the memory limit was reached, since the cage was
    /// made.
    ///
    /// # Errors
    /// When the cage is gone.
    pub fn oom_kills(&self) -> io::Result<u64> {
        self.parts().cgroups.oom_kills()
    }

    /// Forks and threads that were refused because the process limit was reached.
    ///
    /// # Errors
    /// When the cage is gone.
    pub fn pids_denied(&self) -> io::Result<u64> {
        self.parts().cgroups.pids_denied()
    }

    /// Measures what is used from now on.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter::start(self.parts().cgroups.clone())
    }

    /// Memory in use, in bytes: private pages, scratch files, and cached pages of `/mnt/data`.
    ///
    /// # Errors
    /// When the cage is gone.
    pub fn memory_bytes(&self) -> io::Result<u64> {
        self.parts().cgroups.memory_bytes()
    }

    /// Processor time that was used in here since the cage was made, in microseconds.
    ///
    /// # Errors
    /// When the cage is gone.
    pub fn cpu_us(&self) -> io::Result<u64> {
        self.parts().cgroups.cpu_us()
    }

    /// Ids of the processes inside, the cage's own PID 1 left out.
    ///
    /// # Errors
    /// When the cage is gone.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let parts = self.parts();
        let processes = parts.cgroups.processes()?;
        let numbers = processes
            .into_iter()
            .map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        Ok(numbers.filter(|&pid| pid != parts.pid).collect())
    }

    /// Id of the cage's own PID 1, which adopts what others inside leave behind.
    #[must_use]
    pub fn resident(&self) -> u32 {
        self.parts().pid
    }

    /// A session begins here: from now on the cage has a session's part of the disk.
    pub fn open_for_session(&self) {
        if let Some(account) = &self.parts().account {
            account.open_for_session();
        }
    }

    /// Prepares for this worker to write so many bytes into the data filesystem. False when the disk does
    /// not have them above its reserve. They are kept for it until [`filled`](Self::filled).
    #[must_use]
    pub fn make_room(&self, bytes: u64) -> bool {
        let account = self.parts().account.as_ref();
        account.is_none_or(|account| account.make_room(bytes))
    }

    /// What was promised by [`make_room`](Self::make_room) is written, or will not be.
    pub fn filled(&self) {
        if let Some(account) = &self.parts().account {
            account.filled();
        }
    }

    /// Returns when the session in this cage must end: it takes much of the disk, whose reserve is reached.
    pub async fn stopped_for_disk(&self) {
        match &self.parts().account {
            Some(account) => account.stopped().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the session used up its part of the disk: what it writes is refused, though its own data
    /// filesystem is not full.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        let account = self.parts().account.as_ref();
        account.is_some_and(|account| account.is_starved())
    }

    /// Stops everything inside; returns when nothing runs any more.
    ///
    /// # Errors
    /// When it does not stop in time; it runs on then.
    pub async fn freeze(&self) -> io::Result<()> {
        self.parts().cgroups.freeze().await
    }

    /// Lets everything inside go on.
    ///
    /// # Errors
    /// When the cage is gone.
    pub fn thaw(&self) -> io::Result<()> {
        self.parts().cgroups.thaw()
    }

    /// Kills everything inside and waits until processes, cgroups, mounts, loop device and data
    /// are gone.
    ///
    /// # Errors
    /// When something stays; it is removed when the worker ends.
    pub async fn destroy(mut self) -> Result<(), SandboxError> {
        let Some(parts) = self.parts.take() else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        // On its own task: whoever waits may stop waiting.
        let destroyed = self
            .shared
            .spawn(async move { parts.destroy(&shared).await });
        destroyed
            .await
            .map_err(|error| SandboxError::System(io::Error::other(error)))?
    }

    #[expect(
        clippy::expect_used,
        reason = "the parts leave only together with the cage"
    )]
    fn parts(&self) -> &Parts {
        self.parts
            .as_ref()
            .expect("a cage has its parts until it is destroyed")
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            let shared = Arc::clone(&self.shared);
            self.shared.spawn(async move {
                let name = parts.name.clone();
                if let Err(error) = parts.destroy(&shared).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(cage = name, error, "failed to remove a cage completely");
                }
            });
        }
    }
}

impl Parts {
    async fn destroy(self, shared: &Shared) -> Result<(), SandboxError> {
        let destroyed = match shared.caged.destroy(&self.name).await {
            // Then its death has killed the cage, and the worker has inherited the remains.
            Err(SandboxError::CagedGone) => {
                if let Some(pid) = Pid::from_raw(self.pid.cast_signed()) {
                    super::kernel::reap(pid, &self.pidfd).await?;
                }
                self.cgroups.remove().map_err(SandboxError::System)
            }
            destroyed => destroyed,
        };
        drop(self.data);
        if let Some(account) = self.account {
            account.close();
        }
        let deadline = tokio::time::Instant::now() + patiently(LET_GO);
        let mut pause = LOOK_AGAIN;
        while self.device.is_attached() {
            if tokio::time::Instant::now() > deadline {
                return Err(SandboxError::DataInUse);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        destroyed
    }
}

/// Waits until there is something to read from the kernel.
async fn first_byte(kernel: &KernelProcess) -> Result<(), SandboxError> {
    let peek = kernel.socket.async_io(Interest::READABLE, || {
        let mut byte = [0_u8; 1];
        let (_, length) = rustix::net::recv(&kernel.socket, &mut byte, RecvFlags::PEEK)?;
        Ok(length)
    });
    match tokio::time::timeout(patiently(FIRST_BYTE), peek).await {
        Err(_) => Err(SandboxError::Silent),
        Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0) | Err(_)) => Err(ended_early(&kernel.process).await),
    }
}

async fn ended_early(process: &KernelHandle) -> SandboxError {
    process.kill();
    let status = process.exited().await;
    match status.code().and_then(Step::of_exit_code) {
        Some(step) => SandboxError::LockDown(step),
        None => SandboxError::EndedEarly(status),
    }
}
