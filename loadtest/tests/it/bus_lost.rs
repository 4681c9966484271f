//! A bus that lost its data, as an operator's slip makes it: JetStream's directory is gone, comes from an
//! earlier time, or lacks a stream. Its files are moved aside and back while everything else runs.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, SystemTime},
};

use loadtest::{
    client::{Client, Session},
    cluster::{Cluster, Member},
    places::Places,
    wait::until,
};
use reqwest::Method;
use serde_json::Value;

use crate::{
    new_contract::NEWEST,
    readiness::Drilled,
    stack::{answer, objects, refusal, succeed, value},
};

/// Longer than a loss takes to be noticed, and a return to be served again, on a busy machine.
const WITHIN: Duration = Duration::from_secs(180);
const NATS: Member = Member::Nats(0);
const WORKER: Member = Member::Worker(0);

/// Where the bus keeps its data.
fn bus_of(cluster: &Cluster) -> PathBuf {
    cluster.directory().join(NATS.to_string())
}

/// Moves the bus's data to where `aside` says and lets the bus begin anew with what `instead` is, if
/// anything.
pub(crate) async fn replace_bus(cluster: &Cluster, aside: &str, instead: Option<&str>) {
    cluster.kill(NATS).await.unwrap();
    let (data, directory) = (bus_of(cluster), cluster.directory());
    fs::rename(&data, directory.join(aside)).unwrap();
    match instead {
        Some(instead) => fs::rename(directory.join(instead), &data).unwrap(),
        None => fs::create_dir(&data).unwrap(),
    }
    cluster.start(NATS).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What an ingress says of its readiness: status, and whether it says that the bus lost its data.
async fn readiness(cluster: &Cluster) -> (u16, bool) {
    readiness_at(cluster.addresses(0).unwrap().0).await
}

/// The same of the process that says so at an address.
async fn readiness_at(address: SocketAddr) -> (u16, bool) {
    let told = reqwest::get(format!("http://{address}/readyz"))
        .await
        .unwrap();
    let status = told.status().as_u16();
    let report: Value = told.json().await.unwrap();
    let lost = |check: &Value| check["name"] == "bus-generation" && check["passes"] == false;
    (
        status,
        report["checks"].as_array().unwrap().iter().any(lost),
    )
}

async fn until_lost(cluster: &Cluster) {
    until("the loss is noticed", WITHIN, async || {
        let ready = readiness(cluster).await;
        Ok((ready == (503, true)).then_some(()))
    })
    .await
    .unwrap();
}

async fn until_served(cluster: &Cluster, session: &Session) {
    until("sessions are served again", WITHIN, async || {
        Ok(session.execute("1").await.ok())
    })
    .await
    .unwrap();
    assert_eq!(readiness(cluster).await.0, 200);
    // A worker that stayed begins anew in every respect.
    let worker = cluster.admin_address(0).unwrap();
    until("the worker says that it is ready", WITHIN, async || {
        Ok((readiness_at(worker).await == (200, false)).then_some(()))
    })
    .await
    .unwrap();
}

async fn until_logged(cluster: &Cluster, member: Member, text: &str) {
    until(text, WITHIN, async || {
        Ok(cluster.log(member)?.contains(text).then_some(()))
    })
    .await
    .unwrap();
}

/// Status and code of a listing of all sessions.
async fn listing(client: &Client) -> (u16, String) {
    let path = format!("listSessions?api-version={NEWEST}");
    let (status, body) = answer(client.request(Method::GET, &path)).await;
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (status.as_u16(), code.to_owned())
}

/// The generation that the store knows.
fn generation(cluster: &Cluster) -> String {
    let marks = cluster.store().join("fleet/mark");
    let mut names: Vec<_> = fs::read_dir(marks)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.pop().unwrap()
}

/// Runs `worker accept-new-bus` to its end.
fn accept(cluster: &Cluster, yes: bool) -> Output {
    let file = |name: &str| cluster.directory().join(name);
    let mut command = std::process::Command::new(Places::find().unwrap().worker);
    command
        .arg("accept-new-bus")
        .arg("--nats")
        .arg(cluster.nats().join(","))
        .arg("--nats-auth")
        .arg(file("nats-worker.auth"))
        .arg("--store")
        .arg(format!("file://{}", cluster.store().display()))
        .arg("--pools")
        .arg(file("pools.toml"));
    if yes {
        command.arg("--yes");
    }
    command.output().unwrap()
}

/// Whatever is asked of a session needs the bus.
async fn refused_as_lost(session: &Session) {
    let lost = (503, "BusLost".to_owned());
    assert_eq!(refusal(session.execute("1").await), lost);
    assert_eq!(refusal(session.list().await), lost);
    assert_eq!(refusal(session.upload("new", b"x").await), lost);
    assert_eq!(refusal(session.execute_as("operation-1", "1").await), lost);
}

#[tokio::test]
pub(crate) async fn a_wiped_bus_is_noticed_and_nothing_is_served_or_swept_until_it_is_back() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client(0).unwrap();
    let session = client.fresh();
    session.upload("kept", b"before").await.unwrap();
    let pid = cluster.pid(WORKER).await.unwrap();
    let generation = generation(&cluster);
    let whole = objects(&cluster.store());
    let worker = Drilled::ready(cluster.admin_address(0).unwrap()).await;
    let ingress = Drilled::ready(cluster.admin_address_of(Member::Ingress(0)).unwrap()).await;

    replace_bus(&cluster, "wiped", None).await;
    ingress.settles("bus-generation", 503, "unready").await;
    worker.settles("bus-generation", 503, "unready").await;
    refused_as_lost(&session).await;
    refused_as_lost(&client.fresh()).await;
    assert_eq!(listing(&client).await, (503, "BusLost".to_owned()));
    let ready = cluster.directory().join(format!("{WORKER}.ready"));
    until("the worker is not ready", WITHIN, async || {
        Ok((!ready.exists()).then_some(()))
    })
    .await
    .unwrap();
    for member in [WORKER, Member::Ingress(0)] {
        until_logged(&cluster, member, &generation).await;
        until_logged(&cluster, member, "the bus has no generation").await;
    }
    // It has ended its sessions and waits.
    assert_eq!(cluster.pid(WORKER).await.unwrap(), pid);
    let streams = bus_of(&cluster).join("jetstream/HEARTH/streams");
    assert!(!streams.exists(), "streams were made anew");

    // One that begins now sweeps nothing, however old it is.
    let staged = cluster.store().join("staging/p/s/old");
    fs::create_dir_all(staged.parent().unwrap()).unwrap();
    fs::write(&staged, "old").unwrap();
    let old = SystemTime::now() - Duration::from_secs(48 * 3600);
    fs::File::open(&staged).unwrap().set_modified(old).unwrap();
    cluster.kill(WORKER).await.unwrap();
    let seen = cluster
        .log(WORKER)
        .unwrap()
        .matches("nothing is served or removed")
        .count();
    cluster.revive(WORKER).await.unwrap();
    let pid = cluster.pid(WORKER).await.unwrap();
    until("the new one notices, too", WITHIN, async || {
        let log = cluster.log(WORKER)?;
        Ok((log.matches("nothing is served or removed").count() > seen).then_some(()))
    })
    .await
    .unwrap();
    assert!(!streams.exists(), "streams were made anew");
    assert!(staged.exists());
    let left = objects(&cluster.store());
    assert!(
        whole.iter().all(|object| left.contains(object)),
        "{whole:?} {left:?}"
    );

    replace_bus(&cluster, "empty", Some("wiped")).await;
    until_served(&cluster, &session).await;
    assert_eq!(session.download("kept").await.unwrap(), b"before");
    ingress.is_back().await;
    worker.is_back().await;
    assert_eq!(cluster.pid(WORKER).await.unwrap(), pid);
    until("the worker is ready", WITHIN, async || {
        Ok(ready.exists().then_some(()))
    })
    .await
    .unwrap();
    until("what is old is swept again", WITHIN, async || {
        Ok((!staged.exists()).then_some(()))
    })
    .await
    .unwrap();
}

