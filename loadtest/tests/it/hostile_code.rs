//! Code that means harm or simply goes wrong: its caller gets a named answer in time, its
//! neighbours keep being answered, its session goes on.

use std::time::{Duration, Instant};

use loadtest::{
    client::{Executed, Session, Status},
    cluster::{Cluster, Member},
    wait::patiently,
};

use crate::stack::{Stack, beside_a_neighbour, fail, refusal, shared, succeed, value};

const TIMED_OUT: &str = "Request timed out waiting for code execution to complete";
const ABORTED: &str = "Execution aborted";

/// Runs code beside a neighbour; the answer must be a failure of these words and come in time.
async fn ends_with(stack: &Stack, session: &Session, code: &str, words: &str) -> Executed {
    /// The cell's own second, the grace after SIGINT, a restart, and two busy cores.
    const IN_TIME: Duration = Duration::from_secs(15);
    let started = Instant::now();
    let executed = beside_a_neighbour(stack, session.execute_within(1, code))
        .await
        .unwrap();
    let ended = started.elapsed();
    assert!(ended < patiently(IN_TIME), "{ended:?}");
    assert_eq!(executed.status, Status::Failure, "{executed:?}");
    assert!(
        executed.stderr.contains(words),
        "{words} is missing in {}",
        executed.stderr
    );
    executed
}

/// A session with a variable and a file.
async fn with_belongings(session: Session) -> Session {
    succeed(
        &session,
        "kept = 1\nopen('/mnt/data/kept.txt', 'w').write('kept')",
    )
    .await;
    session
}

async fn keeps_files(session: &Session) {
    assert_eq!(
        value(session, "open('/mnt/data/kept.txt').read()").await,
        "'kept'"
    );
    assert_eq!(session.download("kept.txt").await.unwrap(), b"kept");
}

#[tokio::test]
async fn forged_frames_harm_only_their_own_session() {
    let stack = shared().await;
    let (hostile, neighbour) = (stack.session(), stack.session());
    let code = "import os, struct\n\
                body = b'{\"type\":\"display\",\"id\":1,\"x\":[' + b'0,' * 1000000 + b'0]}'\n\
                os.write(3, struct.pack('<I', len(body)) + body)";
    let executed = hostile.execute(code).await.unwrap();
    assert_eq!(executed.status, Status::Failure, "{executed:?}");
    let keys = "for n in range(64): display({chr(65 + n % 26) * 20_000_000: ''}, raw=True)";
    let executed = hostile.execute(keys).await.unwrap();
    assert!(executed.stderr.len() < 10_000);
    assert_eq!(value(&neighbour, "6 * 7").await, 42);
    assert_eq!(value(&hostile, "6 * 7").await, 42);
}

#[tokio::test]
async fn ten_gigabytes_of_output_are_bounded() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import sys\nblock = 'x' * (1 << 20)\n\
                for _ in range(10 * 1024):\n    sys.stdout.write(block)\n'end'";
    let before = peak_memory(&stack).await;
    let executed = beside_a_neighbour(&stack, session.execute_within(120, code))
        .await
        .unwrap();
    assert_eq!(
        (executed.status, executed.result),
        (Status::Success, "'end'".into())
    );
    let kept = executed.stdout.len();
    assert!(
        (1 << 19..=(1 << 20) + 1024).contains(&kept),
        "{kept} bytes kept"
    );
    let grown = peak_memory(&stack).await - before;
    assert!(grown < 64 << 20, "the worker grew by {} KiB", grown >> 10);
}

