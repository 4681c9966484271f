//! What the kernel counts for each user or for the whole host: one session that fills it up takes
//! nothing from its neighbours and nothing from the host's root.

use std::process::Stdio;

use proto::pool::Limits;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{Host, Session, limits, within};

/// Calls of the C library; each raises an `OSError` when it fails.
const CALLS: &str = r#"
import ctypes, errno, fcntl, json, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
def lock(bytes):
    call("mlock", libc.mmap(None, bytes, 3, 0x22, -1, 0), bytes)
def timer():
    call("timer_create", 0, None, ctypes.byref(ctypes.c_void_p()))
def queue(name):
    attributes = (ctypes.c_long * 8)(0, 10, 8192)
    return call("mq_open", name.encode(), os.O_CREAT | os.O_RDWR, 0o600, ctypes.byref(attributes))
def pipe(bytes):
    fcntl.fcntl(os.pipe()[0], fcntl.F_SETPIPE_SZ, bytes)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
"#;

/// Uses a little of everything; prints what failed.
const PROBE: &str = r#"
import select
def watch():
    instance = call("inotify_init1", 0)
    call("inotify_add_watch", instance, b"/", 2)
    os.close(instance)
def queue_signal():
    call("sigqueue", os.getpid(), signal.SIGRTMIN, None)
    signal.sigtimedwait([signal.SIGRTMIN], 1)
def use_queue():
    name = f"/probe-{os.getpid()}"
    os.close(queue(name))
    call("mq_unlink", name.encode())
def poll():
    events = select.epoll()
    events.register(os.pipe()[0])
    events.close()
def fork():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
def probe():
    uses = {"inotify": watch, "signals": queue_signal, "timers": timer, "queues": use_queue, "epoll": poll,
            "pipes": lambda: pipe(1 << 20), "memory": lambda: lock(1 << 20), "processes": fork,
            "terminals": os.openpty}
    failed = {}
    for name, use in uses.items():
        try:
            use()
        except OSError as error:
            failed[name] = errno.errorcode[error.errno]
    return failed
print(json.dumps(probe()))
"#;

/// Uses as much of everything as there is, and holds it; prints how much that was.
const FILL: &str = r#"
def fill(use, most=1 << 17):
    held = 0
    try:
        while held < most:
            use(held)
            held += 1
    except OSError as error:
        return [held, errno.errorcode[error.errno]]
    return [held, None]
