//! A look from outside at a process that claims to be locked down.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use zygote::wire::SESSION_ID;

use super::cgroup::Cgroups;

/// The namespaces that make up a cage.
const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// What is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The process has ended or cannot be looked at.
    #[error("it cannot be looked at")]
    Unreadable(#[from] io::Error),
    /// A namespace is not the cage's, or the cage has the host's.
    #[error("its {0} namespace")]
    Namespace(&'static str),
    /// A control group is not the cage's.
    #[error("its control groups")]
    Cgroups,
    /// A field of `/proc/<pid>/status`.
    #[error("its {0}")]
    Status(&'static str),
}

/// The namespaces of a cage, as the kernel names them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Namespaces([PathBuf; NAMESPACES.len()]);

impl Namespaces {
    fn of(process: &str) -> io::Result<Self> {
        let mut names = Self::none().0;
        for (name, kind) in names.iter_mut().zip(NAMESPACES) {
            *name = fs::read_link(format!("/proc/{process}/ns/{kind}"))?;
        }
        Ok(Self(names))
    }

    /// Those of this process: only its helpers change theirs.
    fn own() -> io::Result<&'static Self> {
        static OWN: OnceLock<Namespaces> = OnceLock::new();
        match OWN.get() {
            Some(own) => Ok(own),
            None => {
                let own = Self::of("self")?;
                Ok(OWN.get_or_init(|| own))
            }
        }
    }

    /// Those of nothing; no process has them.
    pub(super) fn none() -> Self {
        Self([const { PathBuf::new() }; NAMESPACES.len()])
    }

    /// Those of a cage's PID 1. None of them may be the worker's own.
    pub(super) fn of_cage(pid: u32) -> Result<Self, Mismatch> {
        let cage = Self::of(&pid.to_string())?;
        let own = Self::own()?;
        for ((cage, own), kind) in cage.0.iter().zip(&own.0).zip(NAMESPACES) {
            if cage == own {
                return Err(Mismatch::Namespace(kind));
            }
        }
        Ok(cage)
    }
}

/// Checks a process that has joined a cage. It runs nothing of a user yet, so what is true now
/// stays true: none of these can be undone from inside.
pub(super) fn kernel(
    pid: u32,
    cage: &Namespaces,
    cgroups: &Cgroups,
    uid_base: u32,
) -> Result<(), Mismatch> {
    let namespaces = Namespaces::of(&pid.to_string())?;
    for ((cage, own), kind) in cage.0.iter().zip(&namespaces.0).zip(NAMESPACES) {
        if cage != own {
            return Err(Mismatch::Namespace(kind));
        }
    }
    if !cgroups.contains(&fs::read_to_string(format!("/proc/{pid}/cgroup"))?) {
        return Err(Mismatch::Cgroups);
    }
    status(
        &fs::read_to_string(format!("/proc/{pid}/status"))?,
        uid_base + SESSION_ID,
    )
}

fn status(text: &str, id: u32) -> Result<(), Mismatch> {
    let ids = [id; 4].map(|id| id.to_string()).join("\t");
    let none = "0000000000000000";
    for (field, expected) in [
        ("Uid", ids.as_str()),
        ("Gid", ids.as_str()),
        ("Groups", ""),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapBnd", none),
        ("CapAmb", none),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        if found.map(str::trim) != Some(expected) {
            return Err(Mismatch::Status(field));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Name:\tpython3\nUid:\t5\t5\t5\t5\nGid:\t5\t5\t5\t5\nGroups:\t \n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n\
        Seccomp_filters:\t1\n";

    #[test]
    fn a_locked_down_process_passes() {
        assert!(status(GOOD, 5).is_ok());
    }

    #[test]
    fn every_single_deviation_is_found() {
        for (good, bad) in [
            ("Uid:\t5\t5\t5\t5", "Uid:\t5\t5\t0\t5"),
            ("Gid:\t5\t5\t5\t5", "Gid:\t5\t5\t5\t0"),
            ("Groups:\t ", "Groups:\t0 "),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001"),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000001"),
            ("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000400"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ] {
            let text = GOOD.replace(good, bad);
            assert_ne!(text, GOOD);
            let field = good.split(':').next().unwrap();
            let found = status(&text, 5).unwrap_err();
            assert!(
                matches!(found, Mismatch::Status(name) if name == field),
                "{bad}: {found}"
            );
        }
        assert!(matches!(status("", 5), Err(Mismatch::Status("Uid"))));
    }

    #[test]
    fn the_hosts_namespaces_are_no_cage() {
        let own = std::process::id();
        assert!(matches!(
            Namespaces::of_cage(own),
            Err(Mismatch::Namespace("user"))
        ));
    }
}
