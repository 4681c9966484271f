//! Control groups of cages, on version 1 and hybrid hosts and on version 2 hosts.
//!
//! libcontainer makes them and writes the limits; this module enters, reads, freezes and removes
//! them. On version 1 every controller has a hierarchy of its own and a cage is a directory in
//! each; on version 2 there is one hierarchy. A hybrid host is version 1 here: its version 2
//! hierarchy controls nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use super::error::StartError;
use super::kernel_file;
use super::meter::Peak;
use super::spec::Swap;
use super::unified::{self, HandDownError};
use crate::patience::patiently;

/// Directory of all cages of all workers, below each hierarchy's root.
const FAMILY: &str = "hearth";

/// Without these a session could exceed its share.
const REQUIRED: [&str; 4] = ["memory", "pids", "cpu", "freezer"];

/// How long freezing may take.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long killed processes may take to be gone.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks at a state that the kernel reports no event for.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// The mounted hierarchies of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchies(Vec<Hierarchy>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Controllers(Vec<String>),
    Unified,
}

impl Hierarchies {
    /// The hierarchies that this process sees.
    pub(super) fn discover() -> io::Result<Arc<Self>> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let found = Self::parse(&table);
        if let Some(missing) = REQUIRED.into_iter().find(|name| found.of(name).is_none()) {
            let error = format!("this host has no `{missing}` cgroup controller mounted");
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
        Ok(Arc::new(found))
    }

