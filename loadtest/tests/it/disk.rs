//! A disk of 40 MB below the sessions' files: whoever fills it is stopped by name, and nobody else
//! notices.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use loadtest::{
    client::Session,
    cluster::{Cluster, ClusterBuilder, Member},
    wait::until,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    metrics::sample,
    readiness::Drilled,
    stack::{refusal, succeed, value},
};

const DISK_BYTES: u64 = 40_000_000;
/// Less than the reserve of such a disk, a tenth of it.
const LEFT_FREE: u64 = 2_000_000;

/// Longest wait for what a worker notices within a second.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// A small filesystem that is mounted until this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let image = disk.0.path().join("image");
        std::fs::create_dir(disk.root()).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        let mount = ["-o", "loop"];
        run(Command::new("mount")
            .args(mount)
            .arg(&image)
            .arg(disk.root()));
        disk
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// Fills it until its reserve is reached; the file to be removed.
    fn fill(&self) -> PathBuf {
        let filler = self.root().join("filler");
        let space = rustix::fs::statvfs(self.root()).unwrap();
        let filling = space.f_bavail * space.f_frsize - LEFT_FREE;
        std::fs::write(&filler, vec![1; usize::try_from(filling).unwrap()]).unwrap();
        filler
    }

    /// Puts the data of the first worker on it.
    async fn start(&self, builder: ClusterBuilder) -> Cluster {
        let cluster = builder.prepare().unwrap();
        let name = format!("{}-data", Member::Worker(0));
        let data = self.root().join("data");
        std::fs::create_dir(&data).unwrap();
        symlink(data, cluster.directory().join(name)).unwrap();
        cluster.start_all().await.unwrap();
        cluster
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.root()));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
}

/// Says what became of a grower that writes for ever; its neighbour writes little until then.
async fn fill_beside(neighbour: &Session, grower: &Session, code: &str) {
    let over = AtomicBool::new(false);
    let writing = async {
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) || rounds < 3 {
            let write = "f = open('/mnt/data/little', 'wb')\nf.write(os.urandom(2000)); f.flush(); \
                         os.fsync(f.fileno()); f.close()";
            succeed(neighbour, &format!("import os\n{write}")).await;
            rounds += 1;
        }
    };
    let filling = async {
        let full = timeout(NOTICED_WITHIN, grower.execute(code)).await;
        let full = full.expect("the grower is stopped").unwrap_err();
        over.store(true, Ordering::Relaxed);
        assert_eq!(full.refusal(), Some((507, "DiskFull")), "{full}");
        assert_eq!(full.may_have_executed(), Some(true), "{full}");
    };
    tokio::join!(writing, filling);
}

#[tokio::test]
pub(crate) async fn a_session_that_fills_the_disk_is_stopped_by_name_and_its_neighbour_goes_on() {
    let disk = SmallDisk::mount();
    let builder = Cluster::builder().worker_arguments(["--cages", "2", "--spares", "2"]);
    let cluster = disk.start(builder).await;
    let client = cluster.client(0).unwrap();
    let (neighbour, grower) = (client.fresh(), client.fresh());
    succeed(&neighbour, "kept = 6").await;
    succeed(&grower, "open('/mnt/data/kept', 'w').write('kept')").await;

    // Neither ends by itself: what an execution leaves that ends is saved.
    let simply = "
f = open('/mnt/data/large', 'ab', buffering=0)
while True:
    try:
        f.write(bytes(1 << 20))
    except OSError:
        pass";
    let stubbornly = "
import os
while True:
    try:
        with open('/mnt/data/large', 'wb') as f:
            while True:
                f.write(bytes(1 << 16)); f.flush(); os.fsync(f.fileno())
    except OSError:
        pass";
    for code in [simply, stubbornly] {
        fill_beside(&neighbour, &grower, code).await;
        // What was saved before is there as soon as the disk has room again.
        let back = until("the grower's session", NOTICED_WITHIN, async || {
            Ok(grower.execute("open('/mnt/data/kept').read()").await.ok())
        });
        assert_eq!(back.await.unwrap().result, "'kept'");
        assert_eq!(
            value(&grower, "import os; os.listdir('/mnt/data')").await,
            "['kept']"
        );
    }
    assert_eq!(value(&neighbour, "kept * 7").await, 42);
    let log = cluster.log(Member::Worker(0)).unwrap();
    assert!(
        log.contains("session stopped: the disk's reserve is reached"),
        "{log}"
    );
    let worker = cluster.admin_address(0).unwrap();
    assert_eq!(
        sample(worker, "hearth_disk_sessions_stopped_total").await,
        2.0
    );
    assert_eq!(
        sample(worker, "hearth_executions_total{ending=\"cut_off\"}").await,
        2.0
    );
    cluster.stop(Member::Worker(0)).await.unwrap();
    assert_eq!(entries(&disk.root().join("data")), Vec::<String>::new());
    drop(cluster);
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".ext4"))
        .collect()
}

