//! What lies where on a session's filesystem: its files, which it sees as `/mnt/data`, and beside them,
//! where it sees nothing, what is about to become one of them. So no name below `/mnt/data` means
//! anything to the platform.

use std::{io, os::fd::AsFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid};

/// The directory that the session sees as `/mnt/data`.
pub const FILES: &str = "files";
/// The directory in which a file that replaces another gets its first name.
pub const UPLOADS: &str = "uploads";

/// Makes both directories in an empty filesystem; the files belong to `owner` (user, group).
///
/// # Errors
/// One of them exists or cannot be made.
pub fn lay_out(volume: impl AsFd, owner: (u32, u32)) -> io::Result<()> {
    let volume = volume.as_fd();
    rustix::fs::mkdirat(volume, UPLOADS, Mode::RWXU)?;
    rustix::fs::mkdirat(volume, FILES, Mode::RWXU)?;
    let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::fs::chownat(volume, FILES, Some(user), Some(group), AtFlags::empty())?;
    rustix::fs::chmodat(volume, FILES, Mode::from_raw_mode(0o755), AtFlags::empty())?;
    Ok(())
}
