//! Files of `/proc` and `/sys` that stand still in a cage. The kernel's own tell how many processors and how
//! much memory the whole host has and how busy it is, and so what other sessions do; without any, common
//! tools fail, and programs take all of the host for theirs.
//!
//! Each cage has files of its own: what watches, locks or reads a file of all cages would tell of the others.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::message::CageLimits;
use super::spec::CPU_PERIOD_MICROS;

/// Names of the files below `/proc`.
pub(super) const PROC: [&str; 5] = ["cpuinfo", "loadavg", "meminfo", "stat", "uptime"];

/// Name of the directory that is `/sys`.
pub(super) const SYS: &str = "sys";

/// The directories, parents first.
const DIRECTORIES: [&str; 8] = [
    SYS,
    "sys/fs",
    "sys/fs/cgroup",
    "sys/fs/cgroup/cpu",
    "sys/fs/cgroup/memory",
    "sys/devices",
    "sys/devices/system",
    "sys/devices/system/cpu",
];

/// Nothing runs but the one who asks.
const LOADAVG: &str = "0.00 0.00 0.00 1/1 1\n";

/// Processor time of a session that is one processor's.
const MILLIS: u32 = 1000;

/// What the host tells of its processors, read once: how fast they are at a time tells what others do.
#[derive(Debug)]
pub(super) struct Processors {
    count: u32,
    /// What `/proc/cpuinfo` tells of the first.
    first: String,
}

impl Processors {
    pub(super) fn of_this_host() -> io::Result<Self> {
        Ok(Self::told(&fs::read_to_string("/proc/cpuinfo")?))
    }

    fn told(cpuinfo: &str) -> Self {
        let is_processor = |part: &&str| part.trim_start().starts_with("processor");
        let mut parts = cpuinfo.split("\n\n").filter(is_processor);
        let first = parts.next().unwrap_or_default().to_owned();
        Self {
            count: u32::try_from(parts.count()).unwrap_or(0).saturating_add(1),
            first,
        }
    }

    /// As many as a session has a part of.
    fn of_session(&self, limits: &CageLimits) -> u32 {
        limits.cpu_millis.div_ceil(MILLIS).clamp(1, self.count)
    }

    /// `/proc/cpuinfo` of a machine with this many cores, which not every kernel tells of.
    fn cpuinfo(&self, count: u32) -> String {
        let told = |name: &str| self.first.lines().any(|line| line.starts_with(name));
        let untold: Vec<_> = ["physical id\t:", "core id\t\t:", "cpu cores\t:"]
            .into_iter()
            .filter(|line| !told(line.trim_end_matches(['\t', ':'])))
            .collect();
        let mut text = String::new();
        for number in 0..count {
            for line in self.first.lines().chain(untold.iter().copied()) {
                let name = line.split(':').next().unwrap_or(line);
                let value = match name.trim_end() {
                    "processor" | "core id" | "apicid" | "initial apicid" => number,
                    "physical id" => 0,
                    "siblings" | "cpu cores" => count,
                    _ => {
                        text += line;
                        text += "\n";
                        continue;
                    }
                };
                text += &format!("{name}: {value}\n");
            }
            text += "\n";
        }
        text
    }
}

/// Writes the files of a cage into an empty directory.
pub(super) fn write(directory: &Path, host: &Processors, limits: &CageLimits) -> io::Result<()> {
    for name in DIRECTORIES {
        fs::create_dir(directory.join(name))?;
    }
    let count = host.of_session(limits);
    let proc = [
        ("cpuinfo", host.cpuinfo(count)),
        ("loadavg", LOADAVG.to_owned()),
        ("meminfo", meminfo(limits.memory_bytes)),
        ("stat", stat(&fs::read_to_string("/proc/stat")?, count)),
        ("uptime", uptime(&fs::read_to_string("/proc/uptime")?)),
    ];
    for (name, contents) in proc.into_iter().chain(sys(count, limits)) {
        fs::write(directory.join(name), contents)?;
    }
    // Who finds nothing of this kind takes all processors for one core, which is right for one.
    for number in (0..count).filter(|_| count > 1) {
        let place = directory.join(format!("sys/devices/system/cpu/cpu{number}/topology"));
        fs::create_dir_all(&place)?;
        for (name, contents) in topology(number, count) {
            fs::write(place.join(name), contents)?;
        }
    }
    Ok(())
}