async fn peak_memory(stack: &Stack) -> u64 {
    let pid = stack.pid(Member::Worker(0)).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn endless_output_is_stopped_in_time() {
    let stack = shared().await;
    let session = with_belongings(stack.session()).await;
    let executed = ends_with(&stack, &session, "!yes", TIMED_OUT).await;
    assert!(executed.stdout.starts_with("y\ny\n"));
    keeps_files(&session).await;
}

#[tokio::test]
async fn an_endless_loop_is_interrupted_and_variables_are_kept() {
    let stack = shared().await;
    let session = with_belongings(stack.session()).await;
    ends_with(&stack, &session, "before = 2\nwhile True: pass", TIMED_OUT).await;
    assert_eq!(value(&session, "kept + before").await, 3);
    keeps_files(&session).await;
}

#[tokio::test]
async fn a_long_sleep_is_interrupted_and_variables_are_kept() {
    let stack = shared().await;
    let session = with_belongings(stack.session()).await;
    for code in [
        "import time\ntime.sleep(100)",
        "!sleep 100",
        "await __import__('asyncio').sleep(100)",
    ] {
        ends_with(&stack, &session, code, TIMED_OUT).await;
        assert_eq!(value(&session, "kept").await, 1, "after {code:?}");
    }
}

#[tokio::test]
async fn code_that_ignores_interrupts_loses_its_variables_and_keeps_its_files() {
    let stack = shared().await;
    let session = with_belongings(stack.session()).await;
    let code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass";
    ends_with(&stack, &session, code, TIMED_OUT).await;
    assert_eq!(value(&session, "'kept' in globals()").await, "False");
    keeps_files(&session).await;
}

#[tokio::test]
async fn code_that_catches_interrupts_does_not_last() {
    let stack = shared().await;
    let session = with_belongings(stack.session()).await;
    let code = "while True:\n    try:\n        while True: pass\n    except BaseException: pass";
    ends_with(&stack, &session, code, TIMED_OUT).await;
    keeps_files(&session).await;
}

#[tokio::test]
async fn code_that_stops_its_process_does_not_last() {
    let stack = shared().await;
    let session = with_belongings(stack.session()).await;
    let code = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)";
    ends_with(&stack, &session, code, TIMED_OUT).await;
    keeps_files(&session).await;
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_session() {
    let stack = shared().await;
    let session = with_belongings(stack.small_session()).await;
    let code =
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass";
    ends_with(&stack, &session, code, TIMED_OUT).await;
    keeps_files(&session).await;
    assert_eq!(value(&session, "6 * 7").await, 42);
}

#[tokio::test]
async fn the_limit_of_processes_is_an_error_that_code_can_catch() {
    let stack = shared().await;
    let session = with_belongings(stack.small_session()).await;
    let code = "import subprocess\nchildren = []\n\
                try:\n    \
                    while len(children) < 1000:\n        \
                        children.append(subprocess.Popen(['sleep', '1000']))\n\
                except OSError as error:\n    caught = type(error).__name__\n\
                for child in children:\n    child.kill(); child.wait()\ncaught";
    assert_eq!(value(&session, code).await, "'BlockingIOError'");
    let limit = u64::from(crate::stack::SMALL_PROCESSES);
    let count = value(&session, "len(children)").await.as_u64().unwrap();
    assert!((limit / 2..limit).contains(&count), "{count}");
}

#[tokio::test]
async fn code_that_may_start_nothing_more_hears_how_much_it_may() {
    let stack = shared().await;
    let session = stack.small_session();
    let threads = "import threading\nevent = threading.Event()\n\
                   for _ in range(100): threading.Thread(target=event.wait, daemon=True).start()";
    let limit = crate::stack::SMALL_PROCESSES;
    let said = format!(
        "this session may have {limit} processes and threads at a time, so end some or start fewer; \
         whoever runs this service can allow more with `processes` in the pool's limits"
    );
    for (code, error) in [
        (threads, "RuntimeError: can't start new thread"),
        (
            "import os; os.fork()",
            "BlockingIOError: [Errno 11] Resource temporarily unavailable",
        ),
        (
            "import subprocess; subprocess.run('true')",
            "BlockingIOError: [Errno 11] Resource temporarily unavailable",
        ),
    ] {
        let failed = fail(&session, code).await.stderr;
        let last = failed.trim_end().lines().next_back();
        assert_eq!(last, Some(format!("{error}: {said}").as_str()), "{failed}");
    }
    succeed(&session, "event.set()").await;
}

#[tokio::test]
async fn programs_that_do_not_say_why_they_cannot_start_more_are_explained() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import subprocess\n\
                subprocess.run(['sh', '-c', 'for one in $(seq 200); do sleep 1000 & done'], check=True)";
    let failed = fail(&session, code).await.stderr;
    let said = "Processes or threads could not be started: this session may have 128 at a time.";
    assert_eq!(failed.matches(said).count(), 1, "{failed}");
    // A failure that has nothing to do with it does not say so, though the processes are still there.
    let failed = fail(&session, "1 / 0").await.stderr;
    assert!(!failed.contains(said), "{failed}");
}

