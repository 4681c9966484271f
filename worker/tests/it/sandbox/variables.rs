//! Variables leave one sandbox and enter another, whatever the code in them does.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use proto::limits::SNAPSHOT_BYTES;
use proto::pool::Limits;
use worker::kernel::variables::{Snapshot, VariablesError};
use worker::kernel::{CellEnd, Kernel, Program};
use worker::sandbox::Cage;

use super::{Host, PATIENCE, limits, within};

/// Shorter than [`PATIENCE`], for what never ends.
const SHORT: Duration = Duration::from_secs(3);

async fn kernel(cage: &Cage) -> Kernel {
    let process = within("a join", cage.join()).await.unwrap();
    within("a kernel", Kernel::ready(process)).await.unwrap()
}

/// Runs a cell that must succeed; what it printed to both streams.
async fn run(kernel: &mut Kernel, code: &str) -> (String, String) {
    let cell = within("a cell", kernel.run(&Program::plain(code, 1 << 20))).await;
    let succeeded = matches!(cell.end, CellEnd::Done { error: None, .. });
    assert!(succeeded, "{:?}", cell.end);
    (cell.stdout, cell.stderr)
}

async fn snapshot(kernel: &mut Kernel) -> Snapshot {
    kernel.snapshot(PATIENCE).await.unwrap()
}

/// A session that holds `x = 1` and what `code` makes.
async fn session(host: &Host, code: &str) -> (Cage, Kernel) {
    let cage = host.cage().await;
    let mut kernel = kernel(&cage).await;
    run(&mut kernel, &format!("x = 1\n{code}")).await;
    (cage, kernel)
}

/// The variables of a kernel in a cage of its own, which is gone when they are here.
async fn variables(host: &Host, code: &str) -> Snapshot {
    let (cage, mut kernel) = session(host, code).await;
    let snapshot = snapshot(&mut kernel).await;
    within("destruction", cage.destroy()).await.unwrap();
    snapshot
}

#[tokio::test]
async fn variables_move_from_one_sandbox_to_another() {
    let host = Host::start().await;
    let before = r#"
import threading
import pandas
class Shop:
    def __init__(self): self.sold = []
    def sell(self, n):
        self.sold.append(n * PRICE)
        return sum(self.sold)
PRICE, shop = 3, Shop()
shop.sell(2)
table = pandas.DataFrame({"n": [1, 2], "s": ["a", "b"]})
file, lock, rows = open("/mnt/data/file", "w"), threading.Lock(), shop.sold
"#;
    let carried = variables(&host, before).await;
    assert_eq!(carried.lost, ["file", "lock"]);
    let cage = host.cage().await;
    let mut kernel = kernel(&cage).await;
    let restored = kernel.restore(&carried.data, PATIENCE).await.unwrap();
    assert_eq!(restored, Vec::<String>::new());
    let after =
        "PRICE = 5\nprint(x, shop.sell(1), rows is shop.sold, table.n.sum(), 'lock' in globals())";
    let printed = run(&mut kernel, after).await;
    assert_eq!(printed, ("1 11 True 3 False\n".to_owned(), String::new()));
    // And once more, by a kernel in the same cage.
    let again = snapshot(&mut kernel).await;
    kernel.handle().kill();
    within("clearing", cage.clear()).await.unwrap();
    let mut next = self::kernel(&cage).await;
    next.restore(&again.data, PATIENCE).await.unwrap();
    assert_eq!(run(&mut next, "print(shop.sell(0))").await.0, "11\n");
    host.stop().await;
}

#[tokio::test]
async fn what_is_printed_meanwhile_is_dropped() {
    let host = Host::start().await;
    let loud = r#"
import os, threading, time
def noise(*_):
    for n in range(100): print("noise" * 10_000, flush=True)
    os.write(2, b"noise")
    display("noise")
class Loud:
    def __reduce__(self):
        noise()
        return Loud, (), 1
    __setstate__ = noise
loud = Loud()
"#;
    let (_cage, mut first) = session(&host, loud).await;
    let carried = snapshot(&mut first).await;
    let quiet = run(&mut first, "print('cell')").await;
    assert_eq!(quiet, ("cell\n".to_owned(), String::new()));
    let cage = host.cage().await;
    let mut second = kernel(&cage).await;
    second.restore(&carried.data, PATIENCE).await.unwrap();
    let quiet = run(&mut second, "print('cell')").await;
    assert_eq!(quiet, ("cell\n".to_owned(), String::new()));
    host.stop().await;
}

