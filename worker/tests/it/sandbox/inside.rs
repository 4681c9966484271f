//! What code in a session can see and do.

use serde_json::json;

use super::{Host, Session};

const PROBE: &str = r#"
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    ctypes.set_errno(0)
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def opened(path, mode="rb"):
    try:
        with open(path, mode) as file:
            file.read(1)
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
"#;

async fn probing(session: &mut Session) {
    session.run(PROBE).await;
}

#[tokio::test]
async fn a_session_has_no_rights_and_only_its_own_descriptors() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    let seen = session
        .json(
            r#"
import json, os, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups"]
descriptors = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        descriptors[int(fd)] = os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
    except FileNotFoundError:
        pass  # the listing itself, closed by now
# The real kernel holds /dev/null open as its standard input; nothing else is opened.
print(json.dumps({
    "status": {name: status[name].strip() for name in names},
    "ids": [os.getresuid(), os.getresgid()],
    "descriptors": {fd: kind for fd, kind in sorted(descriptors.items()) if kind != "/dev/null"},
    "host": socket.gethostname(),
    "directory": os.getcwd(),
    "leads": os.getsid(0) == os.getpgid(0) == os.getpid(),
}))
"#,
        )
        .await;
    let none = "0000000000000000";
    let expected = json!({
        "status": {
            "CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
            "NoNewPrivs": "1", "Seccomp": "2", "Groups": ""
        },
        "ids": [[1000, 1000, 1000], [1000, 1000, 1000]],
        "descriptors": { "1": "pipe", "2": "pipe", "3": "socket" },
        "host": "sandbox",
        "directory": "/mnt/data",
        "leads": true
    });
    assert_eq!(seen, expected);
    host.stop().await;
}

#[tokio::test]
async fn no_host_path_shows_and_the_image_cannot_be_written() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    probing(&mut session).await;
    let seen = session
        .json(
            r#"
mounts = [line.split(" ") for line in open("/proc/self/mountinfo")]
print(json.dumps({
    "text": open("/proc/self/mountinfo").read(),
    "roots": {mount[4]: mount[3] for mount in mounts if mount[4] in ("/", "/mnt/data", "/tmp", "/home/session", "/home/session/.local")},
    "disk": [mount[5] for mount in mounts if mount[4] in ("/mnt/data", "/home/session/.local")],
    "writes": {path: opened(path, "w+") for path in
               ("/x", "/usr/bin/x", "/etc/passwd", "/dev/x", "/mnt/x", "/home/x", "/proc/sys/kernel/hostname")},
    "files": sorted(os.listdir("/mnt/data")),
}))
"#,
        )
        .await;
    let roots = json!({
        "/": "/", "/mnt/data": "/files", "/tmp": "/", "/home/session": "/", "/home/session/.local": "/packages"
    });
    assert_eq!(seen["roots"], roots);
    let directory = host.config.state_dir.parent().unwrap().to_str().unwrap();
    let table = seen["text"].as_str().unwrap();
    for path in [directory, "hearth", host.config.image.to_str().unwrap()] {
        assert!(!table.contains(path), "{path} in {table}");
    }
    assert_eq!(seen["disk"].as_array().unwrap().len(), 2);
    for flags in seen["disk"].as_array().unwrap() {
        let flags = flags.as_str().unwrap();
        assert!(
            flags.contains("nosuid") && flags.contains("nodev"),
            "{flags}"
        );
    }
    for (path, outcome) in seen["writes"].as_object().unwrap() {
        let refused = ["EROFS", "EACCES", "ENOENT"].contains(&outcome.as_str().unwrap());
        assert!(refused, "{path}: {outcome}");
    }
    assert_eq!(seen["files"], json!([]));
    host.stop().await;
}