#[tokio::test]
async fn a_pool_can_allow_a_session_many_processes_and_threads() {
    let cluster = Cluster::builder()
        .pool(|pool| pool.limits(|limits| limits.processes = 1024))
        .worker_arguments(["--cages", "1", "--spares", "1"])
        .start()
        .await
        .unwrap();
    let session = cluster.client(0).unwrap().fresh();
    let code = "import subprocess, threading\nevent = threading.Event()\n\
                threads = [threading.Thread(target=event.wait) for _ in range(600)]\n\
                for thread in threads: thread.start()\n\
                children = [subprocess.Popen(['sleep', '1000']) for _ in range(200)]\n\
                for child in children: child.kill(); child.wait()\n\
                event.set()\nfor thread in threads: thread.join()\nlen(threads) + len(children)";
    assert_eq!(value(&session, code).await, 800);
}

#[tokio::test]
async fn a_memory_bomb_is_aborted_and_the_session_goes_on_with_its_files() {
    let stack = shared().await;
    let session = with_belongings(stack.small_session()).await;
    let code = "print('before', flush=True)\nbomb = b'x' * (1 << 31)";
    let executed = beside_a_neighbour(&stack, session.execute_within(60, code))
        .await
        .unwrap();
    assert_eq!(executed.status, Status::Failure, "{executed:?}");
    assert!(executed.stderr.contains(ABORTED), "{}", executed.stderr);
    assert!(
        executed.stderr.to_lowercase().contains("memory"),
        "{}",
        executed.stderr
    );
    assert_eq!(executed.stdout, "before\n");
    keeps_files(&session).await;
    assert_eq!(value(&session, "'kept' in globals()").await, "False");
}

#[tokio::test]
async fn a_memory_bomb_in_a_subprocess_leaves_an_answer() {
    let stack = shared().await;
    let session = with_belongings(stack.small_session()).await;
    let code = "import subprocess, sys\n\
                subprocess.run([sys.executable, '-c', \"bomb = b'x' * (1 << 31)\"]).returncode";
    let answer = beside_a_neighbour(&stack, session.execute_within(60, code))
        .await
        .unwrap();
    // The kernel kills whom it likes: the child, whose parent then sees it, or the parent.
    let child_died = answer.status == Status::Success && answer.result == -9;
    assert!(child_died || answer.stderr.contains(ABORTED), "{answer:?}");
    keeps_files(&session).await;
}

#[tokio::test]
async fn memory_behind_private_directories_counts() {
    let stack = shared().await;
    let session = with_belongings(stack.small_session()).await;
    let code = "import errno\n\
                def fill(directory):\n    \
                    try:\n        \
                        with open(directory + '/fill', 'wb') as f:\n            \
                            for _ in range(4096): f.write(b'x' * (1 << 20))\n    \
                    except OSError as e:\n        return errno.errorcode[e.errno]\n\
                fill('/tmp')";
    let answer = beside_a_neighbour(&stack, session.execute_within(60, code))
        .await
        .unwrap();
    let bounded = answer.result == "'ENOSPC'" || answer.stderr.contains(ABORTED);
    assert!(bounded, "{answer:?}");
    keeps_files(&session).await;
}