def park():
    """A process that only lasts, with its own descriptors."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    return pid
sleeper = park()
def start(_):
    if os.fork() == 0:
        signal.pause()
held = {
    "inotify": fill(lambda _: call("inotify_init1", 0), 1000),
    "queues": fill(lambda n: queue(f"/fill-{n}")),
    "terminals": fill(lambda _: os.openpty()),
    "pipes": fill(lambda _: pipe(1 << 20)),
    "memory": fill(lambda _: lock(1 << 20)),
    "timers": fill(lambda n: timer() if n < 1000 else call("sigqueue", sleeper, signal.SIGRTMIN, None)),
    "processes": fill(start),
}
print(json.dumps(held))
"#;

/// Asks for what no session gets: keys, and namespaces by every call that makes one. Prints how each was refused.
const FORBIDDEN: &str = r#"
NUMBERS = {"add_key": 248, "request_key": 249, "keyctl": 250, "clone": 56, "clone3": 435}
KINDS = {"mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
         "pid": 0x20000000, "net": 0x40000000}
OWN_KEYRING, JOIN = ctypes.c_long(-3), 1
def raw(name, *arguments):
    return call("syscall", NUMBERS[name], *arguments)
def child(name, *arguments):
    if (pid := raw(name, *arguments)) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
def clone(kind):
    child("clone", ctypes.c_ulong(kind | signal.SIGCHLD), None, None, None, None)
def clone3(kind):
    wanted = (ctypes.c_uint64 * 8)(kind, 0, 0, 0, signal.SIGCHLD)
    child("clone3", wanted, ctypes.c_size_t(ctypes.sizeof(wanted)))
asks = {
    "add_key": lambda: raw("add_key", b"user", b"one", b"two", ctypes.c_size_t(3), OWN_KEYRING),
    "request_key": lambda: raw("request_key", b"user", b"one", None, OWN_KEYRING),
    "keyctl": lambda: raw("keyctl", JOIN, None),
}
for name, kind in KINDS.items():
    asks[f"unshare {name}"] = lambda kind=kind: call("unshare", kind)
    asks[f"clone {name}"] = lambda kind=kind: clone(kind)
    asks[f"clone3 {name}"] = lambda kind=kind: clone3(kind)
def refusal(ask):
    try:
        ask()
    except OSError as error:
        return errno.errorcode[error.errno]
    return None
print(json.dumps({name: refusal(ask) for name, ask in asks.items()}))
"#;

/// Watches as many descriptors as there may be watches, and goes on watching; prints how many that are and what
/// ended it.
const WATCH: &str = r#"
import select
def watch_much():
    instances = [select.epoll() for _ in range(2000)]
    watched = [os.eventfd(0) for _ in range(1900)]
    count = 0
    try:
        for instance in instances:
            for descriptor in watched:
                instance.register(descriptor, select.EPOLLIN)
                count += 1
    except OSError as error:
        return [count, errno.errorcode[error.errno]], instances
    return [count, None], instances
watches, ended = 0, None
while ended is None and watches < MOST:
    read, write = os.pipe()
    if os.fork() == 0:
        told, held = watch_much()
        os.write(write, json.dumps(told).encode())
        while True:
            signal.pause()
    os.close(write)
    count, ended = json.loads(os.read(read, 100))
    os.close(read)
    watches += count
print(json.dumps([watches, ended]))
"#;

/// The same code as in a session, as root of the host.
async fn probe_as_the_hosts_root() -> Value {
    let mut python = tokio::process::Command::new("python3")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    input
        .write_all(format!("{CALLS}{PROBE}").as_bytes())
        .await
        .unwrap();
    drop(input);
    let ended = within("the probe", python.wait_with_output())
        .await
        .unwrap();
    serde_json::from_slice(&ended.stdout).unwrap()
}

async fn fill(session: &mut Session) -> Value {
    session.json(&format!("{CALLS}{FILL}")).await
}

async fn probe(session: &mut Session) -> Value {
    session.json(&format!("{CALLS}{PROBE}")).await
}

#[tokio::test]
async fn what_one_session_fills_up_is_there_for_its_neighbours_and_for_root() {
    let host = Host::start().await;
    let (_neighbour_cage, mut neighbour) = host.session().await;
    let (cage, mut hostile) = host.session().await;
    let held = fill(&mut hostile).await;
    // The bounds are the session's own: it meets each, and none is what the host as a whole has.
    for (name, errors, most) in [
        ("inotify", &["EMFILE"][..], 1000),
        ("queues", &["EMFILE", "ENOSPC"][..], 256),
        ("terminals", &["ENOSPC"][..], 64),
        ("pipes", &["EPERM"][..], 1024),
        ("memory", &["ENOMEM", "EAGAIN"][..], 8),
        ("timers", &["EAGAIN"][..], 4096),
        ("processes", &["EAGAIN"][..], 128),
    ] {
        let (count, error) = (held[name][0].as_u64().unwrap(), held[name][1].as_str());
        // Some hosts allow each user more instances than a process can have descriptors.
        let met = error.map_or(name == "inotify", |error| errors.contains(&error));
        assert!(met, "{name}: {held}");
        assert!(count > 0 && count <= most, "{name}: {held}");
    }
    // Who was there before, who comes later, and who owns the host.
    assert_eq!(probe(&mut neighbour).await, json!({}));
    let (_late_cage, mut late) = host.session().await;
    assert_eq!(probe(&mut late).await, json!({}));
    assert_eq!(probe_as_the_hosts_root().await, json!({}));
    // And nobody has less than another.
    let (_other_cage, mut other) = host.session().await;
    assert_eq!(fill(&mut other).await, held);
    assert_eq!(probe_as_the_hosts_root().await, json!({}));
    drop(hostile);
    within("destruction", cage.destroy()).await.unwrap();
    assert_eq!(probe(&mut neighbour).await, json!({}));
    host.stop().await;
}

#[tokio::test]
async fn no_session_gets_keys_or_namespaces() {
    let host = Host::start().await;
    let (_neighbour_cage, mut neighbour) = host.session().await;
    let (_cage, mut hostile) = host.session().await;
    let refused = hostile.json(&format!("{CALLS}{FORBIDDEN}")).await;
    let refused = refused.as_object().unwrap();
    assert_eq!(refused.len(), 3 + 3 * 7);
    for (call, error) in refused {
        let wanted = match call.starts_with("clone3 ") {
            true => "ENOSYS",
            false => "EPERM",
        };
        assert_eq!(error, wanted, "{call}");
    }
    assert_eq!(probe(&mut neighbour).await, json!({}));
    assert_eq!(probe_as_the_hosts_root().await, json!({}));
    host.stop().await;
}

#[tokio::test]
async fn epoll_watches_of_one_session_are_counted_for_it_alone() {
    /// More than a host of 32 GiB allows a user; they take two GiB.
    const MOST: u64 = 8_000_000;
    let allowed = std::fs::read_to_string("/proc/sys/fs/epoll/max_user_watches").unwrap();
    let allowed: u64 = allowed.trim().parse().unwrap();
    let host = Host::start().await;
    let (_neighbour_cage, mut neighbour) = host.session().await;
    let large = Limits {
        memory_bytes: 4 << 30,
        ..limits()
    };
    let cage = within("a cage", host.sandboxes.cage(&large)).await.unwrap();
    let mut hostile = Session::join(&cage).await;
    let watched = hostile
        .json(&format!("{CALLS}MOST = {MOST}\n{WATCH}"))
        .await;
    let (watches, ended) = (watched[0].as_u64().unwrap(), watched[1].as_str());
    if allowed < MOST {
        // All that a user may have, and nobody else had a part in it but the kernel's own loop.
        assert_eq!(ended, Some("ENOSPC"), "{watched}");
        assert!(
            (allowed - 100..=allowed).contains(&watches),
            "{watched} of {allowed}"
        );
    } else {
        assert!(ended.is_none() && watches >= MOST, "{watched} of {allowed}");
    }
    assert_eq!(probe(&mut neighbour).await, json!({}));
    let (_late_cage, mut late) = host.session().await;
    assert_eq!(probe(&mut late).await, json!({}));
    assert_eq!(probe_as_the_hosts_root().await, json!({}));
    drop(hostile);
    within("destruction", cage.destroy()).await.unwrap();
    assert_eq!(probe(&mut neighbour).await, json!({}));
    host.stop().await;
}

#[tokio::test]
async fn every_cage_charges_an_owner_of_its_own() {
    let host = Host::start().await;
    let (one_cage, one) = host.session().await;
    let (two_cage, two) = host.session().await;
    for (cage, session) in [(&one_cage, &one), (&two_cage, &two)] {
        // SESSION_ID is 1000; the owner is the first id of the cage.
        assert_eq!(owner(session.kernel.process.pid()), cage.owner().0 - 1000);
        assert_eq!(owner(cage.resident()), cage.owner().0 - 1000);
    }
    host.stop().await;
}

/// The owner of a process's user namespace.
fn owner(pid: u32) -> u32 {
    // `NS_GET_OWNER_UID`, through the host's own Python: there is no safe wrapper for it here.
    let script = format!(
        "import fcntl, struct\nwith open('/proc/{pid}/ns/user') as ns:\n    \
         print(*struct.unpack('I', fcntl.ioctl(ns, 0xB704, bytes(4))))"
    );
    let ran = std::process::Command::new("python3")
        .args(["-c", &script])
        .output()
        .unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    printed
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{printed:?}"))
}
