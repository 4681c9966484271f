//! What an operator does about a worker that does not start.

use fleet::FleetFailure;
use process::{log::LogError, settings::PoolsError};
use routing::bus::{AuthError, ConnectError};
use store::{OpenError, ProbeError};

use crate::{
    preflight::TooLittleMemory,
    sandbox::{LoopError, SandboxError, StartError, UidError, VolumeError},
};

/// What a worker says last whose sandboxes ended together.
pub const MACHINERY_FAILED: &str = "the helper process `caged` has ended, and every sandbox with it: it was \
    killed, or missed this worker's beats; its own words are above; look at the kernel's log for lack of memory, \
    and start the worker again";
/// What a worker says last that lost its id.
pub const REPLACED: &str = "another worker has taken this worker's `--id` over, because this one was cut off from \
    the bus for longer than its claim lives; stop one of both, or give it another `--id`, and look for what cuts \
    this host off";

/// What to do about the first cause that is known; nothing where the text says it already.
#[must_use]
pub fn of(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(of_one)
}

fn of_one(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    fn known<'a, T: std::error::Error + 'static>(
        cause: &'a (dyn std::error::Error + 'static),
        remedy: impl FnOnce(&'a T) -> Option<&'static str>,
    ) -> Option<&'static str> {
        cause.downcast_ref().and_then(remedy)
    }
    known(cause, LogError::remedy)
        .or_else(|| known(cause, AuthError::remedy))
        .or_else(|| known(cause, ConnectError::remedy))
        .or_else(|| known(cause, OpenError::remedy))
        .or_else(|| known(cause, ProbeError::remedy))
        .or_else(|| known(cause, TooLittleMemory::remedy))
        .or_else(|| known(cause, of_fleet))
        .or_else(|| known(cause, PoolsError::remedy))
        .or_else(|| known(cause, of_sandboxes))
        .or_else(|| known(cause, of_sandbox))
        .or_else(|| known(cause, of_loops))
        .or_else(|| known(cause, of_listening))
}

fn of_fleet(error: &FleetFailure) -> Option<&'static str> {
    match error {
        FleetFailure::Store(_) => Some(
            "check that --store can be reached and that its credentials may read and write `fleet/`",
        ),
        FleetFailure::Bus(_) => Some(
            "start the servers of --nats with JetStream, and give this process's user the rights of \
             infra/nats/hearth.conf.template",
        ),
        // Its text says it.
        FleetFailure::OtherStore(_) => None,
    }
}

pub(crate) fn of_sandboxes(error: &StartError) -> Option<&'static str> {
    match error {
        StartError::Uids(error) => of_uids(error),
        StartError::NotRoot => Some("start the worker as root, as a system service for example"),
        StartError::Directory { .. } => {
            Some("give --state-dir and --data-dir directories that root can write")
        }
        StartError::Cgroups(_) | StartError::Lock(_) => Some(
            "mount cgroups writable with the controllers memory, pids and cpu (a container needs \
             --privileged or a delegated hierarchy)",
        ),
        StartError::Image { .. } => Some("give --image the session image that `make image` made"),
        StartError::Mount { .. } => Some(
            "give --image the session image that `make image` made, an erofs file, and have the kernel \
             support erofs (`modprobe erofs`)",
        ),
        StartError::Killed { .. } => Some(
            "give the worker more memory than its zygote needs, about 400 MiB besides its sessions' limits",
        ),
        StartError::EndedEarly { .. } => {
            Some("its own words are above; --zygote-library and --image must be of one build")
        }
        StartError::HandDown(_) => Some(
            "give the worker's cgroup the controllers memory, pids and cpu, with its processes in a group \
             inside it (systemd: Delegate=yes)",
        ),
        StartError::Refused { .. } => Some("`worker check` looks at what the host must have"),
        _ => None,
    }
}

/// Of the first sandbox, which is tried at the start.
fn of_sandbox(error: &SandboxError) -> Option<&'static str> {
    match error {
        SandboxError::Volume(error) => of_volumes(error),
        SandboxError::EndedEarly(_) | SandboxError::Silent | SandboxError::NoZygote => {
            Some("give the pools' sessions more memory (limits.memory_bytes), or the host")
        }
        _ => None,
    }
}

fn of_uids(error: &UidError) -> Option<&'static str> {
    match error {
        UidError::Directory { .. } => Some("let root write /run/hearth"),
        UidError::Exhausted => {
            Some("run fewer workers on this host, with more --max-sessions each")
        }
    }
}

pub(crate) fn of_loops(error: &LoopError) -> Option<&'static str> {
    match error {
        LoopError::Control(_) | LoopError::Device { .. } => Some(
            "load the kernel module `loop`; a container needs the host's /dev/loop-control and the \
             right to use block devices of major number 7",
        ),
        LoopError::Taken => Some("detach loop devices that are not used (`losetup -D`)"),
    }
}

fn of_volumes(error: &VolumeError) -> Option<&'static str> {
    match error {
        VolumeError::Run(_) => Some("install mkfs.ext4 (package e2fsprogs)"),
        VolumeError::Attach(_) => {
            Some("load the kernel module `loop`, or detach loop devices that are not used")
        }
        VolumeError::Image { .. } => Some("make room on the disk of --data-dir"),
        _ => None,
    }
}

/// An address that is taken shows as nothing but its number.
pub(crate) fn of_listening(error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Some("another process listens there: end it or give --admin-listen another address")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            Some("give --admin-listen an address that this host has")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_remedy_is_found_behind_what_was_being_done() {
        let error = anyhow::Error::new(LoopError::Control(io::ErrorKind::NotFound.into()));
        let error = error.context("a sandbox to try");
        assert!(of(&error).unwrap().contains("/dev/loop-control"));
    }

    #[test]
    fn a_fleet_that_cannot_be_read_and_last_words_come_with_a_remedy() {
        let bus = records::cas::BusError::new("stream was not described", "timed out");
        let error = anyhow::Error::new(FleetFailure::from(bus));
        assert!(of(&error).unwrap().contains("hearth.conf.template"));
        for words in [MACHINERY_FAILED, REPLACED] {
            let (cause, remedy) = words.split_once("; ").unwrap();
            assert!(!cause.is_empty() && !remedy.is_empty() && !words.contains('\n'));
        }
    }

    #[test]
    fn what_is_not_known_gets_no_advice() {
        assert_eq!(of(&anyhow::anyhow!("odd")), None);
        assert_eq!(of(&io::Error::other("odd").into()), None);
    }
}