#[tokio::test]
async fn a_full_data_directory_is_named_to_code_and_to_callers() {
    let stack = shared().await;
    let session = with_belongings(stack.small_session()).await;
    let code = "import errno, os\n\
                def fill():\n    \
                    try:\n        \
                        with open('/mnt/data/fill', 'wb', 0) as f:\n            \
                            while True: f.write(b'x' * (1 << 20))\n    \
                    except OSError as e:\n        return errno.errorcode[e.errno]\n\
                fill()";
    let answer = beside_a_neighbour(&stack, session.execute_within(60, code))
        .await
        .unwrap();
    assert_eq!(answer.result, "'ENOSPC'", "{answer:?}");
    let size = value(&session, "os.stat('/mnt/data/fill').st_size")
        .await
        .as_u64()
        .unwrap();
    assert!(
        (crate::stack::SMALL_DATA / 2..=crate::stack::SMALL_DATA).contains(&size),
        "{size}"
    );
    let (status, code) = refusal(session.upload("more.bin", &vec![1; 4 << 20]).await);
    assert_eq!((status, code.as_str()), (507, "DiskFull"));
    keeps_files(&session).await;
    succeed(&session, "os.remove('/mnt/data/fill')").await;
    session.upload("more.bin", &vec![1; 4 << 20]).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_does_not_fit_leaves_nothing() {
    let stack = shared().await;
    let session = with_belongings(stack.small_session()).await;
    session.upload("old.bin", b"old").await.unwrap();
    refusal(session.upload("old.bin", &vec![1; 24 << 20]).await);
    assert_eq!(session.download("old.bin").await.unwrap(), b"old");
    assert_eq!(
        value(&session, "import os\nlen(os.listdir('/mnt/data'))").await,
        2
    );
}

#[tokio::test]
async fn a_process_that_ends_is_aborted_and_the_session_goes_on_with_its_files() {
    let stack = shared().await;
    let session = stack.session();
    for code in [
        "import os\nos._exit(3)",
        "import ctypes\nctypes.string_at(0)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import os\nos.abort()",
    ] {
        with_belongings(session.clone()).await;
        let executed = session
            .execute(&format!("print('before', flush=True)\n{code}"))
            .await;
        let executed = executed.unwrap();
        assert_eq!(executed.status, Status::Failure, "{code:?}");
        assert!(
            executed.stderr.contains(ABORTED),
            "{code:?} {}",
            executed.stderr
        );
        assert_eq!(executed.stdout, "before\n", "{code:?}");
        keeps_files(&session).await;
        assert_eq!(
            value(&session, "'kept' in globals()").await,
            "False",
            "{code:?}"
        );
    }
}

#[tokio::test]
async fn code_that_closes_or_floods_its_files_harms_only_itself() {
    let stack = shared().await;
    let session = stack.session();
    for code in [
        "import os\nos.closerange(0, 64)",
        "import os\nos.dup2(os.open('/dev/null', os.O_RDWR), 3)",
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\xff' * 4096)\n    except OSError: pass",
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\x00\\x00\\x00\\x01{')\n    except OSError: pass",
        "import gc\nfor o in gc.get_objects():\n    try: o.close()\n    except BaseException: pass",
    ] {
        with_belongings(session.clone()).await;
        let answer = beside_a_neighbour(&stack, session.execute_within(5, code))
            .await
            .unwrap();
        assert!(
            answer.status == Status::Success || !answer.stderr.is_empty(),
            "{code:?}"
        );
        assert_eq!(value(&session, "6 * 7").await, 42, "after {code:?}");
        keeps_files(&session).await;
    }
}

#[tokio::test]
async fn code_cannot_end_process_one() {
    let stack = shared().await;
    let session = with_belongings(stack.session()).await;
    let code = "import os, signal\nfor n in (9, 15, 2, 1, 11, 6):\n    \
                try: os.kill(1, n)\n    except OSError: pass\n'alive'";
    assert_eq!(value(&session, code).await, "'alive'");
    session.execute("import os\nos.kill(-1, 9)").await.unwrap();
    keeps_files(&session).await;
}

#[tokio::test]
async fn thousands_of_outputs_are_bounded() {
    let stack = shared().await;
    let session = stack.session();
    let code = "from IPython.display import display\nfor n in range(5000):\n    display(n)\n'end'";
    let answer = session.execute_within(60, code).await.unwrap();
    assert_eq!(
        (answer.status, answer.result),
        (Status::Success, "'end'".into())
    );
    let huge = session
        .execute_within(60, "'x' * (100 << 20)")
        .await
        .unwrap();
    let length = huge.result.as_str().map_or(0, str::len);
    assert!(
        length <= 33 << 20,
        "a result of {length} bytes: {}",
        huge.stderr
    );
    assert_eq!(value(&session, "1").await, 1);
}

#[tokio::test]
async fn a_process_left_behind_neither_delays_answers_nor_outlives_the_session() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import subprocess\n\
                p = subprocess.Popen('while :; do :; done', shell=True, start_new_session=True)\n1";
    let started = Instant::now();
    assert_eq!(value(&session, code).await, 1);
    assert_eq!(value(&session, "p.poll() is None").await, "True");
    assert!(
        started.elapsed() < patiently(Duration::from_secs(10)),
        "{:?}",
        started.elapsed()
    );
    session.delete().await.unwrap();
    assert_eq!(value(&session, "1").await, 1);
}
