//! The harness itself: a bus of three servers, and helper processes of workers that can be hit.

use std::time::Duration;

use loadtest::{
    cluster::{Cluster, Member},
    wait::until,
};

use crate::stack::{succeed, value};

/// Long enough for an election of the bus and for a dead worker's key to expire.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);

async fn answers(cluster: &Cluster) {
    let client = cluster.client(0).unwrap();
    let answered = until("a new session answers", RECOVERED_WITHIN, async || {
        Ok(client.fresh().execute("6 * 7").await.ok())
    });
    assert_eq!(answered.await.unwrap().result, 42);
}

#[tokio::test]
async fn a_bus_of_three_servers_serves_with_any_two() {
    let cluster = Cluster::builder().nats_nodes(3).start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "kept = 1").await;
    for server in 0..3 {
        cluster.kill(Member::Nats(server)).await.unwrap();
        answers(&cluster).await;
        cluster.start(Member::Nats(server)).await.unwrap();
    }
}

#[tokio::test]
async fn helpers_are_found_below_their_worker() {
    let cluster = Cluster::builder().workers(2).start().await.unwrap();
    let mut pids = Vec::new();
    for worker in 0..2 {
        for helper in [Member::Caged(worker), Member::Zygote(worker)] {
            pids.push(cluster.pid(helper).await.unwrap());
        }
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 4);
    // Kernels are forked from the zygote and look like it.
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "kept = 1").await;
    for helper in [
        Member::Caged(0),
        Member::Zygote(0),
        Member::Caged(1),
        Member::Zygote(1),
    ] {
        assert!(
            pids.contains(&cluster.pid(helper).await.unwrap()),
            "{helper}"
        );
    }
}

#[tokio::test]
async fn a_killed_zygote_is_replaced_by_its_worker() {
    let cluster = Cluster::builder().start().await.unwrap();
    let worker = cluster.pid(Member::Worker(0)).await.unwrap();
    let old = cluster.pid(Member::Zygote(0)).await.unwrap();
    cluster.kill(Member::Zygote(0)).await.unwrap();
    cluster.start(Member::Zygote(0)).await.unwrap();
    assert_ne!(cluster.pid(Member::Zygote(0)).await.unwrap(), old);
    assert_eq!(cluster.pid(Member::Worker(0)).await.unwrap(), worker);
    answers(&cluster).await;
}

#[tokio::test]
async fn a_worker_whose_caged_was_killed_is_started_with_a_new_one() {
    let cluster = Cluster::builder().start().await.unwrap();
    let old = cluster.pid(Member::Caged(0)).await.unwrap();
    cluster.kill(Member::Caged(0)).await.unwrap();
    let ended = until("the worker ends", RECOVERED_WITHIN, async || {
        Ok(cluster.pid(Member::Worker(0)).await.is_err().then_some(()))
    });
    ended.await.unwrap();
    cluster.start(Member::Caged(0)).await.unwrap();
    assert_ne!(cluster.pid(Member::Caged(0)).await.unwrap(), old);
    answers(&cluster).await;
}

#[tokio::test]
async fn paused_helpers_go_on_when_they_are_told() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "kept = 1").await;
    for helper in [Member::Zygote(0), Member::Caged(0)] {
        let pid = cluster.pid(helper).await.unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        cluster.pause(helper).await.unwrap();
        until("it stands", RECOVERED_WITHIN, async || {
            Ok(state().contains(") T ").then_some(()))
        })
        .await
        .unwrap();
        cluster.resume(helper).await.unwrap();
        until("it goes on", RECOVERED_WITHIN, async || {
            Ok((!state().contains(") T ")).then_some(()))
        })
        .await
        .unwrap();
    }
    assert_eq!(value(&session, "kept").await, 1);
    answers(&cluster).await;
}

#[tokio::test]
async fn starts_are_noted_before_answers_come() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    for turn in 1..=3 {
        succeed(&session, "1").await;
        let journal = std::fs::read_to_string(cluster.journal(0).unwrap()).unwrap();
        assert_eq!(journal.lines().count(), turn);
        let start: proto::journal::Start =
            serde_json::from_str(journal.lines().last().unwrap()).unwrap();
        let key = cluster.session_key("python", session.identifier()).unwrap();
        assert_eq!(start.session, key);
    }
}
