//! `loadtest load`: what it measures, and that it fails when a promise is broken.

use std::process::Command;

use loadtest::cluster::Cluster;
use serde_json::Value;

use crate::{
    command::{Ended, run},
    stack::shared,
};

/// `loadtest load` on the first pool of a stack.
async fn load(stack: &Cluster, words: &[&str]) -> Ended {
    let client = stack.client(0).unwrap();
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
    let stack = shared().await;
    let ended = load(&stack, &words).await;
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
    let stack = shared().await;
    let missed = load(
        &stack,
        &[
            "--rate",
            "5",
            "--mix",
            "warm=1",
            "--slo",
            "warm:p50<=0.001ms",
        ],
    )
    .await;
    assert!(!missed.status.success());
    assert!(missed.stdout.contains("MISSED"), "{}", missed.stdout);
    // Code that fails is no success.
    let missed = load(
        &stack,
        &[
            "--rate",
            "5",
            "--mix",
            "new=1",
            "--code",
            "1/0",
            "--slo",
            "all:ok>=1%",
        ],
    )
    .await;
    assert!(
        missed.stdout.contains("failed: CodeFailed"),
        "{}",
        missed.stdout
    );
    assert!(!missed.status.success());
}

/// More come than the pool holds, one after the other: never more at once than may be unanswered.
#[tokio::test]
async fn a_session_that_was_made_for_one_request_ends_with_it() {
    let builder = Cluster::builder().pool(|pool| pool.max_sessions(12));
    let cluster = builder.start().await.unwrap();
    let file = cluster.directory().join("load.json");
    let words = [
        "--rate",
        "8",
        "--mix",
        "new=1",
        "--outstanding",
        "8",
        "--json",
    ];
    let words = [&words[..], &[file.to_str().unwrap()]].concat();
    let ended = load(&cluster, &words).await;
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let new = &report["kinds"][0];
    assert!(new["succeeded"].as_u64().unwrap() > 12, "{report}");
    let failed = new["failed"].as_object().unwrap();
    assert!(
        failed.keys().all(|code| code == "TooManyOutstanding"),
        "{report}"
    );
}
