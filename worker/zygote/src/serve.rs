//! The zygote's loop: join messages in, children out, exits reported.

use std::ffi::c_int;
use std::fs;
use std::io::{Error, Result};

use crate::join::{self, Descriptors, Forked};
use crate::pages;
use crate::python::Python;
use crate::socket;
use crate::wire::{Event, FILTER_BYTES_MAX, Join};

/// Who returns from [`serve`].
pub(crate) enum Role {
    /// A child, locked down: the kernel of a session.
    Session,
    /// The zygote, after the worker has closed its end.
    Done,
}

struct Child {
    pid: libc::pid_t,
    pidfd: c_int,
}

pub(crate) fn serve(control: c_int) -> Result<Role> {
    let python = Python::find()
        .map_err(|name| Error::other(format!("this Python lacks {}", name.to_string_lossy())))?;
    // A fork takes only the calling thread along, and whoever has threads may not enter a user
    // namespace.
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(Error::other(format!(
            "{threads} threads exist, a zygote has one"
        )));
    }
    let mut filter = vec![0; FILTER_BYTES_MAX];
    let Some(packet) = socket::receive(control, &mut filter)? else {
        return Ok(Role::Done);
    };
    filter.truncate(packet.length);
    pages::collapse()?;
    let origin = join::Origin::open()?;
    socket::send(control, &Event::Ready.encode(), None)?;

    let mut children: Vec<Child> = Vec::new();
    loop {
        let ready = wait(control, &children)?;
        report_exits(control, &mut children, &ready)?;
        if !ready.control {
            continue;
        }
        let mut buffer = [0; Join::BYTES];
        let Some(packet) = socket::receive(control, &mut buffer)? else {
            return Ok(Role::Done);
        };
        let message = buffer
            .get(..packet.length)
            .and_then(Join::decode)
            .zip(Descriptors::new(&packet.descriptors))
            .ok_or_else(|| Error::other("a join message is malformed"))?;
        let (Join { id }, descriptors) = message;
        match join::fork_into(&origin, python, &descriptors, &filter)? {
            Forked::Child => return Ok(Role::Session),
            Forked::Parent { pid, pidfd } => {
                let event = Event::Joined {
                    id,
                    pid: pid.cast_unsigned(),
                };
                socket::send(control, &event.encode(), Some(pidfd))?;
                children.push(Child { pid, pidfd });
            }
            Forked::Refused(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                socket::send(control, &Event::Refused { id, errno }.encode(), None)?;
            }
        }
        for descriptor in packet.descriptors {
            close(descriptor);
        }
    }
}

struct Ready {
    control: bool,
    children: Vec<bool>,
}

fn wait(control: c_int, children: &[Child]) -> Result<Ready> {
    let mut watched: Vec<libc::pollfd> = std::iter::once(control)
        .chain(children.iter().map(|child| child.pidfd))
        .map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer and the length are those of one vector.
    let count = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) };
    if count < 0 {
        let error = Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    let mut ready = watched.iter().map(|entry| count > 0 && entry.revents != 0);
    Ok(Ready {
        control: ready.next().unwrap_or(false),
        children: ready.collect(),
    })
}

fn report_exits(control: c_int, children: &mut Vec<Child>, ready: &Ready) -> Result<()> {
    for index in (0..children.len()).rev() {
        if !ready.children.get(index).is_some_and(|ready| *ready) {
            continue;
        }
        let child = children.swap_remove(index);
        let mut status = 0;
        // SAFETY: `status` outlives the call; the child has ended, so this does not block.
        if unsafe { libc::waitpid(child.pid, &raw mut status, 0) } != child.pid {
            return Err(Error::last_os_error());
        }
        close(child.pidfd);
        let event = Event::Exited {
            pid: child.pid.cast_unsigned(),
            status,
        };
        socket::send(control, &event.encode(), None)?;
    }
    Ok(())
}

fn close(descriptor: c_int) {
    // SAFETY: the descriptor is this process's own and not used again.
    unsafe { libc::close(descriptor) };
}
