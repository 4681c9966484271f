//! What only a store in a local directory has: directories that nothing is in any more, and files of
//! writes that their process did not finish. `LocalFileSystem` names those `<key>#<number>` and hides
//! them from listings. It could remove empty directories by itself, but then writes fail whose
//! directory another process removes at that moment.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use object_store::path::Path as Key;
use proto::{id::PoolId, subject};

use crate::{Store, StoreError, probe::PROBES};

impl Store {
    /// Removes empty directories and files of unfinished writes that nobody has touched since
    /// `before`. Other stores have no directories, and rules of their own for unfinished writes.
    pub(crate) async fn remove_remains(&self, before: SystemTime) -> Result<(), StoreError> {
        self.in_directory(move |root| {
            for directory in own_directories(root)? {
                forgive(remove_old(&directory, before))?;
            }
            Ok(())
        })
        .await
    }

    /// Removes the directory behind `prefix`, in which no object is any more.
    pub(crate) async fn remove_directory(&self, prefix: &Key) -> Result<(), StoreError> {
        let prefix = prefix.as_ref().to_owned();
        self.in_directory(move |root| forgive(fs::remove_dir_all(root.join(prefix))))
            .await
    }

    async fn in_directory(
        &self,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let Some(root) = self.directory.clone() else {
            return Ok(());
        };
        let done = tokio::task::spawn_blocking(move || work(&root));
        Ok(done.await.map_err(io::Error::other)??)
    }
}

/// What the platform itself has made right below the root. Nothing else is touched.
fn own_directories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut own = vec![];
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_own = name.to_str().is_some_and(|name| {
            name == subject::STAGING
                || name == subject::RESULTS
                || name == PROBES
                || name.parse::<PoolId>().is_ok()
        });
        if is_own && entry.file_type()?.is_dir() {
            own.push(entry.path());
        }
    }
    Ok(own)
}

fn remove_old(directory: &Path, before: SystemTime) -> io::Result<()> {
    // Asked first: removing something changes it.
    let is_old = is_old(&fs::metadata(directory)?, before)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forgive(remove_old(&entry.path(), before))?;
        } else if is_unfinished(&entry.file_name()) {
            forgive(remove_file(&entry, before))?;
        }
    }
    if is_old && fs::remove_dir(directory).is_ok() {
        tracing::debug!("an empty directory of the object store was removed");
    }
    Ok(())
}

fn remove_file(entry: &fs::DirEntry, before: SystemTime) -> io::Result<()> {
    if is_old(&entry.metadata()?, before)? {
        fs::remove_file(entry.path())?;
    }
    Ok(())
}

fn is_old(metadata: &fs::Metadata, before: SystemTime) -> io::Result<bool> {
    Ok(metadata.modified()? < before)
}

/// What is gone was finished, or removed by another worker.
fn forgive(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.rsplit_once('#'));
    number.is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::ambient::{Ids, WallClock};

    use super::*;
    use crate::tests::generate::place;

    fn make(root: &Path, name: &str, age: Duration) -> PathBuf {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(&path).unwrap();
        file.set_modified(WallClock::system().now() - age).unwrap();
        path
    }

    fn age(path: &Path, age: Duration) {
        let directory = fs::File::open(path).unwrap();
        directory
            .set_modified(WallClock::system().now() - age)
            .unwrap();
    }

    #[tokio::test]
    async fn old_remains_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let store = Store::open(&format!("file://{}", root.display()), Ids::random()).unwrap();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let prefix = place().prefix();
        let gone = [
            make(root, "staging/p/s/x#1", hours(2)),
            make(root, &format!("{prefix}/b/1-x#12"), hours(2)),
            make(root, "probe/x#1", hours(2)),
        ];
        let kept = [
            make(root, "staging/p/s/young#1", hours(0)),
            make(root, "staging/q/whole", hours(2)),
            make(root, "staging/q/odd#name", hours(2)),
            make(root, "staging/q/odd#", hours(2)),
            // Not of the platform's making.
            make(root, "elsewhere/x#1", hours(2)),
            make(root, "x#1", hours(2)),
        ];
        for (empty, old) in [("staging/old", 2), ("staging/new", 0), ("elsewhere/old", 2)] {
            fs::create_dir(root.join(empty)).unwrap();
            age(&root.join(empty), hours(old));
        }
        age(&root.join("probe"), hours(2));

        store
            .remove_remains(WallClock::system().now() - hours(1))
            .await
            .unwrap();
        assert!(gone.iter().all(|path| !path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
        let left = |name: &str| root.join(name).exists();
        assert!(!left("staging/old") && !left("probe"));
        assert!(left("staging/new") && left("elsewhere/old") && left(prefix.as_ref()));

        store.remove_directory(&prefix).await.unwrap();
        store.remove_directory(&prefix).await.unwrap();
        assert!(!left(prefix.as_ref()));
    }
}
