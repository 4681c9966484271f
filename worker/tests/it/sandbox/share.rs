//! Programs hear of the session's share of the host, not of the host.

use proto::pool::Limits;
use serde_json::{Value, json};
use worker::sandbox::Cage;

use super::{Host, Session, limits, within};

/// Everything that says how many processors there are.
const PROCESSORS: &str = r#"
import concurrent.futures, json, multiprocessing, os, subprocess, sys
import joblib, psutil, pyarrow, threadpoolctl
def said(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
def child(*options):
    return said(sys.executable, *options, "-c", "import os; print(os.cpu_count(), os.process_cpu_count())")
lscpu = dict(line.split(":", 1) for line in said("lscpu").splitlines() if ":" in line)
with multiprocessing.get_context("fork").Pool(1) as pool:
    forked = pool.apply(os.process_cpu_count)
print(json.dumps({
    "os.cpu_count": os.cpu_count(),
    "os.process_cpu_count": os.process_cpu_count(),
    "os.sched_getaffinity": len(os.sched_getaffinity(0)),
    "os.sysconf": os.sysconf("SC_NPROCESSORS_ONLN"),
    "multiprocessing": multiprocessing.cpu_count(),
    "a forked process": forked,
    "futures": concurrent.futures.ThreadPoolExecutor()._max_workers - 4,
    "psutil": psutil.cpu_count(),
    "psutil, cores": psutil.cpu_count(logical=False),
    "joblib": joblib.cpu_count(),
    "joblib, cores": joblib.cpu_count(only_physical_cores=True),
    "joblib, jobs": joblib.effective_n_jobs(-1),
    "pyarrow": pyarrow.cpu_count(),
    **{f"threads of {pool['filepath'].rsplit('/')[-1]}": pool["num_threads"] for pool in threadpoolctl.threadpool_info()},
    "nproc": int(said("nproc")),
    "getconf": int(said("getconf", "_NPROCESSORS_ONLN")),
    "getconf, all": int(said("getconf", "_NPROCESSORS_CONF")),
    "lscpu": int(lscpu["CPU(s)"]),
    "/proc/cpuinfo": open("/proc/cpuinfo").read().count("processor\t"),
    "/proc/stat": open("/proc/stat").read().count("\ncpu"),
    "cpu.max": int(open("/sys/fs/cgroup/cpu.max").read().split()[0]) / 100000,
    "a child": int(child().split()[0]),
    "a child's affinity": int(child().split()[1]),
    "an isolated child": int(child("-I").split()[0]),
    **{name: int(os.environ[name]) for name in (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
        "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "OPENCV_FOR_THREADS_NUM")},
}))
"#;

async fn session(host: &Host, limits: &Limits) -> (Cage, Session) {
    let cage = within("a cage", host.sandboxes.cage(limits)).await.unwrap();
    let session = Session::join(&cage).await;
    (cage, session)
}

/// Whatever does not say that there are so many.
fn others(seen: &Value, count: u64) -> Vec<(&String, &Value)> {
    let seen = seen.as_object().unwrap().iter();
    seen.filter(|(_, said)| said.as_f64() != json!(count).as_f64())
        .collect()
}

#[tokio::test]
async fn everything_says_as_many_processors_as_the_session_has() {
    let host = Host::start().await;
    let processors = std::thread::available_parallelism().unwrap().get();
    for count in [1, 2] {
        if count > processors {
            eprintln!("this host has {processors} processors");
            break;
        }
        let limits = Limits {
            cpu_millis: u32::try_from(count).unwrap() * 1000,
            ..limits()
        };
        let (_cage, mut session) = session(&host, &limits).await;
        let seen = session.json(PROCESSORS).await;
        assert_eq!(others(&seen, count as u64), [], "{count} of {processors}");
        // Two of BLAS and one of OpenMP, at least.
        let pools = seen
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| name.starts_with("threads of"));
        assert!(pools.count() >= 3, "{seen}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_part_of_a_processor_is_one_and_memory_is_the_sessions() {
    let host = Host::start().await;
    let limits = Limits {
        cpu_millis: 250,
        memory_bytes: 512 << 20,
        processes: 77,
        ..limits()
    };
    let (_cage, mut session) = session(&host, &limits).await;
    let seen = session
        .json(
            r#"
import json, os, psutil
def read(name):
    return open(f"/sys/fs/cgroup/{name}").read().split()
print(json.dumps({
    "processors": [os.cpu_count(), os.process_cpu_count()],
    "cpu": [read("cpu.max"), read("cpu/cpu.cfs_quota_us"), read("cpu/cpu.cfs_period_us")],
    "memory": sorted({
        int(read("memory.max")[0]), int(read("memory/memory.limit_in_bytes")[0]), psutil.virtual_memory().total,
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        os.sysconf(os.sysconf_names["SC_AVPHYS_PAGES"]) * os.sysconf("SC_PAGE_SIZE"),
    }),
    "processes": read("pids.max"),
    "swap": read("memory.swap.max"),
}))
"#,
        )
        .await;
    let expected = json!({
        "processors": [1, 1],
        "cpu": [["25000", "100000"], ["25000"], ["100000"]],
        "memory": [512 << 20],
        "processes": ["77"],
        "swap": ["0"],
    });
    assert_eq!(seen, expected);
    host.stop().await;
}

#[tokio::test]
async fn what_python_is_told_can_be_asked_and_pickled_as_before() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    let seen = session
        .json(
            r#"
import json, os, pickle, posix
def refused(call, *arguments):
    try:
        return repr(call(*arguments))
    except Exception as error:
        return type(error).__name__
os.sched_setaffinity(0, {max(posix.sched_getaffinity(0))})
print(json.dumps({
    "pickled": [pickle.loads(pickle.dumps(function)) is function for function in (os.sched_getaffinity, os.sysconf)],
    "refused": [refused(os.sched_getaffinity, -1), refused(os.sched_getaffinity, "x"), refused(os.sysconf, "SC_NONE"),
                refused(os.sysconf, []), refused(os.sched_getaffinity)],
    "page": os.sysconf("SC_PAGE_SIZE") == os.sysconf(os.sysconf_names["SC_PAGE_SIZE"]) == 4096,
    "bound": len(os.sched_getaffinity(0)),
}))
"#,
        )
        .await;
    let expected = json!({
        "pickled": [true, true],
        "refused": ["ProcessLookupError", "TypeError", "ValueError", "TypeError", "TypeError"],
        "page": true,
        "bound": 1,
    });
    assert_eq!(seen, expected);
    host.stop().await;
}

/// A file of all cages would be a way from one to the other, and so would the numbers of its inodes.
#[tokio::test]
async fn the_files_that_say_it_are_the_cages_own_and_cannot_be_changed() {
    const LOOK: &str = r#"
import fcntl, json, os
paths = [os.path.join(directory, name) for directory, _, names in os.walk("/sys") for name in names]
paths += ["/proc/" + name for name in ("cpuinfo", "loadavg", "meminfo", "stat", "uptime")]
held, opened = [], []
for path in paths:
    file = open(path, "rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(file)
    except BlockingIOError:
        file.close()
    try:
        opened.append(open(path, "r+b"))
    except OSError:
        pass
print(json.dumps({
    "count": len(paths), "held": len(held), "opened": len(opened),
    "numbers": [os.stat(path).st_ino for path in paths],
}))
"#;
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    let first = session.json(LOOK).await;
    let (_other_cage, mut other) = host.session().await;
    assert_eq!(other.json(LOOK).await, first);
    assert!(first["count"].as_u64() > Some(10), "{first}");
    assert_eq!(
        (&first["held"], &first["opened"]),
        (&first["count"], &json!(0))
    );
    host.stop().await;
}

#[tokio::test]
async fn the_host_has_a_name_that_can_be_looked_up() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    let seen = session
        .json("import json, socket\nprint(json.dumps([socket.gethostbyname(name) for name in (socket.gethostname(), 'localhost')]))")
        .await;
    assert_eq!(seen, json!(["127.0.0.1", "127.0.0.1"]));
    host.stop().await;
}