/// Everything that a command said.
fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    text.concat()
}

#[tokio::test]
async fn an_operator_accepts_a_new_bus_and_hears_first_what_becomes_unreachable() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client(0).unwrap();
    let session = client.fresh();
    session.upload("kept", b"before").await.unwrap();
    let (refused, before) = (accept(&cluster, true), generation(&cluster));
    assert!(!refused.status.success());
    let text = said(&refused);
    assert!(text.contains("nothing to accept"), "{text}");

    replace_bus(&cluster, "wiped", None).await;
    until_lost(&cluster).await;
    let considered = accept(&cluster, false);
    assert!(!considered.status.success());
    let text = said(&considered);
    let counted = "pool `python`: the files of 1 session(s) in 1 log(s) become unreachable";
    for expected in [counted, "--yes", &before] {
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(readiness(&cluster).await.0, 503);

    // Where its ready file should be is something else: a start that fails late leaves nothing that the
    // next one could be refused for.
    let ready = cluster.directory().join(format!("{WORKER}.ready"));
    until("the worker is not ready", WITHIN, async || {
        Ok((!ready.exists()).then_some(()))
    })
    .await
    .unwrap();
    fs::create_dir(&ready).unwrap();
    let accepted = accept(&cluster, true);
    assert!(accepted.status.success(), "{accepted:?}");
    let failed = "failed to write the ready file";
    until("the worker has tried twice", WITHIN, async || {
        let log = cluster.log(WORKER)?;
        Ok((log.matches(failed).count() > 1).then_some(()))
    })
    .await
    .unwrap();
    fs::remove_dir(&ready).unwrap();
    until_served(&cluster, &session).await;
    assert_eq!(
        value(&session, "import os; os.listdir('/mnt/data')").await,
        serde_json::json!([])
    );
    let old = objects(&cluster.store());
    assert!(
        old.iter()
            .any(|object| object.to_string_lossy().contains("/c/")),
        "{old:?}"
    );
    assert!(!accept(&cluster, true).status.success());
}

