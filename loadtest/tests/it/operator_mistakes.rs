//! What an operator does by mistake, and what must not be lost by it.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use loadtest::{
    client::Client,
    cluster::{Cluster, ClusterBuilder, Member},
    wait::until,
};
use proto::{id::Incarnation, subject};
use reqwest::Method;
use ulid::Ulid;

use crate::{
    new_contract::NEWEST,
    stack::{answer, refusal, succeed, value},
    wrong_clock::WrongClock,
};

/// A worker or a sweep on a busy machine needs no longer.
const DONE_WITHIN: Duration = Duration::from_secs(60);

/// A stack whose bus and ingress run, and no worker yet.
async fn without_workers(builder: ClusterBuilder) -> Cluster {
    let builder = builder.worker_arguments(["--cages", "1", "--spares", "1"]);
    let cluster = builder.prepare().unwrap();
    for member in [Member::Nats(0), Member::Ingress(0)] {
        cluster.start(member).await.unwrap();
    }
    cluster
}

/// Waits until a process has logged this.
async fn logged(cluster: &Cluster, member: Member, text: &str) {
    let logged = until(text, DONE_WITHIN, async || {
        Ok(cluster.log(member)?.contains(text).then_some(()))
    });
    logged.await.unwrap();
}

#[tokio::test]
async fn a_directory_with_foreign_files_is_refused_by_name_and_left_as_it_is() {
    let cluster = without_workers(Cluster::builder()).await;
    for name in ["worker-1-data", "worker-1"] {
        let directory = cluster.directory().join(name);
        fs::create_dir_all(directory.join("photos/2026")).unwrap();
        let [photo, lock] = ["photos/2026/1.jpg", "lock"].map(|name| directory.join(name));
        fs::write(&photo, "precious").unwrap();
        fs::write(&lock, "precious").unwrap();
        let log = cluster.start_in_vain(Member::Worker(0)).await.unwrap();
        let said = log.lines().last().unwrap_or_default();
        assert!(said.contains(directory.to_str().unwrap()), "{log}");
        assert!(said.contains("photos"), "{log}");
        for file in [&photo, &lock] {
            assert_eq!(fs::read_to_string(file).unwrap(), "precious");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        fs::remove_dir_all(&directory).unwrap();
    }
    cluster.start(Member::Worker(0)).await.unwrap();
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
}

#[tokio::test]
async fn another_workers_directories_are_refused_and_a_crashed_workers_own_are_not() {
    let cluster = without_workers(Cluster::builder().workers(2)).await;
    cluster.start(Member::Worker(0)).await.unwrap();
    cluster.kill(Member::Worker(0)).await.unwrap();
    let [one, two] = ["worker-1-data", "worker-2-data"].map(|name| cluster.directory().join(name));
    fs::write(one.join("left"), "by a crash").unwrap();
    std::os::unix::fs::symlink(&one, &two).unwrap();
    let log = cluster.start_in_vain(Member::Worker(1)).await.unwrap();
    for id in [0, 1].map(|worker| cluster.worker_id(worker).unwrap()) {
        assert!(log.contains(&format!("worker `{id}`")), "{log}");
    }
    assert!(one.join("left").exists());
    cluster.start(Member::Worker(0)).await.unwrap();
    assert!(!one.join("left").exists());
    // A worker that ends in good order leaves nothing that the next could be refused for.
    cluster.stop(Member::Worker(0)).await.unwrap();
    assert_eq!(fs::read_dir(&one).unwrap().count(), 0);
    cluster.start(Member::Worker(1)).await.unwrap();
}

#[tokio::test]
async fn what_a_worker_without_markers_left_is_taken_over() {
    let cluster = without_workers(Cluster::builder()).await;
    let [state, data] = ["worker-1", "worker-1-data"].map(|name| cluster.directory().join(name));
    let id = cluster.worker_id(0).unwrap();
    fs::create_dir(&state).unwrap();
    fs::create_dir(&data).unwrap();
    let left = [
        state.join("lock"),
        data.join("template.1073741824"),
        data.join(format!("hearth.{id}.17")),
    ];
    for file in &left {
        fs::write(file, "").unwrap();
    }
    cluster.start(Member::Worker(0)).await.unwrap();
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
    assert!(!left[1].exists() && !left[2].exists());
}

#[tokio::test]
async fn a_second_worker_of_the_same_id_is_refused_and_a_crashed_one_starts_again_at_once() {
    let cluster = without_workers(Cluster::builder().workers(2).one_worker_id()).await;
    cluster.start(Member::Worker(0)).await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "kept = 42").await;
    let log = cluster.start_in_vain(Member::Worker(1)).await.unwrap();
    let id = cluster.worker_id(1).unwrap();
    let said = format!("worker `{id}` runs already");
    assert!(log.contains(&said) && log.contains("this host"), "{log}");
    assert_eq!(value(&session, "kept").await, 42, "its cages are untouched");

    cluster.kill(Member::Worker(0)).await.unwrap();
    // In other directories, too: the id is what counts.
    cluster.start(Member::Worker(1)).await.unwrap();
    let log = cluster.log(Member::Worker(1)).unwrap();
    assert!(!log.contains("waiting for the end of its claim"), "{log}");
    succeed(&cluster.client(0).unwrap().fresh(), "1").await;
    let log = cluster.start_in_vain(Member::Worker(0)).await.unwrap();
    assert!(log.contains(&said), "{log}");
    // Whoever ends in good order is not waited for either.
    cluster.stop(Member::Worker(1)).await.unwrap();
    cluster.start(Member::Worker(0)).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_does_not_answer_keeps_its_id_on_its_host() {
    let cluster = without_workers(Cluster::builder().workers(2).one_worker_id()).await;
    let (living, second) = (Member::Worker(0), Member::Worker(1));
    cluster.start(living).await.unwrap();
    let pid = cluster.pid(living).await.unwrap();
    // As while it connects anew after its bus was restarted, only for longer.
    cluster.pause(living).await.unwrap();
    let log = cluster.start_in_vain(second).await.unwrap();
    let said = format!("worker `{}` runs already", cluster.worker_id(1).unwrap());
    assert!(log.contains(&said), "{log}");
    cluster.resume(living).await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    let served = until("it serves again", DONE_WITHIN, async || {
        Ok(session.execute("1").await.ok())
    });
    served.await.unwrap();
    assert_eq!(cluster.pid(living).await.unwrap(), pid);
    let log = cluster.log(living).unwrap();
    assert!(!log.contains("took the id over"), "{log}");
    // What the second one tried left nothing of it behind.
    let data = cluster.directory().join("worker-2-data");
    assert_eq!(fs::read_dir(data).unwrap().count(), 0);
}

/// Makes an object of this age, by the store's clock.
fn object(cluster: &Cluster, key: &str, age: Duration) -> PathBuf {
    let path = cluster.store().join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(&path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
    path
}

async fn sessions(client: &Client) -> usize {
    let path = format!("listSessions?api-version={NEWEST}");
    let (status, listed) = answer(client.request(Method::GET, &path)).await;
    assert_eq!(status, 200, "{listed}");
    listed["sessions"].as_array().unwrap().len()
}

#[tokio::test]
pub(crate) async fn a_worker_with_a_wrong_clock_says_so_and_neither_takes_sessions_nor_sweeps() {
    let clock = WrongClock::new();
    let builder = Cluster::builder().worker_environment(clock.environment());
    let cluster = without_workers(builder).await;
    cluster.start(Member::Worker(0)).await.unwrap();
    cluster.stop(Member::Worker(0)).await.unwrap();
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
    let pool = cluster.pool_id("python").unwrap();
    let log = |letter: char, age| {
        let (session, life) = (letter.to_string().repeat(26), Ulid::new());
        let life = Incarnation::from_ulid(life);
        object(&cluster, &format!("{pool}/{session}/{life}/c/1"), age)
    };
    let result =
        |name: &str, age| object(&cluster, &format!("{}/p/s/{name}", subject::RESULTS), age);
    let young = [log('a', 2 * minute), result("young", 2 * minute)];
    let old = [log('b', 2 * day), result("old", 2 * day)];

    clock.set_ahead_by(26 * 3600);
    cluster.revive(Member::Worker(0)).await.unwrap();
    logged(&cluster, Member::Worker(0), "ahead of the bus's").await;
    let client = cluster.client(0).unwrap();
    let session = client.fresh();
    let refused = refusal(session.execute("1").await);
    assert_eq!(refused, (503, "NoCapacity".to_owned()));
    assert!(!cluster.serves(Member::Worker(0)).await.unwrap());
    assert!(young.iter().chain(&old).all(|object| object.exists()));

    clock.set_ahead_by(0);
    logged(&cluster, Member::Worker(0), "clock agrees with the bus's").await;
    let gone = until("what is old is swept", DONE_WITHIN, async || {
        Ok((!old.iter().any(|object| object.exists())).then_some(()))
    });
    gone.await.unwrap();
    assert!(young.iter().all(|object| object.exists()));
    succeed(&session, "kept = 1").await;

    // Who lives already is served, whatever the clock says.
    clock.set_ahead_by(-3600);
    logged(&cluster, Member::Worker(0), "behind the bus's").await;
    assert_eq!(value(&session, "kept").await, 1);
    let refused = refusal(client.fresh().execute("1").await);
    assert_eq!(refused, (503, "NoCapacity".to_owned()));
}

#[tokio::test]
async fn an_ingress_whose_clock_is_ahead_lists_the_sessions_that_live() {
    let clock = WrongClock::new();
    let builder = Cluster::builder().ingress_environment(clock.environment());
    let cluster = without_workers(builder).await;
    cluster.start(Member::Worker(0)).await.unwrap();
    let client = cluster.client(0).unwrap();
    succeed(&client.fresh(), "1").await;
    assert_eq!(sessions(&client).await, 1);
    // Longer than the cooldown, shorter than tokens live.
    clock.set_ahead_by(3600);
    assert_eq!(sessions(&client).await, 1);
}