/// A core of its own in the only socket.
fn topology(number: u32, count: u32) -> [(&'static str, String); 5] {
    [
        ("core_id", format!("{number}\n")),
        ("physical_package_id", "0\n".to_owned()),
        ("thread_siblings", mask(number..number + 1)),
        ("thread_siblings_list", format!("{number}\n")),
        ("core_siblings", mask(0..count)),
    ]
}

/// A set of processors as the kernel writes it: in hexadecimal words of 32 bits, the last ones first.
fn mask(set: Range<u32>) -> String {
    let mut words = vec![0_u32; set.end.div_ceil(32) as usize];
    for number in set {
        if let Some(word) = words.get_mut((number / 32) as usize) {
            *word |= 1 << (number % 32);
        }
    }
    let words: Vec<String> = words
        .iter()
        .rev()
        .map(|word| format!("{word:08x}"))
        .collect();
    words.join(",") + "\n"
}

/// What programs look for below `/sys`: processors, and the limits of their group, as either version of
/// control groups tells them. Which version a program looks for depends on the host.
fn sys(count: u32, limits: &CageLimits) -> [(&'static str, String); 12] {
    let processors = match count {
        1 => "0\n".to_owned(),
        _ => format!("0-{}\n", count - 1),
    };
    let quota = limits.cpu_quota_micros();
    let memory = format!("{}\n", limits.memory_bytes);
    [
        ("sys/devices/system/cpu/online", processors.clone()),
        ("sys/devices/system/cpu/possible", processors.clone()),
        ("sys/devices/system/cpu/present", processors),
        (
            "sys/fs/cgroup/cgroup.controllers",
            "cpu memory pids\n".to_owned(),
        ),
        (
            "sys/fs/cgroup/cpu.max",
            format!("{quota} {CPU_PERIOD_MICROS}\n"),
        ),
        ("sys/fs/cgroup/memory.max", memory.clone()),
        ("sys/fs/cgroup/memory.swap.max", "0\n".to_owned()),
        ("sys/fs/cgroup/pids.max", format!("{}\n", limits.processes)),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", format!("{quota}\n")),
        (
            "sys/fs/cgroup/cpu/cpu.cfs_period_us",
            format!("{CPU_PERIOD_MICROS}\n"),
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", memory.clone()),
        ("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", memory),
    ]
}

/// So many of the host's processors, and the time of its boot; all counters are zero.
fn stat(host: &str, processors: u32) -> String {
    let mut text = String::new();
    for line in host.lines() {
        let (name, values) = line.split_once(' ').unwrap_or((line, ""));
        let number: Option<u32> = name
            .strip_prefix("cpu")
            .and_then(|number| number.parse().ok());
        if number.is_some_and(|number| number >= processors) {
            continue;
        }
        text += name;
        match name {
            "btime" => {
                text += " ";
                text += values;
            }
            "procs_running" => text += " 1",
            // One column for each interrupt of the host.
            "intr" => text += " 0",
            _ => text += &" 0".repeat(values.split_whitespace().count()),
        }
        text += "\n";
    }
    text
}

/// The time since the boot, as of now, and no time that processors were idle.
fn uptime(host: &str) -> String {
    let since_boot = host.split_whitespace().next().unwrap_or("0.00");
    format!("{since_boot} 0.00\n")
}

/// As much memory as the session may use, and none of it in use.
fn meminfo(bytes: u64) -> String {
    let kilobytes = bytes / 1024;
    let mut text = String::new();
    for name in ["MemTotal", "MemFree", "MemAvailable"] {
        text += &line(name, kilobytes);
    }
    for name in [
        "Buffers",
        "Cached",
        "SwapCached",
        "Active",
        "Inactive",
        "SwapTotal",
        "SwapFree",
        "Dirty",
        "Writeback",
        "AnonPages",
        "Mapped",
        "Shmem",
        "Slab",
        "SReclaimable",
        "SUnreclaim",
    ] {
        text += &line(name, 0);
    }
    text
}

fn line(name: &str, kilobytes: u64) -> String {
    format!("{:<15} {kilobytes:>8} kB\n", format!("{name}:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: Some\nphysical id\t: 1\nsiblings\t: 4\ncore id\t\t: 7\n\
                           cpu cores\t: 2\nflags\t\t: a b\n\nprocessor\t: 1\nmodel name\t: Some\n\n\
                           processor\t: 2\n\nprocessor\t: 3\n\nHardware\t: board\n";

    fn limits(cpu_millis: u32) -> CageLimits {
        CageLimits {
            memory_bytes: 1 << 30,
            processes: 128,
            cpu_millis,
            scratch_bytes: 1 << 20,
        }
    }

    #[test]
    fn a_session_has_the_processors_that_it_has_a_part_of() {
        let host = Processors::told(CPUINFO);
        let counts = [50, 1000, 1001, 2000, 64_000].map(|part| host.of_session(&limits(part)));
        assert_eq!(counts, [1, 1, 2, 2, 4]);
        // A machine that tells nothing has one, too.
        assert_eq!(Processors::told("").of_session(&limits(2000)), 1);
    }

    #[test]
    fn processors_are_cores_of_one_socket() {
        let core = |number: u32| {
            format!(
                "processor\t: {number}\nmodel name\t: Some\nphysical id\t: 0\nsiblings\t: 2\n\
                 core id\t\t: {number}\ncpu cores\t: 2\nflags\t\t: a b\n\n"
            )
        };
        assert_eq!(Processors::told(CPUINFO).cpuinfo(2), core(0) + &core(1));
    }

    #[test]
    fn a_kernel_without_cores_gets_some() {
        let first = Processors::told("processor\t: 0\nmodel name\t: UML\n\n").cpuinfo(1);
        let cores = "physical id\t: 0\ncore id\t\t: 0\ncpu cores\t: 1\n\n";
        assert_eq!(first, format!("processor\t: 0\nmodel name\t: UML\n{cores}"));
    }

    #[test]
    fn sets_of_processors_are_written_as_the_kernel_does() {
        let masks = [mask(0..2), mask(1..2), mask(0..33), mask(35..36)];
        let expected = [
            "00000003\n",
            "00000002\n",
            "00000001,ffffffff\n",
            "00000008,00000000\n",
        ];
        assert_eq!(masks, expected);
    }

    #[test]
    fn counters_of_the_host_are_zero_and_its_boot_stays() {
        let host = "cpu  10 20 30\ncpu0 5 10 15\ncpu1 5 10 15\ncpu2 1 1 1\nintr 99 1 2 3\nctxt 7\n\
                    btime 1700000000\nprocesses 12\nprocs_running 3\nprocs_blocked 1\nsoftirq 9 8 7\n";
        let expected = "cpu 0 0 0\ncpu0 0 0 0\ncpu1 0 0 0\nintr 0\nctxt 0\nbtime 1700000000\n\
                        processes 0\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0\n";
        assert_eq!(stat(host, 2), expected);
        assert_eq!(uptime("12345.67 99999.99\n"), "12345.67 0.00\n");
    }

    #[test]
    fn memory_is_what_the_session_may_use() {
        let text = meminfo(1 << 30);
        assert!(
            text.starts_with("MemTotal:        1048576 kB\nMemFree:         1048576 kB\n"),
            "{text}"
        );
        assert!(text.contains("SwapTotal:             0 kB\n"), "{text}");
    }

    #[test]
    fn a_directory_has_every_file_and_what_the_limits_are() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        write(directory.path(), &Processors::told(CPUINFO), &limits(1500)).unwrap();
        for name in PROC {
            assert!(!read(name).is_empty(), "{name}");
        }
        assert_eq!(read("sys/devices/system/cpu/online"), "0-1\n");
        assert_eq!(read("sys/devices/system/cpu/cpu1/topology/core_id"), "1\n");
        assert_eq!(read("sys/fs/cgroup/cpu.max"), "150000 100000\n");
        assert_eq!(read("sys/fs/cgroup/cpu/cpu.cfs_quota_us"), "150000\n");
        assert_eq!(read("sys/fs/cgroup/memory.max"), "1073741824\n");
        assert_eq!(read("sys/fs/cgroup/pids.max"), "128\n");
    }
}
