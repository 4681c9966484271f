//! Readiness as balancers and operators see it: each trouble turns exactly the check that is its own, and
//! back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result};
use loadtest::{
    cluster::{Cluster, Member},
    raw::RawRequest,
    store_proxy::Trouble,
    wait::until,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    metrics::reaches,
    stack::{BEGAN, begun, refusal, shared, signal, succeed, value},
    wrong_clock::WrongClock,
};

/// Checks are made so that a change shows within 10 seconds (a unit test adds it up); machines of tests are slow.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);

/// Checks that are told last, when the start is over.
const TOLD_LAST: [&str; 2] = ["configuration", "records"];

/// Longer than a bus that came back takes to know its workers again.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// All that `/readyz` says but reasons: the status code, its word, and which checks pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    code: u16,
    status: String,
    passes: BTreeMap<String, bool>,
}

impl Readiness {
    fn failing(&self) -> BTreeSet<&str> {
        let failing = self.passes.iter().filter(|(_, passes)| !**passes);
        failing.map(|(name, _)| name.as_str()).collect()
    }

    /// The same where this check fails, too.
    fn without(&self, check: &str, code: u16, status: &str) -> Self {
        let mut passes = self.passes.clone();
        passes.insert(check.to_owned(), false);
        Self {
            code,
            status: status.to_owned(),
            passes,
        }
    }
}

pub(crate) async fn readiness(address: SocketAddr) -> Result<Readiness> {
    let response = RawRequest::new("GET", "/readyz").send(address).await?;
    let body: Value = serde_json::from_slice(&response.body)?;
    let checks = body["checks"].as_array().context("no checks")?;
    for check in checks {
        assert_eq!(
            check["passes"] == Value::Bool(true),
            check["reason"].is_null(),
            "a reason for each failure and no other: {body}"
        );
    }
    let passes = checks.iter().filter_map(|check| {
        let name = check["name"].as_str()?.to_owned();
        Some((name, check["passes"] == Value::Bool(true)))
    });
    Ok(Readiness {
        code: response.status,
        status: body["status"].as_str().context("no status")?.to_owned(),
        passes: passes.collect(),
    })
}

/// What a process that is ready says.
pub(crate) async fn is_ready(address: SocketAddr) -> Readiness {
    let ready = until("all checks pass", BACK_WITHIN, async || {
        let readiness = readiness(address).await.ok();
        Ok(readiness.filter(|readiness| {
            let told = |check| readiness.passes.contains_key(check);
            readiness.failing().is_empty() && TOLD_LAST.into_iter().all(told)
        }))
    });
    let readiness = ready.await.unwrap();
    assert_eq!((readiness.code, readiness.status.as_str()), (200, "ready"));
    readiness
}

/// One process in a drill, and what it said before.
pub(crate) struct Drilled {
    address: SocketAddr,
    before: Readiness,
}

impl Drilled {
    /// A process that is ready.
    pub(crate) async fn ready(address: SocketAddr) -> Self {
        let before = is_ready(address).await;
        Self { address, before }
    }

    /// Waits until a check fails: it must be this one, and nothing else may have changed.
    pub(crate) async fn turns(&self, check: &str, code: u16, status: &str) {
        let what = format!("{check} fails at {}", self.address);
        let turned = until(&what, SHOWS_WITHIN, async || {
            let readiness = readiness(self.address).await?;
            Ok((!readiness.failing().is_empty()).then_some(readiness))
        });
        let expected = self.before.without(check, code, status);
        assert_eq!(turned.await.unwrap(), expected);
    }

    /// The same where the way there leads past a start, or past a bus that does not run.
    pub(crate) async fn settles(&self, check: &str, code: u16, status: &str) {
        self.until_it_says(&self.before.without(check, code, status))
            .await;
    }

    /// Nothing has changed.
    pub(crate) async fn stands(&self) {
        assert_eq!(readiness(self.address).await.unwrap(), self.before);
    }

    /// Waits until everything is as before.
    pub(crate) async fn is_back(&self) {
        self.until_it_says(&self.before).await;
    }

    async fn until_it_says(&self, expected: &Readiness) {
        let mut last = None;
        let said = until("readiness", SHOWS_WITHIN, async || {
            last = readiness(self.address).await.ok();
            Ok((last.as_ref() == Some(expected)).then_some(()))
        });
        let said = said.await.is_ok();
        assert!(said, "{} says {last:?}, not {expected:?}", self.address);
    }
}

/// Waits until exactly this check fails.
async fn turns(address: SocketAddr, check: &str, code: u16, status: &str) {
    let what = format!("{check} fails at {address}");
    let turned = until(&what, SHOWS_WITHIN, async || {
        let readiness = readiness(address).await?;
        Ok((!readiness.failing().is_empty()).then_some(readiness))
    });
    let readiness = turned.await.unwrap();
    assert_eq!(readiness.failing(), BTreeSet::from([check]));
    assert_eq!((readiness.code, readiness.status.as_str()), (code, status));
}

