//! Asynchronous executions: accepted, asked for until they have an end, and started once,
//! whatever breaks meanwhile.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use loadtest::{
    chaos::journals,
    client::{Client, OPERATION_ID, Session},
    cluster::{Cluster, Member},
    wait::until,
};
use proto::limits;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::{
    new_contract::{NEWEST, run},
    stack::{SHELL, answer, begun, refused, shared, succeed, value},
};

/// Long enough for a dead worker's key to expire, for jobs to be delivered again, and for busy machines.
pub(crate) const ENDED_WITHIN: Duration = Duration::from_secs(120);
/// Code that runs until it is stopped.
pub(crate) const ENDLESS: &str =
    "import time\nopen('/mnt/data/began.txt', 'w').write('x')\ntime.sleep(200)";

/// An id that nobody has used.
fn fresh_id() -> String {
    format!("operation-{}", Ulid::new())
}

async fn post(session: &Session, id: &str, mut body: Value) -> Response {
    body["executionType"] = json!("Asynchronous");
    let request = session.versioned(Method::POST, "executions", NEWEST);
    let request = request.header(OPERATION_ID, id).json(&body);
    request.send().await.unwrap()
}

/// Submits a body that must be accepted.
async fn submit(session: &Session, body: Value) -> String {
    let id = fresh_id();
    let response = post(session, &id, body).await;
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 202, "{text}");
    id
}

pub(crate) async fn submit_code(session: &Session, code: &str) -> String {
    submit(session, json!({ "code": code })).await
}

async fn look(session: &Session, id: &str) -> Value {
    let request = session.versioned(Method::GET, &format!("executions/{id}"), NEWEST);
    let (status, execution) = answer(request).await;
    assert_eq!(status, 200, "{execution}");
    execution
}

fn has_ended(execution: &Value) -> bool {
    !["NotStarted", "Running"].contains(&execution["status"].as_str().unwrap())
}

/// Asks for an execution until it has an end. An ingress that has just started may not know yet.
pub(crate) async fn end_of(session: &Session, id: &str) -> Value {
    let what = format!("{id} ends");
    let ended = until(&what, ENDED_WITHIN, async || {
        let request = session.versioned(Method::GET, &format!("executions/{id}"), NEWEST);
        let Ok(response) = request.send().await else {
            return Ok(None);
        };
        if response.status() != 200 {
            return Ok(None);
        }
        let execution: Value = response.json().await?;
        Ok(has_ended(&execution).then_some(execution))
    });
    ended.await.unwrap()
}

pub(crate) async fn cancel(session: &Session, id: &str) -> Value {
    let request = session.versioned(Method::DELETE, &format!("executions/{id}"), NEWEST);
    let (status, execution) = answer(request).await;
    assert_eq!(status, 200, "{execution}");
    execution
}

/// How often each operation was started, by all workers together.
fn starts(cluster: &Cluster, workers: usize) -> BTreeMap<String, usize> {
    let mut starts = BTreeMap::new();
    for worker in 0..workers {
        let journal = journals::read(cluster.journal(worker).unwrap()).unwrap();
        for start in journal.starts {
            *starts.entry(start.operation.to_string()).or_default() += 1;
        }
    }
    starts
}

