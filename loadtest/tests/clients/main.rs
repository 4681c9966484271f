//! The client libraries that people use, against a real stack: `loadtest/clients/`.
#![forbid(unsafe_code)]
#![cfg(test)]

use std::process::Command;

use loadtest::{cluster::Cluster, places};

#[tokio::test]
async fn every_client_library_passes_its_tests() {
    let cluster = Cluster::builder()
        .pool(|pool| pool)
        .pool(|pool| pool.name("shell").shell());
    let cluster = cluster.start().await.unwrap();
    let shell = cluster.client_of("shell").unwrap();
    let (http, https) = cluster.addresses(0).unwrap();
    let mut run = Command::new(places::clients().join("run.sh"));
    run.arg(places::client_environments())
        .env("POOL_ENDPOINT", format!("http://{http}{}", cluster.pool()))
        .env(
            "POOL_ENDPOINT_HTTPS",
            format!("https://localhost:{}{}", https.port(), cluster.pool()),
        )
        .env("SHELL_POOL_ENDPOINT", shell.endpoint())
        .env("SSL_CERT_FILE", cluster.directory().join("keys/cert.pem"))
        .env("TOKEN", cluster.token());
    // Its output is the counts, and the log of a client that fails.
    let status = tokio::task::spawn_blocking(move || run.status())
        .await
        .unwrap();
    assert!(status.unwrap().success());
}