#[tokio::test]
async fn a_worker_whose_disk_is_full_leaves_new_sessions_to_others() {
    let disk = SmallDisk::mount();
    let builder = Cluster::builder()
        .workers(2)
        .worker_arguments(["--cages", "1", "--spares", "1"]);
    let cluster = disk.start(builder).await;
    let client = cluster.client(0).unwrap();
    let data = disk.root().join("data");
    until("a visible volume", NOTICED_WITHIN, async || {
        Ok((!entries(&data).is_empty()).then_some(()))
    })
    .await
    .unwrap();
    let of = |member| cluster.admin_address_of(member).unwrap();
    let full = Drilled::ready(of(Member::Worker(0))).await;
    let other = Drilled::ready(of(Member::Worker(1))).await;
    let ingress = Drilled::ready(of(Member::Ingress(0))).await;
    let filler = disk.fill();
    full.turns("disk", 503, "unready").await;
    other.stands().await;
    ingress.stands().await;
    let reached = "the disk's reserve is reached: no new sessions";
    let log = cluster.log(Member::Worker(0)).unwrap();
    assert!(log.contains(reached), "{log}");
    let worker = cluster.admin_address(0).unwrap();
    assert_eq!(sample(worker, "hearth_disk_reserve_reached").await, 1.0);
    assert_eq!(
        sample(worker, "hearth_check_passes{check=\"disk\"}").await,
        0.0
    );
    let (free, reserve) = (
        sample(worker, "hearth_disk_free_bytes").await,
        sample(worker, "hearth_disk_reserve_bytes").await,
    );
    assert!(free < reserve, "{free} {reserve}");
    for _ in 0..8 {
        succeed(&client.fresh(), "1").await;
    }
    cluster.stop(Member::Worker(1)).await.unwrap();
    let refused = refusal(client.fresh().execute("1").await);
    assert_eq!(refused, (503, "NoCapacity".to_owned()));
    ingress.turns("workers", 200, "degraded").await;
    std::fs::remove_file(filler).unwrap();
    full.is_back().await;
    ingress.is_back().await;
    until(
        "a session on the first worker",
        NOTICED_WITHIN,
        async || Ok(client.fresh().execute("1").await.ok()),
    )
    .await
    .unwrap();
    assert_eq!(sample(worker, "hearth_disk_reserve_reached").await, 0.0);
    assert_eq!(
        sample(worker, "hearth_check_passes{check=\"disk\"}").await,
        1.0
    );
    drop(cluster);
}

/// The names of the checks that the first worker says fail.
async fn failing(cluster: &Cluster) -> Vec<String> {
    let address = cluster.admin_address(0).unwrap();
    let told = reqwest::get(format!("http://{address}/readyz")).await;
    let report: Value = told.unwrap().json().await.unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["passes"] == false)
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_worker_starts_on_a_full_disk_and_takes_sessions_once_it_has_room() {
    let disk = SmallDisk::mount();
    let filler = disk.fill();
    let builder = Cluster::builder().worker_arguments(["--cages", "1", "--spares", "1"]);
    let cluster = disk.start(builder).await;
    until(
        "the check of the disk fails alone",
        NOTICED_WITHIN,
        async || Ok((failing(&cluster).await == ["disk"]).then_some(())),
    )
    .await
    .unwrap();
    let session = cluster.client(0).unwrap().fresh();
    let refused = refusal(session.execute("1").await);
    assert_eq!(refused, (503, "NoCapacity".to_owned()));
    std::fs::remove_file(filler).unwrap();
    until("a session", NOTICED_WITHIN, async || {
        Ok(session.execute("1").await.ok())
    })
    .await
    .unwrap();
    until("all checks pass", NOTICED_WITHIN, async || {
        Ok(failing(&cluster).await.is_empty().then_some(()))
    })
    .await
    .unwrap();
    drop(cluster);
}

#[tokio::test]
async fn a_worker_without_room_for_a_session_leaves_it_to_others_with_its_variables() {
    let disk = SmallDisk::mount();
    let builder = Cluster::builder()
        .workers(2)
        .worker_arguments(["--cages", "1", "--spares", "1"]);
    let cluster = disk.start(builder).await;
    // So that the session begins where there is room.
    let filler = disk.fill();
    let small = async || Ok((failing(&cluster).await == ["disk"]).then_some(()));
    until("the full disk", NOTICED_WITHIN, small).await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    let write = "import os\nopen('/mnt/data/large', 'wb').write(os.urandom(34 << 20))\nkept = 6";
    succeed(&session, write).await;
    std::fs::remove_file(filler).unwrap();
    let roomy = async || Ok(failing(&cluster).await.is_empty().then_some(()));
    until("room on the disk", NOTICED_WITHIN, roomy)
        .await
        .unwrap();

    cluster.stop(Member::Worker(1)).await.unwrap();
    let refused = refusal(session.execute("kept").await);
    assert_eq!(refused, (503, "NoCapacity".to_owned()));
    let log = cluster.log(Member::Worker(0)).unwrap();
    assert!(
        log.contains("the disk has no room for the session's files"),
        "{log}"
    );
    cluster.start(Member::Worker(1)).await.unwrap();
    let back = until("the session", NOTICED_WITHIN, async || {
        Ok(session
            .execute("kept * os.path.getsize('/mnt/data/large')")
            .await
            .ok())
    });
    assert_eq!(back.await.unwrap().result, 6 * (34 << 20));
    drop(cluster);
}
