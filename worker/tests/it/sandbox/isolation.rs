//! What one session can learn of another, and of the platform.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use serde_json::json;
use worker::sandbox::layout;

use super::{Host, Session, zygote_of};

#[tokio::test]
async fn two_sessions_share_no_file_no_process_and_no_user() {
    let host = Host::start().await;
    let (one_cage, mut one) = host.session().await;
    let (two_cage, mut two) = host.session().await;
    one.run(
        r#"
import multiprocessing.shared_memory, socket, subprocess
for directory in ("/mnt/data", "/tmp", "/home/session", "/dev/shm"):
    open(directory + "/mine", "w").write("secret")
process = subprocess.Popen(["sleep", "600"])
listener = socket.socket(socket.AF_UNIX)
listener.bind("\0mine")
listener.listen()
"#,
    )
    .await;
    let seen = two
        .json(
            r#"
import json, os, socket
client = socket.socket(socket.AF_UNIX)
print(json.dumps({
    "files": [directory for directory in ("/mnt/data", "/tmp", "/home/session", "/dev/shm")
              if os.path.exists(directory + "/mine")],
    "processes": [open(f"/proc/{name}/comm").read().strip() for name in os.listdir("/proc") if name.isdigit()],
    "socket": client.connect_ex("\0mine") != 0,
}))
"#,
        )
        .await;
    assert_eq!(seen["files"], json!([]));
    let mut processes: Vec<_> = seen["processes"].as_array().unwrap().clone();
    processes.sort_by_key(ToString::to_string);
    assert_eq!(processes, [json!("cage"), json!("python3")]);
    assert_eq!(seen["socket"], true);
    assert!(one_cage.owner().0.abs_diff(two_cage.owner().0) >= 65_536);
    let mine = File::from(rustix_open(&one_cage, "mine"));
    let owner = mine.metadata().unwrap();
    assert_eq!((owner.uid(), owner.gid()), one_cage.owner());
    host.stop().await;
}

fn rustix_open(cage: &worker::sandbox::Cage, name: &str) -> std::os::fd::OwnedFd {
    let (flags, mode) = (rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    let path = std::path::Path::new(layout::FILES).join(name);
    rustix::fs::openat(cage.data(), path, flags, mode).unwrap()
}

// The search takes long, and the worker must beat meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_session_was_sent_is_not_in_the_memory_of_another() {
    let host = Host::start().await;
    let (_one_cage, mut one) = host.session().await;
    // In the code of a session, and also made by it: half of it never crosses a socket.
    let canary = format!("canary-{}-{}", std::process::id(), "q7x".repeat(5));
    one.run(&format!("kept = ['{canary}'] * 3")).await;
    let (_two_cage, mut two) = host.session().await;
    two.run("other = 'nothing'").await;
    let zygote = zygote_of(&one);
    assert!(
        memory_holds(one.kernel.process.pid(), canary.as_bytes()),
        "the search finds nothing"
    );
    assert!(
        !memory_holds(two.kernel.process.pid(), canary.as_bytes()),
        "a session holds it"
    );
    assert!(
        !memory_holds(zygote, canary.as_bytes()),
        "the zygote holds it"
    );
    host.stop().await;
}

fn memory_holds(pid: u32, needle: &[u8]) -> bool {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = false;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let start = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(end, 16).unwrap();
        // Files are the image's; a session's own data is in writable memory.
        if !rights.starts_with("rw") {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            found |= bytes.windows(needle.len()).any(|window| window == needle);
        }
    }
    found
}

#[tokio::test]
async fn the_helpers_know_nothing_of_the_worker() {
    let host = Host::start().await;
    let (_cage, session) = host.session().await;
    let zygote = zygote_of(&session);
    let environment = fs::read(format!("/proc/{zygote}/environ")).unwrap();
    let mut pairs: Vec<_> = environment.split(|&byte| byte == 0).collect();
    pairs.retain(|pair| !pair.is_empty());
    let reviewed = include_str!("../../../kernel/environment");
    for pair in pairs {
        let pair = str::from_utf8(pair).unwrap();
        assert!(reviewed.lines().any(|line| line == pair), "{pair}");
    }
    let arguments = fs::read(format!("/proc/{zygote}/cmdline")).unwrap();
    assert_eq!(
        arguments,
        b"/usr/bin/python3\0-I\0-B\0/opt/hearth/boot.py\0"
    );
    assert_eq!(
        fs::read_dir(format!("/proc/{zygote}/task"))
            .unwrap()
            .count(),
        1
    );

    let me = std::process::id();
    let mut seen = 0;
    for child in children(me) {
        let arguments = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        if arguments == b"caged\0" {
            seen += 1;
            assert_eq!(fs::read(format!("/proc/{child}/environ")).unwrap(), b"");
        }
    }
    assert!(seen >= 1, "no caged among the children");
    host.stop().await;
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

#[tokio::test]
async fn two_sessions_of_one_zygote_draw_different_numbers() {
    let host = Host::start().await;
    let mut draws = Vec::new();
    for _ in 0..2 {
        let (_cage, mut session) = host.session().await;
        draws.push(draw(&mut session).await);
    }
    for (one, two) in draws[0].iter().zip(&draws[1]) {
        assert_ne!(one, two);
    }
    host.stop().await;
}

async fn draw(session: &mut Session) -> Vec<serde_json::Value> {
    let drawn = session
        .json(
            r#"
import json, numpy, os, random, secrets, ssl, tempfile, uuid
print(json.dumps([
    random.random(), float(numpy.random.rand()), float(numpy.random.default_rng().random()),
    uuid.uuid4().hex, secrets.token_hex(), os.urandom(8).hex(), ssl.RAND_bytes(8).hex(),
    tempfile.mktemp(),
]))
"#,
        )
        .await;
    drawn.as_array().unwrap().clone()
}
