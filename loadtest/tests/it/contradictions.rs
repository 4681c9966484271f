//! Processes whose settings contradict each other: who has another key or store does not start, and a pool
//! that is known differently is refused by name while all others go on.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use loadtest::{
    cluster::{Cluster, Member},
    store_proxy::Trouble,
    wait::until,
};

use crate::{
    command::{run, with},
    stack::{refusal, succeed},
};

/// Longer than what others tell takes to arrive.
const WITHIN: Duration = Duration::from_secs(60);

/// Replaces text in a file of the stack.
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn an_ingress_with_another_cluster_key_does_not_start() {
    let cluster = Cluster::builder().ingresses(2).start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "1").await;
    until("the fleet has its key", WITHIN, async || {
        let log = cluster.log(Member::Ingress(0))?;
        Ok(log.contains("the cluster key is the fleet's").then_some(()))
    })
    .await
    .unwrap();
    cluster.stop(Member::Ingress(1)).await.unwrap();
    let key = cluster.directory().join("cluster.key");
    let right = fs::read_to_string(&key).unwrap();
    fs::write(&key, "ab".repeat(32)).unwrap();
    let log = cluster.start_in_vain(Member::Ingress(1)).await.unwrap();
    let last = log.lines().last().unwrap();
    for expected in ["fingerprint", "--cluster-key"] {
        assert!(last.contains(expected), "{log}");
    }
    assert!(!log.contains(&"ab".repeat(16)), "{log}");
    succeed(&session, "1").await;
    fs::write(&key, right).unwrap();
    cluster.start(Member::Ingress(1)).await.unwrap();
    succeed(&session.through(&cluster.client(1).unwrap()), "1").await;
}

#[tokio::test]
async fn a_process_with_another_store_does_not_start() {
    let cluster = Cluster::builder().start().await.unwrap();
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
    let members = [Member::Ingress(0), Member::Worker(0)];
    for member in members {
        cluster.stop(member).await.unwrap();
    }
    let (store, away) = (cluster.store(), cluster.directory().join("away"));
    fs::rename(&store, &away).unwrap();
    fs::create_dir(&store).unwrap();
    for member in members {
        let log = cluster.start_in_vain(member).await.unwrap();
        let last = log.lines().last().unwrap();
        for expected in [
            "the bus belongs to store",
            "this process has store none",
            "--store",
        ] {
            assert!(last.contains(expected), "{log}");
        }
    }
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    for member in members {
        cluster.start(member).await.unwrap();
    }
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
}