    /// Reads a `mountinfo` table.
    fn parse(table: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut right = right.split(' ');
            let (Some(mount), Some(kind), Some(_), Some(options)) = (
                left.split(' ').nth(4),
                right.next(),
                right.next(),
                right.next(),
            ) else {
                continue;
            };
            let kind = match kind {
                "cgroup2" => Kind::Unified,
                "cgroup" => Kind::Controllers(
                    options
                        .split(',')
                        .filter(|name| !matches!(*name, "rw" | "ro" | "xattr"))
                        .filter(|name| !name.contains('='))
                        .map(str::to_owned)
                        .collect(),
                ),
                _ => continue,
            };
            // A named hierarchy (systemd's) controls nothing.
            if kind == Kind::Controllers(Vec::new()) {
                continue;
            }
            if hierarchies.iter().all(|known| known.kind != kind) {
                hierarchies.push(Hierarchy {
                    mount: mount.into(),
                    kind,
                });
            }
        }
        // Some programs mount a version 1 hierarchy of their own, with one odd controller.
        let version_1 = hierarchies
            .iter()
            .any(|one| one.kind != Kind::Unified && !one.optional());
        hierarchies.retain(|one| (one.kind != Kind::Unified) == version_1);
        Self(hierarchies)
    }

    fn of(&self, controller: &str) -> Option<&Hierarchy> {
        self.0.iter().find(|hierarchy| match &hierarchy.kind {
            Kind::Unified => true,
            Kind::Controllers(names) => names.iter().any(|name| name == controller),
        })
    }

    /// Mount point of the version 2 hierarchy, if that is what limits cages here.
    fn unified(&self) -> Option<&Path> {
        let mut all = self.0.iter();
        let unified = all.find(|hierarchy| hierarchy.kind == Kind::Unified);
        unified.map(|hierarchy| hierarchy.mount.as_path())
    }

    /// 1 or 2; a hybrid host is version 1.
    pub(super) fn version(&self) -> u8 {
        if self.unified().is_some() { 2 } else { 1 }
    }

    /// Whether cgroups with limits can be made; makes none.
    pub(super) fn look(&self) -> Result<(), StartError> {
        for hierarchy in &self.0 {
            let family = hierarchy.mount.join(FAMILY);
            let directory = if family.exists() {
                &family
            } else {
                &hierarchy.mount
            };
            rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)
                .map_err(|error| StartError::Cgroups(about(directory, error.into())))?;
        }
        match self.unified() {
            Some(mount) => Ok(unified::look(mount)?),
            None => Ok(()),
        }
    }

    /// Makes the cgroup of a worker, where cages cannot be limited without.
    pub(super) fn make_worker(&self, worker: &str) -> Result<(), HandDownError> {
        match self.unified() {
            Some(mount) => unified::make(mount, &[FAMILY, worker]),
            None => Ok(()),
        }
    }

    /// The directory of a worker in the hierarchy that limits memory, made if it is missing. Whoever sees
    /// this hierarchy sees the same directory, whatever else it sees of the host.
    pub(super) fn worker_directory(&self, worker: &str) -> io::Result<PathBuf> {
        let hierarchy = self.of("memory").ok_or(io::ErrorKind::NotFound)?;
        let directory = hierarchy.mount.join(FAMILY).join(worker);
        fs::create_dir_all(&directory).map_err(|error| about(&directory, error))?;
        Ok(directory)
    }

    /// How swap can be limited, once the worker's cgroup is made.
    pub(super) fn swap(&self, worker: &str) -> Swap {
        match self.of("memory") {
            Some(Hierarchy {
                mount,
                kind: Kind::Controllers(_),
            }) => {
                let file = mount.join("memory.memsw.limit_in_bytes");
                if file.exists() {
                    Swap::Together
                } else {
                    Swap::Unaccounted
                }
            }
            // The kernel may have been built or started without it.
            Some(Hierarchy {
                mount,
                kind: Kind::Unified,
            }) => {
                let worker = mount.join(FAMILY).join(worker);
                if worker.join("memory.swap.max").exists() {
                    Swap::Apart
                } else {
                    Swap::Unaccounted
                }
            }
            None => Swap::Unaccounted,
        }
    }

    /// The cgroups of a cage of a worker, whether they exist or not.
    pub(super) fn cage(self: &Arc<Self>, worker: &str, cage: &str) -> Cgroups {
        let path = format!("/{FAMILY}/{worker}/{cage}");
        Cgroups {
            hierarchies: Arc::clone(self),
            path,
        }
    }

    /// The cgroups of a new cage. On version 1 libcontainer makes them itself; on version 2 it would
    /// hand down whatever the host has, and not tell when it cannot.
    pub(super) fn make_cage(
        self: &Arc<Self>,
        worker: &str,
        cage: &str,
    ) -> Result<Cgroups, HandDownError> {
        let cgroups = self.cage(worker, cage);
        if let Some(mount) = self.unified() {
            unified::make(mount, &[FAMILY, worker])?;
            unified::make_leaf(&mount.join(FAMILY).join(worker).join(cage))?;
        }
        Ok(cgroups)
    }

    /// Names of the cages of a worker that have a cgroup anywhere.
    pub(super) fn cages(&self, worker: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for hierarchy in &self.0 {
            let entries = match fs::read_dir(hierarchy.mount.join(FAMILY).join(worker)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Removes the directories above a worker's cages, as far as nobody else uses them.
    pub(super) fn remove_worker(&self, worker: &str) -> io::Result<()> {
        for hierarchy in &self.0 {
            let family = hierarchy.mount.join(FAMILY);
            remove_directory(&family.join(worker))?;
            match remove_directory(&family) {
                // Other workers live there.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {}
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

/// The cgroups of one cage.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    hierarchies: Arc<Hierarchies>,
    path: String,
}

impl Cgroups {
    /// Path below each hierarchy's root.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn directory(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(self.path.trim_start_matches('/'))
    }

    fn file(&self, controller: &str, name: &str) -> io::Result<PathBuf> {
        let hierarchy = self
            .hierarchies
            .of(controller)
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(self.directory(hierarchy).join(name))
    }

    fn is_unified(&self) -> bool {
        self.hierarchies.unified().is_some()
    }

    /// The files through which a process enters. Fails unless every limit would hold for it.
    pub(super) fn entrances(&self) -> io::Result<Vec<File>> {
        let mut entrances = Vec::new();
        for hierarchy in &self.hierarchies.0 {
            let path = self.directory(hierarchy).join("cgroup.procs");
            match OpenOptions::new().write(true).open(&path) {
                Ok(file) => entrances.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound && hierarchy.optional() => {}
                Err(error) => return Err(about(&path, error)),
            }
        }
        Ok(entrances)
    }

    /// Moves a process to where it is already. The first move in a while waits some milliseconds for other
    /// processors (the kernel's `cgroup_threadgroup_rwsem`); the moves right after it do not.
    pub(super) fn prime_move(entrances: &[File], resident: u32) -> io::Result<()> {
        match entrances.first() {
            Some(mut entrance) => entrance.write_all(resident.to_string().as_bytes()),
            None => Ok(()),
        }
    }

    /// Whether a process with this `/proc/<pid>/cgroup` is in all of them.
    pub(super) fn contains(&self, membership: &str) -> bool {
        let here = |controllers: &[&str]| {
            membership.lines().any(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                path.ends_with(&self.path)
                    && (controllers.is_empty() && names.is_empty()
                        || controllers
                            .iter()
                            .any(|one| names.split(',').any(|name| name == *one)))
            })
        };
        if self.is_unified() {
            here(&[])
        } else {
            REQUIRED.iter().all(|name| here(&[name]))
        }
    }

    /// Processes inside, as the caller's pid namespace numbers them.
    pub(super) fn processes(&self) -> io::Result<Vec<Pid>> {
        let path = self.file("pids", "cgroup.procs")?;
        let list = kernel_file::read_text(&path).map_err(|error| about(&path, error))?;
        Ok(list
            .lines()
            .filter_map(|line| line.parse().ok().and_then(Pid::from_raw))
            .collect())
    }

    /// Processes that were killed for lack of memory, so far.
    pub(super) fn oom_kills(&self) -> io::Result<u64> {
        let name = if self.is_unified() {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        keyed(&self.file("memory", name)?, "oom_kill")
    }

    /// Forks and threads that were denied, so far.
    pub(super) fn pids_denied(&self) -> io::Result<u64> {
        keyed(&self.file("pids", "pids.events")?, "max")
    }

    /// Memory in use, in bytes.
    pub(super) fn memory_bytes(&self) -> io::Result<u64> {
        let name = if self.is_unified() {
            "memory.current"
        } else {
            "memory.usage_in_bytes"
        };
        let path = self.file("memory", name)?;
        let value = kernel_file::read_text(&path).map_err(|error| about(&path, error))?;
        value
            .trim()
            .parse()
            .map_err(|error| about(&path, io::Error::other(error)))
    }

    /// Processor time used inside so far, in microseconds.
    pub(super) fn cpu_us(&self) -> io::Result<u64> {
        if self.is_unified() {
            return keyed(&self.file("cpu", "cpu.stat")?, "usage_usec");
        }
        let path = self.file("cpuacct", "cpuacct.usage")?;
        let value = kernel_file::read_text(&path).map_err(|error| about(&path, error))?;
        let nanoseconds: u64 = value
            .trim()
            .parse()
            .map_err(|error| about(&path, io::Error::other(error)))?;
        Ok(nanoseconds / 1000)
    }

    /// The most memory in use at once, from now on where the kernel can begin anew.
    pub(super) fn peak(&self) -> io::Result<Peak> {
        let name = if self.is_unified() {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        Peak::begin(&self.file("memory", name)?)
    }

    /// Stops every process inside; returns when none runs any more.
    pub(super) async fn freeze(&self) -> io::Result<()> {
        self.set_frozen(true)?;
        let deadline = Instant::now() + patiently(FREEZE_TIMEOUT);
        while !self.is_frozen()? {
            if Instant::now() > deadline {
                self.set_frozen(false)?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "a cage does not freeze",
                ));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Lets the processes go on.
    pub(super) fn thaw(&self) -> io::Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let (name, value) = match (self.is_unified(), frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let path = self.file("freezer", name)?;
        fs::write(&path, value).map_err(|error| about(&path, error))
    }

    fn is_frozen(&self) -> io::Result<bool> {
        if self.is_unified() {
            return Ok(keyed(&self.file("freezer", "cgroup.events")?, "frozen")? == 1);
        }
        let path = self.file("freezer", "freezer.state")?;
        let state = kernel_file::read_text(&path).map_err(|error| about(&path, error))?;
        Ok(state.trim() == "FROZEN")
    }

    /// Kills every process but one and returns when they are gone. They are frozen meanwhile, so that
    /// none can fork away.
    pub(super) async fn kill_all_but(&self, survivor: Option<Pid>) -> io::Result<()> {
        let deadline = Instant::now() + patiently(EMPTY_TIMEOUT);
        if self.is_unified() {
            // Here frozen processes can die, and who is not frozen yet freezes before it can fork
            // again. So this need not wait until all stand still, as it would for a busy crowd.
            self.set_frozen(true)?;
            let killed = self.kill_until_gone(survivor, deadline).await;
            return self.thaw().and(killed);
        }
        while !self.others(survivor)?.is_empty() {
            self.freeze().await?;
            kill_each(&self.others(survivor)?)?;
            self.thaw()?;
            while !self.others(survivor)?.is_empty() {
                pause_until(deadline).await?;
            }
        }
        Ok(())
    }

    async fn kill_until_gone(&self, survivor: Option<Pid>, deadline: Instant) -> io::Result<()> {
        loop {
            let others = self.others(survivor)?;
            if others.is_empty() {
                return Ok(());
            }
            kill_each(&others)?;
            pause_until(deadline).await?;
        }
    }

    fn others(&self, survivor: Option<Pid>) -> io::Result<Vec<Pid>> {
        let mut processes = self.processes()?;
        processes.retain(|&pid| Some(pid) != survivor);
        Ok(processes)
    }

    /// Removes the empty directories.
    pub(super) fn remove(&self) -> io::Result<()> {
        for hierarchy in &self.hierarchies.0 {
            remove_directory(&self.directory(hierarchy))?;
        }
        Ok(())
    }
}

impl Hierarchy {
    /// Whether a cage may lack this one.
    fn optional(&self) -> bool {
        match &self.kind {
            Kind::Unified => false,
            Kind::Controllers(names) => !names.iter().any(|name| REQUIRED.contains(&name.as_str())),
        }
    }
}

fn kill_each(processes: &[Pid]) -> io::Result<()> {
    for &pid in processes {
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A short pause before another look at processes that were killed.
async fn pause_until(deadline: Instant) -> io::Result<()> {
    if Instant::now() > deadline {
        let error = "killed processes of a cage do not end";
        return Err(io::Error::new(io::ErrorKind::TimedOut, error));
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    Ok(())
}

fn keyed(path: &Path, key: &str) -> io::Result<u64> {
    let text = kernel_file::read_text(path).map_err(|error| about(path, error))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let missing = || about(path, io::Error::other(format!("no `{key}`")));
    value
        .ok_or_else(missing)?
        .trim()
        .parse()
        .map_err(|error| about(path, io::Error::other(error)))
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(about(path, error)),
        _ => Ok(()),
    }
}

fn about(path: &Path, error: io::Error) -> io::Error {
    let text = format!("{}: {error}", path.display());
    match Errno::from_io_error(&error) {
        // Kept as numbers: callers look at them.
        Some(Errno::BUSY | Errno::NODEV) => error,
        _ => io::Error::new(error.kind(), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 1 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:28 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:29 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
35 30 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
36 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const UNIFIED: &str = "\
25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_hybrid_host_is_version_1() {
        let hierarchies = Hierarchies::parse(HYBRID);
        assert_eq!(hierarchies.0.len(), 4);
        let cpu = hierarchies.of("cpu").unwrap();
        assert_eq!(cpu.mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(hierarchies.of("devices"), None);
    }

    #[test]
    fn a_version_2_host_has_one_hierarchy_for_everything() {
        let hierarchies = Hierarchies::parse(UNIFIED);
        for name in REQUIRED {
            assert_eq!(
                hierarchies.of(name).unwrap().mount,
                Path::new("/sys/fs/cgroup")
            );
        }
    }

    #[test]
    fn an_odd_version_1_hierarchy_does_not_make_a_version_2_host_version_1() {
        let odd = "40 25 0:40 / /run/odd rw,relatime - cgroup none rw,net_cls\n";
        let hierarchies = Hierarchies::parse(&format!("{UNIFIED}{odd}"));
        assert_eq!(hierarchies.unified(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(hierarchies, Hierarchies::parse(UNIFIED));
        assert_eq!(Hierarchies::parse(HYBRID).unified(), None);
    }

    #[test]
    fn only_a_member_of_every_required_group_is_contained() {
        let cage = Arc::new(Hierarchies::parse(HYBRID)).cage("worker-1", "7");
        let whole = "9:name=systemd:/\n4:memory:/hearth/worker-1/7\n3:pids:/hearth/worker-1/7\n\
                     2:freezer:/hearth/worker-1/7\n1:cpu,cpuacct:/hearth/worker-1/7\n0::/\n";
        assert!(cage.contains(whole));
        assert!(!cage.contains(&whole.replace("memory:/hearth/worker-1/7", "memory:/")));
        assert!(!cage.contains(&whole.replace("worker-1/7", "worker-1/17")));
        let cage = Arc::new(Hierarchies::parse(UNIFIED)).cage("worker-1", "7");
        assert!(cage.contains("0::/hearth/worker-1/7\n"));
        assert!(!cage.contains("0::/user.slice\n"));
    }
}