#[tokio::test]
async fn a_value_that_never_ends_is_given_up() {
    let host = Host::start().await;
    let (_neighbour_cage, mut neighbour) = host.session().await;
    for endless in ["while True: pass", "import time; time.sleep(600)"] {
        let saves = format!(
            "class Endless:\n    def __reduce__(self):\n        {endless}\nendless = Endless()"
        );
        let (cage, mut kernel) = session(&host, &saves).await;
        let failed = kernel.snapshot(SHORT).await;
        assert!(
            matches!(failed, Err(VariablesError::TooSlow(SHORT))),
            "{failed:?}"
        );
        within("destruction", cage.destroy()).await.unwrap();

        let loads = format!(
            "class Endless:\n    def __init__(self): self.x = 1\n    def __setstate__(self, _):\n        {endless}\nendless = Endless()"
        );
        let carried = variables(&host, &loads).await;
        let cage = host.cage().await;
        let mut kernel = self::kernel(&cage).await;
        let failed = kernel.restore(&carried.data, SHORT).await;
        assert!(
            matches!(failed, Err(VariablesError::TooSlow(SHORT))),
            "{failed:?}"
        );
        within("clearing", cage.clear()).await.unwrap();
        let mut fresh = self::kernel(&cage).await;
        assert_eq!(
            run(&mut fresh, "print('x' in globals())").await.0,
            "False\n"
        );
    }
    assert_eq!(neighbour.run("print(1 + 1)").await, "2\n");
    host.stop().await;
}

#[tokio::test]
async fn what_is_slow_costs_what_comes_after_it_only() {
    let host = Host::start().await;
    let slow = r#"
import time
class Slow:
    def __reduce__(self):
        time.sleep(3)  # in a trial, and when it is written
        return Slow, ()
slow, late = Slow(), 2
"#;
    let (_cage, mut kernel) = session(&host, slow).await;
    let carried = kernel.snapshot(Duration::from_secs(15)).await.unwrap();
    assert_eq!(carried.lost, ["late"]);
    host.stop().await;
}

#[tokio::test]
async fn a_value_that_ends_the_interpreter_is_told_as_its_end() {
    let host = Host::start().await;
    let saves = "import os\nclass End:\n    def __reduce__(self): os._exit(7)\nend = End()";
    let (_cage, mut kernel) = session(&host, saves).await;
    let Err(VariablesError::Died(status)) = kernel.snapshot(PATIENCE).await else {
        panic!("it did not die");
    };
    assert_eq!(status.code(), Some(7));

    let loads = "import os\nclass End:\n    def __init__(self): self.x = 1\n    def __setstate__(self, _): os.abort()\nend = End()";
    let carried = variables(&host, loads).await;
    let cage = host.cage().await;
    let mut kernel = self::kernel(&cage).await;
    let Err(VariablesError::Died(status)) = kernel.restore(&carried.data, PATIENCE).await else {
        panic!("it did not die");
    };
    assert_eq!(status.signal(), Some(6));
    host.stop().await;
}

#[tokio::test]
async fn more_memory_than_there_is_costs_the_snapshot_only() {
    let host = Host::start().await;
    let small = Limits {
        memory_bytes: 200 << 20,
        ..limits()
    };
    let (_neighbour_cage, mut neighbour) = host.session().await;
    let cage = within("a cage", host.sandboxes.cage(&small)).await.unwrap();
    let mut kernel = kernel(&cage).await;
    run(
        &mut kernel,
        "class Bomb:\n    def __reduce__(self): return bytearray, (bytearray(1 << 30),)\nbomb = Bomb()",
    )
    .await;
    let failed = kernel.snapshot(PATIENCE).await;
    let Err(VariablesError::Died(status)) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(status.signal(), Some(9));
    assert!(cage.oom_kills().unwrap() >= 1);
    assert_eq!(neighbour.run("print(1 + 1)").await, "2\n");
    host.stop().await;
}