async fn small(ingresses: usize, workers: usize) -> Cluster {
    Cluster::builder()
        .ingresses(ingresses)
        .workers(workers)
        .worker_arguments(["--cages", "2", "--spares", "2"])
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_wanted_beyond_the_contract_is_kept_for_whoever_asks_later() {
    let session = shared().await.session();
    let code = "import os\nos.environ['WHO']";
    let body = json!({ "code": code, "hearth": { "environment": { "WHO": "me" } } });
    let id = submit(&session, body).await;
    let told = end_of(&session, &id).await;
    assert_eq!(told["status"], "Succeeded", "{told}");
    assert_eq!(told["result"]["executionResult"], "'me'");
    assert_eq!(told["hearth"]["outputs"][0]["type"], "result", "{told}");
    let plain = submit_code(&session, "1").await;
    assert_eq!(end_of(&session, &plain).await.get("hearth"), None);
}

#[tokio::test]
async fn an_execution_is_accepted_and_has_an_address_where_its_end_is_told() {
    let stack = shared().await;
    let session = stack.session();
    let id = fresh_id();
    let body = json!({ "code": "print('a')\n40 + 2" });
    let response = post(&session, &id, body.clone()).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()[OPERATION_ID], *id);
    let location = response.headers()["operation-location"].clone();
    let accepted: Value = response.json().await.unwrap();
    assert_eq!(accepted["executionType"], "Asynchronous");
    assert_eq!(
        (&accepted["id"], &accepted["status"]),
        (&json!(id), &json!("NotStarted"))
    );
    assert_eq!(accepted.get("result"), None);
    let ended = end_of(&session, &id).await;
    assert_eq!(ended["status"], "Succeeded", "{ended}");
    assert_eq!(ended["result"]["stdout"], "a\n");
    assert_eq!(ended["result"]["executionResult"], 42);
    let client = stack.http();
    let below = location.to_str().unwrap().strip_prefix(client.endpoint());
    let path = below.unwrap().trim_start_matches('/').to_owned();
    assert_eq!(answer(client.request(Method::GET, &path)).await.1, ended);
    // The same id again is the same execution.
    let response = post(&session, &id, body).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.json::<Value>().await.unwrap(), ended);
    let response = post(&session, &id, json!({ "code": "2" })).await;
    assert_eq!(response.status(), 409);
}

#[tokio::test]
async fn wishes_and_failures_are_kept_until_they_are_asked_for() {
    let stack = shared().await;
    let session = stack.session();
    let body = json!({ "code": "print('abcdef')\n6 * 7", "outputStreamsMaxLength": 3,
                       "returnJupyterFormatExecutionResult": true });
    let ended = end_of(&session, &submit(&session, body).await).await;
    assert_eq!(ended["result"]["stdout"], "abc");
    assert_eq!(
        ended["result"]["executionResult"],
        json!({ "text/plain": "42" })
    );
    let ended = end_of(&session, &submit_code(&session, "1/0").await).await;
    assert_eq!(ended["status"], "Failed");
    let stderr = ended["result"]["stderr"].as_str().unwrap();
    assert!(stderr.contains("ZeroDivisionError"), "{stderr}");
}

#[tokio::test]
async fn a_command_is_told_with_its_exit_status() {
    let stack = shared().await;
    let session = stack.client_of(SHELL).unwrap().fresh();
    let id = submit(&session, json!({ "shellCommand": "echo hi; exit 3" })).await;
    let ended = end_of(&session, &id).await;
    assert_eq!(
        (&ended["status"], &ended["result"]["stdout"]),
        (&json!("3"), &json!("hi\n"))
    );
}

