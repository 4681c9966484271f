//! The real bus does what its model does.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use async_nats::jetstream;
use loadtest::{places::Places, wait::until};
use proto::ambient::Ids;
use records::nats::NatsBus;
use records_model::{
    messages::suite as messages,
    suite::{ALL, Bench},
};

use tokio::process::Command;

use super::bus::Bus;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_bus_behaves_as_its_model_does() {
    let bus = Bus::start().await;
    let client = bus.client("worker", &bus.cluster.nats()[0]).await;
    let on_bus = Arc::new(NatsBus::new(jetstream::new(client)));
    let running = ALL.iter().map(|(name, behaviour)| {
        let bench = Bench::new(on_bus.clone(), &Ids::random());
        (name, tokio::spawn(behaviour(bench)))
    });
    let mut otherwise = vec![];
    for (name, behaviour) in running.collect::<Vec<_>>() {
        if behaviour.await.is_err() {
            otherwise.push(name);
        }
    }
    assert!(
        otherwise.is_empty(),
        "the bus does otherwise: {otherwise:?}"
    );
}

#[tokio::test]
async fn the_bus_carries_messages_as_its_model_does() {
    let directory = tempfile::tempdir().unwrap();
    // The roles of a fleet may say and hear less than this suite does.
    let server = Command::new(Places::find().unwrap().nats_server)
        .args(["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir"])
        .arg(directory.path())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let _server = server.unwrap();
    let listens = until("the server's address", PATIENCE, async || {
        Ok(address(directory.path()))
    });
    let address = listens.await.unwrap();
    let (one, other) = (
        async_nats::connect(&address).await.unwrap(),
        async_nats::connect(&address).await.unwrap(),
    );
    messages::all(&one, &other, "test").await;
}

/// The address in the file that the server writes when it listens.
fn address(directory: &Path) -> Option<String> {
    let file = directory.read_dir().unwrap().next()?.unwrap().path();
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(ports.get("nats")?.get(0)?.as_str()?.to_owned())
}
