//! The records of executions, of which every pool has a share of its own.

use async_nats::{ConnectOptions, jetstream};
use loadtest::{
    client::{ClientError, Session},
    cluster::{Cluster, Member},
};
use proto::limits;
use reqwest::Method;
use serde_json::json;

use crate::{new_contract::NEWEST, readiness::Drilled, stack::succeed};

/// Executions that the small pool may record within a day.
const SHARE: u32 = 12;
const DAY: u64 = 24 * 3600;

/// Two pools, of which the first has a small share.
async fn two_pools() -> Cluster {
    Cluster::builder()
        .pool(|pool| pool.name("small").recorded_executions(SHARE))
        .pool(|pool| pool.name("large"))
        .worker_arguments(["--cages", "2", "--spares", "2"])
        .start()
        .await
        .unwrap()
}

/// The stream of the records of both pools.
async fn stream(cluster: &Cluster) -> jetstream::stream::Stream {
    let (user, password) = cluster.nats_credentials("worker").unwrap();
    let options = ConnectOptions::with_user_and_password(user, password)
        .custom_inbox_prefix("_INBOX_worker.records");
    let client = options.connect(cluster.nats()).await.unwrap();
    let stream = jetstream::new(client);
    let stream = stream.get_stream(proto::subject::EXECUTIONS_STREAM).await;
    stream.unwrap()
}

/// Records of both pools, by the bus's own count.
async fn records(cluster: &Cluster) -> u64 {
    stream(cluster).await.cached_info().state.messages
}

/// The refusal of a pool whose share is full says when it has room again: not within hours.
fn assert_no_room(answer: Result<loadtest::client::Executed, ClientError>) {
    match answer {
        Err(ClientError::Refused {
            status: 503,
            code,
            message,
            retry_after: Some(seconds),
            may_have_executed,
        }) => {
            assert_eq!(code, "ExecutionRecordsFull");
            assert_eq!(may_have_executed, Some(false));
            assert!((DAY - 600..=DAY).contains(&seconds), "{seconds}");
            assert!(
                message.contains("23 h") || message.contains("24 h"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}

async fn fill(session: &Session, id: &str) {
    let executed = session.execute_as(id, "print('x' * 60_000)").await.unwrap();
    assert_eq!(executed.stdout.len(), 60_001);
}

#[tokio::test]
pub(crate) async fn a_pool_that_fills_its_share_is_refused_truthfully_and_no_other_pool_is() {
    let cluster = two_pools().await;
    let small = cluster.client_of("small").unwrap().fresh();
    let large = cluster.client_of("large").unwrap().fresh();
    let of = |member| cluster.admin_address_of(member).unwrap();
    let ingress = Drilled::ready(of(Member::Ingress(0))).await;
    let worker = Drilled::ready(of(Member::Worker(0))).await;
    for number in 0..SHARE {
        fill(&small, &format!("fill-{number}")).await;
    }
    assert_eq!(records(&cluster).await, u64::from(SHARE));
    ingress.turns("records", 200, "degraded").await;
    worker.turns("records", 200, "degraded").await;
    for number in 0..3 {
        assert_no_room(small.execute_as(&format!("more-{number}"), "1").await);
    }
    // Nobody waits for this one: ingress itself looks for room.
    let submitted = small.versioned(Method::POST, "executions", NEWEST);
    let body = json!({ "code": "1", "executionType": "Asynchronous" });
    let refused = submitted.json(&body).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    let wait = refused.headers()["retry-after"].to_str().unwrap();
    let wait: u64 = wait.parse().unwrap();
    assert!((DAY - 600..=DAY).contains(&wait), "{wait}");

    // What is known is told, and has not run again; what needs no record runs.
    for number in 0..SHARE {
        fill(&small, &format!("fill-{number}")).await;
    }
    assert_eq!(records(&cluster).await, u64::from(SHARE));
    succeed(&small, "1").await;
    for number in 0..2 * SHARE {
        let executed = large.execute_as(&format!("other-{number}"), "1").await;
        executed.unwrap();
    }
    assert_eq!(records(&cluster).await, u64::from(3 * SHARE));
    assert_no_room(small.execute_as("again", "1").await);

    // The oldest one goes, as a day later.
    let stream = stream(&cluster).await;
    let oldest = stream.cached_info().state.first_sequence;
    stream.delete_message(oldest).await.unwrap();
    ingress.is_back().await;
    worker.is_back().await;
}

#[tokio::test]
async fn a_long_outcome_takes_the_store_and_not_the_bus() {
    let cluster = two_pools().await;
    let session = cluster.client_of("large").unwrap().fresh();
    for (number, characters) in [(0, 100), (1, limits::RECORD_OUTCOME_BYTES)] {
        let code = format!("print('x' * {characters})");
        let id = format!("one-{number}");
        for _ in 0..2 {
            let executed = session.execute_as(&id, &code).await.unwrap();
            assert_eq!(executed.stdout.len(), characters + 1);
        }
        let results = cluster.store().join(proto::subject::RESULTS);
        assert_eq!(results.exists(), number == 1, "{characters} characters");
    }
}
