//! What goes wrong is counted: each trouble makes its own metric rise.

use std::{fs, path::Path};

use loadtest::{
    cluster::{Cluster, Member},
    wait::until,
};
use proto::{id::Epoch, lease::Lease, wire};
use rustix::process::Signal;

use crate::{
    async_executions::{ENDED_WITHIN, ENDLESS, cancel, submit_code},
    metrics::{reaches, sample},
    stack::{fail, refusal, signal, succeed},
};

/// Gives the only session of a pool to a worker that does not exist, behind its owner's back.
async fn take_lease_away(cluster: &Cluster, pool: &str) {
    let (user, password) = cluster.nats_credentials("worker").unwrap();
    let worker = async_nats::ConnectOptions::with_user_and_password(user, password);
    let worker = worker.custom_inbox_prefix("_INBOX_worker.test");
    let worker = worker.connect(cluster.nats()).await.unwrap();
    let leases = async_nats::jetstream::new(worker.clone());
    let leases = leases.get_stream_no_info(format!("KV_h1_leases_{pool}"));
    let all = format!("$KV.h1_leases_{pool}.*");
    let leases = leases.await.unwrap();
    let found = leases.direct_get_first_for_subject(all).await.unwrap();
    let lease = Lease {
        owner: "worker-nobody".parse().unwrap(),
        epoch: Epoch::from_number(1000),
        ..wire::decode(&found.payload).unwrap()
    };
    let written = worker.request(found.subject, wire::encode(&lease).unwrap().into());
    written.await.unwrap();
}

/// Replaces all that was stored below by something that nobody can read.
fn spoil(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            spoil(&path);
        } else {
            fs::write(path, b"spoiled").unwrap();
        }
    }
}

#[tokio::test]
async fn each_trouble_is_counted() {
    let cluster = Cluster::builder()
        // Leases in use are renewed every six seconds.
        .pool(|pool| pool.cooldown(60))
        .start()
        .await
        .unwrap();
    let [ingress, worker] = [Member::Ingress(0), Member::Worker(0)]
        .map(|member| cluster.admin_address_of(member).unwrap());
    let pool = cluster.pool_id("python").unwrap().to_string();
    let client = cluster.client(0).unwrap();

    let lost = "hearth_lease_renewals_total{outcome=\"lost\"}";
    assert_eq!(sample(worker, lost).await, 0.0);
    succeed(&client.fresh(), "1").await;
    take_lease_away(&cluster, &pool).await;
    reaches(worker, lost, 1.0).await;

    let session = client.fresh();
    fail(
        &session,
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    )
    .await;
    reaches(worker, "hearth_kernels_lost_total{cause=\"crashed\"}", 1.0).await;
    assert_eq!(sample(worker, "hearth_commit_bytes_total").await, 0.0);
    succeed(&session, "open('/mnt/data/kept', 'w').write('x' * 9)").await;
    assert!(sample(worker, "hearth_commit_bytes_total").await > 0.0);

    // Left to whoever is asked for it next, who cannot read its files.
    cluster.restart(Member::Worker(0)).await.unwrap();
    spoil(&cluster.store().join(&pool));
    let (status, _) = refusal(session.execute("1").await);
    assert_eq!(status, 503);
    let not_opened = "hearth_session_open_failures_total{step=\"take_over\"}";
    reaches(worker, not_opened, 1.0).await;

    // Not even root makes a directory where a file is.
    let probes = cluster.store().join("probe");
    drop(fs::remove_dir_all(&probes));
    fs::write(&probes, b"").unwrap();
    reaches(worker, "hearth_store_errors_total{operation=\"put\"}", 1.0).await;
    fs::remove_file(&probes).unwrap();

    let taken = format!("hearth_queue_executions{{pool=\"{pool}\",state=\"taken\"}}");
    let age = format!("hearth_queue_oldest_age_seconds{{pool=\"{pool}\"}}");
    reaches(ingress, &taken, 0.0).await;
    let mut running = vec![];
    for _ in 0..2 {
        let session = client.fresh();
        let id = submit_code(&session, ENDLESS).await;
        running.push((session, id));
    }
    reaches(ingress, &taken, 2.0).await;
    reaches(ingress, &age, 1.0).await;

    // What runs keeps it from ending.
    let left = "hearth_drain_sessions_left";
    assert_eq!(sample(worker, "hearth_draining").await, 0.0);
    assert_eq!(sample(worker, left).await, 0.0);
    signal(cluster.pid(Member::Worker(0)).await.unwrap(), Signal::TERM);
    reaches(worker, "hearth_draining", 1.0).await;
    reaches(worker, left, 1.0).await;
    for (session, id) in running {
        cancel(&session, &id).await;
    }
    until("the worker ends", ENDED_WITHIN, async || {
        Ok(cluster.pid(Member::Worker(0)).await.err())
    })
    .await
    .unwrap();
}
