//! What the kernel and the host's programs offer.

use std::{fs, path::Path};

use process::preflight::Finding;

const KERNEL: &str = "kernel";
const FILESYSTEMS: &str = "filesystems";
const MKFS: &str = "mkfs";

/// The oldest kernel that has every system call that is used: `close_range` is of 5.9.
const OLDEST: (u32, u32) = (5, 9);

/// Kinds of namespaces that cages are made of.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// The session image's, and that of the sessions' files.
const NEEDED: [&str; 2] = ["erofs", "ext4"];

/// Looks at the kernel, its filesystems and the program that makes them.
pub(super) fn look() -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    let lacking = NAMESPACES
        .into_iter()
        .find(|name| !Path::new("/proc/self/ns").join(name).exists());
    let seccomp = Path::new("/proc/sys/kernel/seccomp/actions_avail").exists();
    let users = fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let users = users.ok().and_then(|text| text.trim().parse().ok());
    vec![
        kernel(&release, lacking, seccomp, users),
        filesystems(
            &fs::read_to_string("/proc/filesystems").unwrap_or_default(),
            &modules(&release),
        ),
        mkfs(&std::env::var_os("PATH").unwrap_or_default()),
    ]
}

fn kernel(
    release: &str,
    lacking: Option<&str>,
    seccomp: bool,
    user_namespaces: Option<u64>,
) -> Finding {
    let (major, minor) = OLDEST;
    if let Some(name) = lacking {
        return Finding::fail(
            KERNEL,
            format!("Linux {release} has no {name} namespaces"),
            "use a kernel that was built with them, as those of Debian and Ubuntu are",
        );
    }
    if !seccomp {
        return Finding::fail(
            KERNEL,
            format!("Linux {release} has no seccomp filters"),
            "use a kernel that was built with CONFIG_SECCOMP_FILTER",
        );
    }
    if user_namespaces == Some(0) {
        return Finding::fail(
            KERNEL,
            "user namespaces are turned off",
            "`sysctl user.max_user_namespaces=100000`",
        );
    }
    match version(release) {
        Some(version) if version < OLDEST => Finding::fail(
            KERNEL,
            format!("Linux {release} is too old"),
            format!("use {major}.{minor} or newer"),
        ),
        Some(_) => Finding::ok(KERNEL, format!("Linux {release}")),
        None => Finding::warn(
            KERNEL,
            format!("Linux `{release}` is of no known version"),
            format!("make sure that it is {major}.{minor} or newer"),
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Names of the modules that the kernel can load.
fn modules(release: &str) -> String {
    let file = Path::new("/lib/modules").join(release).join("modules.dep");
    fs::read_to_string(file).unwrap_or_default()
}

fn filesystems(known: &str, modules: &str) -> Finding {
    let has = |name: &str| known.lines().any(|line| line.trim() == name);
    let loads = |name: &str| modules.contains(&format!("/{name}.ko"));
    let mut later = vec![];
    for name in NEEDED {
        if has(name) {
            continue;
        }
        if !loads(name) {
            return Finding::fail(
                FILESYSTEMS,
                format!("this kernel has no {name}"),
                format!("`modprobe {name}` on the host, or use a kernel that has it"),
            );
        }
        later.push(name);
    }
    match later.as_slice() {
        [] => Finding::ok(FILESYSTEMS, "erofs and ext4"),
        later => Finding::warn(
            FILESYSTEMS,
            format!("{} not loaded yet", later.join(" and ")),
            format!(
                "`modprobe {}` where the worker may not load modules",
                later.join(" ")
            ),
        ),
    }
}

fn mkfs(path: &std::ffi::OsStr) -> Finding {
    let found = std::env::split_paths(path).any(|directory| directory.join("mkfs.ext4").exists());
    if found {
        Finding::ok(MKFS, "mkfs.ext4 is there")
    } else {
        Finding::fail(
            MKFS,
            "there is no mkfs.ext4 in PATH",
            "install e2fsprogs, and have /usr/sbin in PATH",
        )
    }
}

#[cfg(test)]
mod tests {
    use process::preflight::Outcome;

    use super::*;

    #[test]
    fn a_kernel_is_judged_by_its_version_and_features() {
        let good = |release| kernel(release, None, true, Some(1)).outcome;
        assert_eq!(good("6.1.0-13-amd64"), Outcome::Ok);
        assert_eq!(good("5.9.0"), Outcome::Ok);
        assert_eq!(good("5.8.18"), Outcome::Fail);
        assert_eq!(good("custom"), Outcome::Warn);
        let new = "6.1.0";
        for finding in [
            kernel(new, Some("user"), true, None),
            kernel(new, None, false, None),
            kernel(new, None, true, Some(0)),
        ] {
            assert_eq!(finding.outcome, Outcome::Fail, "{finding:?}");
            assert!(finding.remedy.is_some());
        }
    }

    #[test]
    fn a_filesystem_is_there_or_can_be_loaded() {
        let known = "nodev\tsysfs\n\text4\n\terofs\n";
        assert_eq!(filesystems(known, "").outcome, Outcome::Ok);
        let without = "nodev\tsysfs\n\text4\nnodev\toverlayfs\n";
        assert_eq!(filesystems(without, "").outcome, Outcome::Fail);
        let modules = "kernel/fs/erofs/erofs.ko.xz: kernel/lib/a.ko\n";
        assert_eq!(filesystems(without, modules).outcome, Outcome::Warn);
    }
}
