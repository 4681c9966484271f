//! The store's clock. The ages of objects are differences between its own times only: a host whose clock is
//! wrong must not take young objects for old ones.

use std::time::SystemTime;

use bytes::Bytes;
use object_store::path::Path;

use crate::{Store, StoreError, probe::PROBES};

impl Store {
    /// What time it is for the store: when it says that an object was written which is written for this
    /// purpose, and removed again. To the second, with some stores.
    ///
    /// # Errors
    /// The store failed. The object may be left; it is swept like other probes.
    pub async fn time(&self) -> Result<SystemTime, StoreError> {
        let key = Path::from(PROBES).join(self.ids.next().to_string().to_lowercase());
        self.put(&key, Bytes::new()).await?;
        let written = self.get(&key, 0).await;
        self.delete_all(vec![key]).await?;
        written?
            .map(|object| object.written)
            .ok_or(StoreError::Gone)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::ambient::{Ids, WallClock};

    use super::*;

    #[tokio::test]
    async fn the_store_tells_the_time_and_keeps_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(
            &format!("file://{}", directory.path().display()),
            Ids::random(),
        )
        .unwrap();
        let before = WallClock::system().now() - Duration::from_secs(1);
        let first = store.time().await.unwrap();
        let second = store.time().await.unwrap();
        assert!(before <= first && first <= second, "{first:?} {second:?}");
        assert!(second <= WallClock::system().now() + Duration::from_secs(1));
        let probes = directory.path().join(PROBES);
        assert_eq!(std::fs::read_dir(probes).unwrap().count(), 0);
    }
}
