//! `loadtest load`: what it measures, and that it fails when a promise is broken.

use std::process::Command;

use serde_json::Value;

use crate::{command::run, stack::shared};

/// `loadtest load` on the pool of a stack.
async fn load(words: &[&str]) -> crate::command::Ended {
    let stack = shared().await;
    let client = stack.http();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command
        .arg("load")
        .env("POOL_ENDPOINT", client.endpoint())
        .env("TOKEN", client.token())
        .args(["--sessions", "2", "--seconds", "4", "--seed", "1"])
        .args(words);
    run(command).await.unwrap()
}

#[tokio::test]
async fn a_mix_is_sent_at_its_rate_and_reported_with_a_plot() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name| directory.path().join(name);
    let (json, plot) = (file("load.json"), file("load.svg"));
    let words = [
        "--rate",
        "10",
        "--mix",
        "warm=6,new=1,upload=2,download=2",
        "--slo",
        "all:ok>=100%",
        "--slo",
        "warm:p100<=60000ms",
        "--json",
        json.to_str().unwrap(),
        "--plot",
        plot.to_str().unwrap(),
    ];
    let ended = load(&words).await;
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let all = report["kinds"].as_array().unwrap().last().unwrap();
    assert_eq!(all["kind"], "all", "{report}");
    assert_eq!(all["sent"], all["succeeded"], "{report}");
    let sent = all["sent"].as_u64().unwrap();
    assert!((20..60).contains(&sent), "{report}");
    assert!(
        ended.stdout.contains("all:ok>=100%: 100.00 met"),
        "{}",
        ended.stdout
    );
    let plot = std::fs::read_to_string(plot).unwrap();
    assert!(plot.contains("<polyline"), "{plot}");
}

#[tokio::test]
async fn a_broken_promise_fails_the_command() {
    let missed = load(&[
        "--rate",
        "5",
        "--mix",
        "warm=1",
        "--slo",
        "warm:p50<=0.001ms",
    ])
    .await;
    assert!(!missed.status.success());
    assert!(missed.stdout.contains("MISSED"), "{}", missed.stdout);
    // Code that fails is no success.
    let missed = load(&[
        "--rate",
        "5",
        "--mix",
        "new=1",
        "--code",
        "1/0",
        "--slo",
        "all:ok>=1%",
    ])
    .await;
    assert!(
        missed.stdout.contains("failed: CodeFailed"),
        "{}",
        missed.stdout
    );
    assert!(!missed.status.success());
}
