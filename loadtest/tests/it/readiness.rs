//! Readiness as balancers and operators see it: each trouble turns exactly the check that is its own, and
//! back.

use std::{collections::BTreeSet, fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use loadtest::{
    cluster::{Cluster, Member},
    raw::RawRequest,
    wait::until,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::stack::{BEGAN, begun, shared, signal, succeed};

/// Checks are made so that a change shows within 10 seconds (a unit test adds it up); a machine that also
/// compiles takes longer to do anything.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);

/// Longer than a bus that came back takes to know its workers again.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What `/readyz` says: the status code, its word, and the checks that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Readiness {
    code: u16,
    status: String,
    failing: BTreeSet<String>,
    all: BTreeSet<String>,
}

async fn readiness(address: SocketAddr) -> Result<Readiness> {
    let response = RawRequest::new("GET", "/readyz").send(address).await?;
    let body: Value = serde_json::from_slice(&response.body)?;
    let checks = body["checks"].as_array().context("no checks")?;
    let names = |of: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
        let names = checks.iter().filter(|check| of(check));
        names
            .filter_map(|check| check["name"].as_str().map(str::to_owned))
            .collect()
    };
    for check in checks {
        assert_eq!(
            check["passes"] == Value::Bool(true),
            check["reason"].is_null(),
            "a reason for each failure and no other: {body}"
        );
    }
    Ok(Readiness {
        code: response.status,
        status: body["status"].as_str().context("no status")?.to_owned(),
        failing: names(&|check| check["passes"] == Value::Bool(false)),
        all: names(&|_| true),
    })
}

/// Waits until exactly this check fails.
async fn turns(address: SocketAddr, check: &str, code: u16, status: &str) {
    let what = format!("{check} fails at {address}");
    let turned = until(&what, SHOWS_WITHIN, async || {
        let readiness = readiness(address).await?;
        Ok((!readiness.failing.is_empty()).then_some(readiness))
    });
    let readiness = turned.await.unwrap();
    assert_eq!(readiness.failing, BTreeSet::from([check.to_owned()]));
    assert_eq!((readiness.code, readiness.status.as_str()), (code, status));
}

