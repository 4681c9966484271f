//! Executions whose output is read as it happens.

use std::time::Duration;

use loadtest::{
    client::{OPERATION_ID, Session},
    events::{Event, Events},
    stall::{self, Growth},
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    new_contract::{NEWEST, run},
    stack::{answer, printed, refused, shared, succeed, value},
};

/// Longer than any event may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The events of one answer, each of which comes in time.
struct Stream(Events);

impl Stream {
    async fn of(session: &Session, path: &str, body: &Value) -> Self {
        Self(Events::of(session, path, NEWEST, body).await.unwrap())
    }

    fn begin(response: Response) -> Self {
        Self(Events::begin(response).unwrap())
    }

    async fn next(&mut self) -> Option<Event> {
        let event = timeout(PATIENCE, self.0.next()).await;
        event.expect("an event in time").unwrap()
    }

    async fn all(mut self) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

fn python(code: &str) -> Value {
    json!({ "code": code })
}

/// All text of one stream.
fn text(events: &[(String, Value)], stream: &str) -> String {
    let of = events.iter().filter(|(name, _)| name == stream);
    of.map(|(_, data)| data["text"].as_str().unwrap()).collect()
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names
}

#[tokio::test]
async fn what_code_shows_comes_in_order_and_the_answer_last() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import sys, time\n\
                from IPython.display import HTML\n\
                def pause(): sys.stdout.flush(); time.sleep(0.3)\n\
                print('one'); pause()\n\
                print('two', file=sys.stderr); pause()\n\
                display(HTML('<b>three</b>')); pause()\n\
                print('four')\n\
                40 + 2";
    let body = json!({ "code": code, "hearth": {} });
    let events = Stream::of(&session, "executions", &body).await.all().await;
    assert_eq!(
        names(&events),
        ["stdout", "stderr", "display", "stdout", "result"]
    );
    assert_eq!(events[0].1, json!({ "text": "one\n" }));
    assert_eq!(events[1].1, json!({ "text": "two\n" }));
    assert_eq!(events[2].1["type"], "display");
    assert_eq!(events[2].1["data"]["text/html"], "<b>three</b>");
    let told = &events.last().unwrap().1;
    assert_eq!(told["status"], "Succeeded", "{told}");
    assert_eq!(told["result"]["stdout"], "one\nfour\n");
    assert_eq!(told["result"]["executionResult"], 42);
    assert_eq!(told["hearth"]["outputs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_first_event_comes_before_the_code_ends() {
    let stack = shared().await;
    let session = stack.session();
    let waits = "import os, time\n\
                 print('begun')\n\
                 while not os.path.exists('/mnt/data/go'): time.sleep(0.01)\n\
                 print('ended')";
    let mut events = Stream::of(&session, "executions", &python(waits)).await;
    let begun = events.next().await.unwrap();
    assert_eq!(begun, ("stdout".to_owned(), json!({ "text": "begun\n" })));
    // The code waits for what is only sent now.
    session.upload("go", b"").await.unwrap();
    let rest = events.all().await;
    assert_eq!(text(&rest, "stdout"), "ended\n");
    assert_eq!(rest.last().unwrap().0, "result");
}

#[tokio::test]
async fn the_answer_is_that_of_a_call_without_events_on_every_path() {
    let stack = shared().await;
    let session = stack.session();
    for path in ["executions", "code/execute", "python/execute"] {
        let code = "print('a')\n{'b': [1,\n 2]}\n'[1,\\n 2]'";
        let events = Stream::of(&session, path, &python(code)).await;
        let (name, mut told) = events.all().await.pop().unwrap();
        let request = session.versioned(Method::POST, path, NEWEST);
        let (status, mut plain) = answer(request.json(&python(code))).await;
        assert_eq!((status.as_u16(), name.as_str()), (200, "result"));
        for answer in [&mut told, &mut plain] {
            for place in ["", "/result", "/properties"] {
                if let Some(fields) = answer.pointer_mut(place).and_then(Value::as_object_mut) {
                    fields.retain(|name, value| {
                        name != "executionTimeInMilliseconds"
                            && (name != "id" || !value.is_string())
                    });
                }
            }
        }
        assert_eq!(told, plain, "{path}");
    }
}

#[tokio::test]
async fn characters_that_are_written_in_halves_arrive_whole() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import os, time\n\
                for byte in 'ž€😀!'.encode():\n\
                \x20   os.write(1, bytes([byte])); time.sleep(0.03)\n\
                print('ž€😀' * 100_000, end='')";
    let events = Stream::of(&session, "executions", &python(code)).await;
    let text = text(&events.all().await, "stdout");
    assert_eq!(text, format!("ž€😀!{}", "ž€😀".repeat(100_000)));
}

#[tokio::test]
async fn long_images_come_whole() {
    let stack = shared().await;
    let session = stack.session();
    let code = "import base64, os\n\
                from IPython.display import display\n\
                data = base64.b64encode(os.urandom(3_000_000)).decode()\n\
                display({'image/png': data}, raw=True)";
    let events = Stream::of(&session, "executions", &python(code)).await;
    let events = events.all().await;
    let display = events.iter().find(|(name, _)| name == "display").unwrap();
    let long = display.1["data"]["image/png"].as_str().unwrap();
    assert_eq!(long.len(), 4_000_000);
    let begins = printed(&session, "print(data[:64])").await;
    assert_eq!(begins.trim_end(), &long[..64]);
}

#[tokio::test]
async fn code_that_fails_is_a_result_and_a_platform_that_fails_an_error() {
    let stack = shared().await;
    let session = stack.session();
    let events = Stream::of(&session, "executions", &python("print('a')\n1/0")).await;
    let events = events.all().await;
    assert_eq!(names(&events), ["stdout", "result"]);
    assert_eq!(events[1].1["status"], "Failed");
    // Before anything ran it is told as ever.
    let request = session.versioned(Method::POST, "executions", NEWEST);
    let request = request.header("accept", "text/event-stream");
    refused(request.json(&json!({})), 400, "SessionPropertiesMissing").await;
    // The session is stopped under the code.
    let body = python("print('begun')\nimport time; time.sleep(60)");
    let mut events = Stream::of(&session, "executions", &body).await;
    assert_eq!(events.next().await.unwrap().0, "stdout");
    session.delete().await.unwrap();
    let (name, told) = events.next().await.unwrap();
    assert_eq!(name, "error", "{told}");
    assert_eq!(told["error"]["code"], "SessionStopped", "{told}");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_reader_that_stalls_stalls_nobody_and_hears_what_it_missed() {
    /// Most that a process may grow by meanwhile; a part of what is printed.
    const GROWTH: u64 = 40 << 20;
    let stack = shared().await;
    let session = stack.session();
    let options = stall::Options {
        printing: 5,
        stalled: 5,
        megabytes: 100,
    };
    let stalled = timeout(PATIENCE, stall::stall(&stack, &session, &options));
    let report = stalled.await.expect("the session goes on").unwrap();
    eprintln!("{report:?}");
    assert!(report.dropped > 0);
    for Growth { before, most, .. } in [report.ingress, report.worker] {
        assert!(most < before + GROWTH, "{before} {most}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_cancels_what_it_did_not_name() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 41").await;
    let body = python("print('begun')\nimport time; time.sleep(200)");
    let mut events = Stream::of(&session, "executions", &body).await;
    assert_eq!(events.next().await.unwrap().0, "stdout");
    drop(events);
    // Waits for its turn, and finds the variables.
    let next = timeout(PATIENCE, value(&session, "kept + 1"));
    assert_eq!(next.await.expect("the code was cancelled"), 42);
}

#[tokio::test]
async fn a_named_execution_streams_once_and_ends_without_its_reader() {
    let stack = shared().await;
    let session = stack.session();
    let body = python(
        "print('begun')\nimport os, time\n\
         while not os.path.exists('/mnt/data/go'): time.sleep(0.01)\n\
         open('/mnt/data/runs', 'a').write('x')\nprint('ended')",
    );
    let ask = || {
        let request = session.versioned(Method::POST, "executions", NEWEST);
        let request = request.header(OPERATION_ID, "stream-1").json(&body);
        request.header("accept", "text/event-stream")
    };
    let mut first = Stream::begin(ask().send().await.unwrap());
    assert_eq!(first.next().await.unwrap().1, json!({ "text": "begun\n" }));
    let second = Stream::begin(ask().send().await.unwrap());
    drop(first);
    session.upload("go", b"").await.unwrap();
    let events = second.all().await;
    assert_eq!(names(&events), ["result"]);
    assert_eq!(events[0].1["result"]["stdout"], "begun\nended\n");
    let again = Stream::begin(ask().send().await.unwrap()).all().await;
    assert_eq!(again, events);
    assert_eq!(session.download("runs").await.unwrap(), b"x");
}

#[tokio::test]
async fn whoever_reads_can_cancel_by_the_id_in_the_head() {
    let session = shared().await.session();
    let body = python("print('begun', flush=True)\nimport time; time.sleep(200)");
    let request = session.versioned(Method::POST, "executions", NEWEST);
    let request = request.json(&body).header("accept", "text/event-stream");
    let response = request.send().await.unwrap();
    let id = id_of(&response);
    let mut events = Stream::begin(response);
    assert_eq!(events.next().await.unwrap().0, "stdout");
    let path = format!("executions/{id}");
    let told = answer(session.versioned(Method::GET, &path, NEWEST))
        .await
        .1;
    assert_eq!(told["status"], "Running", "{told}");
    let told = answer(session.versioned(Method::DELETE, &path, NEWEST))
        .await
        .1;
    assert_eq!(told["status"], "Canceled", "{told}");
    assert_eq!(events.all().await.last().unwrap().0, "result");
}

/// The id in the head of an answer whose execution has not ended yet.
fn id_of(response: &Response) -> String {
    let id = &response.headers()[OPERATION_ID];
    id.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_execution_that_waits_for_another_can_be_cancelled_by_its_id() {
    let session = shared().await.session();
    let stream = |code: &str| {
        let request = session.versioned(Method::POST, "executions", NEWEST);
        let request = request
            .json(&python(code))
            .header("accept", "text/event-stream");
        async { request.send().await.unwrap() }
    };
    let about = |method: Method, id: &str| {
        let request = session.versioned(method, &format!("executions/{id}"), NEWEST);
        async { answer(request).await.1 }
    };
    let endless = stream("print('begun', flush=True)\nimport time; time.sleep(200)").await;
    let running = id_of(&endless);
    let mut endless = Stream::begin(endless);
    assert_eq!(endless.next().await.unwrap().0, "stdout");
    let waits = stream("open('/mnt/data/ran', 'w').close()").await;
    let waiting = id_of(&waits);
    let told = about(Method::DELETE, &waiting).await;
    assert_eq!(told["status"], "Canceled", "{told}");
    let rest = Stream::begin(waits).all().await;
    assert_eq!(rest.last().unwrap().1["status"], "Canceled", "{rest:?}");
    let told = about(Method::GET, &waiting).await;
    assert_eq!(told["status"], "Canceled", "{told}");
    let told = about(Method::GET, &running).await;
    assert_eq!(
        told["status"], "Running",
        "the one before it goes on: {told}"
    );
    about(Method::DELETE, &running).await;
    let no_file = json!([]);
    assert_eq!(
        value(&session, "import os; os.listdir('/mnt/data')").await,
        no_file
    );
}

#[tokio::test]
async fn commands_of_a_shell_stream_too() {
    let stack = shared().await;
    let session = stack.shell_session();
    let body = json!({ "shellCommand":
        "echo begun; while [ ! -e go ]; do sleep 0.01; done; echo ended >&2; exit 3" });
    let mut events = Stream::of(&session, "executions", &body).await;
    let begun = events.next().await.unwrap();
    assert_eq!(begun, ("stdout".to_owned(), json!({ "text": "begun\n" })));
    session.upload("go", b"").await.unwrap();
    let rest = events.all().await;
    assert_eq!(names(&rest), ["stderr", "result"]);
    assert_eq!(rest[1].1["status"], "3");
    assert_eq!(
        run(&session, json!({ "shellCommand": "true" })).await["status"],
        "0"
    );
}

#[tokio::test]
async fn events_are_for_who_prefers_them() {
    let stack = shared().await;
    let session = stack.session();
    for (accept, kind) in [
        ("text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0", "application/json"),
        ("text/event-stream;q=0, */*", "application/json"),
        (
            "text/event-stream;q=0.5, application/json",
            "application/json",
        ),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
    ] {
        for path in ["executions", "code/execute", "python/execute"] {
            let request = session.versioned(Method::POST, path, NEWEST);
            let request = request.json(&python("1")).header("accept", accept);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{accept} {path}");
            assert_eq!(response.headers()["content-type"], kind, "{accept} {path}");
        }
    }
}
