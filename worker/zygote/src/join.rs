//! One fork into a cage. The child fails closed: it ends at the first step that does not succeed.

use std::ffi::{c_int, c_long};
use std::io::{Error, Result};
use std::mem;
use std::ptr;

use crate::exit;
use crate::leftovers;
use crate::python::Python;
use crate::wire::{CGROUPS_MAX, JOIN_DESCRIPTORS, SESSION_ID, Step};

/// What each process of a session may hold at most; all but open files and core files are counted
/// for the session as a whole.
const LIMITS: [(libc::__rlimit_resource_t, libc::rlim_t); 5] = [
    (libc::RLIMIT_NOFILE, 4096),
    (libc::RLIMIT_CORE, 0),
    // Queued signals and POSIX timers.
    (libc::RLIMIT_SIGPENDING, 4096),
    // Bytes of POSIX message queues: the kernel's own default.
    (libc::RLIMIT_MSGQUEUE, 819_200),
    // Bytes that cannot be swapped out: the kernel's own default.
    (libc::RLIMIT_MEMLOCK, 8 << 20),
];

/// The zygote's own pid namespace, where its children must not stay but the zygote must.
pub(crate) struct Origin(c_int);

impl Origin {
    pub(crate) fn open() -> Result<Self> {
        // SAFETY: opens a terminated path.
        let namespace = unsafe {
            libc::open(
                c"/proc/self/ns/pid".as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
            )
        };
        if namespace < 0 {
            Err(Error::last_os_error())
        } else {
            Ok(Self(namespace))
        }
    }
}

/// The descriptors of a join message.
pub(crate) struct Descriptors<'packet> {
    socket: c_int,
    stdout: c_int,
    stderr: c_int,
    cage: c_int,
    cgroups: &'packet [c_int],
}

impl<'packet> Descriptors<'packet> {
    /// `None` unless all are there, and none is one of the standard ones, which the child
    /// overwrites.
    pub(crate) fn new(descriptors: &'packet [c_int]) -> Option<Self> {
        let (&[socket, stdout, stderr, cage], cgroups) =
            descriptors.split_first_chunk::<JOIN_DESCRIPTORS>()?;
        let whole = (1..=CGROUPS_MAX).contains(&cgroups.len());
        let apart = descriptors.iter().all(|&descriptor| descriptor > 3);
        (whole && apart).then_some(Self {
            socket,
            stdout,
            stderr,
            cage,
            cgroups,
        })
    }
}

/// Outcome of [`fork_into`].
pub(crate) enum Forked {
    /// This is the child, locked down.
    Child,
    /// This is the zygote, and the child exists.
    Parent { pid: libc::pid_t, pidfd: c_int },
    /// This is the zygote, unchanged, and there is no child.
    Refused(Error),
}

/// Forks into the cage. An error means that the zygote cannot restore itself and must end.
pub(crate) fn fork_into(
    origin: &Origin,
    python: Python,
    descriptors: &Descriptors<'_>,
    filter: &[u8],
) -> Result<Forked> {
    // Changes where children are born, not where the zygote is.
    // SAFETY: passes two numbers.
    if unsafe { libc::setns(descriptors.cage, libc::CLONE_NEWPID) } != 0 {
        return Ok(Forked::Refused(Error::last_os_error()));
    }
    python.before_fork();
    // A real `fork()`, not a raw clone: it keeps the C library's idea of the thread true.
    // SAFETY: the process has one thread, and Python has been told.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        lock_down(descriptors, filter);
        python.after_fork_child();
        return Ok(Forked::Child);
    }
    let forked = if pid < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(pid)
    };
    // SAFETY: passes two numbers.
    if unsafe { libc::setns(origin.0, libc::CLONE_NEWPID) } != 0 {
        return Err(Error::last_os_error());
    }
    python.after_fork_parent();
    let pid = match forked {
        Ok(pid) => pid,
        Err(error) => return Ok(Forked::Refused(error)),
    };
    // SAFETY: passes two numbers; the child cannot be reaped, so the pid is still its.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = c_int::try_from(pidfd).map_err(Error::other)?;
    if pidfd < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(Forked::Parent { pid, pidfd })
    }
}

/// Turns the child of a privileged process into an unprivileged process of the cage. The order
/// matters: each step needs a right that a later one gives up.
fn lock_down(descriptors: &Descriptors<'_>, filter: &[u8]) {
    enter_cgroups(descriptors.cgroups);
    enter_namespaces(descriptors.cage);
    if leftovers::remove().is_err() {
        fail(Step::Leftovers);
    }
    raise_loopback();
    // With the rights of the cage's root: the session may have closed its directory to itself.
    // SAFETY: a terminated path.
    require(Step::Directory, unsafe {
        libc::chdir(c"/mnt/data".as_ptr())
    });
    keep_descriptors(descriptors);
    // SAFETY: no arguments.
    require(Step::Session, unsafe { libc::setsid() });
    lower_limits();
    empty_bounding_set();
    become_user();
    drop_capabilities();
    set(Step::NoNewPrivileges, libc::PR_SET_NO_NEW_PRIVS, 1);
    // SAFETY: passes a number; always succeeds.
    unsafe { libc::umask(0o022) };
    install(filter);
    // Last: until here the cage's other processes could not look into this one.
    set(Step::Dumpable, libc::PR_SET_DUMPABLE, 1);
}

