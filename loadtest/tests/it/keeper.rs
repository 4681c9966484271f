//! The keeper of test stacks: nothing survives its owner, whatever ends it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use loadtest::wait::until;
use serde_json::{Value, json};

const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// A keeper of one shell that has a child of its own.
struct Kept {
    keeper: Child,
    directory: std::path::PathBuf,
    shell: u64,
    child: u64,
}

async fn kept(script: &str) -> Kept {
    let directory = tempfile::tempdir().unwrap().keep();
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("keep")
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let argument = |text: &str| json!({ "Unix": text.as_bytes() });
    let order = json!({ "run": {
        "name": "shell", "program": "/bin/sh", "arguments": [argument("-c"), argument(script)],
        "environment": [], "log": directory.join("log"),
        "cgroup": null,
    } });
    writeln!(keeper.stdin.as_mut().unwrap(), "{order}").unwrap();
    let mut report = String::new();
    BufReader::new(keeper.stdout.as_mut().unwrap())
        .read_line(&mut report)
        .unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let shell = report["running"]
        .as_u64()
        .unwrap_or_else(|| panic!("{report}"));
    let log = directory.join("log");
    let child = until("the shell has a child", ENDED_WITHIN, async || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Ok(said.strip_suffix('\n').and_then(|line| line.parse().ok()))
    });
    let child = child.await.unwrap();
    Kept {
        keeper,
        directory,
        shell,
        child,
    }
}

fn exists(process: u64) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

async fn all_gone(shell: u64, child: u64) {
    until("both processes have ended", ENDED_WITHIN, async || {
        Ok((!exists(shell) && !exists(child)).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stack_ends_with_its_owners_end_of_the_line() {
    // The child runs in a group of its own and outlives the shell that started it.
    let mut kept = kept("setsid sleep 1000 & echo $!; wait").await;
    drop(kept.keeper.stdin.take());
    assert!(kept.keeper.wait().unwrap().success());
    assert!(!exists(kept.shell) && !exists(kept.child));
    assert!(!kept.directory.exists());
}

#[tokio::test]
async fn a_killed_keeper_takes_its_processes_along() {
    let mut kept = kept("sleep 1000 & echo $!; trap 'kill $!; exit' TERM; wait").await;
    kept.keeper.kill().unwrap();
    kept.keeper.wait().unwrap();
    all_gone(kept.shell, kept.child).await;
    std::fs::remove_dir_all(kept.directory).unwrap();
}
