//! The last broom of a stack: whatever still carries its directory's name when all its processes
//! should have ended. A clean product leaves it nothing to do, and what it finds is reported.

use std::{collections::BTreeSet, fs, path::Path};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, WaitOptions, kill_process, wait},
};

use crate::inventory;

/// Ends orphans of this process, unmounts what lies below `directory` and removes `cgroups`; says
/// what it found.
pub(super) fn sweep(directory: &Path, cgroups: &BTreeSet<String>) -> Vec<String> {
    let mut found = end_orphans();
    found.extend(unmount_below(directory));
    found.extend(cgroups.iter().filter_map(|name| remove_cgroup(name)));
    found
}

/// Kills this process's remaining descendants. It is their subreaper, so each death brings the
/// next generation up.
fn end_orphans() -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let children = inventory::children_of_this_thread();
        if children.is_empty() {
            return found;
        }
        for &child in &children {
            if !inventory::is_zombie(child) {
                found.push(format!("process {child} {}", inventory::name_of(child)));
            }
            let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
            // One that has ended by itself needs no killing.
            pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        // In whatever order they end: process 1 of a cage waits for all others in it.
        for _ in children {
            if let Err(error) = wait(WaitOptions::empty()) {
                found.push(format!("orphans that cannot be reaped: {error}"));
                return found;
            }
        }
    }
}

fn unmount_below(directory: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(4));
    let ours = points.filter(|point| Path::new(point).starts_with(directory));
    ours.map(|point| match unmount(point, UnmountFlags::DETACH) {
        Ok(()) => format!("mount {point}"),
        Err(error) => format!("mount {point}, which cannot be unmounted: {error}"),
    })
    .collect()
}

/// A worker removes its own when it stops; one that was killed cannot.
fn remove_cgroup(name: &str) -> Option<String> {
    let mut all = inventory::cgroups_of(name);
    if all.is_empty() {
        return None;
    }
    // Parents stand before their children.
    all.reverse();
    let failed = all
        .iter()
        .filter(|directory| fs::remove_dir(directory).is_err())
        .count();
    for family in all.iter().filter_map(|directory| directory.parent()) {
        // It goes with the last worker of this host.
        fs::remove_dir(family).ok();
    }
    Some(format!(
        "{} cgroups of {name}, {failed} of which cannot be removed",
        all.len()
    ))
}
