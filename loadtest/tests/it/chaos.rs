//! A short run of the chaos scenario. `make chaos` runs it for longer.

use loadtest::chaos::{Options, StoreChoice, run};

/// Its plan holds faults of workers, of the bus, of an ingress and of the object store.
const SEED: u64 = 1;
const SECONDS: u64 = 45;

#[tokio::test]
async fn nothing_is_lost_or_run_twice_whatever_is_killed_or_paused() {
    let options = Options {
        seconds: SECONDS,
        seed: Some(SEED),
        store: StoreChoice::S3,
    };
    let mut out = Vec::new();
    let report = run(&options, &mut out).await;
    println!("{}", String::from_utf8_lossy(&out));
    let report = report.unwrap();
    assert!(report.violations().is_empty());
    assert!(report.casualties().is_empty());
    assert!(report.faults() > 3);
}
