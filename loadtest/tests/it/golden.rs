//! Every operation of every api-version against committed answers, `tests/golden/VERSION/NAME.json`:
//! what a client reads today it must be able to read tomorrow. What an answer was instead lies in
//! `target/tmp/golden` after a failure.

use std::{fs, path::Path};

use loadtest::{
    client::{OPERATION_ID, Session},
    multipart::Multipart,
};
use reqwest::{Method, Response};
use serde_json::{Map, Value, json};

use crate::{
    async_executions::end_of,
    new_contract::VERSIONS,
    stack::{Stack, shared},
};

/// Versions of the old contract.
const OLD: [&str; 2] = ["2024-02-02-preview", "2024-08-02-preview"];
/// First version that knows pools of shells.
const SHELL: &str = "2025-02-02-preview";

/// One request; its name is that of its file.
struct Step {
    name: &'static str,
    method: Method,
    path: &'static str,
    sent: Sent,
}

enum Sent {
    Nothing,
    Json(Value),
    File(&'static str),
}

fn step(name: &'static str, method: Method, path: &'static str, sent: Sent) -> Step {
    Step {
        name,
        method,
        path,
        sent,
    }
}

fn get(name: &'static str, path: &'static str) -> Step {
    step(name, Method::GET, path, Sent::Nothing)
}

fn old() -> Vec<Step> {
    let run = |code: &str| {
        Sent::Json(json!({ "properties": {
            "codeInputType": "inline", "executionType": "synchronous", "code": code } }))
    };
    let oldest = json!({ "properties": { "pythonCode": "print('a')\n6 * 7" } });
    vec![
        step(
            "execute",
            Method::POST,
            "code/execute",
            run("print('a')\n6 * 7"),
        ),
        step("execute-failure", Method::POST, "code/execute", run("1/0")),
        step(
            "execute-nothing",
            Method::POST,
            "code/execute",
            Sent::Json(json!({})),
        ),
        step(
            "python-upload",
            Method::POST,
            "python/uploadFile",
            Sent::File("old.txt"),
        ),
        get("python-list", "python/files"),
        get("python-download", "python/downloadFile?filename=old.txt"),
        step(
            "python-execute",
            Method::POST,
            "python/execute",
            Sent::Json(oldest),
        ),
        step(
            "upload",
            Method::POST,
            "files/upload",
            Sent::File("a b.txt"),
        ),
        step("upload-files", Method::POST, "files", Sent::File("c.md")),
        get("list", "files"),
        get("stat", "files/c.md"),
        get("download", "files/content/a%20b.txt"),
        get("download-missing", "files/content/none.txt"),
        step("delete-file", Method::DELETE, "files/c.md", Sent::Nothing),
        step("delete-session", Method::DELETE, "session", Sent::Nothing),
    ]
}

fn new() -> Vec<Step> {
    let run = |code: &str| Sent::Json(json!({ "code": code, "executionType": "Synchronous" }));
    let forms = json!({ "code": "6 * 7", "returnJupyterFormatExecutionResult": true,
                        "outputStreamsMaxLength": 4096, "useEmptyKernel": false });
    let nothing = || Sent::Json(json!({}));
    vec![
        get("get-session-missing", "session"),
        step(
            "execute",
            Method::POST,
            "executions",
            run("print('a')\n6 * 7"),
        ),
        step("execute-failure", Method::POST, "executions", run("1/0")),
        step("execute-nothing", Method::POST, "executions", nothing()),
        step(
            "execute-forms",
            Method::POST,
            "executions",
            Sent::Json(forms),
        ),
        step("upload", Method::POST, "files", Sent::File("c.md")),
        step(
            "upload-below",
            Method::POST,
            "files?path=/mnt/data/sub",
            Sent::File("d.bin"),
        ),
        get("list", "files"),
        get("list-recursive", "files?recursive=true"),
        get("stat", "files/d.bin?path=sub"),
        get("download", "files/c.md/content"),
        get("download-missing", "files/none.txt/content"),
        step("delete-file", Method::DELETE, "files/c.md", Sent::Nothing),
        get("get-session", "session"),
        get("list-sessions", "listSessions"),
        get("metadata", "metadata"),
        step(
            "management-get-session",
            Method::POST,
            ".management/getSession",
            Sent::Nothing,
        ),
        step(
            "management-list-sessions",
            Method::POST,
            ".management/listSessions",
            Sent::Nothing,
        ),
        step("delete-session", Method::DELETE, "session", Sent::Nothing),
        step("execute-again", Method::POST, "executions", run("1")),
        step(
            "management-stop-session",
            Method::POST,
            ".management/stopSession",
            Sent::Nothing,
        ),
    ]
}

/// What is asked of asynchronous executions, in a session of their own.
fn without_waiting() -> Vec<Step> {
    vec![
        step(
            "execute-async",
            Method::POST,
            "executions",
            Sent::Json(json!({ "code": "6 * 7", "executionType": "Asynchronous" })),
        ),
        get("get-execution", "executions/LAST"),
        get("get-execution-missing", "executions/none"),
        get("list-executions", "executions"),
        step(
            "cancel-execution",
            Method::POST,
            "executions/LAST/cancel",
            Sent::Nothing,
        ),
    ]
}

fn shell() -> Vec<Step> {
    let run = |command: &str| Sent::Json(json!({ "shellCommand": command }));
    let words = Sent::Json(json!({ "execCommandAndArgs": ["echo", "a b"] }));
    vec![
        step(
            "shell-execute",
            Method::POST,
            "executions",
            run("echo hi; exit 3"),
        ),
        step("shell-execute-words", Method::POST, "executions", words),
        step(
            "shell-execute-code",
            Method::POST,
            "executions",
            Sent::Json(json!({ "code": "1" })),
        ),
        step(
            "shell-code-execute",
            Method::POST,
            "code/execute",
            run("echo hi"),
        ),
    ]
}

/// `last` is the id of the last asynchronous execution.
async fn send(session: &Session, version: &str, step: &Step, last: &str) -> Response {
    let path = step.path.replace("LAST", last);
    let request = session.versioned(step.method.clone(), &path, version);
    let request = match &step.sent {
        Sent::Nothing => request,
        Sent::Json(body) => request.json(body),
        Sent::File(name) => {
            let body = Multipart::file(name, b"text");
            let request = request.header("content-type", body.content_type());
            request.body(body.into_body())
        }
    };
    request.send().await.unwrap()
}

async fn told(session: &Session, step: &Step, response: Response) -> Value {
    /// Of the connection, not of the contract.
    const PASSED_OVER: [&str; 2] = ["date", "content-length"];
    let mut headers = Map::new();
    for (name, value) in response.headers() {
        if !PASSED_OVER.contains(&name.as_str()) {
            let value = plain_text(session, value.to_str().unwrap());
            let is_span = name.as_str().starts_with("x-ms-") && value.parse::<u64>().is_ok();
            let value = if is_span {
                "<number>".to_owned()
            } else {
                value
            };
            headers.insert(name.to_string(), value.into());
        }
    }
    if headers.contains_key("last-modified") {
        headers["last-modified"] = "<time>".into();
    }
    if let Some(location) = headers.get("operation-location") {
        headers["operation-location"] = below(location.as_str().unwrap()).into();
    }
    headers.sort_keys();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    let request = format!("{} {}", step.method, step.path);
    let sent = match &step.sent {
        Sent::Nothing => Value::Null,
        Sent::Json(body) => body.clone(),
        Sent::File(name) => json!({ "file": name }),
    };
    json!({ "request": request, "sent": sent, "status": status, "headers": headers,
            "body": plain(session, "", body) })
}

/// An address of an execution without host, pool and id.
fn below(location: &str) -> String {
    let (_, rest) = location.split_once("/executions/").unwrap();
    let (_, query) = rest.split_once('?').unwrap();
    format!("<pool>/executions/<id>?{query}")
}

/// An answer without what differs from one time to the next.
fn plain(session: &Session, field: &str, value: Value) -> Value {
    match (field, value) {
        ("executionTimeInMilliseconds", _) => "<number>".into(),
        ("version", _) => "<version>".into(),
        // Other tests have sessions in the same pool.
        ("count", _) => "<number>".into(),
        ("preInstalledPackages", Value::Array(packages)) => {
            let mut one = packages
                .into_iter()
                .find(|one| one["name"] == "numpy")
                .unwrap();
            one["version"] = "<version>".into();
            json!([one, "<more>"])
        }
        (_, Value::String(text)) => plain_text(session, &text).into(),
        (_, Value::Array(entries)) => {
            let is_other = |entry: &Value| {
                let identifier = entry.get("identifier");
                identifier.is_some_and(|identifier| identifier != session.identifier())
            };
            let own = entries.into_iter().filter(|entry| !is_other(entry));
            own.map(|entry| plain(session, "", entry)).collect()
        }
        (_, Value::Object(fields)) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let value = plain(session, &name, value);
                (name, value)
            });
            Value::Object(fields.collect())
        }
        (_, other) => other,
    }
}

