//! The OCI description of a cage: an empty container in which only our PID 1 runs, until a
//! session joins.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zygote::wire::SESSION_ID;

use super::layout;
use super::message::CageLimits;
use super::still_files;

/// User id of PID 1, inside: neither the session's, which could then adjust or trace it, nor root.
const REAPER_ID: u32 = 65_534;

/// Processor time is handed out in periods of this many microseconds.
pub(super) const CPU_PERIOD_MICROS: u64 = 100_000;

/// Inodes of each private in-memory directory.
const SCRATCH_INODES: u32 = 65_536;

/// Pseudo-terminals of a cage. All cages of a host share what the kernel allows.
const TERMINALS_MAX: u32 = 64;

/// What tells of the hardware, of other sessions or of what the host does at the moment, or changes
/// something there. What else tells of others and cannot be empty is among the [still files](still_files).
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/buddyinfo",
    "/proc/bus",
    "/proc/cgroups",
    "/proc/crypto",
    "/proc/diskstats",
    "/proc/driver",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/locks",
    "/proc/mdstat",
    "/proc/modules",
    "/proc/partitions",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/schedstat",
    "/proc/scsi",
    "/proc/softirqs",
    "/proc/swaps",
    "/proc/sys/fs/aio-nr",
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/fs/quota",
    "/proc/sys/kernel/pty/nr",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/proc/vmstat",
    "/proc/zoneinfo",
];

/// How the host can keep a session from swapping beyond its memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swap {
    /// Version 1: one limit for memory and swap together.
    Together,
    /// Version 2: a limit of its own, set to nothing.
    Apart,
    /// The host does not account for swap.
    Unaccounted,
}

/// What differs from cage to cage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description<'a> {
    /// Mount point of the image.
    pub(super) image: &'a Path,
    /// The session's filesystem, as [`layout`] describes it.
    pub(super) data: &'a Path,
    /// Directory of the cage's files that [stand still](still_files).
    pub(super) still: &'a Path,
    /// Path of the cgroup below each hierarchy's root.
    pub(super) cgroup: &'a str,
    /// The cage's user namespace, which has its ids already.
    pub(super) user_namespace: &'a Path,
    pub(super) limits: CageLimits,
    pub(super) swap: Swap,
}

impl CageLimits {
    /// Processor time in each period.
    pub(super) fn cpu_quota_micros(&self) -> u64 {
        u64::from(self.cpu_millis) * CPU_PERIOD_MICROS / 1000
    }
}

/// The contents of the bundle's `config.json`.
///
/// No seccomp filter (compiling one per container costs milliseconds; the join installs one that
/// was compiled before), no rlimits (the join lowers them) and no `oomScoreAdj` (libcontainer would
/// write it into its long-lived caller).
pub(super) fn spec(cage: &Description<'_>) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": { "path": cage.image, "readonly": true },
        "process": {
            "terminal": false,
            "user": { "uid": REAPER_ID, "gid": REAPER_ID },
            "args": ["reaper"],
            "env": [],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []
            }
        },
        "mounts": mounts(cage),
        "linux": {
            "namespaces": [
                { "type": "user", "path": cage.user_namespace },
                { "type": "pid" }, { "type": "mount" }, { "type": "network" },
                { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" }
            ],
            "cgroupsPath": cage.cgroup,
            "resources": resources(&cage.limits, cage.swap),
            "maskedPaths": MASKED,
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn mounts(cage: &Description<'_>) -> Value {
    let scratch = format!("size={}", cage.limits.scratch_bytes);
    let inodes = format!("nr_inodes={SCRATCH_INODES}");
    let owner = (format!("uid={SESSION_ID}"), format!("gid={SESSION_ID}"));
    let terminals = format!("max={TERMINALS_MAX}");
    let mut mounts = json!([
        { "destination": "/proc", "type": "proc", "source": "proc",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=64k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", terminals] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", scratch, inodes] },
        { "destination": "/tmp", "type": "tmpfs", "source": "tmp",
          "options": ["nosuid", "nodev", "mode=1777", scratch, inodes] },
        { "destination": "/home/session", "type": "tmpfs", "source": "home",
          "options": ["nosuid", "nodev", "mode=700", owner.0, owner.1, scratch, inodes] },
        { "destination": layout::PACKAGES_INSIDE, "type": "bind", "source": cage.data.join(layout::PACKAGES),
          "options": ["bind", "rw", "nosuid", "nodev", "noatime"] },
        { "destination": "/mnt/data", "type": "bind", "source": cage.data.join(layout::FILES),
          "options": ["bind", "rw", "nosuid", "nodev", "noatime"] }
    ]);
    if let Some(mounts) = mounts.as_array_mut() {
        let still = |destination: PathBuf, name: &str| {
            json!({ "destination": destination, "type": "bind", "source": cage.still.join(name),
                    "options": ["bind", "ro", "nosuid", "nodev", "noexec"] })
        };
        mounts.extend(still_files::PROC.map(|name| still(Path::new("/proc").join(name), name)));
        mounts.push(still("/sys".into(), still_files::SYS));
    }
    mounts
}

fn resources(limits: &CageLimits, swap: Swap) -> Value {
    let mut memory = json!({ "limit": limits.memory_bytes });
    let mut unified = None;
    match swap {
        Swap::Together => {
            memory = json!({ "limit": limits.memory_bytes, "swap": limits.memory_bytes });
        }
        // Not by `memory.swap`: libcontainer takes a difference of zero for "not given".
        Swap::Apart => unified = Some(json!({ "memory.swap.max": "0" })),
        Swap::Unaccounted => {}
    }
    let mut resources = json!({
        // Version 1 hosts need this controller whenever any resource is limited.
        "devices": [{ "allow": false, "access": "rwm" }],
        "memory": memory,
        "pids": { "limit": limits.processes },
        "cpu": {
            "quota": limits.cpu_quota_micros(),
            "period": CPU_PERIOD_MICROS
        }
    });
    if let (Some(unified), Some(resources)) = (unified, resources.as_object_mut()) {
        resources.insert("unified".to_owned(), unified);
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(swap: Swap) -> Description<'static> {
        Description {
            image: Path::new("/run/hearth/worker-1/image"),
            data: Path::new("/run/hearth/worker-1/data/7"),
            still: Path::new("/run/still"),
            cgroup: "/hearth/worker-1/7",
            user_namespace: Path::new("/proc/self/fd/9"),
            limits: CageLimits {
                memory_bytes: 1 << 30,
                processes: 128,
                cpu_millis: 1000,
                scratch_bytes: 256 << 20,
            },
            swap,
        }
    }

    #[test]
    fn the_description_is_the_reviewed_one() {
        let golden: Value = serde_json::from_str(include_str!("spec.golden.json")).unwrap();
        let made = spec(&description(Swap::Unaccounted));
        assert_eq!(
            made,
            golden,
            "{}",
            serde_json::to_string_pretty(&made).unwrap()
        );
    }

    #[test]
    fn swap_is_closed_where_the_host_can() {
        let together = spec(&description(Swap::Together));
        assert_eq!(
            together["linux"]["resources"]["memory"]["swap"],
            json!(1_u64 << 30)
        );
        let apart = spec(&description(Swap::Apart));
        assert_eq!(
            apart["linux"]["resources"]["unified"]["memory.swap.max"],
            json!("0")
        );
        assert_eq!(apart["linux"]["resources"]["memory"].get("swap"), None);
    }
}
