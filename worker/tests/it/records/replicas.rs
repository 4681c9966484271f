//! The fleet's stream on a bus that has more servers than when it was made.

use async_nats::jetstream;
use loadtest::cluster::Cluster;
use proto::{
    fleet::{FleetRecord, Found},
    subject,
};
use records::fleet::FleetStream;

#[tokio::test]
async fn what_the_fleet_agrees_on_is_kept_by_servers_that_came_later() {
    let builder = Cluster::builder().nats_nodes(3).ingresses(0).workers(0);
    let cluster = builder.start().await.unwrap();
    let (user, password) = cluster.nats_credentials("worker").unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user, password)
        .custom_inbox_prefix(subject::worker_inbox(&"replicas"));
    let context = jetstream::new(options.connect(cluster.nats()).await.unwrap());
    let stream = FleetStream::new(context.clone());
    // There is nothing to be kept yet.
    stream.replicate(3).await.unwrap();
    assert_eq!(stream.find().await.unwrap(), Found::NoStream);
    let name = "01JDE1KZ0000000000000000PY";
    let record = FleetRecord {
        store: name.parse().unwrap(),
        generation: name.parse().unwrap(),
        previous: None,
    };
    stream.begin(&record, 1).await.unwrap();
    for replicas in [1, 3, 3] {
        stream.replicate(replicas).await.unwrap();
        let described = context.get_stream(subject::FLEET_STREAM).await.unwrap();
        assert_eq!(described.cached_info().config.num_replicas, replicas);
    }
    let found = stream.find().await.unwrap();
    assert_eq!(found, Found::Record(record, 0));
}
