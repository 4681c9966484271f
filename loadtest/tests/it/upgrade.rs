//! What Hearth 88dda0e wrote is read: sessions, records, results and the queue survive an upgrade.

use std::{path::PathBuf, process::Command, time::Duration};

use async_nats::{Client as Nats, ConnectOptions, HeaderMap, jetstream};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use loadtest::{
    client::Session,
    cluster::{Cluster, Member},
    wait::until,
};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stack::{printed, value};

/// Pool of the fixtures.
const POOL_ID: &str = "01JDE1KZ0000000000000000PY";
/// Longer than a queued execution takes to be delivered and run.
const RUN_WITHIN: Duration = Duration::from_secs(60);

/// The streams of the bus as they were.
#[derive(Deserialize)]
struct Bus {
    streams: Vec<Value>,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    stream: String,
    sequence: u64,
    subject: String,
    headers: String,
    payload: String,
}

fn fixture(name: &str) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/88dda0e");
    PathBuf::from(directory).join(name)
}

fn unpack(archive: &str, directory: &std::path::Path) {
    std::fs::create_dir_all(directory).unwrap();
    let mut tar = Command::new("tar");
    // What is swept goes by its age.
    tar.args(["--touch", "-xzf"])
        .arg(fixture(archive))
        .arg("-C")
        .arg(directory);
    assert!(tar.status().unwrap().success(), "{archive}");
}

/// A stack over the fixtures' object store, of which nothing runs yet.
fn stack() -> Cluster {
    let cluster = Cluster::builder()
        .pool(|pool| pool.with_id(POOL_ID))
        .worker_arguments(["--cages", "1", "--spares", "1"])
        .prepare()
        .unwrap();
    unpack("store.tar.gz", &cluster.store());
    let key = std::fs::read(fixture("cluster.key")).unwrap();
    std::fs::write(cluster.directory().join("cluster.key"), key).unwrap();
    cluster
}

async fn start(cluster: &Cluster) {
    for member in [Member::Worker(0), Member::Ingress(0)] {
        cluster.start(member).await.unwrap();
    }
}

async fn nats(cluster: &Cluster, role: &str) -> Nats {
    let (user, password) = cluster.nats_credentials(role).unwrap();
    let options = ConnectOptions::with_user_and_password(user, password)
        .custom_inbox_prefix(format!("_INBOX_{role}.upgrade"));
    options.connect(cluster.nats()).await.unwrap()
}

/// Writes the streams again, each message under its own sequence: records name each other by them.
/// Only the times are new, as if the old fleet had stopped a moment ago.
async fn restore_bus(cluster: &Cluster) {
    let text = std::fs::read(fixture("bus.json")).unwrap();
    let bus: Bus = serde_json::from_slice(&text).unwrap();
    let (worker, ingress) = (
        nats(cluster, "worker").await,
        nats(cluster, "ingress").await,
    );
    let manager = jetstream::new(worker.clone());
    for mut config in bus.streams {
        config.as_object_mut().unwrap().remove("metadata");
        let name = config["name"].as_str().unwrap().to_owned();
        let config: jetstream::stream::Config = serde_json::from_value(config).unwrap();
        manager.create_stream(config).await.unwrap();
        let filler = match name.as_str() {
            "H1_JOBS" => "h1.jobs.filler.filler".to_owned(),
            "KV_h1_executions" => "$KV.h1_executions.filler.filler.filler".to_owned(),
            leases if leases.starts_with("KV_") => format!("$KV.{}.filler", &leases[3..]),
            slots => format!("h1.slots.{}.filler", &slots["H1_SLOTS_".len()..]),
        };
        // Who may publish what is the server's configuration.
        let client = if name == "H1_JOBS" { &ingress } else { &worker };
        let publisher = jetstream::new(client.clone());
        let mut next = 1;
        for message in bus.messages.iter().filter(|message| message.stream == name) {
            while next < message.sequence {
                let gap = publisher.publish(filler.clone(), "".into()).await.unwrap();
                assert_eq!(gap.await.unwrap().sequence, next);
                let stream = manager.get_stream(&name).await.unwrap();
                assert!(stream.delete_message(next).await.unwrap());
                next += 1;
            }
            let payload = BASE64.decode(&message.payload).unwrap();
            let written = publisher
                .publish_with_headers(message.subject.clone(), headers(message), payload.into())
                .await
                .unwrap();
            assert_eq!(written.await.unwrap().sequence, message.sequence);
            next += 1;
        }
    }
}

