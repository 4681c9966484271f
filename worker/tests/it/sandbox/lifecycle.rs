//! Cages and kernels from birth to death, and what is left of them: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use worker::patience::patiently;
use worker::sandbox::{Config, Sandboxes};

use super::{
    Host, Session, alone, cgroups, config, limits, loops, status, until, within, zygote_of,
};

fn kill(pid: u32) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_killed_kernel_is_replaced_in_the_same_cage_without_its_processes() {
    let host = Host::start().await;
    let (cage, mut session) = host.session().await;
    session
        .run(
            r#"
import subprocess, os
open("/mnt/data/kept", "w").write("kept")
leftover = subprocess.Popen(["setsid", "sleep", "600"])
if os.fork() == 0:
    os.setsid()
    while True: pass
"#,
        )
        .await;
    assert!(cage.processes().unwrap().len() >= 3);
    session.kernel.process.kill();
    let status = within("the kernel's end", session.kernel.process.exited()).await;
    assert_eq!(status.signal(), Some(9));
    within("clearing", cage.clear()).await.unwrap();
    assert_eq!(cage.processes().unwrap(), Vec::<u32>::new());
    let mut next = Session::join(&cage).await;
    assert_eq!(
        next.run("print(open('/mnt/data/kept').read())").await,
        "kept\n"
    );
    assert_eq!(cage.processes().unwrap(), [next.kernel.process.pid()]);
    within("destruction", cage.destroy()).await.unwrap();
    assert!(!is_alive(next.kernel.process.pid()));
    host.stop().await;
}

#[tokio::test]
async fn sessions_outlive_their_zygote_and_the_next_one_serves_new_ones() {
    let host = Host::start().await;
    let (cage, mut session) = host.session().await;
    session.run("state = 41").await;
    let zygote = zygote_of(&session);
    kill(zygote);
    let (_new_cage, mut new) = host.session().await;
    assert_ne!(zygote_of(&new), zygote);
    assert_eq!(new.run("print(1)").await, "1\n");
    assert_eq!(session.run("print(state + 1)").await, "42\n");
    // The worker has inherited the orphan: its end is heard of, and nothing waits for anybody.
    assert_eq!(
        status(session.kernel.process.pid(), "PPid"),
        std::process::id().to_string()
    );
    session
        .run("import os; os._exit(0) if False else None")
        .await;
    session.send("import os; os._exit(7)").await;
    let ended = within("the orphan's end", session.kernel.process.exited()).await;
    assert_eq!(ended.code(), Some(7));
    let asked = Instant::now();
    within("destruction", cage.destroy()).await.unwrap();
    assert!(
        asked.elapsed() < patiently(Duration::from_secs(1)),
        "{:?}",
        asked.elapsed()
    );
    host.stop().await;
}

#[tokio::test]
async fn a_worn_zygote_is_replaced_and_stays_for_its_sessions() {
    let host = Host::start_with(|config| config.zygote_joins = 2).await;
    let (_one_cage, mut one) = host.session().await;
    let (two_cage, two) = host.session().await;
    let worn = zygote_of(&one);
    assert_eq!(zygote_of(&two), worn);
    // A join may still meet the worn one; one after the replacement does not.
    let replacement = async {
        loop {
            let (_cage, session) = host.session().await;
            if zygote_of(&session) != worn {
                break;
            }
        }
    };
    within("a new zygote", replacement).await;
    assert_eq!(one.run("print(1)").await, "1\n");
    assert!(is_alive(worn));
    within("destruction", two_cage.destroy()).await.unwrap();
    drop((_one_cage, one));
    until("the worn zygote's end", || !is_alive(worn)).await;
    host.stop().await;
}

#[tokio::test]
async fn a_silent_worker_loses_all_its_cages() {
    let host = Host::start_with(|config| config.beat_ttl = Duration::from_secs(3)).await;
    let (_cage, mut session) = host.session().await;
    assert_eq!(session.run("print(1)").await, "1\n");
    host.fall_silent();
    let asked = Instant::now();
    session.send("while True: pass").await;
    within("the watchdog", session.kernel.process.exited()).await;
    let after = asked.elapsed();
    assert!(after < Duration::from_secs(6), "{after:?}");
    within("the failure", host.sandboxes.failed()).await;
    host.stop().await;
}

