//! Memory of a cage that belongs to no process: what an earlier kernel left there would stay charged
//! to the session, out of its sight, and end the next one as well.

use std::ffi::{c_int, c_long};
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::mem;
use std::ptr;

/// Where programs put shared memory that has a name.
const SHARED: &str = "/dev/shm";

/// Removes shared memory, semaphores and message queues of both families. For a privileged process
/// in the namespaces of a cage in which nobody else runs.
pub(crate) fn remove() -> Result<()> {
    for family in [SHARED_MEMORY, SEMAPHORES, QUEUES] {
        family.remove_all()?;
    }
    remove_named_queues()?;
    renew_shared_files()
}

/// One of the three kinds of System V objects.
struct Family {
    call: c_long,
    /// Commands: what there is; the object at an index.
    info: c_int,
    stat: c_int,
    /// Whether the call takes the number of a semaphore.
    numbered: bool,
}

const SHARED_MEMORY: Family = Family {
    call: libc::SYS_shmctl,
    info: 14,
    stat: 13,
    numbered: false,
};
const SEMAPHORES: Family = Family {
    call: libc::SYS_semctl,
    info: 19,
    stat: 18,
    numbered: true,
};
const QUEUES: Family = Family {
    call: libc::SYS_msgctl,
    info: 12,
    stat: 11,
    numbered: false,
};

impl Family {
    fn remove_all(&self) -> Result<()> {
        let Some(last) = self.control(0, self.info)? else {
            return Ok(());
        };
        for index in 0..=last {
            if let Some(id) = self.control(index, self.stat)? {
                self.control(id, libc::IPC_RMID)?;
            }
        }
        Ok(())
    }

    /// The call's result; `None` where there is no object.
    fn control(&self, id: c_int, command: c_int) -> Result<Option<c_int>> {
        // Larger than any structure that these commands fill in.
        let mut filled = [0_u64; 64];
        let (id, command, buffer) = (c_long::from(id), c_long::from(command), filled.as_mut_ptr());
        let result = if self.numbered {
            // SAFETY: the buffer outlives the call and has room for what is filled in.
            unsafe { libc::syscall(self.call, id, 0 as c_long, command, buffer) }
        } else {
            // SAFETY: as above.
            unsafe { libc::syscall(self.call, id, command, buffer) }
        };
        if let Ok(result) = c_int::try_from(result)
            && result >= 0
        {
            return Ok(Some(result));
        }
        let error = Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::EIDRM | libc::ENOSYS) => Ok(None),
            _ => Err(error),
        }
    }
}

/// POSIX message queues, which are files of a filesystem that need not be mounted anywhere.
fn remove_named_queues() -> Result<()> {
    const CREATE: c_long = 6; // FSCONFIG_CMD_CREATE
    const CLOSE_ON_EXEC: c_long = 1;
    let none = ptr::null::<libc::c_char>();
    // SAFETY: passes a terminated string and a number.
    let opened = unsafe { libc::syscall(libc::SYS_fsopen, c"mqueue".as_ptr(), CLOSE_ON_EXEC) };
    if opened < 0 {
        let error = Error::last_os_error();
        // A kernel that does not have them.
        return match error.raw_os_error() {
            Some(libc::ENODEV) => Ok(()),
            _ => Err(error),
        };
    }
    // The descriptors go with all others of this process.
    // SAFETY: passes numbers and no strings.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, opened, CREATE, none, none, 0 as c_long) };
    if made < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: passes numbers.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, opened, CLOSE_ON_EXEC, 0 as c_long) };
    if mount < 0 {
        return Err(Error::last_os_error());
    }
    for queue in fs::read_dir(format!("/proc/self/fd/{mount}"))? {
        match fs::remove_file(queue?.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A new, empty filesystem of the same size takes the place of one that is not empty: that takes as
/// long as nothing, whatever is in there.
fn renew_shared_files() -> Result<()> {
    if fs::read_dir(SHARED)?.next().is_none() {
        return Ok(());
    }
    let path = c"/dev/shm";
    // SAFETY: all-zero is a valid `statfs`.
    let mut size: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: a terminated path, and `size` outlives the call.
    check(unsafe { libc::statfs(path.as_ptr(), &raw mut size) })?;
    // Root of the cage owns it: this process's own user does not exist there.
    let options = format!(
        "mode=1777,uid=0,gid=0,nr_blocks={},nr_inodes={}\0",
        size.f_blocks, size.f_files
    );
    // SAFETY: a terminated path.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })?;
    // SAFETY: terminated strings that outlive the call.
    check(unsafe {
        libc::mount(
            c"shm".as_ptr(),
            path.as_ptr(),
            c"tmpfs".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            options.as_ptr().cast(),
        )
    })
}

fn check(result: c_int) -> Result<()> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}
