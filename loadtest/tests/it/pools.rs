//! Pools: maximum, cooldown, and what is refused.

use std::time::{Duration, Instant};

use loadtest::{
    client::{ClientError, Executed},
    cluster::{Cluster, Member},
    wait::until,
};

use crate::stack::{on_one_and_on_three_servers, refusal, succeed, value};

/// An answer that needs no wait comes within this time on two busy cores.
const AT_ONCE: Duration = Duration::from_secs(5);

on_one_and_on_three_servers! {
    the_maximum_is_exact_over_two_workers_and_two_ingresses,
}

async fn the_maximum_is_exact_over_two_workers_and_two_ingresses(servers: usize) {
    let cluster = Cluster::builder()
        .nats_nodes(servers)
        .workers(2)
        .ingresses(2)
        .pool(|pool| pool.max_sessions(5))
        .worker_arguments(["--cages", "4", "--spares", "2"])
        .start()
        .await
        .unwrap();
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    let sessions: Vec<_> = clients
        .iter()
        .cycle()
        .take(30)
        .map(|client| client.fresh())
        .collect();
    let first = futures_util::future::join_all(sessions.iter().map(|session| async {
        let started = Instant::now();
        (session.execute("kept = 1").await, started.elapsed())
    }));
    let first = first.await;
    let full = first
        .iter()
        .filter(|(answer, took)| is_full(answer) && *took < AT_ONCE)
        .count();
    let live: Vec<_> = sessions
        .iter()
        .zip(&first)
        .filter(|(_, (answer, _))| answer.is_ok())
        .collect();
    assert_eq!((live.len(), full), (5, 25), "{first:?}");
    for (session, _) in &live {
        assert_eq!(value(session, "kept").await, 1, "{}", session.identifier());
    }

    let late = clients[0].fresh();
    assert_eq!(refusal(late.execute("1").await).0, 429);
    assert_eq!(refusal(late.list().await).0, 429);
    live[0].0.delete().await.unwrap();
    assert_eq!(
        value(&late, "2").await,
        2,
        "a deleted session's slot is free at once"
    );
    assert_eq!(refusal(live[0].0.execute("1").await).0, 429);
}

fn is_full(answer: &Result<Executed, ClientError>) -> bool {
    match answer {
        Err(ClientError::Refused {
            status: 429,
            retry_after,
            ..
        }) => retry_after.is_some_and(|seconds| seconds > 0),
        _ => false,
    }
}

#[tokio::test]
async fn a_session_ends_after_its_cooldown_and_not_before() {
    let cluster = Cluster::builder()
        .pool(|pool| pool.name("brief").max_sessions(1).cooldown(2))
        .start()
        .await
        .unwrap();
    let client = cluster.client_of("brief").unwrap();
    let (first, second) = (client.fresh(), client.fresh());
    succeed(&first, "kept = 1\nopen('/mnt/data/x.txt', 'w').write('x')").await;
    for _ in 0..3 {
        // Longer than the cooldown, but a session is not idle while it works.
        assert_eq!(value(&first, "import time\ntime.sleep(2.5)\nkept").await, 1);
    }
    let idle_since = Instant::now();
    until(
        "the first session's slot is free",
        Duration::from_secs(20),
        || async {
            match second.execute("1").await {
                Ok(_) => Ok(Some(())),
                Err(error) if error.refusal().is_some_and(|(status, _)| status == 429) => Ok(None),
                Err(error) => Err(error.into()),
            }
        },
    )
    .await
    .unwrap();
    assert!(
        idle_since.elapsed() >= Duration::from_secs(2),
        "{:?}",
        idle_since.elapsed()
    );
    second.delete().await.unwrap();
    assert_eq!(value(&first, "'kept' in globals()").await, "False");
    assert_eq!(first.list().await.unwrap(), []);
}

#[tokio::test]
async fn every_call_keeps_a_session_from_ending() {
    const COOLDOWN: u32 = 4;
    let cluster = Cluster::builder()
        .pool(|pool| pool.name("brief").cooldown(COOLDOWN))
        .start()
        .await
        .unwrap();
    let client = cluster.client_of("brief").unwrap();
    let sessions = [client.fresh(), client.fresh(), client.fresh()];
    let [listed, sent, described] = &sessions;
    for session in &sessions {
        succeed(session, "kept = 1").await;
        session.upload("a.txt", b"a").await.unwrap();
    }
    let over = Instant::now() + Duration::from_secs(u64::from(COOLDOWN) * 2 + 1);
    while Instant::now() < over {
        listed.list().await.unwrap();
        sent.download("a.txt").await.unwrap();
        described
            .request(reqwest::Method::GET, "files/a.txt")
            .send()
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for session in &sessions {
        assert_eq!(value(session, "'kept' in globals()").await, "True");
    }
}

#[tokio::test]
async fn a_pool_that_asks_for_egress_is_refused_with_a_clear_message() {
    let cluster = Cluster::builder()
        .workers(0)
        .pool(|pool| pool.egress())
        .prepare()
        .unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    let log = cluster.start_in_vain(Member::Ingress(0)).await.unwrap();
    assert!(
        log.contains("EgressEnabled") && log.contains("not supported"),
        "{log}"
    );
}

#[tokio::test]
async fn bounds_of_a_pool_are_checked_at_start() {
    for (change, words) in [
        ((601, 300), "max_sessions"),
        ((10, 3601), "cooldown_seconds"),
    ] {
        let (sessions, cooldown) = change;
        let cluster = Cluster::builder()
            .workers(0)
            .pool(move |pool| pool.max_sessions(sessions).cooldown(cooldown))
            .prepare()
            .unwrap();
        cluster.start(Member::Nats(0)).await.unwrap();
        let log = cluster.start_in_vain(Member::Ingress(0)).await.unwrap();
        assert!(log.contains(words), "{log}");
    }
}

#[tokio::test]
async fn a_worker_without_room_is_a_named_refusal() {
    let cluster = Cluster::builder()
        .worker_arguments(["--max-sessions", "2", "--cages", "1", "--spares", "1"])
        .start()
        .await
        .unwrap();
    let client = cluster.client(0).unwrap();
    let live = [client.fresh(), client.fresh()];
    for session in &live {
        succeed(session, "kept = 1").await;
    }
    let answer = client.fresh().execute("1").await;
    match answer {
        Err(ClientError::Refused {
            status: 503,
            retry_after: Some(_),
            code,
            ..
        }) => {
            assert!(!code.is_empty());
        }
        other => panic!("{other:?}"),
    }
    for session in &live {
        assert_eq!(value(session, "kept").await, 1);
    }
}
