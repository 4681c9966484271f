//! Two workers and two ingresses side by side: one owner per session, whoever is asked, whether the
//! bus is one server or a cluster of three.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use loadtest::{
    client::Session,
    cluster::{Cluster, Member},
    inventory::{cgroups_of, processes_in},
    wait::until,
};

use crate::stack::{on_one_and_on_three_servers, succeed, value};

/// Long enough for reconnects and for a dead worker's key to expire.
const RECOVERED_WITHIN: Duration = Duration::from_secs(40);

on_one_and_on_three_servers! {
    concurrent_first_requests_of_one_identifier_meet_one_owner,
    sessions_spread_over_the_workers_and_answer_through_either_ingress,
    sessions_keep_their_variables_over_a_restart_of_the_bus,
    an_ingress_can_be_killed_without_harm_to_sessions,
    after_a_worker_was_killed_every_session_answers_again,
    a_stopped_worker_leaves_nothing_and_its_sessions_answer_again,
}

async fn two_by_two(servers: usize) -> Cluster {
    Cluster::builder()
        .nats_nodes(servers)
        .workers(2)
        .ingresses(2)
        .worker_arguments(["--cages", "4", "--spares", "2"])
        .start()
        .await
        .unwrap()
}

fn processes_of(cluster: &Cluster, worker: usize) -> usize {
    let cgroups = cgroups_of(cluster.worker_id(worker).unwrap());
    let all = cgroups.iter().flat_map(|cgroup| processes_in(cgroup));
    all.collect::<BTreeSet<_>>().len()
}

/// Repeats an execution until it is answered at all.
async fn eventually(session: &Session, code: &str) -> serde_json::Value {
    let answered = until("the session answers", RECOVERED_WITHIN, || async {
        Ok(session.execute(code).await.ok())
    });
    answered.await.unwrap().result
}

async fn concurrent_first_requests_of_one_identifier_meet_one_owner(servers: usize) {
    let cluster = two_by_two(servers).await;
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    for _ in 0..5 {
        let name = clients[0].fresh();
        let count = "turns = globals().get('turns', 0) + 1\nturns";
        let through = (0..20).map(|n| name.through(&clients[n % 2]));
        let answers = join_all(through.map(|session| async move {
            match session.execute(count).await {
                Ok(executed) => executed.result.as_u64(),
                // More may come at once than a session lets wait.
                Err(error) => {
                    assert_eq!(
                        error.refusal().map(|(status, _)| status),
                        Some(429),
                        "{error}"
                    );
                    None
                }
            }
        }));
        let counted: Vec<u64> = answers.await.into_iter().flatten().collect();
        let distinct: BTreeSet<u64> = counted.iter().copied().collect();
        let expected: BTreeSet<u64> = (1..=counted.len() as u64).collect();
        assert_eq!(distinct, expected, "{counted:?}");
        assert!(
            counted.len() >= 9,
            "one runs and eight may wait: {counted:?}"
        );
        assert_eq!(value(&name, "turns").await, counted.len());
        name.delete().await.unwrap();
    }
}

async fn sessions_spread_over_the_workers_and_answer_through_either_ingress(servers: usize) {
    let cluster = two_by_two(servers).await;
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    let before = [processes_of(&cluster, 0), processes_of(&cluster, 1)];
    let sessions: Vec<_> = (0..16).map(|n| clients[n % 2].fresh()).collect();
    join_all(sessions.iter().enumerate().map(|(n, session)| async move {
        succeed(session, &format!("kept = {n}")).await;
        session
            .upload("n.txt", n.to_string().as_bytes())
            .await
            .unwrap();
    }))
    .await;
    for (n, session) in sessions.iter().enumerate() {
        let through = session.through(&clients[(n + 1) % 2]);
        assert_eq!(value(&through, "kept").await, n);
        assert_eq!(
            through.download("n.txt").await.unwrap(),
            n.to_string().as_bytes()
        );
    }
    let grown = |worker: usize| processes_of(&cluster, worker) > before[worker];
    until("both workers hold sessions", RECOVERED_WITHIN, || async {
        Ok((grown(0) && grown(1)).then_some(()))
    })
    .await
    .unwrap();
}

async fn sessions_keep_their_variables_over_a_restart_of_the_bus(servers: usize) {
    let cluster = two_by_two(servers).await;
    let clients = [cluster.client(0).unwrap(), cluster.client(1).unwrap()];
    let sessions: Vec<_> = (0..6).map(|n| clients[n % 2].fresh()).collect();
    for (n, session) in sessions.iter().enumerate() {
        succeed(session, &format!("kept = {n}")).await;
    }
    for server in 0..servers {
        cluster.restart(Member::Nats(server)).await.unwrap();
    }
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!(eventually(session, "kept").await, n);
    }
    assert_eq!(eventually(&clients[0].fresh(), "6 * 7").await, 42);
}

async fn an_ingress_can_be_killed_without_harm_to_sessions(servers: usize) {
    let cluster = two_by_two(servers).await;
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "kept = 1").await;
    cluster.kill(Member::Ingress(0)).await.unwrap();
    let through = session.through(&cluster.client(1).unwrap());
    assert_eq!(value(&through, "kept").await, 1);
    cluster.start(Member::Ingress(0)).await.unwrap();
    assert_eq!(eventually(&session, "kept").await, 1);
}

async fn after_a_worker_was_killed_every_session_answers_again(servers: usize) {
    let cluster = two_by_two(servers).await;
    let client = cluster.client(0).unwrap();
    let sessions: Vec<_> = (0..12).map(|_| client.fresh()).collect();
    join_all(sessions.iter().map(|session| succeed(session, "kept = 1"))).await;
    cluster.kill(Member::Worker(0)).await.unwrap();
    assert_eq!(eventually(&client.fresh(), "6 * 7").await, 42);
    let mut kept = 0;
    for session in &sessions {
        let answer = eventually(session, "globals().get('kept', 0)").await;
        assert!(answer == 1 || answer == 0, "{answer}");
        kept += usize::from(answer == 1);
    }
    assert!(
        kept > 0,
        "the living worker's sessions keep their variables"
    );
    until(
        "the dead worker's code is stopped",
        RECOVERED_WITHIN,
        || async { Ok((processes_of(&cluster, 0) == 0).then_some(())) },
    )
    .await
    .unwrap();
    cluster.start(Member::Worker(0)).await.unwrap();
    assert_eq!(eventually(&client.fresh(), "6 * 7").await, 42);
}

async fn a_stopped_worker_leaves_nothing_and_its_sessions_answer_again(servers: usize) {
    let cluster = two_by_two(servers).await;
    let client = cluster.client(0).unwrap();
    let sessions: Vec<_> = (0..4).map(|_| client.fresh()).collect();
    join_all(sessions.iter().map(|session| succeed(session, "kept = 1"))).await;
    let status = cluster.stop(Member::Worker(0)).await.unwrap();
    assert_eq!(status, "exit status: 0");
    assert_eq!(
        cgroups_of(cluster.worker_id(0).unwrap()),
        Vec::<std::path::PathBuf>::new()
    );
    for session in &sessions {
        eventually(session, "1").await;
    }
}