#[tokio::test]
async fn system_calls_that_break_sandboxes_fail() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    probing(&mut session).await;
    let seen = session
        .json(
            r#"
path = ctypes.c_char_p(b"/tmp")
NEWUSER, NEWNS, NEWPID, NEWNET = 0x10000000, 0x00020000, 0x20000000, 0x40000000
master, slave = os.openpty()
print(json.dumps({
    "mount": call(165, path, path, path, 0, 0),
    "umount2": call(166, path, 2),
    "pivot_root": call(155, path, path),
    "chroot": call(161, path),
    "open_tree": call(428, -100 & (1 << 64) - 1, path, 1),
    "move_mount": call(429, 0, 0, 0, 0, 0),
    "fsopen": call(430, path, 0),
    "fsmount": call(432, 0, 0, 0),
    "mount_setattr": call(442, 0, path, 0, 0, 0),
    "unshare user": call(272, NEWUSER),
    "unshare files": call(272, 0x400),
    "setns": call(308, 0, 0),
    "clone with a user namespace": call(56, NEWUSER | 17, 0, 0, 0, 0),
    "clone with a mount namespace": call(56, NEWNS | 17, 0, 0, 0, 0),
    "clone with a pid namespace": call(56, NEWPID | 17, 0, 0, 0, 0),
    "clone with a network namespace": call(56, NEWNET | 17, 0, 0, 0, 0),
    "ptrace": call(101, 0, 0, 0, 0),
    "process_vm_readv": call(310, os.getpid(), 0, 0, 0, 0, 0),
    "process_vm_writev": call(311, os.getpid(), 0, 0, 0, 0, 0),
    "pidfd_getfd": call(438, 0, 0, 0),
    "kcmp": call(312, os.getpid(), os.getpid(), 0, 0, 0),
    "seccomp": call(317, 1, 0, 0),
    "prctl of a filter": call(157, 22, 2, 0, 0, 0),
    "bpf": call(321, 0, 0, 0),
    "perf_event_open": call(298, 0, 0, 0, 0, 0),
    "userfaultfd": call(323, 0),
    "keyctl": call(250, 0, 0, 0, 0, 0),
    "add_key": call(248, path, path, 0, 0, 0),
    "request_key": call(249, path, path, 0, 0),
    "open_by_handle_at": call(304, 0, 0, 0),
    "name_to_handle_at": call(303, 0, path, 0, 0, 0),
    "mknod of a device": call(133, ctypes.c_char_p(b"/tmp/device"), 0o60600, 0x700),
    "mknodat of a device": call(259, -100 & (1 << 64) - 1, ctypes.c_char_p(b"/tmp/device"), 0o20600, 0x101),
    "init_module": call(175, 0, 0, 0),
    "kexec_load": call(246, 0, 0, 0, 0),
    "swapon": call(167, path, 0),
    "acct": call(163, path),
    "quotactl": call(179, 0, path, 0, 0),
    "reboot": call(169, 0, 0, 0, 0),
    "sethostname": call(170, path, 4),
    "clock_settime": call(227, 0, 0),
    "personality without randomisation": call(135, 0x0040000),
    "ioctl TIOCSTI": call(16, slave, 0x5412, ctypes.c_char_p(b"x")),
    "ioctl TIOCSTI in 64 bits": call(16, slave, 0x100005412, ctypes.c_char_p(b"x")),
    "ioctl TIOCLINUX": call(16, slave, 0x541C, ctypes.c_char_p(b"x")),
    "netlink socket": call(41, 16, 3, 0),
    "packet socket": call(41, 17, 3, 0),
    "vsock socket": call(41, 40, 1, 0),
    "alg socket": call(41, 38, 5, 0),
}))
"#,
        )
        .await;
    for (name, outcome) in seen.as_object().unwrap() {
        assert_eq!(outcome, "EPERM", "{name}");
    }
    let seen = session
        .json(
            r#"
print(json.dumps({
    "clone3": call(435, 0, 0), "io_uring_setup": call(425, 1, 0), "io_uring_enter": call(426, 0, 0, 0, 0, 0),
    "getpid in the x32 numbering": call(0x40000000 | 39),
}))
"#,
        )
        .await;
    for (name, outcome) in seen.as_object().unwrap() {
        assert_eq!(outcome, "ENOSYS", "{name}");
    }
    let seen = session
        .json(
            r#"
os.mkfifo("/tmp/fifo")
print(json.dumps({
    "sync": call(162), "memfd": call(319, path, 0), "fifo": os.path.exists("/tmp/fifo"),
    "filter of one's own": call(157, 38, 1, 0, 0, 0),
}))
"#,
        )
        .await;
    let expected =
        json!({ "sync": "ok", "memfd": "ok", "fifo": true, "filter of one's own": "ok" });
    assert_eq!(seen, expected);
    host.stop().await;
}

