//! What lies where on a session's filesystem: its files, which it sees as `/mnt/data`, and beside them what
//! is about to become one of them, which it does not see, and the packages that it installs, which it sees
//! elsewhere. So no name below `/mnt/data` means anything to the platform.

use std::{io, os::fd::AsFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid};

/// The directory that the session sees as `/mnt/data`.
pub const FILES: &str = "files";
/// The directory in which a file that replaces another gets its first name.
pub const UPLOADS: &str = "uploads";
/// The directory that the session sees as [`PACKAGES_INSIDE`]. It ends with the sandbox: nothing in it is saved.
pub const PACKAGES: &str = "packages";
/// Where Python installs what does not belong to the system. Packages are large, and memory is not where they belong.
pub const PACKAGES_INSIDE: &str = "/home/session/.local";

/// Makes these directories in an empty filesystem; files and packages belong to `owner` (user, group).
///
/// # Errors
/// One of them exists or cannot be made.
pub fn lay_out(volume: impl AsFd, owner: (u32, u32)) -> io::Result<()> {
    let volume = volume.as_fd();
    rustix::fs::mkdirat(volume, UPLOADS, Mode::RWXU)?;
    let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    for directory in [FILES, PACKAGES] {
        rustix::fs::mkdirat(volume, directory, Mode::RWXU)?;
        rustix::fs::chownat(volume, directory, Some(user), Some(group), AtFlags::empty())?;
        rustix::fs::chmodat(
            volume,
            directory,
            Mode::from_raw_mode(0o755),
            AtFlags::empty(),
        )?;
    }
    Ok(())
}