#[tokio::test]
async fn a_new_bus_knows_the_cluster_key_of_the_old_one() {
    let cluster = Cluster::builder().start().await.unwrap();
    let (ingress, key) = (Member::Ingress(0), cluster.store().join("fleet/key"));
    until("the store has the key's fingerprint", WITHIN, async || {
        Ok(key.exists().then_some(()))
    })
    .await
    .unwrap();
    for member in [ingress, WORKER] {
        cluster.stop(member).await.unwrap();
    }
    replace_bus(&cluster, "wiped", None).await;
    assert!(accept(&cluster, true).status.success());
    // The first that comes has another key.
    let key = cluster.directory().join("cluster.key");
    let right = fs::read_to_string(&key).unwrap();
    fs::write(&key, "ab".repeat(32)).unwrap();
    let log = cluster.start_in_vain(ingress).await.unwrap();
    assert!(log.lines().last().unwrap().contains("fingerprint"), "{log}");
    fs::write(&key, right).unwrap();
    for member in [WORKER, ingress] {
        cluster.start(member).await.unwrap();
    }
    until_served(&cluster, &cluster.client(0).unwrap().fresh()).await;
}

#[tokio::test]
async fn a_bus_from_an_earlier_time_is_noticed() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "1").await;
    // A copy as a backup makes it.
    cluster.kill(NATS).await.unwrap();
    copy(&bus_of(&cluster), &cluster.directory().join("backup"));
    cluster.start(NATS).await.unwrap();
    let mark = cluster
        .store()
        .join("fleet/mark")
        .join(generation(&cluster));
    let first = fs::read(&mark).unwrap();
    until("the mark rises", WITHIN, async || {
        Ok((fs::read(&mark)? != first).then_some(()))
    })
    .await
    .unwrap();
    // A session that the backup knows nothing of, and that no worker serves now.
    let younger = cluster.client(0).unwrap().fresh();
    younger.upload("kept", b"before").await.unwrap();
    cluster.restart(WORKER).await.unwrap();

    replace_bus(&cluster, "newest", Some("backup")).await;
    until(
        "the younger session is refused",
        WITHIN,
        async || match younger.execute("1").await {
            Ok(answer) => anyhow::bail!("it began anew: {answer:?}"),
            Err(error) => Ok((error.refusal() == Some((503, "BusLost"))).then_some(())),
        },
    )
    .await
    .unwrap();
    until_lost(&cluster).await;
    until_logged(&cluster, WORKER, "the bus's data is from an earlier time").await;
    replace_bus(&cluster, "older", Some("newest")).await;
    until_served(&cluster, &session).await;
    assert_eq!(younger.download("kept").await.unwrap(), b"before");
}