fn plain_text(session: &Session, text: &str) -> String {
    let text = text.replace(session.identifier(), "<session>");
    let is_all = |allowed: &str, length: usize| {
        text.len() == length
            && text
                .chars()
                .all(|one| one.is_ascii_alphanumeric() || allowed.contains(one))
    };
    if text.ends_with('Z') && text.starts_with("20") && is_all("-:.TZ", 28) {
        "<time>".to_owned()
    } else if text.starts_with('0') && is_all("-", 36) {
        "<guid>".to_owned()
    } else if text.starts_with("01") && is_all("", 26) {
        "<ulid>".to_owned()
    } else if text.len() == 32 && text.chars().all(|one| one.is_ascii_hexdigit()) {
        "<trace>".to_owned()
    } else {
        text
    }
}

async fn check(stack: &Stack, version: &str, steps: Vec<Step>, differ: &mut Vec<String>) {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let instead = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden");
    let of_shell = steps.iter().any(|step| step.name.starts_with("shell"));
    let session = if of_shell {
        stack.shell_session()
    } else {
        stack.session()
    };
    let mut last = String::new();
    for step in steps {
        let response = send(&session, version, &step, &last).await;
        if response.headers().contains_key("operation-location") {
            last = response.headers()[OPERATION_ID].to_str().unwrap().into();
            end_of(&session, &last).await;
        }
        let told = told(&session, &step, response).await;
        let file = format!("{version}/{}.json", step.name);
        let expected = fs::read_to_string(committed.join(&file)).unwrap_or_default();
        let now = format!("{}\n", serde_json::to_string_pretty(&told).unwrap());
        if now != expected {
            let path = instead.join(&file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &now).unwrap();
            differ.push(format!("{file} is now\n{now}"));
        }
    }
}

#[tokio::test]
async fn every_operation_of_every_version_answers_as_committed() {
    let stack = shared().await;
    let mut differ = vec![];
    for version in OLD {
        check(&stack, version, old(), &mut differ).await;
    }
    for version in VERSIONS {
        check(&stack, version, new(), &mut differ).await;
        check(&stack, version, without_waiting(), &mut differ).await;
        if version >= SHELL {
            check(&stack, version, shell(), &mut differ).await;
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
