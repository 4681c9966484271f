//! Results of executions with a record that are too long for it. Whoever reads one leaves it for others
//! who ask; they go when no record can name them any more.

use bytes::Bytes;
use object_store::path::Path;
use proto::blob::Staged;

use crate::{Store, StoreError};

impl Store {
    /// Puts an encoded outcome under a key made by [`proto::subject::result_key`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn keep_result(
        &self,
        key: String,
        encoded: impl Into<Bytes>,
    ) -> Result<Staged, StoreError> {
        let encoded = encoded.into();
        let size = encoded.len() as u64;
        self.put(&Path::from(&*key), encoded).await?;
        Ok(Staged { key, size })
    }

    /// Reads a result into memory; `limit` bounds it, in bytes.
    ///
    /// # Errors
    /// The store failed, the object is longer, or it has another length than was said.
    pub async fn read_result(&self, kept: &Staged, limit: u64) -> Result<Bytes, StoreError> {
        if kept.size > limit {
            return Err(StoreError::Length);
        }
        match self.get(&Path::from(&*kept.key), kept.size).await? {
            Some(object) if object.size == kept.size => Ok(object.bytes),
            Some(_) => Err(StoreError::Length),
            None => Err(StoreError::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::ambient::{Ids, WallClock};

    use super::*;

    fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(
            &format!("file://{}", directory.path().display()),
            Ids::random(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_result_can_be_read_again_and_never_beyond_what_was_said() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let key = "results/p/s/k-n";
        let kept = store.keep_result(key.to_owned(), "abc").await.unwrap();
        assert_eq!((kept.key.as_str(), kept.size), (key, 3));
        for _ in 0..2 {
            assert_eq!(store.read_result(&kept, 10).await.unwrap(), "abc");
        }
        for (size, limit) in [(2, 10), (4, 10), (3, 2)] {
            let said = Staged {
                size,
                ..kept.clone()
            };
            let read = store.read_result(&said, limit).await;
            assert!(matches!(read, Err(StoreError::Length)), "{size} {limit}");
        }
        store.discard(&kept).await;
        let read = store.read_result(&kept, 10).await;
        assert!(matches!(read, Err(StoreError::Gone)));
    }

    #[tokio::test]
    async fn results_outlive_staged_bodies_and_go_by_their_age() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let young = store.keep_result("results/p/s/k-1".into(), "abc");
        young.await.unwrap();
        store.sweep(store.time().await.unwrap()).await.unwrap();
        let file = directory.path().join("results/p/s/k-1");
        assert!(file.exists());
        let age = |hours: u64| {
            let old = WallClock::system().now() - Duration::from_secs(hours * 3600);
            std::fs::File::open(&file)
                .unwrap()
                .set_modified(old)
                .unwrap();
        };
        age(24);
        store.sweep(store.time().await.unwrap()).await.unwrap();
        assert!(file.exists(), "its record may still name it");
        age(26);
        store.sweep(store.time().await.unwrap()).await.unwrap();
        assert!(!file.exists());
    }
}
