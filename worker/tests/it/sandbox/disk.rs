//! A small disk below the data filesystems, and sessions that fill it.

use std::path::{Path, PathBuf};
use std::process::Command;

use proto::health::{Check, Health};
use proto::pool::Limits;
use tempfile::TempDir;
use worker::sandbox::Cage;

use super::{Host, Session, limits, until, within};

/// A disk of its own, for as long as it is not dropped.
pub(super) struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// A filesystem of this kind and size.
    fn mount(kind: Kind, bytes: u64) -> Self {
        let disk = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let root = disk.root();
        std::fs::create_dir(&root).unwrap();
        match kind {
            Kind::Memory => {
                let size = format!("size={bytes}");
                run(Command::new("mount")
                    .args(["-t", "tmpfs", "-o", &size, "disk"])
                    .arg(root));
            }
            Kind::Ext4 => {
                let image = disk.directory.path().join("image");
                std::fs::File::create(&image)
                    .unwrap()
                    .set_len(bytes)
                    .unwrap();
                run(Command::new("mkfs.ext4").arg("-q").arg(&image));
                run(Command::new("mount")
                    .args(["-o", "loop"])
                    .arg(&image)
                    .arg(root));
            }
        }
        disk
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn data(&self) -> PathBuf {
        self.root().join("data")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.root()));
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Memory,
    Ext4,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
}

async fn host_on(disk: &SmallDisk, whole: bool) -> Host {
    let data = disk.data();
    Host::start_with(|config| {
        config.data_dir = data;
        config.allocate_volumes = whole;
    })
    .await
}

/// A cage whose filesystem is much larger than the disk.
async fn session_on(host: &Host) -> (Cage, Session) {
    let large = Limits {
        data_bytes: 1 << 30,
        ..limits()
    };
    let cage = within("a cage", host.sandboxes.cage(&large)).await.unwrap();
    cage.open_for_session();
    let session = Session::join(&cage).await;
    (cage, session)
}

const MEGABYTES_40: u64 = 40_000_000;

/// Appends at full speed for ever, and goes on after every refusal.
const GROW: &str = "
import os
block, number = os.urandom(1 << 20), 0
while True:
    number += 1
    try:
        with open(f'/mnt/data/{number}', 'wb') as file:
            for _ in range(50):
                file.write(block)
                file.flush()
                if number % 2:
                    os.fsync(file.fileno())
    except OSError:
        pass
";

/// Writes little and often, and makes sure that it is stored; counts what failed.
const WRITE_LITTLE: &str = "
import os
failed = written = 0
while written < 20 or not os.path.exists('/mnt/data/enough'):
    try:
        with open('/mnt/data/little', 'wb') as file:
            file.write(os.urandom(2000))
            file.flush()
            os.fsync(file.fileno())
        written += 1
    except OSError as error:
        failed += 1
        print(error)
print(failed)
";

async fn a_neighbour_never_lacks_space(kind: Kind) {
    let disk = SmallDisk::mount(kind, MEGABYTES_40);
    let host = host_on(&disk, false).await;
    let health = Health::default();
    host.sandboxes.disk().report_to(health.clone());
    let (neighbour_cage, mut neighbour) = session_on(&host).await;
    let (growing, mut grower) = session_on(&host).await;
    neighbour.send(WRITE_LITTLE).await;
    grower.send(GROW).await;
    within("the end of the grower", growing.stopped_for_disk()).await;
    assert!(!host.sandboxes.disk().has_room(0));
    assert!(!health.passes(Check::Disk));
    assert!(host.sandboxes.cage(&limits()).await.is_err());
    // It goes on trying until it is gone, and the disk never gets full.
    within("the grower's end", growing.destroy()).await.unwrap();
    until("room on the disk", || host.sandboxes.disk().has_room(0)).await;
    until("readiness", || health.passes(Check::Disk)).await;
    // Only the neighbour's own files show that it may end.
    let enough = neighbour_cage.data();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    drop(rustix::fs::openat(&**enough, "files/enough", flags, rustix::fs::Mode::RUSR).unwrap());
    let told = within("the neighbour's end", neighbour.done()).await;
    assert_eq!(told, "0\n");
    assert_eq!(neighbour.run("print(6 * 7)").await, "42\n");
    within("the end of a cage", neighbour_cage.destroy())
        .await
        .unwrap();
    host.stop().await;
}

#[tokio::test]
async fn a_session_that_grows_is_stopped_before_its_neighbour_lacks_space() {
    a_neighbour_never_lacks_space(Kind::Ext4).await;
}

