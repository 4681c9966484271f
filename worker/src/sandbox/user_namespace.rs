//! User namespaces of cages, each with an owner of its own.
//!
//! The kernel counts what users may hold of the host (inotify instances and watches, queued
//! signals, timers, bytes of message queues, locked memory, processes, namespaces) in the user
//! namespace, and once more for its owner in the namespace above. A namespace belongs to the user
//! who made it: if root made them all, one session could use up the counts of all others and of
//! the host's root.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal, WaitOptions};

use super::sys;
use super::uids::RANGE_IDS;

/// Makes a user namespace that the first id of a cage owns, with the ids of that cage. It lives as
/// long as the descriptor or a process inside.
///
/// # Errors
/// When the kernel refuses it, for instance because there may be no more of them.
pub(super) fn make(uid_base: u32) -> io::Result<OwnedFd> {
    let maker = sys::fork_into_user_namespace_of(uid_base)?;
    let Some((_, status)) = rustix::process::waitpid(Some(maker), WaitOptions::UNTRACED)? else {
        return Err(io::Error::other("its maker is lost"));
    };
    // By stopping the maker says that it is inside. One that failed has exited with an `errno`.
    if !status.stopped() {
        return Err(match status.exit_status() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other("its maker was killed"),
        });
    }
    let opened = map_ids(maker, uid_base);
    rustix::process::kill_process(maker, Signal::KILL)?;
    rustix::process::waitpid(Some(maker), WaitOptions::empty())?;
    opened
}

/// Gives the namespace that the maker is in its ids, and opens it.
fn map_ids(maker: Pid, uid_base: u32) -> io::Result<OwnedFd> {
    let directory = format!("/proc/{}", maker.as_raw_nonzero());
    let map = format!("0 {uid_base} {RANGE_IDS}\n");
    fs::write(format!("{directory}/uid_map"), &map)?;
    fs::write(format!("{directory}/gid_map"), &map)?;
    Ok(File::open(format!("{directory}/ns/user"))?.into())
}
