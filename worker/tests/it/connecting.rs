//! Connecting to the bus.

use async_nats::ServerAddr;
use loadtest::cluster::Cluster;
use proto::subject;
use routing::bus::{
    NatsAuth,
    connect::{ConnectError, Peer, connect},
};

/// A server tells its clients of others, which need not be as careful.
#[tokio::test]
async fn who_was_told_to_encrypt_speaks_to_no_server_without_it() {
    let builder = Cluster::builder().ingresses(0).workers(0);
    let cluster = builder.start().await.unwrap();
    let plain = cluster.nats().remove(0);
    let connecting = async |servers: &[&str]| {
        let servers: Vec<ServerAddr> = servers.iter().map(|text| text.parse().unwrap()).collect();
        let (user, password) = cluster.nats_credentials("worker").unwrap();
        let peer = Peer {
            name: "test".to_owned(),
            inbox_prefix: subject::worker_inbox(&"connecting"),
            subscription_capacity: 1,
        };
        connect(&servers, NatsAuth { user, password }, peer, |_| {}).await
    };
    assert!(connecting(&[&plain]).await.is_ok());
    let nobody = "tls://127.0.0.1:1";
    let refused = connecting(&[nobody, &plain]).await;
    assert!(
        matches!(refused, Err(ConnectError::Connect(..))),
        "{refused:?}"
    );
}
