//! Whether the host has what as many sessions as there may be could take at once.

use std::{fs, path::Path};

use process::preflight::Finding;
use proto::pool::{Limits, Pools};

const MEMORY: &str = "memory";
const PROCESSES: &str = "processes";

/// Memory of a worker, its `caged` and its zygote, without any session: 162 MiB are the zygote's, and while
/// one is replaced there are two.
const WORKER_BYTES: u64 = 400 << 20;
/// With less than this no zygote ever gets warm.
const WORKER_BYTES_LEAST: u64 = 192 << 20;
/// Processes of the host and of a worker besides those of sessions.
const OTHER_PROCESSES: u64 = 1024;

/// The worker's own control group has too little memory.
#[derive(Debug, thiserror::Error)]
#[error("this worker's control group has {} of memory", bytes(*.0))]
pub struct TooLittleMemory(u64);

/// Refuses to start where the zygote would be killed, or would never get warm.
///
/// # Errors
/// There is too little memory.
pub fn require_memory() -> Result<(), TooLittleMemory> {
    enough(memory_limit())
}

fn enough(limit: Option<u64>) -> Result<(), TooLittleMemory> {
    match limit {
        Some(limit) if limit < WORKER_BYTES_LEAST => Err(TooLittleMemory(limit)),
        _ => Ok(()),
    }
}

/// Compares the limits of the pools with the host.
pub(super) fn look(pools: &Pools, max_sessions: u32) -> [Finding; 2] {
    [
        memory(
            most(pools, max_sessions, |limits| limits.memory_bytes),
            pools.pool.iter().map(|pool| pool.limits.memory_bytes).max(),
            host_memory(),
            memory_limit(),
        ),
        processes(
            most(pools, max_sessions, |limits| limits.processes.into()),
            ["pid_max", "threads-max"].map(kernel_number),
        ),
    ]
}

/// The most that sessions can use of something: as many of the hungriest pools as there may be.
fn most(pools: &Pools, max_sessions: u32, of: impl Fn(&Limits) -> u64) -> u64 {
    let mut kinds: Vec<(u64, u32)> = pools
        .pool
        .iter()
        .map(|pool| (of(&pool.limits), pool.max_sessions))
        .collect();
    kinds.sort_unstable_by(|a, b| b.cmp(a));
    let mut left = max_sessions;
    let mut sum = 0_u64;
    for (each, sessions) in kinds {
        let taken = sessions.min(left);
        left -= taken;
        sum = sum.saturating_add(each.saturating_mul(taken.into()));
    }
    sum
}

fn memory(most: u64, one_session: Option<u64>, host: Option<u64>, limit: Option<u64>) -> Finding {
    let Some(host) = host else {
        return Finding::warn(MEMORY, "/proc/meminfo cannot be read", "mount /proc");
    };
    if let Err(error) = enough(limit) {
        return Finding::refused(MEMORY, &error);
    }
    if let Some(limit) = limit
        && limit < WORKER_BYTES
    {
        return Finding::warn(
            MEMORY,
            format!("this worker's control group has {} of memory", bytes(limit)),
            format!(
                "give it {}: while a zygote is replaced, there are two",
                bytes(WORKER_BYTES)
            ),
        );
    }
    let least = WORKER_BYTES.saturating_add(one_session.unwrap_or(0));
    if host < least {
        return Finding::fail(
            MEMORY,
            format!(
                "this host has {}, a worker with one session takes up to {}",
                bytes(host),
                bytes(least)
            ),
            "lower limits.memory_bytes of the pools, or use a larger host",
        );
    }
    let all = WORKER_BYTES.saturating_add(most);
    if host < all {
        return Finding::warn(
            MEMORY,
            format!(
                "this host has {}, all sessions together may take {}",
                bytes(host),
                bytes(all)
            ),
            "lower --max-sessions or limits.memory_bytes, unless most sessions use little",
        );
    }
    Finding::ok(
        MEMORY,
        format!("{} for {} at most", bytes(host), bytes(all)),
    )
}

fn processes(most: u64, [pid_max, threads_max]: [Option<u64>; 2]) -> Finding {
    let needed = most.saturating_add(OTHER_PROCESSES);
    for (name, has) in [
        ("kernel.pid_max", pid_max),
        ("kernel.threads-max", threads_max),
    ] {
        match has {
            Some(has) if has < needed => {
                return Finding::warn(
                    PROCESSES,
                    format!("{name} is {has}, sessions may have {most} processes and threads"),
                    format!(
                        "`sysctl {name}={}`, or lower --max-sessions or limits.processes",
                        needed.next_power_of_two()
                    ),
                );
            }
            _ => {}
        }
    }
    Finding::ok(PROCESSES, format!("room for {most} of sessions"))
}

