//! Memory that no process holds, and that the next kernel of a cage must not pay for.

use std::os::unix::process::ExitStatusExt;

use proto::pool::Limits;
use serde_json::json;

use super::{Host, Session, limits, within};

/// What there is of every kind.
const COUNT: &str = r#"
import json, os
def rows(name):
    return len(open(f"/proc/sysvipc/{name}").read().splitlines()) - 1
def queues():
    import ctypes, errno
    libc = ctypes.CDLL(None, use_errno=True)
    return sum(libc.mq_open(b"/left-%d" % n, os.O_RDONLY) >= 0 for n in range(4))
print(json.dumps({"memory": rows("shm"), "semaphores": rows("sem"), "queues": rows("msg"), "named queues": queues(),
                  "files": sorted(os.listdir("/dev/shm"))}))
"#;

/// Leaves objects of every kind; 120 MiB of memory that no process holds.
const LEAVE: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmdt.argtypes = [ctypes.c_void_p]
def check(result):
    if result in (-1, None):
        raise OSError(ctypes.get_errno(), "failed")
    return result
for key in range(1, 4):
    segment = check(libc.shmget(key, 20 << 20, 0o1600))
    address = check(libc.shmat(segment, None, 0))
    ctypes.memset(address, 1, 20 << 20)
    check(libc.shmdt(address))
    check(libc.semget(key, 10, 0o1600))
    check(libc.msgget(key, 0o1600))
    check(libc.mq_open(b"/left-%d" % key, os.O_CREAT | os.O_RDWR, 0o600, None))
deep = "/dev/shm"
for n in range(100):
    deep += "/deep"
    os.mkdir(deep)
with open("/dev/shm/left", "wb") as file:
    for _ in range(60):
        file.write(bytes(1 << 20))
open("/tmp/kept", "w").write("kept")
open("/mnt/data/kept", "w").write("kept")
"#;

#[tokio::test]
async fn memory_that_no_process_holds_is_free_again_after_a_restart() {
    let host = Host::start().await;
    let small = Limits {
        memory_bytes: 200 << 20,
        ..limits()
    };
    let (_neighbour_cage, mut neighbour) = host.session().await;
    neighbour
        .run("import ctypes; shared = ctypes.CDLL(None).shmget(1, 4096, 0o1600)")
        .await;
    let cage = within("a cage", host.sandboxes.cage(&small)).await.unwrap();
    // More than once: what takes the place of something is cleared in turn.
    for _ in 0..2 {
        let mut session = Session::join(&cage).await;
        let nothing =
            json!({ "memory": 0, "semaphores": 0, "queues": 0, "named queues": 0, "files": [] });
        assert_eq!(session.json(COUNT).await, nothing);
        session.run(LEAVE).await;
        let left = json!({ "memory": 3, "semaphores": 3, "queues": 3, "named queues": 3, "files": ["deep", "left"] });
        assert_eq!(session.json(COUNT).await, left);
        assert!(cage.memory_bytes().unwrap() > 120 << 20);
        session.send("hoard = bytearray(1 << 30)").await;
        let status = within("the end", session.kernel.process.exited()).await;
        assert_eq!(status.signal(), Some(9));
        within("clearing", cage.clear()).await.unwrap();
    }
    let mut session = Session::join(&cage).await;
    let memory = cage.memory_bytes().unwrap();
    assert!(memory < 80 << 20, "{memory} bytes are still charged");
    // As much as before, in the same places, as large as before.
    session.run("hoard = bytearray(120 << 20)").await;
    assert_eq!(session.run("print(len(hoard) >> 20)").await, "120\n");
    let seen = session
        .json(
            r#"
import json, os
size = os.statvfs("/dev/shm")
flags = next(line.split(" ")[5] for line in open("/proc/self/mountinfo") if line.split(" ")[4] == "/dev/shm")
print(json.dumps({
    "files": [open(path).read() for path in ("/tmp/kept", "/mnt/data/kept")],
    "bytes": size.f_blocks * size.f_frsize, "inodes": size.f_files, "mode": oct(os.stat("/dev/shm").st_mode),
    "flags": sorted(set(flags.split(",")) & {"nosuid", "nodev", "noexec"}),
}))
"#,
        )
        .await;
    let expected = json!({
        "files": ["kept", "kept"], "bytes": small.scratch_bytes, "inodes": 65536, "mode": "0o41777",
        "flags": ["nodev", "noexec", "nosuid"]
    });
    assert_eq!(seen, expected);
    // What belongs to a neighbour stays.
    let found = "import ctypes; print(ctypes.CDLL(None).shmget(1, 0, 0) == shared)";
    assert_eq!(neighbour.run(found).await, "True\n");
    host.stop().await;
}
