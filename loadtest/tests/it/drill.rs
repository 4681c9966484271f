//! What an operator may meet, one after the other: `make drill`. Most of it is in tests that run by themselves, too;
//! here each says what it did, and their count is the last line.

use std::{
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

use loadtest::{client::Status, cluster::Cluster, wait::until};
use tokio::task::JoinSet;

use crate::{
    bus_lost, cells, disk, hand_over, operator_mistakes, records, reload,
    stack::{succeed, value},
};

const BACK_WITHIN: Duration = Duration::from_secs(120);

/// A store that takes nothing until this is dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn make(store: PathBuf) -> Self {
        mount(&["--bind"], &[&store, &store]);
        let made = Self(store);
        mount(&["-o", "remount,bind,ro"], &[&made.0]);
        made
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.unwrap().success());
    }
}

fn mount(options: &[&str], paths: &[&PathBuf]) {
    let mounted = Command::new("mount").args(options).args(paths).status();
    assert!(mounted.unwrap().success());
}

fn done(what: &str) {
    println!("drill: {what}");
}

/// Processes that keep all processors busy until this is dropped.
struct BusyLoops(Vec<Child>);

impl BusyLoops {
    fn begin(count: usize) -> Self {
        let begin = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
        };
        Self((0..count).map(begin).collect::<Result<_, _>>().unwrap())
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        for busy in &mut self.0 {
            busy.kill().unwrap();
            busy.wait().unwrap();
        }
    }
}

#[tokio::test]
#[ignore = "takes ten minutes: make drill"]
async fn a_hundred_interrupts_of_libraries_on_a_busy_machine_keep_the_variables() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "kept = 42").await;
    let busy = BusyLoops::begin(4);
    for code in cells::LIBRARIES.iter().cycle().take(100) {
        cells::interrupted(&session, code).await;
    }
    drop(busy);
    done("100 interrupts of libraries beside four busy loops kept the variables");
}

#[tokio::test]
#[ignore = "takes four minutes: make drill"]
async fn a_limit_of_220_seconds_is_answered_within_225_on_a_busy_machine() {
    const LIMIT: u32 = 220;
    const ANSWERED_WITHIN: Duration = Duration::from_secs(225);
    let cluster = Cluster::builder().start().await.unwrap();
    let busy = BusyLoops::begin(4);
    let mut running = JoinSet::new();
    for (code, keeps_variables) in [
        ("while True: pass", true),
        ("import time\nwhile True: time.sleep(1000)", true),
        ("await __import__('asyncio').sleep(1000)", true),
        ("!sleep 1000", true),
        (
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
            false,
        ),
        ("sum(range(10 ** 13))", false),
    ] {
        let session = cluster.client(0).unwrap().fresh();
        succeed(&session, "kept = 42").await;
        running.spawn(async move {
            let begun = Instant::now();
            let executed = session.execute_within(LIMIT, code).await.unwrap();
            let took = begun.elapsed();
            assert_eq!(executed.status, Status::Failure, "{code}: {executed:?}");
            assert!(took < ANSWERED_WITHIN, "{code}: {took:?}");
            let kept = value(&session, "globals().get('kept') == 42").await;
            assert_eq!(kept == "True", keeps_variables, "{code}: {executed:?}");
            took
        });
    }
    let longest = running.join_all().await.into_iter().max().unwrap();
    drop(busy);
    done(&format!(
        "limits of 220 s beside four busy loops were answered within {:.1} s",
        longest.as_secs_f64()
    ));
}

#[tokio::test]
async fn a_store_that_becomes_read_only_is_said_and_served_again_when_it_is_mended() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "open('/mnt/data/kept', 'w').write('before')").await;
    let read_only = ReadOnly::make(cluster.store());
    let unsaved = session
        .execute("open('/mnt/data/new', 'w').write('x')")
        .await;
    let unsaved = unsaved.unwrap_err();
    assert_eq!(
        unsaved.refusal(),
        Some((500, "FilesNotDurable")),
        "{unsaved}"
    );
    drop(read_only);
    let back = until("the session goes on", BACK_WITHIN, async || {
        Ok(session.execute("1").await.ok())
    });
    back.await.unwrap();
    assert_eq!(
        value(&session, "open('/mnt/data/kept').read()").await,
        "'before'"
    );
    done("the store was read-only and came back: FilesNotDurable meanwhile, then served again");
}

#[test]
#[ignore = "a drill repeats a test: make drill"]
fn records_are_full() {
    records::a_pool_that_fills_its_share_is_refused_truthfully_and_no_other_pool_is();
    done("a pool's records were filled by requests: ExecutionRecordsFull there, and nowhere else");
}

#[test]
#[ignore = "a drill repeats a test: make drill"]
fn a_workers_clock_is_wrong() {
    operator_mistakes::a_worker_with_a_wrong_clock_says_so_and_neither_takes_sessions_nor_sweeps();
    done("a worker's clock was 26 hours ahead and an hour behind: it took and swept nothing");
}

#[test]
#[ignore = "a drill repeats a test: make drill"]
fn a_certificate_expires() {
    reload::an_expired_certificate_is_said_and_a_hangup_takes_its_successor();
    done("an ingress had an expired certificate: log and check said so, SIGHUP took a new one");
}

#[test]
#[ignore = "a drill repeats a test: make drill"]
fn a_session_fills_the_disk() {
    disk::a_session_that_fills_the_disk_is_stopped_by_name_and_its_neighbour_goes_on();
    done("a session filled the disk: DiskFull for it, and its neighbour went on");
}

#[test]
#[ignore = "a drill repeats a test: make drill"]
fn the_bus_is_wiped() {
    bus_lost::a_wiped_bus_is_noticed_and_nothing_is_served_or_swept_until_it_is_back();
    done("the bus lost its data and got it back: BusLost meanwhile, nothing swept");
}

#[test]
#[ignore = "a drill repeats a test: make drill"]
fn pickles_hang_at_a_drain() {
    hand_over::sessions_whose_pickles_hang_do_not_cost_honest_ones_their_variables();
    done("48 sessions' pickles hung at a drain: honest sessions kept their variables");
}
