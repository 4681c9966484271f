//! Code that speaks for its kernel, or makes its worker do much work with little of its own: callers hear
//! bounded answers that every parser takes, the next caller hears no forgery, and the worker spends no
//! more on one session than its share.

use std::time::{Duration, Instant};

use loadtest::{
    client::{Session, Status},
    cluster::{Cluster, Member},
    wait::until,
};
use serde_json::{Value, json};

use crate::{
    new_contract::run,
    stack::{fail, shared, succeed, value},
};

/// A rest, the time within which a kernel takes what it is sent, and two busy cores.
const ENDED_WITHIN: Duration = Duration::from_secs(40);

/// What a pool lets a cell print, and what is added where it is cut.
const OUTPUT_BYTES: usize = (1 << 20) + 1024;

const FORGE: &str = include_str!("../../../worker/tests/it/sandbox/forge.py");

async fn forger(session: Session) -> Session {
    succeed(&session, FORGE).await;
    session
}

/// A fleet of its own, whose worker's log and processor time are those of one test.
async fn small_cluster() -> Cluster {
    let builder = Cluster::builder().worker_arguments(["--cages", "1", "--spares", "1"]);
    builder.pool(|pool| pool).start().await.unwrap()
}

/// Waits until the worker has ended a kernel that nobody asked for anything.
async fn ended_between_executions(cluster: &Cluster) {
    let ended = until("the kernel is ended", ENDED_WITHIN, async || {
        let log = cluster.log(Member::Worker(0))?;
        let killed = log.contains("a kernel broke its protocol and is killed");
        let ended = log.contains("a kernel ended between executions");
        Ok((killed && ended).then_some(()))
    });
    ended.await.unwrap();
}

#[tokio::test]
async fn a_long_traceback_counts_as_standard_error() {
    let stack = shared().await;
    for code in [
        "raise ValueError('x' * (4 << 20))",
        "long = 'x' * (8 << 20)\nsay(done(error={'name': 'E', 'message': '', 'traceback': long}))\ntime.sleep(60)",
    ] {
        // Each in a session of its own: the second is still asleep after its answer.
        let executed = fail(&forger(stack.session()).await, code).await;
        let length = executed.stderr.len();
        assert!(length <= OUTPUT_BYTES, "{code}: {length} bytes");
        let session = forger(stack.session()).await;
        let told = run(&session, json!({ "code": code, "hearth": {} })).await;
        assert_eq!(told["status"], "Failed", "{code}");
        assert_eq!(told["hearth"]["truncated"]["stderr"], true, "{code}");
        let stderr = told["result"]["stderr"].as_str().unwrap();
        assert!(stderr.len() <= OUTPUT_BYTES, "{code}: {}", stderr.len());
    }
}

#[tokio::test]
async fn a_long_text_is_cut_and_said_to_be() {
    let stack = shared().await;
    let session = stack.session();
    let code = "class Long:\n    def __repr__(self): return 'x' * (5 << 20)\nLong()";
    let told = run(&session, json!({ "code": code, "hearth": {} })).await;
    assert_eq!(told["hearth"]["truncated"]["outputs"], true);
    let shown = told["result"]["executionResult"].as_str().unwrap();
    assert!(shown.ends_with("[cut: longer than 4 MiB]"));
    assert!(shown.len() < (4 << 20) + 100, "{}", shown.len());
}

#[tokio::test]
async fn what_a_strict_parser_would_refuse_is_text() {
    let stack = shared().await;
    let session = stack.session();
    for text in [
        "'[' * 60_000 + ']' * 60_000",
        "'1e999'",
        "'9' * 5000",
        r#"'{"a": 1, "a": 2}'"#,
        r#"'"\\ud800"'"#,
    ] {
        let code = format!(
            "class Shown:\n    def __repr__(self): return {text}\n\
             display({{'application/json': {text}}}, raw=True)\nShown()"
        );
        let result = value(&session, &code).await;
        let Value::String(shown) = &result else {
            panic!("{text}: {result}");
        };
        assert_eq!(value(&session, &format!("len({text})")).await, shown.len());
        let told = run(&session, json!({ "code": code, "hearth": {} })).await;
        let display = &told["hearth"]["outputs"][0]["data"]["application/json"];
        assert_eq!(display, shown, "{text}");
    }
    // What any parser takes is JSON as ever.
    assert_eq!(
        value(&session, "[[1, 2.5], []]").await,
        json!([[1, 2.5], []])
    );
}