#[tokio::test]
async fn beats_keep_cages_alive_beyond_the_time_to_live() {
    let host = Host::start_with(|config| config.beat_ttl = Duration::from_secs(3)).await;
    let (_cage, mut session) = host.session().await;
    session.run("import time; time.sleep(4)").await;
    assert_eq!(session.run("print('alive')").await, "alive\n");
    host.stop().await;
}

#[tokio::test]
async fn the_death_of_caged_is_the_death_of_all_cages() {
    let host = Host::start().await;
    let (cage, session) = host.session().await;
    let caged = caged_of(&host.config);
    kill(caged);
    within("the kernel's end", session.kernel.process.exited()).await;
    within("the failure", host.sandboxes.failed()).await;
    assert!(host.sandboxes.cage(&limits()).await.is_err());
    within("destruction", cage.destroy()).await.unwrap();
    let config = host.config.clone();
    host.stop().await;
    assert_eq!(cgroups(&config), Vec::<std::path::PathBuf>::new());
}

/// The process that holds the lock of a state directory, besides this one.
fn caged_of(config: &Config) -> u32 {
    let lock = fs::canonicalize(config.state_dir.join("lock")).unwrap();
    let holds = |pid: u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut fds| {
            fds.any(|fd| fd.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == lock)))
        })
    };
    let me = std::process::id();
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .find(|&pid| pid != me && holds(pid))
        .unwrap()
}

#[test]
fn a_vanished_worker_leaves_nothing_running_and_its_successor_tidies_up() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let (mut host, session) = first.block_on(async {
        let host = Host::start().await;
        let (cage, mut session) = host.session().await;
        session.send("while True: pass").await;
        drop(session.kernel.socket.try_write(&[]));
        // Neither is dropped: the worker does not end in good order.
        std::mem::forget(cage);
        (host, session)
    });
    let kernel = session.kernel.process.pid();
    let config = host.config.clone();
    let directory = tempfile::tempdir().unwrap();
    let _company = host.company.take();
    std::mem::forget((host, session));
    // All tasks and with them all sockets of this worker go.
    first.shutdown_background();
    runtime().block_on(async {
        until("the kernel's end", || !is_alive(kernel)).await;
        fs::write(config.state_dir.join("stray"), "left behind").unwrap();
        let host = Host::start_at(directory, config.clone()).await;
        assert!(!config.state_dir.join("stray").exists());
        let (_cage, mut session) = host.session().await;
        assert_eq!(session.run("print(1)").await, "1\n");
        host.stop().await;
    });
    assert_eq!(cgroups(&config), Vec::<std::path::PathBuf>::new());
    fs::remove_dir_all(config.state_dir.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_start_that_fails_sweeps_nothing_and_leaves_nothing() {
    let (directory, config) = config();
    let own = |name: &str| config.data_dir.join(name);
    let text = directory.path().join("text");
    fs::write(&text, "no file system").unwrap();
    let broken = |image: &std::path::Path| Config {
        image: image.to_owned(),
        ..config.clone()
    };
    for image in [&directory.path().join("missing"), &text] {
        within("the refusal", Sandboxes::start(broken(image)))
            .await
            .unwrap_err();
        assert_eq!(cgroups(&config), Vec::<std::path::PathBuf>::new());
        assert_eq!(fs::read_dir(&config.data_dir).unwrap().count(), 0);
    }
    // As a crash of an older version left it.
    fs::write(own("template.1048576"), "left").unwrap();
    // What keeps the group from being removed, as a cage would.
    let cage = std::path::Path::new("/sys/fs/cgroup");
    let cage = [cage.join("memory"), cage.to_owned()]
        .into_iter()
        .find(|mount| mount.join("cgroup.procs").exists())
        .unwrap()
        .join("hearth")
        .join(config.worker.as_str())
        .join("1");
    fs::create_dir_all(&cage).unwrap();
    within("the refusal", Sandboxes::start(broken(&text)))
        .await
        .unwrap_err();
    assert!(own("template.1048576").exists() && cage.exists());
    let host = Host::start_at(directory, config.clone()).await;
    assert!(!own("template.1048576").exists() && !cage.exists());
    host.stop().await;
}

#[tokio::test]
async fn a_second_worker_of_an_id_is_refused_wherever_its_directories_are() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    let (_directory, elsewhere) = config();
    let second = Config {
        worker: host.config.worker.clone(),
        ..elsewhere
    };
    let refused = Sandboxes::start(second.clone()).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains(second.worker.as_str()), "{said}");
    assert_eq!(session.run("print('alive')").await, "alive\n");
    host.stop().await;
    let host = Sandboxes::start(second).await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn a_start_that_waits_for_an_ending_run_has_its_directories_marked() {
    let ending = Host::start().await;
    let config = ending.config.clone();
    let marks = [&config.state_dir, &config.data_dir].map(|path| path.join(".hearth-worker"));
    // It finds the marks of the first before that takes them away.
    let (next, _directory) = tokio::join!(Sandboxes::start(config.clone()), ending.stop());
    let next = next.unwrap();
    assert!(marks.iter().all(|mark| mark.exists()));
    next.stop().await;
    assert!(!marks.iter().any(|mark| mark.exists()));
}

