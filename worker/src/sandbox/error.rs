//! Why there is no sandbox.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use proto::id::WorkerId;
use zygote::wire::Step;

use super::loops::LoopError;
use super::own_directory::OwnershipError;
use super::seccomp::FilterError;
use super::uids::UidError;
use super::unified::HandDownError;
use super::verify::Mismatch;
use super::volume::VolumeError;

/// Why a worker cannot make sandboxes at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Namespaces, mounts and cgroups take root.
    #[error("sandboxes need root")]
    NotRoot,
    /// The image is no filesystem that the kernel can mount.
    #[error("failed to mount image {path}: {reason}")]
    Mount {
        /// The image.
        path: PathBuf,
        /// In the words of `caged`.
        reason: String,
    },
    /// A directory is not this worker's, or cannot be made or emptied.
    #[error(transparent)]
    Directory(#[from] OwnershipError),
    /// A worker with the same id or the same state directory runs on this host, or its last helper is still
    /// tidying up.
    #[error(
        "worker `{worker}` runs already, on this host: it holds {path}; `--id` is unique in a fleet, and \
         every worker needs directories of its own; stop that worker or give this one another `--id`"
    )]
    InUse {
        /// The id that this worker was given.
        worker: WorkerId,
        /// What the other one holds.
        path: PathBuf,
    },
    /// A lock that keeps a second worker of this id away cannot be taken.
    #[error("failed to lock the id of this worker in its cgroups")]
    Lock(#[source] io::Error),
    /// The disk of the data directory cannot be measured.
    #[error("failed to measure the disk of {directory}")]
    Disk {
        /// The data directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The cgroup hierarchies are incomplete, or those of an earlier run cannot be removed.
    #[error("failed to set up control groups")]
    Cgroups(#[source] io::Error),
    /// Version 2 only: limits cannot be set in the cgroups of this worker.
    #[error(transparent)]
    HandDown(#[from] HandDownError),
    /// No block of user ids.
    #[error(transparent)]
    Uids(#[from] UidError),
    /// No system-call filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The image cannot be opened or attached to a loop device.
    #[error("failed to open image {path}")]
    Image {
        /// The image.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A helper process cannot be started or talked to.
    #[error("helper process `{name}`")]
    Helper {
        /// `caged` or `zygote`.
        name: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A helper process was killed by the kernel.
    #[error("helper process `{name}` was killed at its start, for lack of memory")]
    Killed {
        /// `caged` or `zygote`.
        name: &'static str,
    },
    /// A helper process ended without saying why over its socket.
    #[error("helper process `{name}` ended at its start: {status}")]
    EndedEarly {
        /// `caged` or `zygote`.
        name: &'static str,
        /// How.
        status: ExitStatus,
    },
    /// A loop device for the image.
    #[error("loop device for the image")]
    Loop(#[from] LoopError),
    /// A helper process gave up; its reason.
    #[error("helper process `{name}`: {reason}")]
    Refused {
        /// `caged` or `zygote`.
        name: &'static str,
        /// In its own words.
        reason: String,
    },
}

/// Why one sandbox cannot be made, joined or removed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A worker has a fixed number of user id ranges.
    #[error("this worker has as many cages as it can have")]
    CagesExhausted,
    /// No data filesystem.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// `caged` could not do it.
    #[error("caged: {0}")]
    Caged(String),
    /// `caged` has ended, and all cages with it.
    #[error("caged has ended")]
    CagedGone,
    /// The zygote ended, and no new one was ready in time.
    #[error("there is no zygote")]
    NoZygote,
    /// The zygote could not fork into the cage.
    #[error("the zygote could not fork into the cage")]
    Fork(#[source] io::Error),
    /// The new process ended itself because this step of its lock-down failed.
    #[error("a kernel could not be locked down: {0:?}")]
    LockDown(Step),
    /// The new process ended before it said anything.
    #[error("a kernel ended before it was ready: {0}")]
    EndedEarly(ExitStatus),
    /// The new process said nothing in time.
    #[error("a kernel was not ready in time")]
    Silent,
    /// The new process is not locked down as it must be; it was killed.
    #[error("a kernel is not locked down")]
    Mismatch(#[from] Mismatch),
    /// The growth of the data filesystem cannot be bounded; `/sys` may be read-only.
    #[error("failed to bound the growth of a data filesystem")]
    Growth(#[source] io::Error),
    /// The data filesystem is still in use after the cage is gone.
    #[error("the data filesystem of a removed cage is still in use")]
    DataInUse,
    /// A system call failed.
    #[error("system call")]
    System(#[from] io::Error),
}
