//! Files of real cages in a real log. Needs root and the session image.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::ambient::Ids;
use proto::id::Epoch;
use proto::pool::Limits;
use store::Store;
use store::log::{key::LogKey, writer::Writer};
use tempfile::TempDir;
use worker::files::DataDir;
use worker::sandbox::{Cage, layout};
use worker::sync::{RestoreError, SyncError, Synced, Syncer, Transfers};

use crate::sandbox::{Host, Session, limits, within};

/// A session's log, and the epochs that its owners had.
struct Log {
    directory: TempDir,
    epoch: Epoch,
}

impl Log {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            epoch: Epoch::default(),
        }
    }

    async fn writer(&mut self) -> Writer {
        let address = format!("file://{}/store", self.directory.path().display());
        let place = LogKey {
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            session: "a".repeat(26).parse().unwrap(),
            incarnation: "01JDE1KZ0000000000000000AB".to_owned().try_into().unwrap(),
        };
        self.epoch = self.epoch.next();
        let store = Store::open(&address, Ids::random()).unwrap();
        let taken = Writer::take_over(store, place, self.epoch).await;
        taken.unwrap().0
    }

    /// An owner that remembers nothing.
    async fn owner(&mut self, cage: &Cage) -> Syncer {
        Syncer::fresh(self.writer().await, data(cage), transfers())
    }

    /// An owner that fills the cage.
    async fn restore(&mut self, cage: &Cage) -> Result<Syncer, RestoreError> {
        let writer = self.writer().await;
        within(
            "a restore",
            Syncer::restore(writer, data(cage), transfers()),
        )
        .await
    }

    /// Everything that the log holds, in a directory of the host.
    async fn unpack(&mut self) -> PathBuf {
        let path = self.directory.path().join(self.epoch.next().to_string());
        std::fs::create_dir(&path).unwrap();
        let volume = std::fs::File::open(&path).unwrap().into();
        layout::lay_out(&volume, (0, 0)).unwrap();
        let data = DataDir::new(&volume, (0, 0)).unwrap();
        Syncer::restore(self.writer().await, data, transfers())
            .await
            .unwrap();
        path.join(layout::FILES)
    }
}

fn transfers() -> Transfers {
    Transfers::new(64 << 20)
}

fn data(cage: &Cage) -> DataDir {
    DataDir::new(cage.data(), cage.owner()).unwrap()
}

async fn commit(syncer: &mut Syncer, cage: &Cage) -> Synced {
    within("a commit", syncer.commit_all(cage)).await.unwrap()
}

fn changed(synced: &Synced) -> usize {
    match synced {
        Synced::Committed { changed, .. } => changed.files.len(),
        Synced::Unchanged => panic!("nothing was committed"),
    }
}

#[tokio::test]
async fn what_a_cell_leaves_is_there_in_the_next_cage_and_belongs_to_the_session() {
    let host = Host::start().await;
    let mut log = Log::new();
    let (cage, mut session) = host.session().await;
    let mut syncer = log.owner(&cage).await;
    assert_eq!(commit(&mut syncer, &cage).await, Synced::Unchanged);
    session
        .run(
            r#"
import os
os.chdir("/mnt/data")
os.makedirs("dir/sub")
open("dir/sub/small", "w").write("small")
open(b"dir/\xff\xfe", "w").write("not UTF-8")
with open("large", "wb") as large:
    large.write(os.urandom(9_000_000))
with open("sparse", "wb") as sparse:
    sparse.truncate(50_000_000)
    sparse.seek(30_000_000)
    sparse.write(b"data")
os.chmod("dir/sub/small", 0o640)
os.utime("dir/sub/small", ns=(1, 1_234_567_890_123_456_789))
os.symlink("/etc/passwd", "link")
os.mkfifo("fifo")
"#,
        )
        .await;
    assert_eq!(changed(&commit(&mut syncer, &cage).await), 4);
    assert_eq!(commit(&mut syncer, &cage).await, Synced::Unchanged);
    let look = r#"
import os, hashlib, json
os.chdir("/mnt/data")
def show(path):
    status = os.lstat(path)
    is_file = os.path.isfile(path) and not os.path.islink(path)
    digest = hashlib.sha256(open(path, "rb").read()).hexdigest() if is_file else ""
    return [repr(path), oct(status.st_mode), status.st_uid, digest,
        0 if os.path.islink(path) else status.st_mtime_ns]
shown = sorted(show(os.path.join(top, name))
    for top, directories, files in os.walk(b".") for name in directories + files if name != b"fifo")
print(json.dumps([shown, os.readlink("link"), os.stat("sparse").st_blocks < 1000]))
"#;
    let before = session.json(look).await;
    drop(syncer);
    cage.destroy().await.unwrap();

    let cage = host.cage().await;
    let mut syncer = log.restore(&cage).await.unwrap();
    let mut session = Session::join(&cage).await;
    assert_eq!(session.json(look).await, before);
    assert_eq!(commit(&mut syncer, &cage).await, Synced::Unchanged);
    session
        .run("open('/mnt/data/dir/sub/small', 'a').write('!'); os.remove('/mnt/data/large')")
        .await;
    assert_eq!(changed(&commit(&mut syncer, &cage).await), 1);
    let unpacked = log.unpack().await;
    let small = std::fs::read(unpacked.join("dir/sub/small")).unwrap();
    assert_eq!(small, b"small!");
    assert!(!unpacked.join("large").exists());
    drop(syncer);
    cage.destroy().await.unwrap();
    host.stop().await;
}

