//! Files of `/proc` that stand still in a cage. The kernel's own tell how busy the whole host is, and
//! so what other sessions do; without any, common tools fail.

use std::fs;
use std::io;
use std::path::Path;

/// Names of the files, below `/proc` and in their directory.
pub(super) const NAMES: [&str; 4] = ["loadavg", "meminfo", "stat", "uptime"];

/// Nothing runs but the one who asks.
const LOADAVG: &str = "0.00 0.00 0.00 1/1 1\n";

/// Writes the files for the next cage. They are new files: those of earlier cages stay as they are.
pub(super) fn write(directory: &Path, memory_bytes: u64) -> io::Result<()> {
    let stat = stat(&fs::read_to_string("/proc/stat")?);
    let uptime = uptime(&fs::read_to_string("/proc/uptime")?);
    let contents = [LOADAVG.to_owned(), meminfo(memory_bytes), stat, uptime];
    for (name, contents) in NAMES.iter().zip(contents) {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::write(&path, contents)?,
        }
    }
    Ok(())
}

/// The host's processors and the time of its boot; all counters are zero.
fn stat(host: &str) -> String {
    let mut text = String::new();
    for line in host.lines() {
        let (name, values) = line.split_once(' ').unwrap_or((line, ""));
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

    #[test]
    fn counters_of_the_host_are_zero_and_its_processors_and_boot_stay() {
        let host = "cpu  10 20 30\ncpu0 5 10 15\ncpu1 5 10 15\nintr 99 1 2 3\nctxt 7\nbtime 1700000000\n\
                    processes 12\nprocs_running 3\nprocs_blocked 1\nsoftirq 9 8 7\n";
        let expected = "cpu 0 0 0\ncpu0 0 0 0\ncpu1 0 0 0\nintr 0\nctxt 0\nbtime 1700000000\n\
                        processes 0\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0\n";
        assert_eq!(stat(host), expected);
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
    fn files_of_earlier_cages_stay_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 1 << 30).unwrap();
        let earlier = fs::File::open(directory.path().join("meminfo")).unwrap();
        write(directory.path(), 1 << 20).unwrap();
        let later = fs::read_to_string(directory.path().join("meminfo")).unwrap();
        let earlier = io::read_to_string(earlier).unwrap();
        assert_eq!((earlier, later), (meminfo(1 << 30), meminfo(1 << 20)));
    }
}