/// An ingress that starts while the store is down serves what lives; but not with another key, and no longer
/// than until it is known that it has another store.
#[tokio::test]
async fn a_store_that_is_down_hides_no_contradiction() {
    let cluster = Cluster::builder().s3_store_behind_proxy(7).start().await;
    let (cluster, ingress) = (cluster.unwrap(), Member::Ingress(0));
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
    until("the fleet has its key", WITHIN, async || {
        let log = cluster.log(ingress)?;
        Ok(log.contains("the cluster key is the fleet's").then_some(()))
    })
    .await
    .unwrap();
    cluster.stop(ingress).await.unwrap();
    let down = Trouble {
        refused: 1000,
        ..Trouble::default()
    };
    cluster.trouble(down).await.unwrap();

    let key = cluster.directory().join("cluster.key");
    let right = fs::read_to_string(&key).unwrap();
    fs::write(&key, "ab".repeat(32)).unwrap();
    let log = cluster.start_in_vain(ingress).await.unwrap();
    assert!(log.lines().last().unwrap().contains("fingerprint"), "{log}");
    fs::write(&key, right).unwrap();

    let elsewhere = cluster.command(ingress).unwrap();
    let elsewhere = with(
        &elsewhere,
        "--store",
        Some("s3://hearth/elsewhere".as_ref()),
    );
    let mended = async {
        until("it serves", WITHIN, async || {
            let ready = format!("http://{}/readyz", cluster.addresses(0)?.0);
            let answer = reqwest::get(ready).await.ok();
            Ok(answer.filter(|answer| answer.status() == 200).map(drop))
        })
        .await
        .unwrap();
        cluster.trouble(Trouble::default()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(run(elsewhere), mended);
    let ended = ended.unwrap();
    assert!(!ended.status.success());
    let last = ended.stderr.lines().last().unwrap();
    for expected in ["the bus belongs to store", "--store"] {
        assert!(last.contains(expected), "{}", ended.stderr);
    }
    cluster.start(ingress).await.unwrap();
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
}

#[tokio::test]
async fn a_pool_that_no_worker_serves_has_an_error_of_its_own() {
    let cluster = Cluster::builder()
        .pool(|pool| pool)
        .pool(|pool| pool.name("edited").cooldown(400))
        .start()
        .await
        .unwrap();
    let (equal, edited) = (
        cluster.client_of("python").unwrap(),
        cluster.client_of("edited").unwrap(),
    );
    let owned = edited.fresh();
    succeed(&owned, "1").await;
    let pools = cluster.directory().join("pools.toml");
    let refused = (503, "PoolNotServed".to_owned());

    // Another cooldown: what lives goes on, nothing new begins.
    edit(&pools, "cooldown_seconds = 400", "cooldown_seconds = 500");
    cluster.restart(Member::Ingress(0)).await.unwrap();
    assert_eq!(refusal(edited.fresh().execute("1").await), refused);
    assert_eq!(refusal(edited.fresh().upload("x", b"x").await), refused);
    succeed(&owned, "1").await;
    succeed(&equal.fresh(), "1").await;
    until("both sides say so", WITHIN, async || {
        let said = |member, text: &str| Ok::<_, anyhow::Error>(cluster.log(member)?.contains(text));
        let ingress = said(
            Member::Ingress(0),
            "workers serve pool `edited` with other settings",
        )?;
        let worker = said(
            Member::Worker(0),
            "ingresses know pool `edited` with other settings",
        )?;
        Ok((ingress && worker).then_some(()))
    })
    .await
    .unwrap();

    // A pool that only ingress knows.
    let id = cluster.pool_id("edited").unwrap().to_string();
    edit(&pools, &id, "01JDE1KZ0000000000000000PX");
    cluster.restart(Member::Ingress(0)).await.unwrap();
    assert_eq!(refusal(edited.fresh().execute("1").await), refused);
    succeed(&equal.fresh(), "1").await;

    cluster.restart(Member::Worker(0)).await.unwrap();
    succeed(&edited.fresh(), "1").await;
    succeed(&equal.fresh(), "1").await;
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused_at_the_start() {
    let cluster = Cluster::builder().start().await.unwrap();
    let members = [Member::Ingress(0), Member::Worker(0)];
    for member in members {
        cluster.stop(member).await.unwrap();
    }
    let pools = cluster.directory().join("pools.toml");
    let right = fs::read_to_string(&pools).unwrap();
    fs::write(&pools, "").unwrap();
    for member in members {
        let log = cluster.start_in_vain(member).await.unwrap();
        assert!(
            log.lines().last().unwrap().contains("there is no pool"),
            "{log}"
        );
    }
    fs::write(&pools, right).unwrap();
    let key = cluster.directory().join("cluster.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let log = cluster.start_in_vain(Member::Ingress(0)).await.unwrap();
    let last = log.lines().last().unwrap();
    assert!(last.contains("readable by its owner only"), "{log}");
}

#[tokio::test]
async fn an_object_store_without_credentials_is_refused_at_the_start() {
    // Where nobody listens: neither the store nor what gives credentials to machines in a cloud.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let environment = [
        ("AWS_ENDPOINT", nobody.clone()),
        ("AWS_METADATA_ENDPOINT", nobody),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    let cluster = Cluster::builder().store_url("s3://bucket", environment);
    let cluster = cluster.prepare().unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    let log = cluster.start_in_vain(Member::Ingress(0)).await.unwrap();
    assert!(
        log.lines().last().unwrap().contains("object store"),
        "{log}"
    );
}