/// Ends the process unless a call succeeded.
fn require(step: Step, result: c_int) {
    if result < 0 {
        fail(step);
    }
}

fn fail(step: Step) -> ! {
    exit(step.exit_code())
}

fn set(step: Step, option: c_int, value: libc::c_ulong) {
    let none: libc::c_ulong = 0;
    // SAFETY: these options take numbers only.
    require(step, unsafe {
        libc::prctl(option, value, none, none, none)
    });
}

fn enter_cgroups(procs: &[c_int]) {
    for &file in procs {
        // SAFETY: writes one byte of a static string; "0" names the writer.
        if unsafe { libc::write(file, c"0".as_ptr().cast(), 1) } != 1 {
            fail(Step::Cgroups);
        }
    }
}

/// All but the pid namespace, in which the child was born.
fn enter_namespaces(cage: c_int) {
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // SAFETY: passes two numbers.
    require(Step::Namespaces, unsafe { libc::setns(cage, namespaces) });
}

/// Programs expect 127.0.0.1 to exist; nothing else is ever reachable.
fn raise_loopback() {
    const UP: libc::c_short = 0x41;
    const { assert!(UP as c_int == libc::IFF_UP | libc::IFF_RUNNING) };
    // SAFETY: passes numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    require(Step::Loopback, socket);
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: `request` is what this request takes and outlives the call.
    require(Step::Loopback, unsafe {
        libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request)
    });
    // The socket goes with the other descriptors.
}

/// 0 is `/dev/null`, 1 and 2 are the pipes, 3 is the session's socket; there is nothing else.
fn keep_descriptors(descriptors: &Descriptors<'_>) {
    // SAFETY: a terminated path.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    require(Step::Descriptors, null);
    let kept = [
        null,
        descriptors.stdout,
        descriptors.stderr,
        descriptors.socket,
    ];
    for (number, &descriptor) in (0..).zip(&kept) {
        // SAFETY: passes two numbers.
        require(Step::Descriptors, unsafe { libc::dup2(descriptor, number) });
    }
    // Close-on-exec would be no help: this process never calls exec.
    // SAFETY: nothing in this process owns a descriptor above 3 any more.
    require(Step::Descriptors, unsafe {
        libc::close_range(4, libc::c_uint::MAX, 0)
    });
}

fn lower_limits() {
    for (resource, most) in LIMITS {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` outlives the call.
        require(Step::ResourceLimits, unsafe {
            libc::getrlimit(resource, &raw mut limit)
        });
        // Raising a hard limit would need a capability that the worker may lack.
        limit.rlim_max = limit.rlim_max.min(most);
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` outlives the call.
        require(Step::ResourceLimits, unsafe {
            libc::setrlimit(resource, &raw const limit)
        });
    }
}

fn empty_bounding_set() {
    let none: libc::c_ulong = 0;
    for capability in 0..64 as libc::c_ulong {
        // SAFETY: this option takes numbers only.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, none, none, none) };
        if dropped < 0 {
            // Only "there is no such capability", after the last one, is fine.
            if capability > 0 && Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
                return;
            }
            fail(Step::BoundingSet);
        }
    }
}

fn become_user() {
    // SAFETY: an empty list needs no memory.
    require(Step::User, unsafe { libc::setgroups(0, ptr::null()) });
    // SAFETY: passes numbers.
    require(Step::User, unsafe {
        libc::setresgid(SESSION_ID, SESSION_ID, SESSION_ID)
    });
    // SAFETY: passes numbers.
    require(Step::User, unsafe {
        libc::setresuid(SESSION_ID, SESSION_ID, SESSION_ID)
    });
}

/// Changing the user id does not do this: the old one, the host's root, is not mapped in the
/// cage's user namespace, so the kernel's "leaving root" rule does not apply, and entering a user
/// namespace has just given this process every capability in it.
fn drop_capabilities() {
    set(
        Step::Capabilities,
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    );
    // `_LINUX_CAPABILITY_VERSION_3` for the calling process, then two empty triples.
    let header = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    // SAFETY: both arrays have the layout that version 3 defines and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if result != 0 {
        fail(Step::Capabilities);
    }
}

fn install(filter: &[u8]) {
    let records = filter.len() / mem::size_of::<libc::sock_filter>();
    let Ok(len) = u16::try_from(records) else {
        fail(Step::Filter)
    };
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    let mode: c_long = libc::SECCOMP_SET_MODE_FILTER.into();
    let flags: c_long = 0;
    // SAFETY: `program` tells the true length of a filter that outlives the call; the kernel
    // copies it, checks it, and does not ask for alignment.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    if result != 0 {
        fail(Step::Filter);
    }
}