fn bytes(count: u64) -> String {
    let mebibytes = count >> 20;
    if mebibytes < 10 << 10 {
        format!("{mebibytes} MiB")
    } else {
        format!("{} GiB", mebibytes >> 10)
    }
}

fn kernel_number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
    text.trim().parse().ok()
}

fn host_memory() -> Option<u64> {
    mem_total(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// The tightest limit of memory of the control groups that this process is in.
fn memory_limit() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_files(&membership)
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

/// The files that hold the limits of memory of a process with this `/proc/<pid>/cgroup`.
fn limit_files(membership: &str) -> impl Iterator<Item = std::path::PathBuf> {
    membership.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        };
        let limits_memory =
            controllers.is_empty() || controllers.split(',').any(|name| name == "memory");
        let groups = Path::new(path).ancestors();
        groups
            .filter(move |_| limits_memory)
            .map(|group| {
                let below = group.strip_prefix("/").unwrap_or(group);
                Path::new(root).join(below).join(file)
            })
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use process::preflight::Outcome;

    use super::*;

    fn pools(of: &[(u64, u32)]) -> Pools {
        let pool = |(number, (memory, sessions)): (usize, &(u64, u32))| {
            let text = format!(
                "id = \"01JDE1KZ0000000000000000{number:02}\"\nsubscription = \"s\"\n\
                 resource_group = \"r\"\nname = \"pool{number}\"\nmax_sessions = {sessions}\n\
                 cooldown_seconds = 300\n[limits]\nmemory_bytes = {memory}\n"
            );
            toml::from_str(&text).unwrap()
        };
        Pools {
            pool: of.iter().enumerate().map(pool).collect(),
        }
    }

    #[test]
    fn the_hungriest_sessions_count_first() {
        let pools = pools(&[(100, 10), (1000, 3)]);
        let of = |sessions| most(&pools, sessions, |limits| limits.memory_bytes);
        assert_eq!((of(0), of(2), of(3)), (0, 2000, 3000));
        assert_eq!((of(5), of(600)), (3200, 4000));
    }

    #[test]
    fn memory_is_judged_by_what_sessions_may_take() {
        let gib = 1 << 30;
        let of = |most, host, limit| memory(most, Some(gib), Some(host), limit).outcome;
        assert_eq!(of(2 * gib, 4 * gib, None), Outcome::Ok);
        assert_eq!(of(600 * gib, 4 * gib, None), Outcome::Warn);
        assert_eq!(of(2 * gib, gib, None), Outcome::Fail);
        assert_eq!(of(2 * gib, 4 * gib, Some(96 << 20)), Outcome::Fail);
        assert_eq!(of(2 * gib, 4 * gib, Some(200 << 20)), Outcome::Warn);
        assert_eq!(of(2 * gib, 4 * gib, Some(gib)), Outcome::Ok);
    }

    #[test]
    fn a_worker_does_not_start_where_its_zygote_cannot() {
        let refused = enough(Some(96 << 20)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "this worker's control group has 96 MiB of memory"
        );
        assert!(enough(Some(WORKER_BYTES_LEAST)).is_ok());
        assert!(enough(None).is_ok());
    }

    #[test]
    fn process_numbers_must_suffice_for_all_sessions() {
        let of = |most, pid_max| processes(most, [Some(pid_max), None]);
        assert_eq!(of(600 * 128, 4_194_304).outcome, Outcome::Ok);
        let tight = of(600 * 128, 32_768);
        assert_eq!(tight.outcome, Outcome::Warn);
        assert!(tight.remedy.unwrap().contains("kernel.pid_max=131072"));
    }

    #[test]
    fn limits_of_all_groups_above_count() {
        let files = |text| -> Vec<String> {
            let files = limit_files(text);
            files.map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            files("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            files("3:cpu,cpuacct:/x\n2:memory:/a\n"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
    }

    #[test]
    fn the_hosts_memory_is_read() {
        assert_eq!(
            mem_total("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16384)
        );
        assert_eq!(mem_total(""), None);
    }
}
