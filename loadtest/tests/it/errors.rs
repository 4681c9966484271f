//! Codes of failures that no other test meets on its way.

use std::{fs, time::Duration};

use loadtest::{
    client::{API_VERSION, escape},
    cluster::{Cluster, Member},
    raw::RawRequest,
    wait::until,
};
use reqwest::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::stack::{Stack, refusal, shared, succeed};

/// Longer than the service waits for a body, and for its bus.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(60);

/// What is heard by who sends the head of a request and the beginning of its body, and then nothing.
async fn never_ending(stack: &Stack, path: &str, kind: &str) -> String {
    let session = stack.session();
    let identifier = escape(session.identifier());
    let target = format!(
        "{}/{path}?identifier={identifier}&api-version={API_VERSION}",
        stack.pool()
    );
    let request = RawRequest::new("POST", &target).bearer(stack.token());
    let request = request.header("content-type", kind).body(&[b'-'; 100]);
    let mut bytes = request.into_bytes();
    bytes.truncate(bytes.len() - 90);
    let (http, _) = stack.addresses(0).unwrap();
    let mut connection = TcpStream::connect(http).await.unwrap();
    connection.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(GIVEN_UP_WITHIN, connection.read(&mut answer));
    let length = read.await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let stack = shared().await;
    let (code, upload) = tokio::join!(
        never_ending(&stack, "code/execute", "application/json"),
        never_ending(&stack, "files/upload", "multipart/form-data; boundary=b"),
    );
    for answer in [code, upload] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(
            answer.contains("x-ms-error-code: RequestTimeout"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_session_whose_sandbox_cannot_be_made_is_refused() {
    let cluster = Cluster::builder().worker_arguments(["--cages", "0", "--spares", "0"]);
    let cluster = cluster.start().await.unwrap();
    let client = cluster.client(0).unwrap();
    succeed(&client.fresh(), "1").await;
    // Where the filesystems of sessions are made.
    let directory = cluster
        .directory()
        .join(format!("{}-data", Member::Worker(0)));
    let aside = directory.with_extension("aside");
    fs::rename(&directory, &aside).unwrap();
    fs::write(&directory, "").unwrap();
    let refused = refusal(client.fresh().execute("1").await);
    assert_eq!(refused, (500, "SandboxUnavailable".to_owned()));
    fs::remove_file(&directory).unwrap();
    fs::rename(&aside, &directory).unwrap();
    succeed(&client.fresh(), "1").await;
}

#[tokio::test]
async fn without_its_bus_the_service_says_so() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "1").await;
    cluster.kill(Member::Nats(0)).await.unwrap();
    let unavailable = until("it says so", GIVEN_UP_WITHIN, async || {
        let answer = session.request(Method::GET, "files").send().await?;
        let status = answer.status().as_u16();
        let retry = answer.headers().contains_key("retry-after");
        let body: Value = answer.json().await?;
        let told = (status, body["error"]["code"].as_str().unwrap_or_default());
        Ok((told == (503, "BusUnavailable") && retry).then_some(()))
    });
    unavailable.await.unwrap();
    // Without it the worker could not hand over what it has.
    cluster.start(Member::Nats(0)).await.unwrap();
    let back = until("it serves again", GIVEN_UP_WITHIN, async || {
        Ok(session.execute("1").await.ok())
    });
    back.await.unwrap();
}

#[tokio::test]
async fn a_worker_ends_without_its_bus() {
    let cluster = Cluster::builder().start().await.unwrap();
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
    cluster.kill(Member::Nats(0)).await.unwrap();
    let ended = cluster.stop(Member::Worker(0)).await.unwrap();
    assert_eq!(ended, "exit status: 0");
}
