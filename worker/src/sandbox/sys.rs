//! The only `unsafe` of this crate: system calls that no safe wrapper covers, each behind a
//! signature that cannot be misused.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Closes every descriptor from `first` on. For a process that has just started, or is about to
/// need none of them, and holds no owner of one.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: callers hold no owner of these descriptors (see above), so none is closed twice.
    check(unsafe { libc::close_range(first, libc::c_uint::MAX, 0) })
}

/// Has a program ignore from its birth on what is sent to all processes of a service: SIGHUP to have the worker
/// read its settings again, SIGTERM and SIGINT to have it end. The worker ends its helpers itself, once its sessions
/// have left.
pub(super) fn ignore_signals_of_the_service(command: &mut tokio::process::Command) {
    let ignore = || {
        for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            // SAFETY: sets one signal's action and touches no memory, which a new process may do.
            if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: `ignore` neither allocates nor takes a lock.
    unsafe { command.pre_exec(ignore) };
}

/// Gives the process a private copy of its mount namespace.
pub(super) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: affects mounts and the shared working directory only; the callers have one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

/// Starts a copy of this process, which must have one thread. The copy makes a user namespace that
/// `owner` owns, enters it and stops there until it is killed; it ends with this process. When it
/// fails it exits with the `errno`.
pub(super) fn fork_into_user_namespace_of(owner: u32) -> io::Result<Pid> {
    let parent = rustix::process::getpid();
    // SAFETY: the process has one thread, and the copy only makes system calls.
    let pid = unsafe { libc::fork() };
    check(pid)?;
    if let Some(copy) = Pid::from_raw(pid) {
        return Ok(copy);
    }
    let entered = enter_user_namespace_of(owner, parent);
    exit_now(
        entered
            .err()
            .and_then(|error| error.raw_os_error())
            .unwrap_or(libc::EIO),
    )
}

fn enter_user_namespace_of(owner: u32, parent: Pid) -> io::Result<std::convert::Infallible> {
    let unchanged = libc::uid_t::MAX;
    let none: libc::c_ulong = 0;
    // Hosts may forbid namespaces to those who have lost their capabilities by changing their user.
    let keep: libc::c_ulong = 1 << 2; // SECBIT_NO_SETUID_FIXUP
    // SAFETY: passes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, keep, none, none, none) })?;
    // Not by the C library, which would look for threads. The effective id is the one that owns.
    // SAFETY: passes numbers.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, unchanged, owner, unchanged) };
    if changed != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: affects nothing but this process, which has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended already, and the signal is sent only once.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

/// Blocks all signals and drops those that arrive, for ever, while `on_child` reaps.
pub(super) fn sleep_between_children(mut on_child: impl FnMut()) -> ! {
    // SAFETY: all-zero is a valid signal set, filled right below.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `all` outlives the call.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` outlives the call; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
    loop {
        on_child();
        // SAFETY: `all` outlives the call; the details are not asked for.
        unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
    }
}

/// Ends the process without running anything else.
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: nothing of the process is used afterwards.
    unsafe { libc::_exit(status) }
}

/// Names the process in `/proc`.
pub(super) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the kernel copies up to 16 bytes of a terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Has the kernel end this process when it does not call this again in time.
pub(super) fn end_unless_called_again(within: Duration) {
    let seconds = libc::c_uint::try_from(within.as_secs()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: passes a number; the default action of the alarm is what is wanted.
    unsafe { libc::alarm(seconds.saturating_add(1)) };
}

/// Signals the process group that a pidfd's process leads (Linux 6.9).
pub(super) fn signal_group(leader: impl AsFd, signal: Signal) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;
    // SAFETY: passes numbers and no details.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            leader.as_fd().as_raw_fd(),
            signal.as_raw(),
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether a loop device can be written through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    ReadWrite,
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo {
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// The number of a loop device that nobody uses at this moment; the kernel makes one if needed.
pub(super) fn free_loop(control: impl AsFd) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
    // SAFETY: this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Puts a loop device in front of a file; the device goes when its last user does. `label` is cut
/// to 63 bytes.
pub(super) fn attach_loop(
    device: impl AsFd,
    file: impl AsFd,
    access: Access,
    label: &str,
) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    // SAFETY: all-zero is valid for a structure of numbers.
    let mut config: LoopConfig = unsafe { mem::zeroed() };
    config.fd = file.as_fd().as_raw_fd().cast_unsigned();
    config.info.flags = AUTOCLEAR
        | if access == Access::ReadOnly {
            READ_ONLY
        } else {
            0
        };
    for (to, from) in config.info.file_name.iter_mut().take(63).zip(label.bytes()) {
        *to = from;
    }
    // SAFETY: `config` has the layout that this request reads and outlives the call.
    check(unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            LOOP_CONFIGURE,
            &raw const config,
        )
    })
}

/// A part of a process's memory that is a file and shared with all who map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedMapping {
    /// Address behind its last byte.
    pub(crate) end: u64,
    /// Whether it can be written at the moment.
    pub(crate) writable: bool,
    /// Major and minor number of the file's device.
    pub(crate) device: (u32, u32),
    /// The file's inode.
    pub(crate) inode: u64,
}

/// `struct procmap_query` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct MapQuery {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    mapping_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    name_sizes: [u32; 2],
    name_addresses: [u64; 2],
}

/// The first shared mapping of a file that ends above `from` in the process whose `/proc/<pid>/maps`
/// this is (Linux 6.11).
pub(crate) fn next_shared_mapping(maps: impl AsFd, from: u64) -> io::Result<Option<SharedMapping>> {
    const PROCMAP_QUERY: libc::Ioctl = 0xC068_6611;
    const WRITABLE: u64 = 0x02;
    const SHARED: u64 = 0x08;
    const COVERING_OR_NEXT: u64 = 0x10;
    const FILE_BACKED: u64 = 0x20;
    let mut query = MapQuery {
        size: mem::size_of::<MapQuery>() as u64,
        flags: SHARED | COVERING_OR_NEXT | FILE_BACKED,
        address: from,
        ..MapQuery::default()
    };
    // SAFETY: `query` has the layout and says the size that this request reads and writes; it asks
    // for no names, so no other memory is written.
    match check(unsafe { libc::ioctl(maps.as_fd().as_raw_fd(), PROCMAP_QUERY, &raw mut query) }) {
        Ok(()) => Ok(Some(SharedMapping {
            end: query.end,
            writable: query.mapping_flags & WRITABLE != 0,
            device: query.device.into(),
            inode: query.inode,
        })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes, with some overhead, that were sent over a local stream socket and that its other side has not
/// taken.
pub(crate) fn unread_by_peer(socket: impl AsFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request writes one number, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(u32::try_from(bytes).unwrap_or_default())
}

/// Has the other side of a local socket refused when it sends descriptors (Linux 6.16).
pub(super) fn refuse_descriptors(socket: impl AsFd) -> io::Result<()> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let no: libc::c_int = 0;
    let length = libc::socklen_t::try_from(mem::size_of_val(&no)).unwrap_or_default();
    // SAFETY: the option is a number of this length, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            length,
        )
    })
}

/// Makes a descriptor's readiness something to await. Needs a runtime.
pub(super) fn asynchronous(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open file until it is dropped, and nothing but dropping
    // it closes it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(registered?)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