#[tokio::test]
async fn nothing_outside_is_reachable_and_loopback_is() {
    let host = Host::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_cage, mut session) = host.session().await;
    probing(&mut session).await;
    session.run(&format!("host_port = {port}")).await;
    let seen = session
        .json(
            r#"
import socket
def connected(address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        client.settimeout(5)
        try:
            client.connect((address, port))
            return "ok"
        except OSError as error:
            return errno.errorcode[error.errno]
with socket.create_server(("127.0.0.1", 0)) as server:
    inner = connected("127.0.0.1", server.getsockname()[1])
print(json.dumps({
    "internet": connected("1.1.1.1", 443), "metadata": connected("169.254.169.254", 80),
    "private": connected("10.0.0.1", 80), "version 6": connected("2606:4700::1111", 443),
    "the host's listener": connected("127.0.0.1", host_port), "inside": inner,
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "routes": open("/proc/net/route").read().splitlines()[1:],
}))
"#,
        )
        .await;
    for name in ["internet", "metadata", "private", "version 6"] {
        assert_eq!(seen[name], "ENETUNREACH", "{name}");
    }
    assert_eq!(seen["the host's listener"], "ECONNREFUSED");
    assert_eq!(seen["inside"], "ok");
    assert_eq!(seen["interfaces"], json!(["lo"]));
    assert_eq!(seen["routes"], json!([]));
    host.stop().await;
}

#[tokio::test]
async fn pid_1_is_closed_to_the_session() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    probing(&mut session).await;
    let seen = session
        .json(
            r#"
import signal
def killed(number):
    try:
        os.kill(1, number)
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
def linked(path):
    try:
        return os.readlink(path)
    except OSError as error:
        return errno.errorcode[error.errno]
def listed(path):
    try:
        return os.listdir(path)
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps({
    "opened": {name: opened(f"/proc/1/{name}") for name in ("environ", "mem", "maps", "auxv")},
    "linked": {name: linked(f"/proc/1/{name}") for name in ("exe", "root", "cwd", "ns/mnt")},
    "listed": {name: listed(f"/proc/1/{name}") for name in ("fd", "map_files", "fdinfo")},
    "killed": [killed(number) for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP)],
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "name": open("/proc/1/comm").read().strip(),
}))
"#,
        )
        .await;
    for name in ["environ", "mem", "maps", "auxv"] {
        assert_eq!(seen["opened"][name], "EACCES", "{name}");
    }
    for name in ["exe", "root", "cwd", "ns/mnt"] {
        assert_eq!(seen["linked"][name], "EACCES", "{name}");
    }
    for name in ["fd", "map_files", "fdinfo"] {
        assert_eq!(seen["listed"][name], "EACCES", "{name}");
    }
    assert_eq!(seen["killed"], json!(["EPERM", "EPERM", "EPERM"]));
    assert_eq!(seen["processes"], json!([1, 2]));
    assert_eq!(seen["name"], "cage");
    host.stop().await;
}

#[tokio::test]
async fn ordinary_python_works_under_the_filter() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    let seen = session
        .json(
            r#"
import json, multiprocessing, os, pty, subprocess, sys, threading
import matplotlib, numpy, pandas, sklearn.linear_model
import matplotlib.pyplot as plt

def workers(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        return pool.map(abs, range(-4, 0))

total = []
threads = [threading.Thread(target=lambda n=n: total.append(n)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
frame = pandas.DataFrame({"a": numpy.arange(6), "b": numpy.ones(6)})
model = sklearn.linear_model.LinearRegression().fit(frame[["a"]], frame["a"] * 2)
figure = plt.figure()
figure.gca().plot([1, 2])
figure.savefig("/tmp/plot.png")
plt.close("all")
print(json.dumps({
    "threads": sum(total),
    "fork": workers("fork"),
    "spawn": workers("spawn"),
    "shell": subprocess.run("echo one | tr a-z A-Z", shell=True, capture_output=True, text=True).stdout,
    "python": subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout,
    "terminal": pty.spawn(["true"]),
    "pandas": int(frame.groupby("b").a.sum().iloc[0]),
    "sklearn": round(float(model.coef_[0]), 6),
    "plot": os.path.getsize("/tmp/plot.png") > 1000,
    "shared": multiprocessing.shared_memory.SharedMemory(create=True, size=4096).size
        if __import__("multiprocessing.shared_memory") else None,
}))
"#,
        )
        .await;
    let expected = json!({
        "threads": 28, "fork": [4, 3, 2, 1], "spawn": [4, 3, 2, 1], "shell": "ONE\n", "python": "42\n",
        "terminal": 0, "pandas": 15, "sklearn": 2.0, "plot": true, "shared": 4096
    });
    assert_eq!(seen, expected);
    host.stop().await;
}