#[tokio::test]
async fn the_same_on_a_disk_in_memory_that_is_full_in_no_time() {
    a_neighbour_never_lacks_space(Kind::Memory).await;
}

#[tokio::test]
async fn what_a_session_takes_is_seen_by_name_and_comes_back_when_it_is_deleted() {
    let disk = SmallDisk::mount(Kind::Ext4, MEGABYTES_40);
    let host = host_on(&disk, false).await;
    let (cage, mut session) = session_on(&host).await;
    let image = disk.data().join(format!("{}.ext4", cage.name()));
    let stored = |image: &Path| {
        let metadata = std::fs::metadata(image).unwrap();
        std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
    };
    let empty = stored(&image);
    session
        .run("import os; f = open('/mnt/data/a', 'wb'); f.write(os.urandom(4 << 20)); os.fsync(f.fileno())")
        .await;
    until("4 MiB on the disk", || stored(&image) >= empty + (4 << 20)).await;
    session.run("f.close(); os.remove('/mnt/data/a')").await;
    until("the disk's space back", || {
        stored(&image) < empty + (1 << 20)
    })
    .await;
    within("the end of the cage", cage.destroy()).await.unwrap();
    assert!(!image.exists());
    host.stop().await;
}

#[tokio::test]
async fn when_others_fill_the_disk_no_session_is_taken_and_none_is_stopped() {
    let disk = SmallDisk::mount(Kind::Memory, MEGABYTES_40);
    let host = host_on(&disk, false).await;
    let (cage, mut session) = session_on(&host).await;
    let filler = disk.root().join("filler");
    std::fs::write(&filler, vec![1; 36_500_000]).unwrap();
    until("the reserve is reached", || {
        !host.sandboxes.disk().has_room(0)
    })
    .await;
    let write = "
import os
with open('/mnt/data/x', 'wb') as file:
    print(file.write(bytes(1000)))
    file.flush()
    os.fsync(file.fileno())
";
    assert_eq!(session.run(write).await, "1000\n");
    let stopped = tokio::time::timeout(std::time::Duration::ZERO, cage.stopped_for_disk()).await;
    assert!(stopped.is_err(), "a session was stopped for others");
    std::fs::remove_file(filler).unwrap();
    until("room on the disk", || host.sandboxes.disk().has_room(0)).await;
    drop(cage);
    host.stop().await;
}

#[tokio::test]
async fn files_that_are_brought_back_get_the_room_that_they_need_or_a_refusal() {
    let disk = SmallDisk::mount(Kind::Memory, MEGABYTES_40);
    let host = host_on(&disk, false).await;
    let (cage, mut session) = session_on(&host).await;
    assert!(cage.make_room(24 << 20));
    let write = "
import os
with open('/mnt/data/a', 'wb') as file:
    print(file.write(bytes(24 << 20)))
";
    assert_eq!(session.run(write).await, format!("{}\n", 24 << 20));
    cage.filled();
    let (other, _session) = session_on(&host).await;
    assert!(!other.make_room(24 << 20));
    drop((cage, other));
    host.stop().await;
}

#[tokio::test]
async fn allocated_volumes_are_counted_and_lack_nothing_when_the_disk_is_full() {
    let disk = SmallDisk::mount(Kind::Memory, MEGABYTES_40);
    let host = host_on(&disk, true).await;
    let medium = Limits {
        data_bytes: 12 << 20,
        ..limits()
    };
    let first = within("a cage", host.sandboxes.cage(&medium))
        .await
        .unwrap();
    let second = within("a cage", host.sandboxes.cage(&medium))
        .await
        .unwrap();
    // The third would fit, but not above the reserve.
    assert!(!host.sandboxes.disk().has_room(medium.data_bytes));
    assert!(host.sandboxes.disk().has_room(0));
    assert!(host.sandboxes.cage(&medium).await.is_err());
    let mut sessions = [Session::join(&first).await, Session::join(&second).await];
    for session in &mut sessions {
        let delete = "
import os
with open('/mnt/data/gone', 'wb') as file:
    file.write(bytes(9 << 20))
    file.flush()
    os.fsync(file.fileno())
os.remove('/mnt/data/gone')
";
        session.run(delete).await;
    }
    let filler = disk.root().join("filler");
    assert!(
        std::fs::write(&filler, vec![1; 40_000_000]).is_err(),
        "the disk is not full"
    );
    for session in &mut sessions {
        let write = "
with open('/mnt/data/a', 'wb') as file:
    print(file.write(os.urandom(10 << 20)))
    os.fsync(file.fileno())
";
        assert_eq!(session.run(write).await, format!("{}\n", 10 << 20));
    }
    drop((first, second));
    host.stop().await;
}
