//! The whole way on real directories and a real local store: what is there is committed, and the
//! next owner finds it.

mod crash;
mod edit;
mod faults;
mod faulty;
pub(super) mod mapper;
mod mappings;
mod paths;
mod picture;
mod races;
mod round_trip;

use std::{
    cell::Cell,
    collections::BTreeSet,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use object_store::local::LocalFileSystem;
use proto::{ambient::Ids, id::Epoch};
use store::{
    Store,
    log::{commit::Seq, key::LogKey, writer::Writer},
};
use tempfile::TempDir;

use self::faulty::Faulty;
use super::*;
use crate::files::DataDir;

/// A session's log in a local store, and directories for its owners.
struct Session {
    top: TempDir,
    faulty: Faulty,
    owners: Cell<u64>,
}

impl Session {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("store")).unwrap();
        Self {
            faulty: Faulty::over(local(&top.path().join("store"))),
            owners: Cell::new(0),
            top,
        }
    }

    fn store(&self) -> Store {
        Store::over(Arc::new(self.faulty.clone()), Ids::random())
    }

    /// The first owner, with an empty directory.
    fn first(&self) -> (PathBuf, Syncer) {
        let (path, data) = self.directory();
        let writer = Writer::fresh(self.store(), place(), Epoch::default().next());
        (path, Syncer::fresh(writer, data, transfers()))
    }

    /// The next owner, with all that the log holds.
    async fn next(&self) -> (PathBuf, Syncer) {
        let (path, data) = self.directory();
        let epoch = Epoch::from_number(self.owners.get());
        let (writer, _) = Writer::take_over(self.store(), place(), epoch)
            .await
            .unwrap();
        let syncer = Syncer::restore(writer, data, transfers()).await.unwrap();
        (path, syncer)
    }

    /// An empty directory.
    fn directory(&self) -> (PathBuf, DataDir) {
        self.owners.set(self.owners.get() + 1);
        let path = self.top.path().join(self.owners.get().to_string());
        std::fs::create_dir(&path).unwrap();
        let data = data(&path);
        (path, data)
    }

    /// Checks that the next owner finds what is at `path`, and has nothing to add to it.
    async fn assert_next_finds(&self, path: &Path) {
        let (restored, mut syncer) = self.next().await;
        picture::assert_same(path, &restored);
        assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
        std::fs::remove_dir_all(restored).unwrap();
    }
}

fn local(directory: &Path) -> LocalFileSystem {
    LocalFileSystem::new_with_prefix(directory).unwrap()
}

fn place() -> LogKey {
    LogKey {
        pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
        session: "a".repeat(26).parse().unwrap(),
        incarnation: "01JDE1KZ0000000000000000AB".to_owned().try_into().unwrap(),
    }
}

fn data(path: &Path) -> DataDir {
    let root: OwnedFd = std::fs::File::open(path).unwrap().into();
    let me = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    // Nothing is uploaded.
    let uploads = root.try_clone().unwrap();
    DataDir::of(root, uploads, me)
}

fn transfers() -> Transfers {
    Transfers::new(64 << 20)
}

/// The number of a commit that must have been written.
fn committed(synced: Synced) -> Seq {
    match synced {
        Synced::Committed { seq, .. } => seq,
        Synced::Unchanged => panic!("nothing was committed"),
    }
}
