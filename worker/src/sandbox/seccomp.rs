//! The system-call filter of sessions: reviewed data in, kernel program out.
//!
//! Compiled once per worker; installing the program in a forked child costs 0.1 ms, compiling a
//! profile for each container would cost several.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use rustix::fs::{MemfdFlags, SeekFrom};
use serde::Deserialize;

/// The reviewed list.
const SESSION: &str = include_str!("../../../infra/seccomp/session.json");

/// Why the filter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The list is not what this module reads.
    #[error("the list of system calls is malformed")]
    List(#[source] serde_json::Error),
    /// A misspelt name, or one that needs an entry under `numbers`.
    #[error("the list of system calls names `{0}`, which is unknown")]
    Unknown(String),
    /// libseccomp refused a rule.
    #[error("libseccomp cannot compile the filter")]
    Compile(#[from] SeccompError),
    /// The compiled program could not be read back.
    #[error("failed to read the compiled filter")]
    Read(#[from] std::io::Error),
}

#[derive(Deserialize)]
struct List {
    allow: Vec<Group>,
    allow_if: Vec<Condition>,
    pretend: Group,
    absent: Group,
    numbers: Numbers,
}

#[derive(Deserialize)]
struct Group {
    names: Vec<String>,
}

/// Allowed while the masked argument equals one of the values.
#[derive(Deserialize)]
struct Condition {
    syscall: String,
    argument: u32,
    mask: u64,
    values: Vec<u64>,
}

#[derive(Deserialize)]
struct Numbers {
    #[serde(rename = "why")]
    _why: String,
    #[serde(flatten)]
    by_name: HashMap<String, i32>,
}

impl Numbers {
    fn resolve(&self, name: &str) -> Result<ScmpSyscall, FilterError> {
        ScmpSyscall::from_name(name)
            .ok()
            .or_else(|| self.by_name.get(name).copied().map(ScmpSyscall::from))
            .ok_or_else(|| FilterError::Unknown(name.to_owned()))
    }
}

/// The filter of sessions, as the raw records that the kernel takes.
///
/// # Errors
/// When the list and the installed libseccomp do not fit together.
pub(super) fn session_filter() -> Result<Vec<u8>, FilterError> {
    let list: List = serde_json::from_str(SESSION).map_err(FilterError::List)?;
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(libc::EPERM))?;
    // Calls in the numbering of another architecture do not exist.
    filter.set_act_badarch(ScmpAction::Errno(libc::ENOSYS))?;
    let groups = [
        (ScmpAction::Errno(0), vec![&list.pretend]),
        (ScmpAction::Errno(libc::ENOSYS), vec![&list.absent]),
        (ScmpAction::Allow, list.allow.iter().collect()),
    ];
    for (action, groups) in groups {
        for name in groups.iter().flat_map(|group| &group.names) {
            filter.add_rule(action, list.numbers.resolve(name)?)?;
        }
    }
    for condition in &list.allow_if {
        let syscall = list.numbers.resolve(&condition.syscall)?;
        for &value in &condition.values {
            let equal = ScmpCompareOp::MaskedEqual(condition.mask);
            let compare = ScmpArgCompare::new(condition.argument, equal, value);
            filter.add_rule_conditional(ScmpAction::Allow, syscall, &[compare])?;
        }
    }
    // A binary tree instead of a chain of comparisons.
    filter.set_ctl_optimize(2)?;
    export(&filter)
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, FilterError> {
    let memory: OwnedFd =
        rustix::fs::memfd_create("filter", MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
    filter.export_bpf(&memory)?;
    rustix::fs::seek(&memory, SeekFrom::Start(0)).map_err(std::io::Error::from)?;
    let mut program = Vec::new();
    std::fs::File::from(memory).read_to_end(&mut program)?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_compiles_and_fits_a_message() {
        let filter = session_filter().unwrap();
        assert!(filter.len().is_multiple_of(8) && filter.len() > 1000);
        assert!(filter.len() <= zygote::wire::FILTER_BYTES_MAX);
    }

    #[test]
    fn what_breaks_the_sandbox_is_not_on_the_list() {
        let list: List = serde_json::from_str(SESSION).unwrap();
        let allowed: Vec<&str> = list
            .allow
            .iter()
            .flat_map(|group| &group.names)
            .map(String::as_str)
            .collect();
        for name in [
            "mount",
            "umount2",
            "fsopen",
            "fsmount",
            "fsconfig",
            "move_mount",
            "open_tree",
            "pivot_root",
            "mount_setattr",
            "chroot",
            "unshare",
            "setns",
            "ptrace",
            "seccomp",
            "bpf",
            "perf_event_open",
            "process_vm_readv",
            "process_vm_writev",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "io_uring_setup",
            "name_to_handle_at",
            "open_by_handle_at",
            "init_module",
            "finit_module",
            "delete_module",
            "kexec_load",
            "swapon",
            "acct",
            "quotactl",
            "clone3",
            "pidfd_getfd",
            "kcmp",
            "vmsplice",
            "sync",
        ] {
            assert!(!allowed.contains(&name), "{name}");
        }
    }
}
