//! The process of a session, as the worker holds it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::sys;
use crate::allowance::Allowance;

/// A kernel that is locked down, checked, and about to send its first frame.
#[derive(Debug)]
pub struct KernelProcess {
    /// Frames, both ways.
    pub socket: UnixStream,
    /// What the session's processes write to descriptor 1.
    pub stdout: pipe::Receiver,
    /// What they write to descriptor 2.
    pub stderr: pipe::Receiver,
    /// The process itself.
    pub process: KernelHandle,
    /// Pays for what is read of it.
    pub allowance: Arc<Allowance>,
}

/// Signals a kernel and hears of its end. Dropping it does nothing to the process.
#[derive(Clone, Debug)]
pub struct KernelHandle {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl KernelHandle {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd) -> (Self, Exit) {
        let (sender, exit) = watch::channel(None);
        let handle = Self {
            pid,
            pidfd: Arc::new(pidfd),
            exit,
        };
        (handle.clone(), Exit { handle, sender })
    }

    /// Process id, in the worker's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends SIGINT to the kernel's process group, which is what a terminal's Ctrl-C does.
    ///
    /// # Errors
    /// When the kernel has ended.
    pub fn interrupt(&self) -> io::Result<()> {
        match sys::signal_group(&self.pidfd, Signal::INT) {
            // Before Linux 6.9 a group can only be named by number; the kernel leads its group, so
            // the number is taken for as long as it lives.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                rustix::process::pidfd_send_signal(&self.pidfd, Signal::INT)?;
                Ok(rustix::process::kill_process_group(self.pid, Signal::INT)?)
            }
            sent => sent,
        }
    }

    /// Kills the kernel, not what it started; [`Cage::clear`](super::Cage::clear) kills that.
    pub fn kill(&self) {
        if let Err(error) = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL)
            && error != Errno::SRCH
        {
            tracing::warn!(pid = self.pid(), %error, "failed to kill a kernel");
        }
    }

    /// Waits until the kernel has ended. A status that was lost together with its zygote reads as
    /// killed.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let ended = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status);
        ended.unwrap_or_else(lost)
    }
}

/// The other end of [`KernelHandle::exited`], held by whoever hears of the process's end.
#[derive(Debug)]
pub(super) struct Exit {
    handle: KernelHandle,
    sender: watch::Sender<Option<ExitStatus>>,
}

impl Exit {
    pub(super) fn report(self, status: ExitStatus) {
        self.sender.send_replace(Some(status));
    }

    /// Waits for the end of a process whose zygote is gone: then it is a child of the worker.
    pub(super) async fn watch_orphan(self) {
        let status = match reap(self.handle.pid, &self.handle.pidfd).await {
            Ok(Some(status)) => status,
            // Its zygote had reaped it, but could not tell any more.
            Ok(None) => lost(),
            Err(error) => {
                tracing::warn!(%error, "failed to watch the end of an orphaned kernel");
                lost()
            }
        };
        self.report(status);
    }
}

/// Waits for a process to end and reaps it if it is a child of the worker.
pub(super) async fn reap(pid: Pid, pidfd: &OwnedFd) -> io::Result<Option<ExitStatus>> {
    let ended = sys::asynchronous(pidfd.try_clone()?, Interest::READABLE)?;
    ended.readable().await?.retain_ready();
    match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Ok(Some(ExitStatus::from_raw(status.as_raw()))),
        Ok(None) | Err(Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn lost() -> ExitStatus {
    ExitStatus::from_raw(Signal::KILL.as_raw())
}
