//! What one session can use up, and that its neighbours go on.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use proto::pool::Limits;
use serde_json::json;

use super::{Host, Session, limits, within};

#[tokio::test]
async fn a_memory_bomb_kills_only_its_own_session() {
    let host = Host::start().await;
    let small = Limits {
        memory_bytes: 200 << 20,
        ..limits()
    };
    let cage = host.sandboxes.cage(&small).await.unwrap();
    let mut bomb = Session::join(&cage).await;
    let (_neighbour_cage, mut neighbour) = host.session().await;
    bomb.run("open('/mnt/data/kept', 'w').write('kept')").await;
    assert_eq!(cage.oom_kills().unwrap(), 0);
    bomb.send("hoard = bytearray(1 << 30)").await;
    let status = within("the end of the bomb", bomb.kernel.process.exited()).await;
    assert_eq!(status.signal(), Some(9));
    assert!(cage.oom_kills().unwrap() >= 1);
    assert_eq!(neighbour.run("print(1 + 1)").await, "2\n");
    cage.clear().await.unwrap();
    let mut next = Session::join(&cage).await;
    assert_eq!(
        next.run("print(open('/mnt/data/kept').read())").await,
        "kept\n"
    );
    assert!(cage.memory_bytes().unwrap() <= 200 << 20);
    host.stop().await;
}

#[tokio::test]
async fn a_fork_bomb_is_stopped_and_cleared() {
    let host = Host::start().await;
    let few = Limits {
        processes: 64,
        ..limits()
    };
    let cage = host.sandboxes.cage(&few).await.unwrap();
    let mut bomb = Session::join(&cage).await;
    let (_neighbour_cage, mut neighbour) = host.session().await;
    bomb.send(
        r#"
import os
def explode():
    while True:
        try:
            os.fork()
        except OSError:
            pass
explode()
"#,
    )
    .await;
    super::until("a denied fork", || cage.pids_denied().unwrap() > 0).await;
    assert_eq!(neighbour.run("print(1 + 1)").await, "2\n");
    within("the end of the bomb", cage.clear()).await.unwrap();
    assert_eq!(cage.processes().unwrap(), Vec::<u32>::new());
    let mut next = Session::join(&cage).await;
    assert_eq!(next.run("print('alive')").await, "alive\n");
    host.stop().await;
}

#[tokio::test]
async fn full_filesystems_are_full_for_one_session_only() {
    let host = Host::start().await;
    let small = Limits {
        data_bytes: 16 << 20,
        scratch_bytes: 8 << 20,
        ..Limits::default()
    };
    let cage = host.sandboxes.cage(&small).await.unwrap();
    let mut session = Session::join(&cage).await;
    let seen = session
        .json(
            r#"
import errno, json, os
def fill(path):
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while True:
                written += file.write(bytes(1 << 16))
    except OSError as error:
        return [errno.errorcode[error.errno], written]
print(json.dumps({path: fill(path + "/fill") for path in ("/mnt/data", "/tmp", "/home/session", "/dev/shm")}))
"#,
        )
        .await;
    for (path, most) in [
        ("/mnt/data", 16 << 20),
        ("/tmp", 8 << 20),
        ("/home/session", 8 << 20),
        ("/dev/shm", 8 << 20),
    ] {
        assert_eq!(seen[path][0], "ENOSPC", "{path}");
        let written = seen[path][1].as_u64().unwrap();
        assert!(
            written <= most && written > most * 3 / 4,
            "{path}: {written} of {most}"
        );
    }
    let (_neighbour_cage, mut neighbour) = host.session().await;
    let wrote = "print(open('/mnt/data/x', 'w').write('x' * 100))";
    assert_eq!(neighbour.run(wrote).await, "100\n");
    host.stop().await;
}

#[tokio::test]
async fn processor_time_is_bounded() {
    let host = Host::start().await;
    let slow = Limits {
        cpu_millis: 300,
        ..limits()
    };
    let cage = host.sandboxes.cage(&slow).await.unwrap();
    let mut session = Session::join(&cage).await;
    let seen = session
        .json(
            r#"
import json, time
wall, used = time.monotonic(), time.process_time()
while time.monotonic() < wall + 1.5:
    pass
print(json.dumps((time.process_time() - used) / (time.monotonic() - wall)))
"#,
        )
        .await;
    let share = seen.as_f64().unwrap();
    assert!(share < 0.45, "{share} of a core");
    host.stop().await;
}

#[tokio::test]
async fn an_interrupt_reaches_the_kernel_and_what_it_waits_for() {
    let host = Host::start().await;
    let (_cage, mut session) = host.session().await;
    session.run("state = 41").await;
    for endless in [
        "while True: pass",
        "import subprocess; subprocess.run(['sleep', '600'])",
    ] {
        session
            .send(&format!("print('begun', flush=True)\n{endless}"))
            .await;
        let mut begun = [0; 6];
        let reading = tokio::io::AsyncReadExt::read_exact(&mut session.kernel.stdout, &mut begun);
        within("the beginning", reading).await.unwrap();
        let asked = Instant::now();
        session.kernel.process.interrupt().unwrap();
        within("the end of the cell", session.done()).await;
        assert!(asked.elapsed().as_secs() < 5);
    }
    assert_eq!(session.run("print(state + 1)").await, "42\n");
    host.stop().await;
}

#[tokio::test]
async fn a_frozen_session_goes_on_where_it_stopped() {
    let host = Host::start().await;
    let (cage, mut session) = host.session().await;
    session.run("import time; value = 7").await;
    within("freezing", cage.freeze()).await.unwrap();
    session.send("print(value)").await;
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(200), session.frame()).await;
    assert!(quiet.is_err(), "a frozen session answers");
    cage.thaw().unwrap();
    assert_eq!(within("the answer", session.done()).await, "7\n");
    assert_eq!(session.json("print(value)").await, json!(7));
    host.stop().await;
}
