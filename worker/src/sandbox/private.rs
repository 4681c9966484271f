//! Mounts that only one helper process sees: they vanish with it, whatever ends it.

use std::io;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::sys;

/// An empty in-memory directory in the private mounts, for everything that a helper makes. Not a
/// directory of the worker's, because the users of the cages must be able to pass through all of
/// its parents.
pub(super) const DIRECTORY: &str = "/run";

/// Gives this single-threaded process mounts of its own, with [`DIRECTORY`]. New mounts of the host
/// still arrive, none leaves. Whoever started the worker may have forbidden others to read new
/// files; the cages' users are such others.
pub(super) fn enter() -> io::Result<()> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::unshare_mounts()?;
    let below = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", below)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount(
        "tmpfs",
        DIRECTORY,
        "tmpfs",
        flags,
        c"mode=755,size=64m",
    )?)
}