#[tokio::test]
async fn a_stack_that_serves_is_ready_and_names_its_checks() {
    let stack = shared().await;
    let ingress = stack.admin_address_of(Member::Ingress(0)).unwrap();
    let worker = stack.admin_address(0).unwrap();
    let told = is_ready(ingress).await.passes;
    for own in ["draining", "bus", "clock", "store", "workers"] {
        assert!(told.contains_key(own), "{told:?}");
    }
    let told = is_ready(worker).await.passes;
    for own in ["starting", "draining", "bus", "store", "sandboxes"] {
        assert!(told.contains_key(own), "{told:?}");
    }
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

/// A session of the only worker, which takes no second one.
const ONE_SESSION: [&str; 6] = ["--max-sessions", "1", "--cages", "1", "--spares", "1"];

#[tokio::test]
async fn each_mistake_turns_one_check_and_back() {
    let (ingress_clock, worker_clock) = (WrongClock::new(), WrongClock::new());
    let cluster = Cluster::builder()
        .pool(|pool| pool.cooldown(400))
        .ingresses(2)
        .ingress_environment(ingress_clock.environment())
        .worker_environment(worker_clock.environment())
        .worker_arguments(ONE_SESSION)
        .start()
        .await
        .unwrap();
    let of = |member| cluster.admin_address_of(member).unwrap();
    let first = Drilled::ready(of(Member::Ingress(0))).await;
    let second = Drilled::ready(of(Member::Ingress(1))).await;
    let worker = Drilled::ready(of(Member::Worker(0))).await;

    // The only worker has as many sessions as it may.
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "1").await;
    first.turns("workers", 200, "degraded").await;
    second.turns("workers", 200, "degraded").await;
    worker.stands().await;
    session.delete().await.unwrap();
    first.is_back().await;
    second.is_back().await;

    // The worker's clock is an hour ahead: ingresses see that the only worker refuses.
    worker_clock.set_ahead_by(3600);
    worker.turns("clock", 503, "unready").await;
    first.turns("workers", 200, "degraded").await;
    worker_clock.set_ahead_by(0);
    worker.is_back().await;
    first.is_back().await;
    second.is_back().await;

    // Those of both ingresses are an hour behind.
    ingress_clock.set_ahead_by(-3600);
    first.turns("clock", 503, "unready").await;
    second.turns("clock", 503, "unready").await;
    worker.stands().await;
    ingress_clock.set_ahead_by(0);
    first.is_back().await;
    second.is_back().await;

    // One ingress has other settings of a pool.
    let pools = cluster.directory().join("pools.toml");
    let right = fs::read_to_string(&pools).unwrap();
    let wrong = right.replace("cooldown_seconds = 400", "cooldown_seconds = 500");
    assert_ne!(wrong, right);
    fs::write(&pools, wrong).unwrap();
    cluster.restart(Member::Ingress(1)).await.unwrap();
    second.settles("configuration", 200, "degraded").await;
    worker.turns("configuration", 200, "degraded").await;
    first.stands().await;
    fs::write(&pools, right).unwrap();
    // One that has ended disagrees with nobody.
    cluster.stop(Member::Ingress(1)).await.unwrap();
    worker.is_back().await;
    cluster.start(Member::Ingress(1)).await.unwrap();
    second.is_back().await;
    worker.stands().await;
    first.stands().await;
}

#[tokio::test]
async fn an_ingress_that_starts_while_the_store_is_down_serves_what_lives_and_says_so() {
    let cluster = Cluster::builder().s3_store_behind_proxy(7).start().await;
    let cluster = cluster.unwrap();
    let ingress = Drilled::ready(cluster.admin_address_of(Member::Ingress(0)).unwrap()).await;
    let client = cluster.client(0).unwrap();
    let lives = client.fresh();
    succeed(&lives, "kept = 6").await;
    cluster.stop(Member::Ingress(0)).await.unwrap();
    let down = Trouble {
        refused: 1000,
        ..Trouble::default()
    };
    cluster.trouble(down).await.unwrap();
    cluster.start(Member::Ingress(0)).await.unwrap();
    turns(ingress.address, "store", 200, "degraded").await;
    let failed_reads = "hearth_store_errors_total{operation=\"get\"}";
    reaches(ingress.address, failed_reads, 1.0).await;
    assert_eq!(value(&lives, "kept * 7").await, 42);
    // Whether bus and store belong together is not known: what is not there may be there elsewhere.
    let refused = refusal(client.fresh().execute("1").await);
    assert_eq!(refused, (503, "BusUnavailable".to_owned()));
    cluster.trouble(Trouble::default()).await.unwrap();
    ingress.is_back().await;
    succeed(&client.fresh(), "1").await;
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
    assert_eq!(
        (said.code, said.failing()),
        (503, BTreeSet::from(["starting"]))
    );
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
