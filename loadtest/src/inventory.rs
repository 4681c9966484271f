//! What a worker holds of the host: counted before and after, it shows leaks.

use anyhow::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Counts of everything that a worker could forget to give back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The worker, its descendants and everything in its cgroups.
    pub processes: usize,
    /// Mounts in all mount namespaces of the worker's own processes (not of the sandboxes).
    pub mounts: usize,
    /// Directories below the worker's cgroup, in all hierarchies.
    pub cgroups: usize,
    /// Loop devices whose backing file carries the worker's id or lies in its directory.
    pub loop_devices: usize,
    /// Open files by process, of the worker's own processes.
    pub open_files: BTreeMap<String, usize>,
}

impl Inventory {
    /// Counts for the worker with process number `pid` and this `id`, whose state lies below
    /// `directory`.
    #[must_use]
    pub fn take(pid: u32, id: &str, directory: &Path) -> Self {
        let cgroups = cgroups_of(id);
        let caged = sandboxed(id);
        let mut tree = BTreeSet::from([pid]);
        descend(pid, &mut tree);
        let own = own_processes(pid, id);
        Self {
            processes: tree.union(&caged).count(),
            mounts: mounts_of(&own),
            cgroups: cgroups.len(),
            loop_devices: loop_devices(id, directory),
            open_files: own.iter().map(|&pid| (key(pid), open_files(pid))).collect(),
        }
    }
}

/// The worker with process number `pid` and this `id`, and its helpers.
#[must_use]
pub fn own_processes(pid: u32, id: &str) -> Vec<u32> {
    let mut tree = BTreeSet::from([pid]);
    descend(pid, &mut tree);
    // Only members of the cages' cgroups are sandboxed; caged and the zygote are not.
    tree.difference(&sandboxed(id)).copied().collect()
}

/// Directories named after the worker, and all below, in every cgroup hierarchy.
#[must_use]
pub fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = directories_in(root);
    let mut found = Vec::new();
    for base in hierarchies.iter().map(PathBuf::as_path).chain([root]) {
        let top = base.join("hearth").join(id);
        if top.is_dir() {
            collect(&top, &mut found);
        }
    }
    found
}

/// Processes in the cages of the worker with this id.
#[must_use]
pub fn sandboxed(id: &str) -> BTreeSet<u32> {
    let cgroups = cgroups_of(id);
    cgroups
        .iter()
        .flat_map(|cgroup| processes_in(cgroup))
        .collect()
}

/// Processes directly in a cgroup.
#[must_use]
pub fn processes_in(cgroup: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    listed
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect()
}

/// Direct children of a process.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|&pid| status(pid, 1).and_then(|text| text.parse().ok()) == Some(parent))
        .collect()
}

/// Direct children of the calling thread, for which a single-threaded process need not look at all
/// processes.
#[must_use]
pub fn children_of_this_thread() -> Vec<u32> {
    let listed = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    listed
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Whether a process has ended and only waits to be reaped.
#[must_use]
pub fn is_zombie(pid: u32) -> bool {
    status(pid, 0).as_deref() == Some("Z")
}

/// Short name of a process.
#[must_use]
pub fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// When a process was started, in clock ticks since boot.
#[must_use]
pub fn started(pid: u32) -> Option<u64> {
    status(pid, 19)?.parse().ok()
}

/// Field of `/proc/PID/stat`, counted from the state, which follows the name in parentheses.
fn status(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(field)
        .map(str::to_owned)
}

fn descend(pid: u32, found: &mut BTreeSet<u32>) {
    for child in children_of(pid) {
        if found.insert(child) {
            descend(child, found);
        }
    }
}

fn key(pid: u32) -> String {
    format!("{} {pid}", name_of(pid))
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn mounts_of(processes: &[u32]) -> usize {
    let mut namespaces = BTreeMap::new();
    for pid in processes {
        if let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) {
            namespaces.entry(namespace).or_insert(*pid);
        }
    }
    let lines = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_or(0, |text| text.lines().count())
    };
    namespaces.values().map(lines).sum()
}

fn loop_devices(id: &str, directory: &Path) -> usize {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing = devices
        .filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    let directory = directory.to_string_lossy();
    backing
        .filter(|file| file.contains(id) || file.contains(directory.as_ref()))
        .count()
}

fn directories_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    real.map(|entry| entry.path()).collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    found.push(directory.to_owned());
    for below in directories_in(directory) {
        collect(&below, found);
    }
}

/// Sum of these fields of a file like `/proc/PID/status`, which are in kB, in bytes.
///
/// # Errors
/// The file cannot be read, or is not like that.
pub fn memory(path: &str, names: &[&str]) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let mut sum = 0;
    for line in text.lines() {
        if let Some(rest) = names.iter().find_map(|name| line.strip_prefix(name)) {
            sum += rest.trim().trim_end_matches(" kB").parse::<u64>()? << 10;
        }
    }
    Ok(sum)
}