#[tokio::test]
async fn forged_frames_break_their_own_kernel_only() {
    let host = Host::start().await;
    let frame = |body: &str| {
        format!(
            "import os\nclass Forger:\n    def __reduce__(self):\n        body = {body}\n        \
             os.write(3, len(body).to_bytes(4, 'little') + body)\n        return Forger, ()\nforger = Forger()"
        )
    };
    for body in [
        "b'no frame'",
        "b'{\"type\":\"snapshot\",\"variables\":\"*\",\"lost\":[]}'",
        "b'{\"type\":\"snapshot\",\"variables\":\"\",\"lost\":[\"' + b'x' * 65 + b'\"]}'",
        "b'{\"type\":\"snapshot\",\"variables\":\"\",\"lost\":[' + b','.join([b'\"\"'] * 101) + b']}'",
        "b'{\"type\":\"snapshot\",\"variables\":\"\",\"lost\":[\"a\\\\nb\"]}'",
    ] {
        let (_cage, mut kernel) = session(&host, &frame(body)).await;
        let failed = kernel.snapshot(PATIENCE).await;
        assert!(
            matches!(failed, Err(VariablesError::Broken(_))),
            "{body}: {failed:?}"
        );
    }
    // What is well formed is believed, and is the session's own loss. The kernel's own answer, which comes
    // too late, would break it.
    let believed = frame("b'{\"type\":\"snapshot\",\"variables\":\"AAEC\",\"lost\":[\"x\"]}'");
    let believed = believed.replace(
        "return Forger",
        "__import__('time').sleep(1000); return Forger",
    );
    let (_cage, mut kernel) = session(&host, &believed).await;
    let forged = snapshot(&mut kernel).await;
    assert_eq!(
        (forged.data.as_slice(), forged.lost),
        (&[0, 1, 2][..], vec!["x".to_owned()])
    );
    let cage = host.cage().await;
    let mut kernel = self::kernel(&cage).await;
    let lost = kernel.restore(&forged.data, PATIENCE).await.unwrap();
    assert_eq!(lost, ["all variables"]);
    assert_eq!(run(&mut kernel, "print('alive')").await.0, "alive\n");
    host.stop().await;
}

#[tokio::test]
async fn the_limit_is_kept_on_both_ways() {
    let host = Host::start().await;
    let large = format!("large = bytes({SNAPSHOT_BYTES})\nmuch = bytes({SNAPSHOT_BYTES} - 1000)");
    let carried = variables(&host, &large).await;
    assert_eq!(carried.lost, ["large"]);
    let cage = host.cage().await;
    let mut kernel = kernel(&cage).await;
    let too_long = vec![0; SNAPSHOT_BYTES + 1];
    let refused = kernel.restore(&too_long, PATIENCE).await;
    assert!(matches!(refused, Err(VariablesError::TooLong(_))));
    let restored = kernel.restore(&carried.data, PATIENCE).await.unwrap();
    assert_eq!(restored, Vec::<String>::new());
    let check = format!("print(x, len(much) == {SNAPSHOT_BYTES} - 1000)");
    assert_eq!(run(&mut kernel, &check).await.0, "1 True\n");
    host.stop().await;
}

#[tokio::test]
async fn a_table_of_a_hundred_thousand_rows_moves() {
    let host = Host::start().await;
    let table = r#"
import numpy, pandas
table = pandas.DataFrame({
    "n": numpy.arange(100_000), "x": numpy.random.rand(100_000),
    "name": [f"name {n}" for n in range(100_000)],
    "day": pandas.date_range("2020", periods=100_000, freq="min"),
})
"#;
    let (_cage, mut first) = session(&host, table).await;
    let asked = Instant::now();
    let carried = snapshot(&mut first).await;
    let saved = asked.elapsed();
    let cage = host.cage().await;
    let mut second = kernel(&cage).await;
    let asked = Instant::now();
    second.restore(&carried.data, PATIENCE).await.unwrap();
    println!(
        "100 000 rows of 4 columns, {} bytes: out in {saved:?}, in again in {:?}",
        carried.data.len(),
        asked.elapsed()
    );
    assert_eq!(
        run(&mut second, "print(table.n.sum(), table.name.iloc[-1])")
            .await
            .0,
        "4999950000 name 99999\n"
    );
    host.stop().await;
}
