//! Pools of shells.

use loadtest::client::Session;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    new_contract::{NEWEST, run},
    stack::{answer, beside_a_neighbour, refused, shared},
};

/// Status, stdout and stderr of a command.
async fn sh(session: &Session, command: &str) -> (i32, String, String) {
    let told = run(session, json!({ "shellCommand": command })).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let status = text(&told["status"]).parse().unwrap();
    let result = &told["result"];
    assert!(result.get("executionResult").is_none(), "{told}");
    (status, text(&result["stdout"]), text(&result["stderr"]))
}

fn ended(status: i32, stdout: &str, stderr: &str) -> (i32, String, String) {
    (status, stdout.to_owned(), stderr.to_owned())
}

#[tokio::test]
async fn a_command_is_answered_with_its_exit_status_as_text() {
    let stack = shared().await;
    let session = stack.shell_session();
    let body = json!({ "shellCommand": "echo out; echo err >&2; exit 3" });
    let told = run(&session, body).await;
    let time = told["result"]["executionTimeInMilliseconds"].clone();
    assert!(time.is_u64(), "{told}");
    let expected = json!({
        "id": told["id"], "identifier": session.identifier(), "executionType": "Synchronous",
        "status": "3", "result": { "stdout": "out\n", "stderr": "err\n",
            "executionTimeInMilliseconds": time } });
    assert_eq!(told, expected);
    assert_eq!(sh(&session, "kill -9 $$").await, ended(137, "", ""));
}

/// Clients send nothing else, documentation more.
#[tokio::test]
async fn a_command_may_come_with_what_cells_come_with() {
    let stack = shared().await;
    let session = stack.shell_session();
    let more = json!({ "shellCommand": "echo hi", "codeInputType": "inline",
        "executionType": "synchronous", "timeoutInSeconds": 600 });
    let wrapped = json!({ "properties": more });
    for version in ["2025-02-02-preview", NEWEST] {
        for body in [
            json!({ "shellCommand": "echo hi" }),
            more.clone(),
            wrapped.clone(),
        ] {
            let request = session.versioned(Method::POST, "executions", version);
            let (status, told) = answer(request.json(&body)).await;
            assert_eq!(
                (status.as_u16(), &told["status"]),
                (200, &json!("0")),
                "{body} {told}"
            );
            assert_eq!(told["result"]["stdout"], "hi\n");
        }
    }
}

#[tokio::test]
async fn a_program_is_run_with_its_arguments_as_they_are() {
    let stack = shared().await;
    let session = stack.shell_session();
    let body = json!({ "execCommandAndArgs": ["printf", "%s|", "a b", "it's", "$HOME", ""] });
    let told = run(&session, body).await;
    assert_eq!(
        (&told["status"], &told["result"]["stdout"]),
        (&json!("0"), &json!("a b|it's|$HOME||"))
    );
    let told = run(&session, json!({ "execCommandAndArgs": ["nonesuch"] })).await;
    assert_eq!(told["status"], "127");
}

