//! Executions whose callers name them: asked for again and again, run at most once, answered the same to
//! everybody, whatever breaks meanwhile.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use loadtest::{
    client::{ClientError, Executed, OPERATION_ID, Session, Status},
    cluster::{Cluster, Member},
    raw::RawRequest,
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use ulid::Ulid;

use crate::stack::{begun, refused, shared, succeed, value};

/// Long enough for reconnects, for a dead worker's key to expire and for an ingress to be sure of it.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// Longer than an owner may be silent, shorter than its sandboxes live without it.
const STOOD_STILL: Duration = Duration::from_secs(3);
/// Counts in the interpreter how often it ran.
const COUNT: &str = "turns = globals().get('turns', 0) + 1\nturns";

/// An id that nobody has used.
fn fresh_id() -> String {
    format!("operation-{}", Ulid::new())
}

/// Code that says in a file that it began, works for a while and counts.
fn slow(seconds: f64) -> String {
    format!(
        "import time\nopen('/mnt/data/began.txt', 'a').write('x')\ntime.sleep({seconds})\n{COUNT}"
    )
}

/// Asks again until the execution has an end, as a caller would that knows its id.
async fn its_end(session: &Session, id: &str, code: &str) -> Result<Executed, ClientError> {
    let ended = until("the execution has an end", RECOVERED_WITHIN, || async {
        match session.execute_as(id, code).await {
            Err(error) if is_pending(&error) => Ok(None),
            other => Ok(Some(other)),
        }
    });
    ended.await.unwrap()
}

fn is_pending(error: &ClientError) -> bool {
    match error {
        ClientError::Transport(_) => true,
        _ => matches!(error.refusal(), Some((503 | 504, _))),
    }
}

fn assert_lost(answer: Result<Executed, ClientError>) {
    let error = answer.unwrap_err();
    assert_eq!(error.refusal(), Some((500, "ExecutionLost")), "{error}");
    assert_eq!(error.may_have_executed(), Some(true), "{error}");
}

async fn two_ingresses() -> Cluster {
    Cluster::builder()
        .ingresses(2)
        .worker_arguments(["--cages", "2", "--spares", "2"])
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_same_id_gives_the_same_result_and_the_code_runs_once() {
    let stack = shared().await;
    let (session, id) = (stack.session(), fresh_id());
    let code = format!("print('said')\n{COUNT}");
    let first = session.execute_as(&id, &code).await.unwrap();
    for _ in 0..3 {
        assert_eq!(session.execute_as(&id, &code).await.unwrap(), first);
    }
    assert_eq!(value(&session, "turns").await, 1);
    let second = session.execute_as(&fresh_id(), &code).await.unwrap();
    assert_eq!(second.result, 2, "another id is another execution");
}

#[tokio::test]
async fn an_answer_names_its_operation_also_when_it_is_a_repetition() {
    let stack = shared().await;
    let (session, id) = (stack.session(), fresh_id());
    for code in ["1", "1", "2"] {
        let request = session.request(Method::POST, "code/execute");
        let request = request
            .header(OPERATION_ID, &id)
            .json(&json!({ "code": code }));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()[OPERATION_ID], *id, "{code}");
    }
}

#[tokio::test]
async fn a_failure_of_the_code_is_kept_like_a_success() {
    let stack = shared().await;
    let (session, id) = (stack.session(), fresh_id());
    let code = format!("{COUNT}\nraise ValueError('mine')");
    let first = session.execute_as(&id, &code).await.unwrap();
    assert_eq!(first.status, Status::Failure);
    assert_eq!(session.execute_as(&id, &code).await.unwrap(), first);
    assert_eq!(value(&session, "turns").await, 1);
}

#[tokio::test]
async fn long_code_and_long_results_are_kept_whole() {
    let stack = shared().await;
    for length in [100_000, 600_000] {
        let (session, id) = (stack.session(), fresh_id());
        let padding = "#".repeat(length);
        let code = format!("{COUNT}\nprint('x' * {length})\nturns\n{padding}");
        let first = session.execute_as(&id, &code).await.unwrap();
        assert_eq!(first.stdout.len(), length + 1);
        for _ in 0..2 {
            assert_eq!(session.execute_as(&id, &code).await.unwrap(), first);
        }
        assert_eq!(value(&session, "turns").await, 1);
    }
}