async fn is_ready(address: SocketAddr) {
    let ready = until("all checks pass", BACK_WITHIN, async || {
        let readiness = readiness(address).await.ok();
        Ok(readiness.filter(|readiness| readiness.failing.is_empty()))
    });
    let readiness = ready.await.unwrap();
    assert_eq!((readiness.code, readiness.status.as_str()), (200, "ready"));
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_stack_that_serves_is_ready_and_names_its_checks() {
    let stack = shared().await;
    let ingress = stack.admin_address_of(Member::Ingress(0)).unwrap();
    let worker = stack.admin_address(0).unwrap();
    is_ready(ingress).await;
    is_ready(worker).await;
    let told = readiness(ingress).await.unwrap().all;
    let own = names(&["draining", "bus", "clock", "store", "workers"]);
    assert!(told.is_superset(&own), "{told:?}");
    let told = readiness(worker).await.unwrap().all;
    let own = names(&["starting", "draining", "bus", "store", "sandboxes"]);
    assert!(told.is_superset(&own), "{told:?}");
    let alive = RawRequest::new("GET", "/healthz").send(worker).await;
    assert_eq!(alive.unwrap().status, 200);
}

#[tokio::test]
async fn each_trouble_turns_one_check_and_back() {
    let cluster = Cluster::builder().start().await.unwrap();
    let ingress = cluster.admin_address_of(Member::Ingress(0)).unwrap();
    let worker = cluster.admin_address(0).unwrap();
    is_ready(ingress).await;
    is_ready(worker).await;

    // The only worker stands still: all ingresses suffer alike.
    cluster.pause(Member::Worker(0)).await.unwrap();
    turns(ingress, "workers", 200, "degraded").await;
    cluster.resume(Member::Worker(0)).await.unwrap();
    is_ready(ingress).await;

    // The store's directory goes away.
    let (store, away) = (cluster.store(), cluster.directory().join("away"));
    fs::rename(&store, &away).unwrap();
    turns(ingress, "store", 200, "degraded").await;
    turns(worker, "store", 200, "degraded").await;
    assert!(!store.exists(), "a store that is not mounted is not made");
    fs::rename(&away, &store).unwrap();
    is_ready(ingress).await;
    is_ready(worker).await;

    // It is there, but takes nothing: not even root makes a directory where a file is.
    let probes = store.join("probe");
    drop(fs::remove_dir_all(&probes));
    fs::write(&probes, b"").unwrap();
    // Workers write; ingresses only read.
    turns(worker, "store", 200, "degraded").await;
    fs::remove_file(&probes).unwrap();
    is_ready(worker).await;

    // No sandbox can be made for as long as there is no warm zygote.
    cluster.kill(Member::Zygote(0)).await.unwrap();
    turns(worker, "sandboxes", 503, "unready").await;
    is_ready(worker).await;
    // It may have heard that the only worker refuses.
    is_ready(ingress).await;

    cluster.kill(Member::Nats(0)).await.unwrap();
    turns(ingress, "bus", 503, "unready").await;
    turns(worker, "bus", 503, "unready").await;
    cluster.start(Member::Nats(0)).await.unwrap();
    is_ready(ingress).await;
    is_ready(worker).await;
}

#[tokio::test]
async fn who_is_asked_to_end_says_so_while_it_still_serves() {
    let cluster = Cluster::builder()
        .ingress_arguments(["--lame-duck-seconds", "600"])
        .start()
        .await
        .unwrap();
    let ingress = cluster.admin_address_of(Member::Ingress(0)).unwrap();
    let worker = cluster.admin_address(0).unwrap();
    is_ready(ingress).await;

    // What runs keeps the worker from ending.
    let session = cluster.client(0).unwrap().fresh();
    let code = format!("import time\nopen('/mnt/data/{BEGAN}', 'w').write('x')\ntime.sleep(200)");
    let running = tokio::spawn({
        let session = session.clone();
        async move { session.execute(&code).await }
    });
    begun(&session).await;
    ask_to_end(&cluster, Member::Worker(0)).await;
    turns(worker, "draining", 503, "unready").await;
    turns(ingress, "workers", 200, "degraded").await;
    cluster.kill(Member::Worker(0)).await.unwrap();
    running.abort();
    cluster.start(Member::Worker(0)).await.unwrap();
    is_ready(ingress).await;
    is_ready(worker).await;

    // A lame duck still takes requests, and ends at once when it is asked again.
    ask_to_end(&cluster, Member::Ingress(0)).await;
    turns(ingress, "draining", 503, "unready").await;
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
    let status = cluster.stop(Member::Ingress(0)).await.unwrap();
    assert_eq!(status, "exit status: 0");
}

/// Sends SIGTERM and does not wait.
async fn ask_to_end(cluster: &Cluster, member: Member) {
    signal(cluster.pid(member).await.unwrap(), Signal::TERM);
}

#[tokio::test]
async fn a_worker_that_is_starting_is_not_ready() {
    let cluster = Cluster::builder().prepare().unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    let worker = cluster.admin_address(0).unwrap();
    cluster.launch(Member::Worker(0)).await.unwrap();
    let said = until("readiness is told", SHOWS_WITHIN, async || {
        Ok(readiness(worker).await.ok())
    });
    let said = said.await.unwrap();
    assert_eq!((said.code, said.failing), (503, names(&["starting"])));
    is_ready(worker).await;
}

#[tokio::test]
async fn whoever_reaches_an_ingress_learns_names_and_states_and_no_reasons() {
    let cluster = Cluster::builder().start().await.unwrap();
    cluster.stop(Member::Worker(0)).await.unwrap();
    let operators = cluster.admin_address_of(Member::Ingress(0)).unwrap();
    turns(operators, "workers", 200, "degraded").await;
    let (http, https) = cluster.addresses(0).unwrap();
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    for address in [format!("http://{http}"), format!("https://{https}")] {
        let answer = client
            .get(format!("{address}/readyz"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["status"], "degraded");
        let checks = body["checks"].as_array().unwrap();
        let workers = checks.iter().find(|check| check["name"] == "workers");
        assert_eq!(workers.unwrap()["passes"], false);
        assert!(
            checks.iter().all(|check| check["reason"].is_null()),
            "{body}"
        );
    }
}