#[tokio::test]
async fn files_last_from_one_command_to_the_next_and_nothing_else() {
    let stack = shared().await;
    let session = stack.shell_session();
    sh(&session, "cd /tmp; x=1; echo data > /mnt/data/kept.txt").await;
    let next = sh(&session, "pwd; echo \"[$x]$HOME\"; cat kept.txt").await;
    assert_eq!(next, ended(0, "/mnt/data\n[]/home/session\ndata\n", ""));
    assert_eq!(session.download("kept.txt").await.unwrap(), b"data\n");
    session.upload("up.txt", b"up").await.unwrap();
    assert_eq!(sh(&session, "cat up.txt").await, ended(0, "up", ""));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_and_the_session_goes_on() {
    let stack = shared().await;
    let session = stack.shell_session();
    for command in ["sleep 600", "trap '' INT; echo begun; sleep 600; sleep 600"] {
        let body = json!({ "shellCommand": command, "timeoutInSeconds": 1 });
        let told = run(&session, body).await;
        assert_eq!(told["status"], "124", "{told}");
        let stderr = told["result"]["stderr"].as_str().unwrap();
        let words = "Request timed out waiting for code execution to complete";
        assert!(
            stderr.contains(words) && !stderr.contains("variables"),
            "{stderr}"
        );
        let left = sh(&session, "grep -l sleep /proc/[0-9]*/comm").await;
        assert_eq!(left.1, "", "{command}");
    }
}

#[tokio::test]
async fn a_command_is_held_to_the_limits_of_its_session() {
    let stack = shared().await;
    let session = stack.shell_session();
    beside_a_neighbour(&stack, async {
        let hungry =
            "exec python3 -c 'x = bytearray(1 << 30)\nx[::4096] = b\"1\" * len(x[::4096])'";
        let (status, _, stderr) = sh(&session, hungry).await;
        assert_eq!(status, 137, "{stderr}");
        assert!(
            stderr.contains("Execution aborted: out of memory"),
            "{stderr}"
        );
        let (status, _, stderr) = sh(&session, "head -c 100M /dev/zero > big").await;
        assert_ne!(status, 0);
        assert!(stderr.contains("No space left"), "{stderr}");
        sh(&session, "rm big").await;
        let (_, stdout, _) = sh(&session, "yes | head -c 3M").await;
        assert!(stdout.ends_with("more]\n") && stdout.len() < 1_100_000);
        assert_eq!(sh(&session, "echo alive").await, ended(0, "alive\n", ""));
    })
    .await;
}

#[tokio::test]
async fn a_command_that_kills_its_keeper_harms_only_itself() {
    let stack = shared().await;
    let session = stack.shell_session();
    sh(&session, "echo kept > kept").await;
    let (status, _, stderr) = sh(&session, "kill -9 $PPID; sleep 600").await;
    assert_eq!(status, 137, "{stderr}");
    assert!(stderr.contains("Execution aborted"), "{stderr}");
    assert_eq!(sh(&session, "cat kept").await, ended(0, "kept\n", ""));
}

#[tokio::test]
async fn a_long_command_runs_whole() {
    let stack = shared().await;
    let session = stack.shell_session();
    for length in [100_000, 200_000, 1_000_000] {
        let command = format!("wc -c <<'END'\n{}\nEND", "x".repeat(length));
        let counted = format!("{}\n", length + 1);
        assert_eq!(sh(&session, &command).await, ended(0, &counted, ""));
    }
}

#[tokio::test]
async fn what_no_shell_understands_is_refused_by_name() {
    let stack = shared().await;
    let session = stack.shell_session();
    let table = [
        (
            "executions",
            NEWEST,
            json!({ "code": "1" }),
            "SessionPropertiesMissing",
        ),
        ("executions", NEWEST, json!({}), "SessionPropertiesMissing"),
        (
            "executions",
            "2024-10-02-preview",
            json!({ "shellCommand": "ls" }),
            "SessionRequestNotSupported",
        ),
        (
            "code/execute",
            "2024-02-02-preview",
            json!({ "properties": { "code": "1" } }),
            "SessionRequestNotSupported",
        ),
        (
            "code/execute",
            NEWEST,
            json!({ "shellCommand": "ls" }),
            "SessionRequestNotSupported",
        ),
    ];
    for (path, version, body, code) in table {
        let request = session.versioned(Method::POST, path, version).json(&body);
        let (status, told) = answer(request).await;
        assert_eq!(
            (status.as_u16(), &told["error"]["code"]),
            (400, &json!(code)),
            "{path} {told}"
        );
        let words = told["error"]["message"].as_str().unwrap();
        let is_named = words.contains("Shell execution is not supported in API version");
        assert_eq!(is_named, code == "SessionRequestNotSupported", "{words}");
    }
    let refusal = session.versioned(Method::POST, "executions", NEWEST);
    refused(refusal.body("{"), 400, "SessionRequestValidationFailed").await;
}

#[tokio::test]
async fn a_pool_of_shells_tells_of_its_shell() {
    let stack = shared().await;
    let session = stack.shell_session();
    let (status, told) = answer(session.versioned(Method::GET, "metadata", NEWEST)).await;
    assert_eq!(status, 200, "{told}");
    let (_, version, _) = sh(&session, "echo -n ${BASH_VERSION%%(*}").await;
    assert_eq!(
        told["runtimes"][0],
        json!({ "name": "Bash", "version": version })
    );
    assert!(told.get("jupyterKernel").is_none(), "{told}");
}
