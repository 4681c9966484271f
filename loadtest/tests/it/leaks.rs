//! What 200 sessions leave behind: nothing.

use std::time::{Duration, Instant};

use async_nats::{ConnectOptions, jetstream};
use futures_util::{StreamExt, stream};
use loadtest::{
    cluster::{Cluster, Member},
    inventory::Inventory,
    wait::until,
};

use crate::stack::objects;

/// Sessions to come and go.
const SESSIONS: usize = 200;
/// How many at once.
const AT_ONCE: usize = 8;
/// How long stock and counts may take to settle, expiry of the last sessions included.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
/// Idle seconds after which a session ends: longer than any step of its life takes here.
const COOLDOWN: u32 = 15;
/// Counts that do not change for so long are final: making a cage takes milliseconds.
const STEADY_FOR: Duration = Duration::from_secs(1);

async fn one_life(cluster: &Cluster, number: usize) {
    let session = cluster.client(0).unwrap().fresh();
    session
        .execute("import subprocess\nkept = subprocess.Popen(['sleep', '1000'])")
        .await
        .unwrap();
    session.upload("x.bin", &vec![1; 300 << 10]).await.unwrap();
    session.download("x.bin").await.unwrap();
    match number % 10 {
        0 => drop(session.execute("import os\nos._exit(1)").await.unwrap()),
        1 => drop(session.execute("print('x' * 1000000)").await.unwrap()),
        2 => drop(session.execute_within(1, "while True: pass").await.unwrap()),
        _ => {}
    }
    // The others end by themselves.
    if number.is_multiple_of(2) {
        session.delete().await.unwrap();
    }
}

async fn lives(cluster: &Cluster, count: usize) {
    let all = stream::iter(0..count).map(|number| one_life(cluster, number));
    all.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// Open files without those whose number depends on how many connections are open right now.
fn settled(inventory: &Inventory, before: &Inventory) -> bool {
    let files = |inventory: &Inventory| inventory.open_files.values().sum::<usize>();
    let same = |inventory: &Inventory| {
        let Inventory {
            processes,
            mounts,
            cgroups,
            loop_devices,
            ..
        } = *inventory;
        (processes, mounts, cgroups, loop_devices)
    };
    same(inventory) == same(before) && files(inventory) <= files(before) + 2
}

#[tokio::test]
async fn two_hundred_sessions_leave_nothing_behind() {
    let cluster = Cluster::builder()
        .pool(|pool| pool.cooldown(COOLDOWN))
        .worker_arguments(["--cages", "4", "--spares", "2"])
        .start()
        .await
        .unwrap();
    // The first sessions bring up what stays for good: threads, caches, connections.
    lives(&cluster, 2 * AT_ONCE).await;
    no_objects(&cluster).await;
    let before = stable(&cluster).await;
    lives(&cluster, SESSIONS).await;
    let settled = until("all counts are as before", SETTLED_WITHIN, || async {
        Ok(settled(&cluster.inventory(0).await?, &before).then_some(()))
    });
    if let Err(error) = settled.await {
        panic!(
            "{error}\nbefore {before:?}\nafter {:?}",
            cluster.inventory(0).await.unwrap()
        );
    }
    no_objects(&cluster).await;
    assert_eq!(records(&cluster).await, 0);
    assert_eq!(
        cluster.stop(Member::Worker(0)).await.unwrap(),
        "exit status: 0"
    );
    let id = cluster.worker_id(0).unwrap();
    assert_eq!(
        loadtest::inventory::cgroups_of(id),
        Vec::<std::path::PathBuf>::new()
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(cluster.directory().to_str().unwrap()),
        "{mounts}"
    );
}

/// Counts once the stock of cages and spares is full.
async fn stable(cluster: &Cluster) -> Inventory {
    let mut last = cluster.inventory(0).await.unwrap();
    let mut since = Instant::now();
    until("the stock is full", SETTLED_WITHIN, async || {
        let current = cluster.inventory(0).await?;
        if current != last {
            last = current;
            since = Instant::now();
        }
        Ok((since.elapsed() > STEADY_FOR).then(|| last.clone()))
    })
    .await
    .unwrap()
}

/// Records of executions on the bus. Those of executions that their callers named are kept on purpose.
async fn records(cluster: &Cluster) -> u64 {
    let (user, password) = cluster.nats_credentials("worker").unwrap();
    let options = ConnectOptions::with_user_and_password(user, password)
        .custom_inbox_prefix("_INBOX_worker.leaks");
    let client = options.connect(cluster.nats()).await.unwrap();
    let context = jetstream::new(client);
    let stream = context.get_stream(proto::subject::EXECUTIONS_STREAM).await;
    stream.unwrap().cached_info().state.messages
}

/// Waits until every session is over and its objects are gone.
async fn no_objects(cluster: &Cluster) {
    until("no object is left", SETTLED_WITHIN, || async {
        Ok(objects(&cluster.store()).is_empty().then_some(()))
    })
    .await
    .unwrap();
}
