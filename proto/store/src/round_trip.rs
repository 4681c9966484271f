//! Whether the store takes and gives objects at this moment.

use bytes::Bytes;
use object_store::path::Path;

use crate::{Store, StoreError, fleet::record_key, probe::PROBES};

/// Why a round trip failed.
#[derive(Debug, thiserror::Error)]
pub enum RoundTripError {
    /// The local directory that the store is has gone: perhaps its file system is not mounted.
    #[error("the object store's directory is not there")]
    NoDirectory,
    /// It did not take an object.
    #[error("failed to write an object")]
    Write(#[source] StoreError),
    /// It did not give it.
    #[error("failed to read an object")]
    Read(#[source] StoreError),
    /// It gave another one, or none.
    #[error("an object that was just written is not there")]
    Lost,
}

impl Store {
    /// Reads a small object, whether or not it is there.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn answers(&self) -> Result<(), RoundTripError> {
        self.check_directory().await?;
        // Every store has it once its first worker has started.
        let read = self.get(&record_key(), 1024).await;
        read.map(drop).map_err(RoundTripError::Read)
    }

    /// Written to, the directory would be made anew, empty.
    async fn check_directory(&self) -> Result<(), RoundTripError> {
        if let Some(directory) = &self.directory
            && !tokio::fs::try_exists(directory).await.unwrap_or(false)
        {
            return Err(RoundTripError::NoDirectory);
        }
        Ok(())
    }

    /// Writes a small object, reads it and deletes it. `name` is the caller's own: of two that use the
    /// same at once, one fails.
    ///
    /// # Errors
    /// The store did not do it.
    pub async fn round_trip(&self, name: &str) -> Result<(), RoundTripError> {
        self.check_directory().await?;
        let key = Path::from(PROBES).join(name);
        let body = Bytes::from(self.ids.next().to_string());
        let written = self.put(&key, body.clone()).await;
        written.map_err(RoundTripError::Write)?;
        let read = self.get(&key, 1024).await.map_err(RoundTripError::Read)?;
        let removed = self.delete_all(vec![key]).await;
        removed.map_err(RoundTripError::Write)?;
        match read {
            Some(object) if object.bytes == body => Ok(()),
            _ => Err(RoundTripError::Lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ambient::Ids;

    use super::*;

    fn store_in(directory: &std::path::Path) -> Store {
        let url = url::Url::from_directory_path(directory).unwrap();
        Store::open(url.as_str(), Ids::random()).unwrap()
    }

    #[tokio::test]
    async fn a_store_that_works_is_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        store.round_trip("me").await.unwrap();
        let left = store.list(&Path::from(PROBES), None).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn a_directory_that_went_away_is_noticed_and_not_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("store");
        let store = store_in(&place);
        std::fs::rename(&place, directory.path().join("elsewhere")).unwrap();
        let failed = store.round_trip("me").await;
        assert!(
            matches!(failed, Err(RoundTripError::NoDirectory)),
            "{failed:?}"
        );
        assert!(!place.exists());
        std::fs::rename(directory.path().join("elsewhere"), &place).unwrap();
        store.round_trip("me").await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_takes_nothing_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("store");
        let store = store_in(&place);
        // Not even root makes a directory where a file is.
        std::fs::write(place.join(PROBES), b"").unwrap();
        let failed = store.round_trip("me").await;
        assert!(
            matches!(failed, Err(RoundTripError::Write(_))),
            "{failed:?}"
        );
    }
}