#[tokio::test]
async fn concurrent_repetitions_wait_for_the_one_that_runs() {
    let cluster = two_ingresses().await;
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    for turn in 0..3 {
        let (session, id, code) = (clients[0].fresh(), fresh_id(), slow(0.5));
        if turn > 0 {
            // The first repetitions of the first session race for the session, too.
            succeed(&session, "1").await;
        }
        let answers = join_all((0..8).map(|n| {
            let session = session.through(&clients[n % 2]);
            let (id, code) = (id.clone(), code.clone());
            async move { session.execute_as(&id, &code).await }
        }));
        let answers: Vec<_> = answers.await.into_iter().map(Result::unwrap).collect();
        for answer in &answers {
            assert_eq!(answer, &answers[0]);
        }
        assert_eq!(value(&session, "turns").await, 1);
        assert_eq!(session.download("began.txt").await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn another_body_under_the_same_id_is_a_conflict() {
    let stack = shared().await;
    let (session, id) = (stack.session(), fresh_id());
    let code = slow(1.0);
    let running = session.execute_as(&id, &code);
    let conflicting = async {
        begun(&session).await;
        let other = session.execute_as(&id, "1").await.unwrap_err();
        assert_eq!(other.refusal(), Some((409, "OperationConflict")), "{other}");
    };
    let (ran, ()) = tokio::join!(running, conflicting);
    assert_eq!(ran.unwrap().result, 1);
    let bodies = [
        json!({ "code": "1" }),
        json!({ "code": code, "timeoutInSeconds": 7 }),
    ];
    for body in bodies {
        let request = session.request(Method::POST, "code/execute");
        let request = request.header(OPERATION_ID, &id).json(&body);
        refused(request, 409, "OperationConflict").await;
    }
    assert_eq!(value(&session, "turns").await, 1);
}

#[tokio::test]
async fn the_same_id_in_two_sessions_names_two_executions() {
    let stack = shared().await;
    let (one, two, id) = (stack.session(), stack.session(), fresh_id());
    succeed(&one, "secret = 'of one'").await;
    let code = "globals().get('secret', 'none')";
    assert_eq!(one.execute_as(&id, code).await.unwrap().result, "'of one'");
    assert_eq!(two.execute_as(&id, code).await.unwrap().result, "'none'");
    let other_body = two.execute_as(&fresh_id(), "1").await.unwrap();
    assert_eq!(other_body.result, 1);
}

#[tokio::test]
async fn ids_have_1_to_128_printable_characters() {
    let stack = shared().await;
    let session = stack.session();
    let signs = "a.b*c>d $KV / ~|\"'{}[]()";
    for id in ["x".to_owned(), "y".repeat(128), signs.to_owned()] {
        let first = session.execute_as(&id, COUNT).await.unwrap();
        assert_eq!(session.execute_as(&id, COUNT).await.unwrap(), first, "{id}");
    }
    assert_eq!(value(&session, "turns").await, 3);
    let body = json!({ "code": COUNT });
    for id in [
        "y".repeat(129).into_bytes(),
        vec![],
        "ž".into(),
        b"a\tb".to_vec(),
    ] {
        let request = session.request(Method::POST, "code/execute").json(&body);
        let request = request.header(OPERATION_ID, id);
        refused(request, 400, "SessionRequestValidationFailed").await;
    }
    assert_eq!(value(&session, "turns").await, 3);
}

#[tokio::test]
async fn a_result_outlives_its_session_and_needs_no_room_in_the_pool() {
    let cluster = Cluster::builder()
        .pool(|pool| pool.max_sessions(1))
        .start()
        .await
        .unwrap();
    let client = cluster.client(0).unwrap();
    let (first, second, id) = (client.fresh(), client.fresh(), fresh_id());
    let ran = first.execute_as(&id, COUNT).await.unwrap();
    first.delete().await.unwrap();
    succeed(&second, "1").await;
    assert_eq!(first.execute_as(&id, COUNT).await.unwrap(), ran);
    let full = first.execute("1").await.unwrap_err();
    assert_eq!(full.refusal(), Some((429, "SessionPoolFull")));
}

#[tokio::test]
async fn what_was_refused_did_not_run_and_runs_when_it_is_asked_for_again() {
    let cluster = Cluster::builder()
        .pool(|pool| pool.max_sessions(1))
        .start()
        .await
        .unwrap();
    let client = cluster.client(0).unwrap();
    let (first, second, id) = (client.fresh(), client.fresh(), fresh_id());
    succeed(&first, "1").await;
    let full = second.execute_as(&id, COUNT).await.unwrap_err();
    assert_eq!(full.refusal(), Some((429, "SessionPoolFull")), "{full}");
    assert_eq!(full.may_have_executed(), Some(false), "{full}");
    first.delete().await.unwrap();
    assert_eq!(second.execute_as(&id, COUNT).await.unwrap().result, 1);
    assert_eq!(second.execute_as(&id, COUNT).await.unwrap().result, 1);
}

#[tokio::test]
async fn a_busy_session_refuses_without_spending_the_id() {
    let stack = shared().await;
    let (session, id) = (stack.session(), fresh_id());
    let running = slow(5.0);
    let running = session.execute(&running);
    let refusing = async {
        begun(&session).await;
        // One more than may wait: the one that is refused answers first.
        let mut waiting: FuturesUnordered<_> = (0..9).map(|_| session.execute("1")).collect();
        let busy = waiting.next().await.unwrap().unwrap_err();
        assert_eq!(busy.refusal(), Some((429, "SessionBusy")), "{busy}");
        let busy = session.execute_as(&id, COUNT).await.unwrap_err();
        assert_eq!(busy.refusal(), Some((429, "SessionBusy")), "{busy}");
        assert_eq!(busy.may_have_executed(), Some(false), "{busy}");
        while let Some(answer) = waiting.next().await {
            answer.unwrap();
        }
    };
    let (ran, ()) = tokio::join!(running, refusing);
    assert_eq!(ran.unwrap().result, 1);
    assert_eq!(session.execute_as(&id, COUNT).await.unwrap().result, 2);
}

#[tokio::test]
async fn an_execution_whose_worker_is_killed_is_lost_for_ever_and_never_runs_again() {
    let cluster = Cluster::builder().workers(2).prepare().unwrap();
    for member in [Member::Nats(0), Member::Ingress(0), Member::Worker(0)] {
        cluster.start(member).await.unwrap();
    }
    let (session, id, code) = (cluster.client(0).unwrap().fresh(), fresh_id(), slow(60.0));
    let running = session.execute_as(&id, &code);
    let killing = async {
        begun(&session).await;
        cluster.start(Member::Worker(1)).await.unwrap();
        cluster.kill(Member::Worker(0)).await.unwrap();
        Instant::now()
    };
    let (answer, killed) = tokio::join!(running, killing);
    eprintln!("lost {:?} after the kill", killed.elapsed());
    assert_lost(answer);
    assert_lost(session.execute_as(&id, &code).await);
    // The session goes on elsewhere, and still the code does not run.
    let turns = until("the session answers", RECOVERED_WITHIN, || async {
        Ok(session.execute("globals().get('turns', 0)").await.ok())
    });
    assert_eq!(turns.await.unwrap().result, 0);
    cluster.start(Member::Worker(0)).await.unwrap();
    assert_lost(session.execute_as(&id, &code).await);
    assert_eq!(value(&session, "globals().get('turns', 0)").await, 0);
}

#[tokio::test]
async fn a_caller_who_hangs_up_without_an_id_cancels_and_with_one_does_not() {
    let stack = shared().await;
    for id in [None, Some(fresh_id())] {
        let session = stack.session();
        succeed(&session, "1").await;
        let code = slow(3.0);
        let body = json!({ "code": code }).to_string();
        let target = format!(
            "{}/code/execute?identifier={}&api-version={}",
            stack.pool(),
            session.identifier(),
            loadtest::client::API_VERSION
        );
        let mut request = RawRequest::new("POST", &target).bearer(stack.token());
        if let Some(id) = &id {
            request = request.header(OPERATION_ID, id);
        }
        let (http, _) = stack.addresses(0).unwrap();
        let mut connection = TcpStream::connect(http).await.unwrap();
        let bytes = request.body(body.as_bytes()).into_bytes();
        connection.write_all(&bytes).await.unwrap();
        begun(&session).await;
        drop(connection);
        match id {
            // The next waits for its turn, so the slow one has ended by then.
            None => assert_eq!(value(&session, "globals().get('turns', 0)").await, 0),
            Some(id) => {
                let fetched = session.execute_as(&id, &code).await.unwrap();
                assert_eq!(fetched.result, 1);
                assert_eq!(value(&session, "turns").await, 1);
            }
        }
    }
}

#[tokio::test]
async fn a_caller_whose_time_is_over_asks_again_and_gets_the_result() {
    let cluster = Cluster::builder()
        .ingress_arguments(["--sync-seconds", "2"])
        .start()
        .await
        .unwrap();
    let (session, id) = (cluster.client(0).unwrap().fresh(), fresh_id());
    let code = slow(5.0);
    let pending = session.execute_as(&id, &code).await.unwrap_err();
    assert_eq!(
        pending.refusal(),
        Some((504, "ExecutionPending")),
        "{pending}"
    );
    assert_eq!(pending.may_have_executed(), Some(true));
    let ClientError::Refused { retry_after, .. } = pending else {
        panic!("{pending}")
    };
    assert!(retry_after.is_some());
    assert_eq!(its_end(&session, &id, &code).await.unwrap().result, 1);
    assert_eq!(value(&session, "turns").await, 1);
}

#[tokio::test]
async fn a_restart_of_the_bus_is_a_slow_success() {
    let cluster = two_ingresses().await;
    let (session, id, code) = (cluster.client(0).unwrap().fresh(), fresh_id(), slow(6.0));
    let running = session.execute_as(&id, &code);
    let restarting = async {
        begun(&session).await;
        cluster.restart(Member::Nats(0)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(running, restarting);
    assert_eq!(answer.unwrap().result, 1);
    let through = session.through(&cluster.client(1).unwrap());
    assert_eq!(its_end(&through, &id, &code).await.unwrap().result, 1);
    assert_eq!(value(&session, "turns").await, 1);
}

#[tokio::test]
async fn a_killed_ingress_loses_nothing_that_has_an_id() {
    let cluster = two_ingresses().await;
    let (session, id, code) = (cluster.client(0).unwrap().fresh(), fresh_id(), slow(2.0));
    let through = session.through(&cluster.client(1).unwrap());
    let running = session.execute_as(&id, &code);
    let killing = async {
        begun(&through).await;
        cluster.kill(Member::Ingress(0)).await.unwrap();
    };
    let (broken, ()) = tokio::join!(running, killing);
    assert!(
        matches!(broken, Err(ClientError::Transport(_))),
        "{broken:?}"
    );
    assert_eq!(through.execute_as(&id, &code).await.unwrap().result, 1);
    assert_eq!(value(&through, "turns").await, 1);
}

#[tokio::test]
async fn a_worker_that_stood_still_for_a_while_is_waited_for() {
    let cluster = two_ingresses().await;
    let (session, id, code) = (cluster.client(0).unwrap().fresh(), fresh_id(), slow(1.0));
    let running = session.execute_as(&id, &code);
    let pausing = async {
        begun(&session).await;
        cluster.pause(Member::Worker(0)).await.unwrap();
        tokio::time::sleep(STOOD_STILL).await;
        cluster.resume(Member::Worker(0)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(running, pausing);
    assert_eq!(answer.unwrap().result, 1);
    assert_eq!(value(&session, "turns").await, 1);
}

#[tokio::test]
async fn a_stopped_session_ends_what_runs_in_it_by_name_and_for_ever() {
    let stack = shared().await;
    let (session, id, code) = (stack.session(), fresh_id(), slow(60.0));
    let running = session.execute_as(&id, &code);
    let stopping = async {
        begun(&session).await;
        session.delete().await.unwrap();
    };
    let (answer, ()) = tokio::join!(running, stopping);
    let stopped = answer.unwrap_err();
    assert_eq!(
        stopped.refusal(),
        Some((409, "SessionStopped")),
        "{stopped}"
    );
    assert_eq!(stopped.may_have_executed(), Some(true));
    let again = session.execute_as(&id, &code).await.unwrap_err();
    assert_eq!(again.refusal(), Some((409, "SessionStopped")), "{again}");
    assert_eq!(value(&session, "globals().get('turns', 0)").await, 0);
}

#[tokio::test]
async fn concurrent_first_requests_of_many_ids_run_each_once() {
    let cluster = two_ingresses().await;
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    let session = clients[0].fresh();
    let ids: Vec<_> = (0..4).map(|_| fresh_id()).collect();
    let asked = ids.iter().cycle().take(16).zip(0..).map(|(id, n)| {
        let session = session.through(&clients[n % 2]);
        async move { (id, session.execute_as(id, COUNT).await) }
    });
    let mut results = BTreeSet::new();
    for (id, answer) in join_all(asked).await {
        results.insert((id, answer.unwrap().result.as_u64()));
    }
    assert_eq!(
        results.len(),
        ids.len(),
        "one result of each id: {results:?}"
    );
    assert_eq!(value(&session, "turns").await, Value::from(ids.len()));
}

#[tokio::test]
async fn a_result_is_told_without_a_worker_and_by_the_next_owner() {
    let cluster = two_ingresses().await;
    let (session, id) = (cluster.client(0).unwrap().fresh(), fresh_id());
    let code = format!("open('/mnt/data/runs', 'a').write('x')\n{COUNT}");
    let first = session.execute_as(&id, &code).await.unwrap();
    cluster.kill(Member::Worker(0)).await.unwrap();
    let through = session.through(&cluster.client(1).unwrap());
    assert_eq!(through.execute_as(&id, &code).await.unwrap(), first);
    cluster.start(Member::Worker(0)).await.unwrap();
    let runs = until("the session answers", RECOVERED_WITHIN, || async {
        let code = "open('/mnt/data/runs').read()";
        Ok(session.execute(code).await.ok())
    });
    assert_eq!(runs.await.unwrap().result, "'x'");
    assert_eq!(through.execute_as(&id, &code).await.unwrap(), first);
    assert_eq!(session.download("runs").await.unwrap(), b"x");
}

#[tokio::test]
async fn what_waits_in_a_session_that_is_handed_over_runs_once_with_its_next_owner() {
    let cluster = Cluster::builder().workers(2).prepare().unwrap();
    for member in [Member::Nats(0), Member::Ingress(0), Member::Worker(0)] {
        cluster.start(member).await.unwrap();
    }
    let session = cluster.client(0).unwrap().fresh();
    let (id, code) = (fresh_id(), slow(4.0));
    let running = session.execute_as(&id, &code);
    let ids: Vec<_> = (0..4).map(|_| fresh_id()).collect();
    let append = format!("open('/mnt/data/runs', 'a').write('x')\n{COUNT}");
    let handing_over = async {
        begun(&session).await;
        // Each is asked for twice.
        let waiting = ids.iter().chain(&ids).map(|id| {
            let (session, code) = (session.clone(), &append);
            async move { session.execute_as(id, code).await.unwrap().result }
        });
        let stopping = async {
            cluster.start(Member::Worker(1)).await.unwrap();
            cluster.stop(Member::Worker(0)).await.unwrap()
        };
        tokio::join!(join_all(waiting), stopping)
    };
    let (ran, (results, status)) = tokio::join!(running, handing_over);
    assert_eq!(ran.unwrap().result, 1);
    assert_eq!(status, "exit status: 0");
    let numbers: BTreeSet<_> = results.iter().filter_map(Value::as_u64).collect();
    assert_eq!(numbers, (2..=5).collect(), "variables came along, too");
    assert_eq!(session.download("runs").await.unwrap(), b"xxxx");
    assert_eq!(session.execute_as(&id, &code).await.unwrap().result, 1);
}

#[tokio::test]
async fn what_ran_and_is_not_saved_is_told_so_for_ever_and_never_runs_again() {
    let cluster = Cluster::builder().start().await.unwrap();
    let (session, id) = (cluster.client(0).unwrap().fresh(), fresh_id());
    succeed(&session, "open('/mnt/data/x', 'w').write('saved')").await;
    let (store, away) = (cluster.store(), cluster.directory().join("store-away"));
    std::fs::rename(&store, &away).unwrap();
    // A file where the directory was: nothing can be written below it.
    std::fs::write(&store, "").unwrap();
    let code = format!("open('/mnt/data/x', 'w').write('not')\n{COUNT}");
    let answers = join_all((0..3).map(|_| session.execute_as(&id, &code))).await;
    std::fs::remove_file(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    let again = session.execute_as(&id, &code).await;
    for answer in answers.into_iter().chain([again]) {
        let error = answer.unwrap_err();
        assert_eq!(error.refusal(), Some((500, "FilesNotDurable")), "{error}");
        assert_eq!(error.may_have_executed(), Some(true), "{error}");
    }
    assert_eq!(value(&session, "turns").await, 1);
}