/// A message's headers, but for the one that only held when it was written.
fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in message.headers.lines().skip(1) {
        if let Some((name, value)) = line.split_once(": ")
            && name != "Nats-Expected-Last-Subject-Sequence"
        {
            headers.insert(name, value);
        }
    }
    headers
}

#[tokio::test]
async fn sessions_records_and_the_queue_of_88dda0e_go_on() {
    let cluster = stack();
    cluster.start(Member::Nats(0)).await.unwrap();
    restore_bus(&cluster).await;
    start(&cluster).await;
    let client = cluster.client(0).unwrap();

    // What has ended is answered again, not run again: no code is sent that would give these answers.
    let answers = std::fs::read(fixture("answers.json")).unwrap();
    let answers: serde_json::Map<String, Value> = serde_json::from_slice(&answers).unwrap();
    assert_eq!(answers.len(), 3);
    let kept = client.session("fixture-kept");
    for (operation, answer) in &answers {
        let told = described(&kept, operation).await;
        for field in ["status", "result"] {
            assert_eq!(told[field], answer[field], "{operation}: {told}");
        }
    }
    assert_eq!(
        described(&kept, "op-async").await["result"]["executionResult"],
        42
    );
    let lost = described(&client.session("fixture-lost"), "op-running").await;
    assert_eq!(lost["error"]["code"], "ExecutionLost", "{lost}");

    // What waits in the queue runs once there is a worker.
    let queued = client.session("fixture-queued");
    let ended = until("the queued execution ends", RUN_WITHIN, async || {
        let described = described(&queued, "op-queued").await;
        Ok((described["status"] == "Succeeded").then_some(described))
    });
    assert_eq!(ended.await.unwrap()["result"]["stdout"], "from the queue\n");

    // Sessions go on with their files; the one that was handed over, with its variables.
    assert_eq!(value(&kept, "x + 1").await, 42);
    let tree = "import os\n\
                root = '/mnt/data'\n\
                read = lambda name: open(f'{root}/{name}').read()\n\
                big = open(f'{root}/big.bin', 'rb').read()\n\
                print(*sorted(os.listdir(root)))\n\
                print(read('link.csv').split(), read('deep/er/note.txt'))\n\
                print(big == bytes(range(256)) * 8192)\n\
                print(read('journal.txt') == ''.join(f'{n}\\\\n' for n in range(70)))";
    assert_eq!(
        printed(&kept, tree).await,
        "big.bin deep journal.txt link.csv table.csv\n['a,b', '1,2'] deep\nTrue\nTrue\n"
    );
    let moved = client.session("fixture-moved");
    assert_eq!(
        printed_at_last(&moved, "print(open('/mnt/data/m.txt').read())").await,
        "before the move, after the move\n"
    );
    // And they are written on.
    assert_eq!(
        value(&moved, "open('/mnt/data/m.txt', 'a').write('!')").await,
        1
    );
    cluster.restart(Member::Worker(0)).await.unwrap();
    assert_eq!(
        printed_at_last(&moved, "print(open('/mnt/data/m.txt').read())").await,
        "before the move, after the move!\n"
    );
}

#[tokio::test]
async fn a_bus_directory_of_88dda0e_is_taken_over() {
    let cluster = stack();
    unpack("bus-directory.tar.gz", &cluster.directory().join("nats-1"));
    cluster.start(Member::Nats(0)).await.unwrap();
    start(&cluster).await;
    let client = cluster.client(0).unwrap();
    // What has expired in it since is gone; everything else works.
    assert_eq!(value(&client.fresh(), "6 * 7").await, 42);
}

/// What code printed, once the session has an owner again. A call that is refused did not run.
async fn printed_at_last(session: &Session, code: &str) -> String {
    let answered = until("the session answers", RUN_WITHIN, async || {
        match session.execute(code).await {
            Ok(executed) => Ok(Some(executed.stdout)),
            Err(error) if matches!(error.refusal(), Some((503, "NoCapacity"))) => Ok(None),
            Err(error) => Err(error.into()),
        }
    });
    answered.await.unwrap()
}

/// What the new contract tells of an execution.
async fn described(session: &Session, operation: &str) -> Value {
    let path = format!("executions/{operation}");
    let request = session.versioned(Method::GET, &path, "2025-10-02-preview");
    let response = request.send().await.unwrap();
    response.json().await.unwrap_or_else(|_| json!({}))
}