#[tokio::test]
async fn long_code_and_long_results_go_by_way_of_the_store() {
    let stack = shared().await;
    let session = stack.session();
    let code = format!("# {}\nprint('y' * 300_000)", "x".repeat(300_000));
    let id = submit_code(&session, &code).await;
    for _ in 0..2 {
        let ended = end_of(&session, &id).await;
        let stdout = ended["result"]["stdout"].as_str().unwrap();
        assert_eq!(
            (&ended["status"], stdout.len()),
            (&json!("Succeeded"), 300_001)
        );
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_meant_is_refused_by_name() {
    let stack = shared().await;
    let session = stack.session();
    for (method, path) in [
        (Method::GET, "executions/none"),
        (Method::DELETE, "executions/none"),
        (Method::POST, "executions/none/cancel"),
    ] {
        let request = session.versioned(method, path, NEWEST);
        refused(request, 404, "ExecutionNotFound").await;
    }
    let another = stack.session();
    let id = submit_code(&session, "1").await;
    let request = another.versioned(Method::GET, &format!("executions/{id}"), NEWEST);
    refused(request, 404, "ExecutionNotFound").await;
    for body in [
        json!({ "code": "1", "retryOnWorkerLoss": true }),
        json!({ "code": "1", "executionType": "later" }),
    ] {
        let request = session.versioned(Method::POST, "executions", NEWEST);
        refused(request.json(&body), 400, "SessionRequestValidationFailed").await;
    }
    let body = json!({ "code": "1", "executionType": "asynchronous" });
    let request = session.request(Method::POST, "code/execute").json(&body);
    refused(request, 400, "SessionRequestNotSupported").await;
}

#[tokio::test]
async fn an_execution_that_was_waited_for_is_told_once_more() {
    let session = shared().await.session();
    for (code, status) in [("6*7", "Succeeded"), ("1/0", "Failed")] {
        let first = run(&session, json!({ "code": code })).await;
        assert_eq!(first["status"], status);
        let again = look(&session, first["id"].as_str().unwrap()).await;
        assert_eq!(again, first);
    }
    // Beside it nothing of it is recorded.
    let request = session.versioned(Method::GET, "executions", NEWEST);
    assert_eq!(answer(request).await.1, json!({ "value": [] }));
}

#[tokio::test]
async fn what_waits_is_told_so_and_can_be_cancelled_like_what_runs() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 7").await;
    let running = submit_code(&session, ENDLESS).await;
    begun(&session).await;
    assert_eq!(look(&session, &running).await["status"], "Running");
    let waiting = join_all((0..5).map(|_| submit_code(&session, "ran = True"))).await;
    let path = format!("executions/{}/cancel", waiting[0]);
    let (status, cancelled) = answer(session.versioned(Method::POST, &path, NEWEST)).await;
    assert_eq!(
        (status.as_u16(), &cancelled["status"]),
        (200, &json!("Canceled"))
    );
    for id in &waiting[1..] {
        assert_eq!(cancel(&session, id).await["status"], "Canceled");
    }
    let cancelled = cancel(&session, &running).await;
    assert_eq!(cancelled["status"], "Canceled", "{cancelled}");
    assert_eq!(
        cancel(&session, &running).await,
        cancelled,
        "once is enough"
    );
    assert_eq!(
        value(&session, "(kept, 'ran' in globals())").await,
        "(7, False)"
    );
}

#[tokio::test]
async fn a_pool_may_allow_more_time_to_those_that_nobody_waits_for() {
    let cluster = Cluster::builder().pool(|pool| {
        pool.limits(|limits| {
            limits.execution_seconds = 2;
            limits.async_execution_seconds = 60;
        })
    });
    let cluster = cluster.start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    let body = json!({ "code": "import time\ntime.sleep(5)\n1", "timeoutInSeconds": 300 });
    let ended = end_of(&session, &submit(&session, body.clone()).await).await;
    assert_eq!(ended["status"], "Succeeded", "{ended}");
    assert_eq!(run(&session, body).await["status"], "Failed");
    let body = json!({ "code": "import time\ntime.sleep(60)", "timeoutInSeconds": 1 });
    let ended = end_of(&session, &submit(&session, body).await).await;
    assert_eq!(ended["status"], "Failed", "{ended}");
}

#[tokio::test]
async fn a_sessions_executions_are_listed_page_by_page() {
    let stack = shared().await;
    let session = stack.session();
    let client = stack.http();
    let count = limits::EXECUTION_PAGE + 5;
    let mut ids = vec![submit_code(&session, "1").await];
    for _ in 1..count {
        let id = fresh_id();
        session.execute_as(&id, "1").await.unwrap();
        ids.push(id);
    }
    end_of(&session, &ids[0]).await;
    let (mut listed, mut kinds) = (vec![], BTreeMap::new());
    let (mut page, mut pages) = (
        answer(session.versioned(Method::GET, "executions", NEWEST))
            .await
            .1,
        1,
    );
    loop {
        let value = page["value"].as_array().unwrap();
        assert!(value.len() <= limits::EXECUTION_PAGE);
        for execution in value {
            assert_eq!(execution["status"], "Succeeded");
            listed.push(execution["id"].as_str().unwrap().to_owned());
            *kinds
                .entry(execution["executionType"].to_string())
                .or_insert(0) += 1;
        }
        let Some(next) = page.get("nextLink") else {
            break;
        };
        let next = next
            .as_str()
            .unwrap()
            .strip_prefix(client.endpoint())
            .unwrap();
        let next = next.trim_start_matches('/').to_owned();
        page = answer(client.request(Method::GET, &next)).await.1;
        pages += 1;
    }
    ids.sort();
    listed.sort();
    assert_eq!((listed, pages), (ids, 2));
    assert_eq!(kinds["\"Asynchronous\""], 1);
}

#[tokio::test]
async fn a_pool_with_too_many_waiting_executions_refuses_more() {
    let cluster = Cluster::builder().pool(|pool| pool.queued_executions(2));
    let cluster = cluster.start().await.unwrap();
    let client = cluster.client(0).unwrap();
    let sessions = [(); 3].map(|()| client.fresh());
    let first = submit_code(&sessions[0], ENDLESS).await;
    submit_code(&sessions[1], ENDLESS).await;
    let id = fresh_id();
    let last = || post(&sessions[2], &id, json!({ "code": "1" }));
    let refusal = last().await;
    assert_eq!(refusal.status(), 429);
    let body: Value = refusal.json().await.unwrap();
    assert_eq!(body["error"]["code"], "ExecutionQueueFull");
    cancel(&sessions[0], &first).await;
    until("there is room", ENDED_WITHIN, async || {
        Ok((last().await.status() == 202).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(end_of(&sessions[2], &id).await["status"], "Succeeded");
}

#[tokio::test]
async fn a_session_with_too_many_waiting_executions_refuses_more() {
    let stack = shared().await;
    let session = stack.session();
    let first = submit_code(&session, ENDLESS).await;
    begun(&session).await;
    let most = usize::try_from(limits::QUEUED_OF_SESSION).unwrap();
    let mut ids = vec![];
    for _ in 1..most {
        ids.push(submit_code(&session, "1").await);
    }
    let id = fresh_id();
    let response = post(&session, &id, json!({ "code": "1" })).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "5");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "ExecutionQueueFull");
    assert_eq!(body["error"]["innererror"]["mayHaveExecuted"], false);
    let told = look(&session, &id).await;
    assert_eq!(
        (&told["status"], &told["error"]["innererror"]),
        (&json!("Failed"), &json!({ "mayHaveExecuted": false }))
    );
    // Others are not concerned, and with room the same id is welcome.
    let other = stack.session();
    assert_eq!(
        end_of(&other, &submit_code(&other, "1").await).await["status"],
        "Succeeded"
    );
    for id in ids.iter().chain([&first]) {
        cancel(&session, id).await;
    }
    until("there is room", ENDED_WITHIN, async || {
        let response = post(&session, &id, json!({ "code": "1" })).await;
        Ok((response.status() == 202).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(end_of(&session, &id).await["status"], "Succeeded");
}

#[tokio::test]
async fn a_worker_that_dies_loses_what_runs_unless_another_try_was_wished() {
    let cluster = small(2, 2).await;
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    let (once, again) = (clients[0].fresh(), clients[0].fresh());
    let code = "import time\nopen('/mnt/data/began.txt', 'w').write('x')\ntime.sleep(6)\n'done'";
    let lost = submit_code(&once, code).await;
    let body = json!({ "code": code, "retryOnWorkerLoss": true });
    let retried = submit(&again, body).await;
    begun(&once).await;
    begun(&again).await;
    for worker in 0..2 {
        cluster.kill(Member::Worker(worker)).await.unwrap();
    }
    for worker in 0..2 {
        cluster.start(Member::Worker(worker)).await.unwrap();
    }
    let ended = end_of(&once.through(&clients[1]), &lost).await;
    assert_eq!(
        (&ended["status"], &ended["error"]["code"]),
        (&json!("Failed"), &json!("ExecutionLost")),
        "{ended}"
    );
    assert_eq!(ended["error"]["innererror"]["mayHaveExecuted"], true);
    let ended = end_of(&again.through(&clients[1]), &retried).await;
    assert_eq!(ended["status"], "Succeeded", "{ended}");
    let starts = starts(&cluster, 2);
    assert_eq!((starts[&lost], starts[&retried]), (1, 2));
}

#[tokio::test]
async fn what_waits_when_everything_is_restarted_runs_once() {
    let cluster = small(1, 2).await;
    let client = cluster.client(0).unwrap();
    let sessions = [client.fresh(), client.fresh(), client.fresh()];
    let mut ids = vec![];
    for turn in 0..8 {
        for session in &sessions {
            let code = format!("import time\ntime.sleep(1)\n{turn}");
            ids.push((session, submit_code(session, &code).await));
        }
    }
    for member in [Member::Ingress(0), Member::Worker(0), Member::Worker(1)] {
        cluster.stop(member).await.unwrap();
    }
    for member in [Member::Worker(0), Member::Worker(1), Member::Ingress(0)] {
        cluster.start(member).await.unwrap();
    }
    for (session, id) in &ids {
        let ended = end_of(session, id).await;
        assert_eq!(ended["status"], "Succeeded", "{ended}");
    }
    let starts = starts(&cluster, 2);
    assert_eq!(starts.len(), ids.len());
    assert!(starts.values().all(|times| *times == 1), "{starts:?}");
}

/// Submits `count` executions of each session through both ingresses in turn.
async fn submit_all(
    clients: &[Client],
    sessions: &[Session],
    count: usize,
) -> Vec<(Session, String)> {
    let asked = (0..count).flat_map(|turn| {
        sessions.iter().enumerate().map(move |(index, session)| {
            let through = session.through(&clients[(turn + index) % clients.len()]);
            async move {
                let code = format!("import time\ntime.sleep(0.05)\n{turn}");
                let id = submit_code(&through, &code).await;
                (through, id)
            }
        })
    });
    stream::iter(asked).buffer_unordered(64).collect().await
}

#[tokio::test]
async fn five_hundred_at_once_run_once_each_and_a_dead_worker_loses_only_what_it_ran() {
    const SESSIONS: usize = 25;
    const OF_EACH: usize = 20;
    let cluster = small(2, 2).await;
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    let sessions: Vec<Session> = (0..SESSIONS).map(|_| clients[0].fresh()).collect();
    let submitted = submit_all(&clients, &sessions, OF_EACH).await;
    assert_eq!(submitted.len(), SESSIONS * OF_EACH);
    until("a part of them has started", ENDED_WITHIN, async || {
        Ok((starts(&cluster, 2).len() >= SESSIONS * OF_EACH / 4).then_some(()))
    })
    .await
    .unwrap();
    cluster.kill(Member::Worker(1)).await.unwrap();
    let mut lost = 0;
    let mut succeeded = vec![];
    for (session, id) in &submitted {
        let ended = end_of(&session.through(&clients[0]), id).await;
        assert_eq!(look(&session.through(&clients[1]), id).await, ended);
        match ended["status"].as_str().unwrap() {
            "Succeeded" => succeeded.push(id),
            _ => {
                assert_eq!(ended["error"]["code"], "ExecutionLost", "{ended}");
                lost += 1;
            }
        }
    }
    let starts = starts(&cluster, 2);
    assert!(starts.values().all(|times| *times == 1), "{starts:?}");
    assert!(succeeded.iter().all(|id| starts.contains_key(*id)));
    assert!(
        lost <= SESSIONS * limits::QUEUED_IN_SESSION,
        "{lost} are lost"
    );
    println!("{} succeeded, {lost} lost", succeeded.len());
}
