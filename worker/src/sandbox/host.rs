//! What sandboxes need of the host, looked at without making one.

use std::fs;
use std::path::Path;

use process::preflight::Finding;

use super::cgroup::Hierarchies;
use super::error::StartError;
use super::loops;
use super::uids::{RANGES, ids};

const CGROUPS: &str = "cgroups";
const LOOPS: &str = "loop-devices";
const UIDS: &str = "user-ids";

/// Whether limits can be set, and in which version's way.
pub(crate) fn cgroups() -> Finding {
    let found = Hierarchies::discover().map_err(StartError::Cgroups);
    let looked = found.and_then(|hierarchies| {
        let version = hierarchies.version();
        hierarchies.look()?;
        Ok(version)
    });
    match looked {
        Ok(version) => Finding::ok(CGROUPS, format!("version {version}, limits can be set")),
        Err(error) => Finding::refused(CGROUPS, &error),
    }
}

/// Whether the kernel gives loop devices away.
pub(crate) fn loops() -> Finding {
    match loops::look() {
        Ok(()) => Finding::ok(LOOPS, "the kernel gives them"),
        Err(error) => Finding::refused(LOOPS, &error),
    }
}

/// Whether there are ids for all cages, which nobody else was given.
pub(crate) fn uids(max_sessions: u32) -> Finding {
    let mapped = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let given = fs::read_to_string(Path::new("/etc/subuid")).unwrap_or_default();
    judge_uids(max_sessions, &mapped, &given)
}

fn judge_uids(max_sessions: u32, mapped: &str, given: &str) -> Finding {
    let needed = ids();
    if max_sessions >= RANGES {
        return Finding::fail(
            UIDS,
            format!("a worker has ids for {RANGES} sandboxes, ready ones among them"),
            format!("lower --max-sessions below {RANGES} and run more workers"),
        );
    }
    let numbers = |line: &str| -> Option<(u64, u64)> {
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    // Inside a user namespace, the first field counts there.
    let inside = |line: &str| -> Option<(u64, u64)> {
        let fields: Vec<u64> = line
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        match fields.as_slice() {
            [first, _, count] => Some((*first, *count)),
            _ => None,
        }
    };
    let covered = mapped
        .lines()
        .filter_map(inside)
        .any(|(first, count)| first <= needed.start && needed.end <= first.saturating_add(count));
    if !covered {
        return Finding::fail(
            UIDS,
            format!(
                "ids {} to {} do not exist here",
                needed.start,
                needed.end - 1
            ),
            "run the worker outside of user namespaces, or in one that has all ids",
        );
    }
    let overlap = given
        .lines()
        .filter_map(numbers)
        .any(|(first, count)| first < needed.end && needed.start < first.saturating_add(count));
    if overlap {
        return Finding::warn(
            UIDS,
            format!(
                "/etc/subuid gives ids between {} and {} to others",
                needed.start,
                needed.end - 1
            ),
            "give those users other ids: containers of theirs would share users with sessions",
        );
    }
    Finding::ok(
        UIDS,
        format!("{} to {} are free", needed.start, needed.end - 1),
    )
}

#[cfg(test)]
mod tests {
    use process::preflight::Outcome;

    use super::*;

    const ALL: &str = "         0          0 4294967295\n";

    #[test]
    fn ids_must_exist_and_be_nobody_elses() {
        let of = |sessions, mapped, given| judge_uids(sessions, mapped, given).outcome;
        assert_eq!(of(600, ALL, "user:100000:65536\n"), Outcome::Ok);
        assert_eq!(of(1024, ALL, ""), Outcome::Fail);
        assert_eq!(of(600, "0 100000 65536\n", ""), Outcome::Fail);
        assert_eq!(of(600, ALL, "user:600000000:65536\n"), Outcome::Warn);
        assert_eq!(of(600, ALL, "# odd\nuser:x:y\n"), Outcome::Ok);
    }
}
