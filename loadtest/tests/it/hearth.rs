//! `hearth`: what an operator is told of a running fleet, and what it does as told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{ConnectOptions, Event};
use loadtest::{
    client::Session,
    cluster::{Cluster, Member},
    wait::until,
};
use serde_json::{Value, json};

use crate::{
    command::{Ended, run},
    stack::{BEGAN, begun, shared, succeed, value},
};

/// Name of the pool that every stack has.
const PYTHON: &str = "python";
/// Longer than a session needs to say that an execution waits.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

async fn hearth(cluster: &Cluster, words: &[&str]) -> Ended {
    let mut command = cluster.operator();
    command.args(words);
    run(command).await.unwrap()
}

async fn told(cluster: &Cluster, words: &[&str]) -> Value {
    let ended = hearth(cluster, &[words, &["--output", "json"]].concat()).await;
    assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

async fn refused(cluster: &Cluster, words: &[&str]) -> String {
    let ended = hearth(cluster, words).await;
    assert!(!ended.status.success(), "{words:?}: {}", ended.stdout);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    ended.stderr
}

/// Code that lets others know that it runs, and does so until it is stopped.
fn endless() -> String {
    format!("import time\nopen('/mnt/data/{BEGAN}', 'w').write('x')\ntime.sleep(1000)\n'secret'")
}

#[tokio::test]
async fn a_session_that_seems_stuck_is_explained() {
    let stack = shared().await;
    let (session, pool) = (stack.session(), PYTHON);
    let identifier = session.identifier();
    succeed(&session, "1").await;
    let at_rest = told(&stack, &["session", pool, identifier]).await;
    let inspection = &at_rest["owner_tells"]["inspection"];
    assert_eq!(inspection["state"], "idle", "{at_rest}");
    assert_eq!(inspection["running"], Value::Null, "{at_rest}");
    assert!(
        inspection["usage"]["memory_bytes"].as_u64().unwrap() > 1 << 20,
        "{at_rest}"
    );
    let code = endless();
    let running = session.execute(&code);
    let waiting = async {
        begun(&session).await;
        session.execute("2").await
    };
    let looking = async {
        let busy = until("an execution waits", SEEN_WITHIN, async || {
            let told = told(&stack, &["session", pool, identifier]).await;
            let waits = told["owner_tells"]["inspection"]["waiting"] == 1;
            Ok(waits.then_some(told))
        });
        let busy = busy.await.unwrap();
        let inspection = &busy["owner_tells"]["inspection"];
        assert_eq!(inspection["state"], "running", "{busy}");
        assert!(inspection["running"]["operation"].is_string(), "{busy}");
        assert!(!busy.to_string().contains("secret"), "{busy}");
        let text = hearth(&stack, &["session", pool, identifier]).await.stdout;
        for line in [
            "state            running",
            "waiting          1",
            "epoch            1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        // Its end is heard by both.
        let stopped = hearth(&stack, &["stop", pool, identifier]).await;
        assert!(stopped.status.success(), "{}", stopped.stderr);
    };
    let (running, waiting, ()) = tokio::join!(running, waiting, looking);
    assert!(running.is_err(), "{running:?}");
    assert!(waiting.is_err(), "{waiting:?}");
    assert_eq!(value(&session, "int('time' in globals())").await, 0);
}

#[tokio::test]
async fn workers_pools_and_sessions_are_listed() {
    let stack = shared().await;
    let (session, pool) = (stack.session(), PYTHON);
    let before = told(&stack, &["pools"]).await;
    let records = |pools: &Value| {
        let mut pools = pools.as_array().unwrap().iter();
        let listed = pools.find(|listed| listed["name"] == pool).unwrap();
        (
            listed["recorded"].as_u64().unwrap(),
            listed["sessions"].as_u64().unwrap(),
        )
    };
    session.execute_as("listed-1", "1").await.unwrap();
    let after = told(&stack, &["pools"]).await;
    assert!(records(&after).0 > records(&before).0, "{before} {after}");
    assert!(records(&after).1 > 0, "{after}");
    let sessions = told(&stack, &["sessions", pool]).await;
    let listed = sessions.as_array().unwrap().iter();
    let listed: Vec<_> = listed
        .filter(|listed| listed["identifier"] == session.identifier())
        .collect();
    assert_eq!(listed.len(), 1, "{sessions}");
    let key = stack.session_key(pool, session.identifier()).unwrap();
    assert_eq!(listed[0]["key"], key.as_str());
    assert_eq!(listed[0]["state"], "held");
    let workers = told(&stack, &["workers"]).await;
    assert_eq!(workers[0]["run"], listed[0]["owner"]);
    assert_eq!(workers[0]["state"], "accepting");
    let text = hearth(&stack, &["workers"]).await.stdout;
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_one_line() {
    let stack = shared().await;
    let pool = PYTHON;
    for (words, reason) in [
        (
            &["sessions", "pyhton"][..],
            "no pool is called `pyhton`; the pool file has: ",
        ),
        (
            &["session", pool, "nobody-1"],
            "no session of this identifier lives",
        ),
        (
            &["stop", pool, "nobody-1"],
            "no session of this identifier lives",
        ),
        (&["drain", "nobody"], "no worker is called `nobody`"),
    ] {
        let said = refused(&stack, words).await;
        assert!(said.contains(reason), "{said}");
    }
}

/// Ends and moves are seen without anything else on the stack.
#[tokio::test]
async fn a_worker_that_died_is_told_of_and_one_is_drained_by_its_id() {
    let cluster = Cluster::builder().workers(2).start().await.unwrap();
    let (client, pool) = (cluster.client(0).unwrap(), PYTHON);
    let session = client.fresh();
    succeed(&session, "kept = 7").await;
    let owner = owner_of(&cluster, &session, pool).await;
    let id = cluster.worker_id(owner).unwrap();
    let drained = hearth(&cluster, &["drain", id, "--wait"]).await;
    assert!(drained.status.success(), "{}", drained.stderr);
    until("the worker ends", SEEN_WITHIN, async || {
        Ok(cluster.pid(Member::Worker(owner)).await.err())
    })
    .await
    .unwrap();
    assert_eq!(value(&session, "kept").await, 7);
    let owner = owner_of(&cluster, &session, pool).await;
    cluster.kill(Member::Worker(owner)).await.unwrap();
    let left = told(&cluster, &["session", pool, session.identifier()]).await;
    assert_eq!(left["owner_tells"], "nobody", "{left}");
    let said = refused(&cluster, &["stop", pool, session.identifier()]).await;
    assert!(said.contains("no worker holds the session now"), "{said}");
}

async fn owner_of(cluster: &Cluster, session: &Session, pool: &str) -> usize {
    let told = told(cluster, &["session", pool, session.identifier()]).await;
    let owner = told["owner"].as_str().unwrap();
    let is_owner = |worker: &usize| {
        let id = cluster.worker_id(*worker).unwrap();
        owner.rsplit_once('-').unwrap().0 == id
    };
    (0..2).find(is_owner).unwrap()
}

/// Whoever looks after a fleet need not be able to read what its users do.
#[tokio::test]
async fn an_operators_credentials_run_no_code_and_read_no_output() {
    let stack = shared().await;
    let session = stack.session();
    session
        .execute_as("unread-1", "print('secret')")
        .await
        .unwrap();
    let (user, password) = stack.nats_credentials("operator").unwrap();
    let denied = Arc::<Mutex<Vec<String>>>::default();
    let noted = denied.clone();
    let options = ConnectOptions::with_user_and_password(user, password);
    let options = options.event_callback(move |event| {
        if let Event::ServerError(error) = event {
            noted.lock().unwrap().push(error.to_string());
        }
        async {}
    });
    let operator = options.connect(stack.nats()).await.unwrap();
    let pool = stack.pool_id(PYTHON).unwrap();
    let key = stack.session_key(PYTHON, session.identifier()).unwrap();
    let subjects = [
        format!("h1.{pool}.s.{key}.exec"),
        format!("h1.{pool}.s.{key}.download"),
        format!("h1.{pool}.place.any"),
        "$JS.API.DIRECT.GET.KV_h1_executions".to_owned(),
        format!("$JS.API.DIRECT.GET.KV_h1_executions.$KV.h1_executions.{pool}.{key}.x"),
        "$JS.API.STREAM.MSG.GET.KV_h1_executions".to_owned(),
        "$JS.API.CONSUMER.CREATE.KV_h1_executions".to_owned(),
        "$JS.API.STREAM.PURGE.KV_h1_executions".to_owned(),
    ];
    let question = json!({ "last_by_subj": format!("$KV.h1_executions.{pool}.{key}.*") });
    for subject in &subjects {
        operator
            .publish(subject.clone(), question.to_string().into())
            .await
            .unwrap();
    }
    until("everything is refused", SEEN_WITHIN, async || {
        operator.flush().await?;
        let denied = denied.lock().unwrap();
        let all = subjects.iter().all(|subject| {
            let quoted = format!("\"{subject}\"");
            denied.iter().any(|text| text.contains(&quoted))
        });
        Ok(all.then_some(()))
    })
    .await
    .unwrap();
}