#[tokio::test]
async fn the_next_caller_hears_no_forgery() {
    let cluster = small_cluster().await;
    let session = forger(cluster.client(0).unwrap().fresh()).await;
    let forged = session
        .execute("say(done('1'), *(done('666', id=n) for n in range(1, 50)))")
        .await
        .unwrap();
    assert_eq!(forged.status, Status::Failure, "{forged:?}");
    assert!(forged.stderr.contains("Execution aborted"), "{forged:?}");
    assert_eq!(value(&session, "6 * 7").await, 42);
    // The same when the answer has been heard.
    forger(session.clone()).await;
    let later = "def later():\n    \
                     while not os.path.exists('/mnt/data/heard'): time.sleep(0.01)\n    \
                     say(*(done('666', id=n) for n in range(1, 50)))\n\
                 threading.Thread(target=later).start()\n'before'";
    assert_eq!(value(&session, later).await, "'before'");
    session.upload("heard", b"").await.unwrap();
    ended_between_executions(&cluster).await;
    let executed = succeed(&session, "6 * 7").await;
    assert_eq!(executed.result, 42);
    assert!(
        executed.stderr.contains("ended between executions"),
        "{}",
        executed.stderr
    );
}

#[tokio::test]
async fn code_that_answers_early_does_not_run_past_its_end_for_long() {
    let cluster = small_cluster().await;
    let session = forger(cluster.client(0).unwrap().fresh()).await;
    let code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n\
                say(done(\"'early'\"))\n\
                while True:\n    open('/mnt/data/alive', 'w').write(str(time.time()))\n    time.sleep(0.05)";
    let executed = session.execute_within(1, code).await.unwrap();
    assert_eq!(executed.result, "'early'");
    ended_between_executions(&cluster).await;
    let executed = succeed(&session, "6 * 7").await;
    assert_eq!(executed.result, 42);
    assert!(executed.stderr.contains("variables are lost"));
    // It comes to its end when nothing has written for a second.
    let code = "import os, time\n\
                while time.time() < os.stat('/mnt/data/alive').st_mtime + 1: time.sleep(0.05)";
    succeed(&session, code).await;
}

#[tokio::test]
async fn a_caller_after_an_early_answer_gets_a_named_answer_in_time() {
    let stack = shared().await;
    let session = forger(stack.session()).await;
    succeed(&session, "say(done())\ntime.sleep(1000)").await;
    let started = Instant::now();
    let executed = session.execute_within(60, "6 * 7").await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(executed.status, Status::Failure, "{executed:?}");
    let words = "code of an earlier execution was still running in it; this code did not run";
    assert!(executed.stderr.contains(words), "{}", executed.stderr);
    assert_eq!(value(&session, "6 * 7").await, 42);
}

#[tokio::test]
async fn descriptors_that_are_sent_along_hold_nothing_up() {
    let stack = shared().await;
    let session = forger(stack.session()).await;
    let code = "import socket\nown = socket.socket(fileno=os.dup(3))\n\
                try: socket.send_fds(own, [b'\\0'], [own.fileno()])\nfinally: own.close()";
    let started = Instant::now();
    fail(&session, code).await;
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(value(&session, "6 * 7").await, 42);
}

/// Processor time of a worker, its helpers not included.
fn spent(worker: u32) -> Duration {
    /// `USER_HZ` of every Linux.
    const TICKS: u32 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let times = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks: u32 = times.map(|time| time.parse::<u32>().unwrap()).sum();
    Duration::from_secs(1) * ticks / TICKS
}

/// What a worker may spend on one hostile session, in thousandths of a processor: its share of 200, and
/// what serving its callers takes.
const MOST: u128 = 450;

/// Runs `hostile` for a while, which says how much it achieved; the worker's share of a processor meanwhile must
/// be small. Of an attack that achieved less than `least` that would say nothing.
async fn costs_little(what: &str, least: u64, hostile: impl AsyncFn(&Session) -> u64) {
    const FOR: Duration = Duration::from_secs(12);
    let cluster = small_cluster().await;
    let session = forger(cluster.client(0).unwrap().fresh()).await;
    succeed(&session, PREPARE).await;
    let worker = cluster.pid(Member::Worker(0)).await.unwrap();
    let (started, before) = (Instant::now(), spent(worker));
    let neighbour = cluster.client(0).unwrap().fresh();
    let mut achieved = 0;
    while started.elapsed() < FOR {
        achieved += hostile(&session).await;
    }
    let (spent, elapsed) = (spent(worker) - before, started.elapsed());
    let share = spent.as_millis() * 1000 / elapsed.as_millis();
    println!("{what}: {share} thousandths of a processor in {elapsed:?} for {achieved}");
    assert!(share < MOST, "{what}: {share} thousandths of a processor");
    assert!(
        achieved >= least,
        "{what}: nothing was attacked, {achieved}"
    );
    // The worker is as good as ever for others.
    assert_eq!(value(&neighbour, "6 * 7").await, 42);
}

/// Runs code whose value is a number.
async fn number(session: &Session, code: &str) -> u64 {
    let told = value(session, code).await;
    told.as_u64().unwrap_or_else(|| panic!("{told}"))
}

/// What the hostile cells below are made of.
const PREPARE: &str = "
import ctypes, mmap
sent = 0
def map_much(count):
    global kept
    with open('/mnt/data/mapped', 'w+b') as file:
        file.truncate(mmap.PAGESIZE)
        kept = [mmap.mmap(file.fileno(), mmap.PAGESIZE, trackfd=False) for _ in range(count)]
def make_files(count):
    for n in range(count):
        if n % 1000 == 0: os.makedirs(f'/mnt/data/many/{n}')
        open(f'/mnt/data/many/{n - n % 1000}/{n}', 'w').close()
def until(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
";

#[tokio::test]
async fn many_mappings_cost_the_worker_little() {
    // Cells that ran beside so many mappings.
    costs_little("mappings", 3, async |session| {
        let code = "if 'kept' not in globals(): map_much(60_000)\nlen(kept)";
        assert_eq!(value(session, code).await, 60_000);
        number(session, "1").await
    })
    .await;
}

#[tokio::test]
async fn many_files_cost_the_worker_little() {
    // Cells that ran beside so many files.
    costs_little("files", 1, async |session| {
        let code = "if not os.path.exists('/mnt/data/many'): make_files(60_000)\n\
                    sum(len(files) for _, _, files in os.walk('/mnt/data/many'))";
        assert_eq!(value(session, code).await, 60_000);
        number(session, "1").await
    })
    .await;
}

#[tokio::test]
async fn tiny_frames_cost_the_worker_little() {
    // Bytes of frames.
    costs_little("frames", 16 << 20, async |session| {
        let code = "sent = 0\n\
                    one = json.dumps({'type': 'display', 'id': number(), 'data': {}}).encode()\n\
                    one = struct.pack('<I', len(one)) + one\n\
                    for _ in until(5): sent += os.write(3, one)\nsent";
        let single = number(session, code).await;
        let code = "sent = 0\n\
                    one = json.dumps({'type': 'display', 'id': number(), 'data': {}}).encode()\n\
                    many = (struct.pack('<I', len(one)) + one) * 1000\n\
                    for _ in until(5):\n\
                    \x20   view = memoryview(many)\n\
                    \x20   while view:\n\
                    \x20       count = os.write(3, view)\n\
                    \x20       view, sent = view[count:], sent + count\n\
                    sent";
        single + number(session, code).await
    })
    .await;
}

#[tokio::test]
async fn single_bytes_cost_the_worker_little() {
    // Writes of one byte.
    costs_little("bytes", 300_000, async |session| {
        let code = "sent = 0\nfor _ in until(3): sent += os.write(1, b'x')\nsent";
        let one = number(session, code).await;
        let code = "sent = 0\n\
                    for _ in until(3): sent += os.write(1, b'x') + os.write(2, b'x')\nsent";
        let both = number(session, code).await;
        // Between cells too.
        let code = "if os.path.exists('/mnt/data/written'): os.remove('/mnt/data/written')\n\
                    def later():\n\
                    \x20   sent = 0\n\
                    \x20   for _ in until(3): sent += os.write(1, b'x')\n\
                    \x20   open('/mnt/data/.written', 'w').write(str(sent))\n\
                    \x20   os.rename('/mnt/data/.written', '/mnt/data/written')\n\
                    threading.Thread(target=later).start()";
        succeed(session, code).await;
        let told = until("all is written", ENDED_WITHIN, async || {
            Ok(session.download("written").await.ok())
        });
        let told = String::from_utf8(told.await.unwrap()).unwrap();
        one + both + told.parse::<u64>().unwrap()
    })
    .await;
}