/// A process that counts in two files, the first always ahead by one or level.
const COUNT: &str = r#"
import subprocess, sys
counting = subprocess.Popen([sys.executable, "-c", """
import os
def put(name, number):
    with open("/mnt/data/." + name, "w") as file:
        file.write(str(number))
    os.replace("/mnt/data/." + name, "/mnt/data/" + name)
number = 0
while True:
    number += 1
    put("first", number)
    put("second", number)
"""])
import os, time
while not os.path.exists("/mnt/data/second"):
    time.sleep(0.001)
"#;

fn count(directory: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(directory.join(name)).unwrap();
    text.parse().unwrap()
}

/// Waits until the counting process has gone on.
async fn goes_on(session: &mut Session) {
    let wait = r#"
def second():
    return open("/mnt/data/second").read()
was = second()
while second() == was:
    time.sleep(0.001)
"#;
    session.run(wait).await;
}

#[tokio::test]
async fn a_commit_sees_one_moment_of_a_running_cage_which_goes_on() {
    let host = Host::start().await;
    let mut log = Log::new();
    let (cage, mut session) = host.session().await;
    session.run(COUNT).await;
    for _ in 0..8 {
        let mut syncer = log.owner(&cage).await;
        changed(&commit(&mut syncer, &cage).await);
        goes_on(&mut session).await;
        let unpacked = log.unpack().await;
        let (first, second) = (count(&unpacked, "first"), count(&unpacked, "second"));
        assert!((0..=1).contains(&(first - second)), "{first} {second}");
    }
    cage.destroy().await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn a_cage_goes_on_after_a_commit_that_failed_or_was_given_up() {
    let host = Host::start().await;
    let mut log = Log::new();
    let (cage, mut session) = host.session().await;
    session.run(COUNT).await;
    let mut syncer = log.owner(&cage).await;
    let _next = log.writer().await;
    let refused = within("a refusal", syncer.commit_all(&cage)).await;
    assert!(matches!(refused, Err(SyncError::Fenced)), "{refused:?}");
    goes_on(&mut session).await;
    for step in 0..12_u64 {
        syncer = log.owner(&cage).await;
        // Given up while it freezes, looks, reads or writes.
        let patience = Duration::from_micros(300 * step);
        drop(tokio::time::timeout(patience, syncer.commit_all(&cage)).await);
        goes_on(&mut session).await;
        changed(&commit(&mut syncer, &cage).await);
    }
    drop(syncer);
    cage.destroy().await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn stores_through_mappings_of_a_cell_are_seen() {
    let host = Host::start().await;
    let mut log = Log::new();
    let (cage, mut session) = host.session().await;
    let mut syncer = log.owner(&cage).await;
    session
        .run(
            r#"
import mmap, numpy
open("/mnt/data/raw", "wb").write(bytes(8192))
file = open("/mnt/data/raw", "r+b")
raw = mmap.mmap(file.fileno(), 8192)
array = numpy.memmap("/mnt/data/array", dtype="int64", mode="w+", shape=(500_000,))
"#,
        )
        .await;
    changed(&commit(&mut syncer, &cage).await);
    for round in 1..4 {
        session
            .run(&format!(
                "raw[0] = {round}; array[450_000] = {round}; raw[1] = 0"
            ))
            .await;
        changed(&commit(&mut syncer, &cage).await);
        session
            .run(&format!("raw[1] = {round}; array[450_001] = {round}"))
            .await;
        changed(&commit(&mut syncer, &cage).await);
    }
    session.run("raw[2] = 77; raw.close(); del array").await;
    changed(&commit(&mut syncer, &cage).await);
    assert_eq!(commit(&mut syncer, &cage).await, Synced::Unchanged);
    let unpacked = log.unpack().await;
    assert_eq!(
        std::fs::read(unpacked.join("raw")).unwrap()[..3],
        [3, 3, 77]
    );
    let array = std::fs::read(unpacked.join("array")).unwrap();
    assert_eq!(
        array[450_000 * 8..][..16],
        [3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    );
    drop(syncer);
    cage.destroy().await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_said_to_be_too_much() {
    let host = Host::start().await;
    let mut log = Log::new();
    let (cage, mut session) = host.session().await;
    let mut syncer = log.owner(&cage).await;
    session
        .run("open('/mnt/data/large', 'wb').write(bytes(range(256)) * 40_000)")
        .await;
    changed(&commit(&mut syncer, &cage).await);
    drop(syncer);
    cage.destroy().await.unwrap();
    let small = Limits {
        data_bytes: 4 << 20,
        ..limits()
    };
    let cage = within("a cage", host.sandboxes.cage(&small)).await.unwrap();
    let refused = log.restore(&cage).await;
    assert!(matches!(refused, Err(RestoreError::Full)), "{refused:?}");
    cage.destroy().await.unwrap();
    host.stop().await;
}
