//! What a session can learn of what others do, and what it is told instead.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Host, status};

/// Reads every file that tells of more than the reader's own processes.
const LOOK: &str = r#"
import hashlib, json, os, stat
def files(directory):
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        if directory == "/proc" and (name.isdigit() or name in ("self", "thread-self", "net", "mounts")):
            continue
        kind = os.lstat(path).st_mode
        if stat.S_ISDIR(kind):
            try:
                yield from files(path)
            except OSError:
                pass
        elif stat.S_ISREG(kind) or stat.S_ISCHR(kind):
            yield path
def content(path):
    # Some wait for news, and then there is nothing to read.
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return b"".join(iter(lambda: os.read(file, 1 << 16), b""))
    except OSError:
        return None
    finally:
        os.close(file)
def look():
    roots = ("/proc", "/sys", "/proc/self/net")
    return {path: content(path) for root in roots for path in files(root)}
"#;

/// Does some of everything, so that whoever counts anything has counted.
const BUSY: &str = r#"
import os, shutil, socket, subprocess, threading, time, hashlib
def busy():
    until = time.monotonic() + 1
    while time.monotonic() < until:
        hashlib.sha256(bytes(1 << 20)).digest()
        subprocess.run(["true"])
        with open("/mnt/data/written", "wb") as file:
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        terminals, pipe, pair = os.openpty(), os.pipe(), socket.socketpair()
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        client.sendall(bytes(1 << 16))
        [os.close(end) for end in terminals + pipe]
        [end.close() for end in (*pair, server, client)]
busy()
print("done")
"#;

/// What changes by itself, and what Linux tells of the whole host below each process's own directory,
/// where nothing can be put before it.
const ALLOWED: [&str; 5] = [
    "/proc/self/net/protocols",
    "/proc/self/net/sockstat",
    "/proc/self/net/softnet_stat",
    "/proc/self/net/stat/rt_cache",
    "/proc/sys/kernel/random/uuid",
];

#[tokio::test]
async fn no_file_tells_what_others_do() {
    let host = Host::start().await;
    let (_busy_cage, mut busy) = host.session().await;
    let (_cage, mut session) = host.session().await;
    session.run(LOOK).await;
    session.run("before = look()").await;
    let counters = || {
        ["stat", "loadavg", "vmstat", "diskstats"]
            .map(|name| std::fs::read_to_string(format!("/proc/{name}")).unwrap())
    };
    let counted = counters();
    assert_eq!(busy.run(BUSY).await, "done\n");
    let (_new_cage, _new) = host.session().await;
    // The host has noticed: files that tell would have something to tell.
    for (before, after) in counted.iter().zip(counters()) {
        assert_ne!(before, &after);
    }
    let seen = session
        .json(
            r#"
after = look()
print(json.dumps({
    "changed": sorted(path for path in before | after if before.get(path) != after.get(path)),
    "read": sum(content is not None for content in after.values()),
    "told": {path: (after[path] or b"").decode() for path in
             ("/proc/diskstats", "/proc/partitions", "/proc/modules", "/proc/swaps", "/proc/locks", "/proc/cgroups")
             if path in after},
    "directories": {path: os.listdir(path) for path in ("/proc/fs", "/proc/irq", "/proc/pressure", "/proc/bus")
                    if os.path.isdir(path)},
}))
"#,
        )
        .await;
    let changed: BTreeSet<&str> = seen["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .filter(|path| !ALLOWED.contains(path))
        .collect();
    assert_eq!(changed, BTreeSet::new());
    // It has looked at something: sysctls, for a start.
    assert!(seen["read"].as_u64().unwrap() > 100, "{seen}");
    for (path, content) in seen["told"].as_object().unwrap() {
        assert_eq!(content, "", "{path}");
    }
    for (path, names) in seen["directories"].as_object().unwrap() {
        assert_eq!(names, &json!([]), "{path}");
    }
    host.stop().await;
}

#[tokio::test]
async fn common_tools_get_an_answer() {
    let host = Host::start().await;
    let (cage, mut session) = host.session().await;
    let seen = session
        .json(
            r#"
import json, multiprocessing, os, time, warnings
import joblib, psutil
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
print(json.dumps({
    "load": open("/proc/loadavg").read(), "load of the C library": len(os.getloadavg()),
    "processors": [os.cpu_count(), multiprocessing.cpu_count(), psutil.cpu_count(), joblib.cpu_count()],
    "memory": memory.total, "available": memory.available, "swap": swap.total,
    "percent": [psutil.cpu_percent(0.01), psutil.cpu_times_percent(0.01).user],
    "times": psutil.cpu_times().user, "switches": psutil.cpu_stats().ctx_switches,
    "boot": 0 < psutil.boot_time() < time.time(),
    "disks": psutil.disk_io_counters(), "partitions": psutil.disk_partitions() != None,
    "usage": psutil.disk_usage("/mnt/data").total > 0,
    "processes": sorted(process.name() for process in psutil.process_iter()),
    "age": 0 <= time.time() - psutil.Process().create_time() < 600,
    "own": psutil.Process().memory_info().rss > 0,
    "uptime": float(open("/proc/uptime").read().split()[0]) > 0,
}))
"#,
        )
        .await;
    let memory = super::limits().memory_bytes;
    let expected = json!({
        "load": "0.00 0.00 0.00 1/1 1\n", "load of the C library": 3,
        "processors": [1, 1, 1, 1],
        "memory": memory, "available": memory, "swap": 0, "percent": [0.0, 0.0], "times": 0.0, "switches": 0,
        "boot": true, "disks": null, "partitions": true, "usage": true,
        "processes": ["cage", "python3"], "age": true, "own": true, "uptime": true
    });
    assert_eq!(seen, expected);
    assert_eq!(status(cage.resident(), "Name"), "cage");
    host.stop().await;
}