#[tokio::test]
async fn a_new_worker_removes_nothing_of_its_neighbours() {
    let one = Host::start().await;
    let (_cage, mut session) = one.session().await;
    let two = Host::start().await;
    two.stop().await;
    assert_eq!(session.run("print(1)").await, "1\n");
    one.stop().await;
}

#[tokio::test]
async fn a_limit_that_nothing_can_be_made_with_leaves_nothing_behind() {
    let host = Host::start().await;
    let mut impossible = limits();
    // Below what the kernel needs for a single process.
    impossible.memory_bytes = 4096;
    for _ in 0..3 {
        assert!(
            within("the refusal", host.sandboxes.cage(&impossible))
                .await
                .is_err()
        );
    }
    until("the release of loop devices", || {
        loops(&host.config).is_empty()
    })
    .await;
    let (_cage, mut session) = host.session().await;
    assert_eq!(session.run("print(1)").await, "1\n");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cages_leave_nothing_behind() {
    let alone = alone().await;
    let (directory, config) = config();
    // Orphans of workers that other tests have killed.
    let others = descendants(std::process::id());
    let host = Host::start_at(directory, config).await;
    round(&host, 2).await;
    let before = Traces::of(&host.config);
    for _ in 0..2 {
        round(&host, 30).await;
    }
    until("the end of all traces", || {
        Traces::of(&host.config) == before
    })
    .await;
    let config = host.config.clone();
    let directory = host.stop().await;
    assert_eq!(descendants(std::process::id()), others);
    assert_eq!(loops(&config), Vec::<String>::new());
    assert_eq!(cgroups(&config), Vec::<std::path::PathBuf>::new());
    let left: Vec<_> = fs::read_dir(&config.state_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
    assert_eq!(fs::read_dir(&config.data_dir).unwrap().count(), 0);
    drop((directory, alone));
}

/// Makes cages, runs something in each, destroys them.
async fn round(host: &Host, count: usize) {
    let sessions = (0..count).map(|number| {
        let sandboxes: Sandboxes = host.sandboxes.clone();
        tokio::spawn(async move {
            let cage = within("a cage", sandboxes.cage(&limits())).await.unwrap();
            let mut session = Session::join(&cage).await;
            let printed = session.run(&format!("print({number})")).await;
            assert_eq!(printed, format!("{number}\n"));
            within("destruction", cage.destroy()).await.unwrap();
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.await.unwrap();
    }
}

/// What a worker holds of its host.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: BTreeSet<u32>,
    descriptors: usize,
    mounts: usize,
    loops: Vec<String>,
    cgroups: usize,
    files: usize,
}

impl Traces {
    fn of(config: &Config) -> Self {
        let entries = |path: &std::path::Path| fs::read_dir(path).map_or(0, Iterator::count);
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let kinds = ["bundles", "containers", "data"];
        let private = std::path::PathBuf::from(format!("/proc/{}/root/run", caged_of(config)));
        Self {
            processes: descendants(std::process::id()),
            descriptors: entries("/proc/self/fd".as_ref()),
            mounts: mounts()
                .lines()
                .filter(|line| line.contains("hearth"))
                .count(),
            loops: loops(config),
            cgroups: cgroups(config)
                .iter()
                .map(|cgroup| directories(cgroup))
                .sum(),
            files: entries(&config.data_dir)
                + kinds
                    .iter()
                    .map(|kind| entries(&private.join(kind)))
                    .sum::<usize>(),
        }
    }
}

fn directories(path: &std::path::Path) -> usize {
    let entries = fs::read_dir(path).unwrap();
    entries
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()))
        .count()
}

fn descendants(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return found;
    };
    for task in tasks.filter_map(Result::ok) {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().map(|pid| pid.parse().unwrap()) {
            found.insert(child);
            found.extend(descendants(child));
        }
    }
    found
}
