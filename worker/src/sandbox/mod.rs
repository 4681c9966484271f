//! Sandboxes: where the code of sessions runs.
//!
//! A sandbox is made in two steps, so that the slow one is off the path of requests:
//!
//! * a **cage** is an empty OCI container, made by libcontainer in [`caged`], with namespaces,
//!   cgroups, a private root and a data filesystem ([`volume`]) but no program: its PID 1 is a copy
//!   of `caged` that only reaps;
//! * a **join** forks the zygote, a warm Python process that lives inside the image ([`launcher`]),
//!   once; the child enters the cage, gives up every right and runs the session's kernel.
//!
//! ```text
//! worker  (threads, secrets)          Sandboxes, Cage, KernelProcess
//!  ├─ caged   (one thread, root)      libcontainer, mounts, watchdog
//!  │   └─ PID 1 of each cage
//!  └─ zygote  (one thread, root)      python3 + libzygote.so, no secrets
//!      └─ kernel of each session      no rights at all
//! ```
//!
//! Nothing inside a cage is trusted. Limits, signals, kills and checks come from outside; a join
//! counts only once the worker has looked at the new process from outside ([`verify`]).

mod boot;
mod cage;
pub mod caged;
mod caged_link;
mod cgroup;
mod channel;
mod config;
mod disk;
mod error;
mod helper;
pub(crate) mod host;
mod host_lock;
mod host_place;
mod kernel;
pub(crate) mod kernel_file;
pub mod launcher;
pub mod layout;
mod loops;
mod message;
mod meter;
mod own_directory;
mod private;
mod reaper;
mod sandboxes;
mod seccomp;
mod spec;
mod still_files;
mod sweep;
#[expect(
    unsafe_code,
    reason = "the one place for system calls without a safe wrapper"
)]
mod sys;
mod uids;
mod unified;
mod user_namespace;
mod verify;
mod volume;
mod zygote_link;
mod zygotes;

pub use cage::Cage;
pub use config::Config;
pub use disk::Disk;
pub use error::{SandboxError, StartError};
pub use host_place::HostPlace;
pub use kernel::{KernelHandle, KernelProcess};
pub use loops::LoopError;
pub use meter::Meter;
pub use own_directory::{DirectoryOwner, OwnershipError};
pub use sandboxes::Sandboxes;
pub use seccomp::FilterError;
pub(crate) use sys::{SharedMapping, next_shared_mapping, unread_by_peer};
pub use uids::{RANGES as CAGES_MAX, UidError};
pub use unified::HandDownError;
pub use verify::Mismatch;
pub use volume::VolumeError;

/// Refuses to go on without root, which everything here needs.
///
/// # Errors
/// This process does not run as root.
pub fn require_root() -> Result<(), StartError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(StartError::NotRoot)
    }
}

/// Filesystem of session images: read-only, compressed, and one set of cached pages for all.
const IMAGE_FILESYSTEM: &str = "erofs";

/// `argv[0]` under which the worker's binary is [`caged`].
pub const CAGED: &str = "caged";

/// `argv[0]` under which the worker's binary is the [`launcher`].
pub const ZYGOTE: &str = "zygote";