#[tokio::test]
async fn a_stream_that_is_gone_is_not_made_anew() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    session.upload("kept", b"before").await.unwrap();
    cluster.stop(WORKER).await.unwrap();
    cluster.kill(NATS).await.unwrap();
    let stream = format!("KV_h1_leases_{}", cluster.pool_id("python").unwrap());
    let data = bus_of(&cluster)
        .join("jetstream/HEARTH/streams")
        .join(&stream);
    let aside = cluster.directory().join("aside");
    fs::rename(&data, &aside).unwrap();
    cluster.start(NATS).await.unwrap();
    cluster.revive(WORKER).await.unwrap();
    until_logged(
        &cluster,
        WORKER,
        &format!("the bus lost its stream {stream}"),
    )
    .await;
    assert!(!data.exists(), "it was made anew");
    cluster.kill(NATS).await.unwrap();
    fs::rename(&aside, &data).unwrap();
    cluster.start(NATS).await.unwrap();
    until_served(&cluster, &session).await;
    assert_eq!(session.download("kept").await.unwrap(), b"before");
}

#[tokio::test]
async fn what_an_older_version_wrote_is_adopted() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    session.upload("kept", b"before").await.unwrap();
    for member in [WORKER, Member::Ingress(0)] {
        cluster.stop(member).await.unwrap();
    }
    cluster.kill(NATS).await.unwrap();
    // Store and bus as they were before there were generations.
    fs::remove_dir_all(cluster.store().join("fleet")).unwrap();
    let fleet = bus_of(&cluster).join("jetstream/HEARTH/streams/KV_h1_fleet");
    fs::remove_dir_all(&fleet).unwrap();
    for member in [NATS, WORKER, Member::Ingress(0)] {
        cluster.start(member).await.unwrap();
    }
    until_served(&cluster, &session).await;
    assert_eq!(session.download("kept").await.unwrap(), b"before");
    assert!(fleet.exists());
    assert!(cluster.store().join("fleet/generation").exists());
}

#[tokio::test]
async fn workers_and_servers_that_begin_together_agree_on_one_generation() {
    let cluster = Cluster::builder().nats_nodes(3).workers(3).ingresses(2);
    let cluster = cluster.start().await.unwrap();
    for ingress in 0..2 {
        succeed(&cluster.client(ingress).unwrap().fresh(), "1").await;
    }
    let marks = fs::read_dir(cluster.store().join("fleet/mark")).unwrap();
    assert_eq!(marks.count(), 1);
}

#[tokio::test]
async fn what_a_session_is_recovered_from_lies_beside_its_log_and_goes_with_it() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().session("somebody-with-a-name");
    succeed(&session, "1").await;
    assert_eq!(objects(&cluster.store()), Vec::<PathBuf>::new());
    session.upload("kept", b"before").await.unwrap();
    let left = objects(&cluster.store());
    let recovery = left.iter().find(|object| object.ends_with("r")).unwrap();
    let bytes = fs::read(recovery).unwrap();
    let recovery: proto::recovery::Recovery = proto::wire::decode(&bytes).unwrap();
    assert_eq!(&recovery.pool, cluster.pool_id("python").unwrap());
    assert_eq!(recovery.cooldown_seconds, 300);
    assert!(recovery.sealed.is_some());
    let name = b"somebody-with-a-name";
    assert!(!bytes.windows(name.len()).any(|part| part == name));
    session.delete().await.unwrap();
    assert_eq!(objects(&cluster.store()), Vec::<PathBuf>::new());
}
