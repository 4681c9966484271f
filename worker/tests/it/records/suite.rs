//! The real bus does what its model does.

use std::sync::Arc;

use async_nats::jetstream;
use proto::ambient::Ids;
use records::nats::NatsBus;
use records_model::suite::{ALL, Bench};

use super::bus::Bus;

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
