//! What lies beside a session's log so that the session can be found again without the bus. One small
//! object below the log's own prefix: whoever deletes the log deletes it, too.

use proto::{recovery::Recovery, wire};

use crate::{Store, StoreError, log::key::LogKey};

/// Last part of its key. Commits, blobs and checkpoints lie below other names.
const NAME: &str = "r";
/// No such object is longer.
const BYTES: u64 = 4096;

/// Why it cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something else lies there, or it cannot be encoded.
    #[error("failed to encode or decode what a session is recovered from")]
    Wire(#[from] wire::WireError),
}

impl Store {
    /// Writes it, whatever was there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn keep_recovery(
        &self,
        place: &LogKey,
        recovery: &Recovery,
    ) -> Result<(), RecoveryError> {
        let encoded = wire::encode(recovery)?;
        let key = place.prefix().join(NAME);
        Ok(self.put(&key, encoded.into()).await?)
    }

    /// Reads it; `None` for a session of a version that did not write it.
    ///
    /// # Errors
    /// The store failed, or something else lies there.
    pub async fn recovery(&self, place: &LogKey) -> Result<Option<Recovery>, RecoveryError> {
        let key = place.prefix().join(NAME);
        match self.get(&key, BYTES).await? {
            Some(object) => Ok(Some(wire::decode(&object.bytes)?)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        ambient::Ids,
        id::{Epoch, Incarnation},
        recovery::SealedIdentifier,
    };
    use ulid::Ulid;

    use super::*;
    use crate::log::{collect, history};

    #[tokio::test]
    async fn it_lies_beside_the_log_is_no_commit_and_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(
            &format!("file://{}", directory.path().display()),
            Ids::random(),
        )
        .unwrap();
        let place = LogKey {
            pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            session: "a".repeat(26).parse().unwrap(),
            incarnation: Incarnation::from_ulid(Ulid::from_parts(5, 5)),
        };
        let recovery = Recovery {
            pool: place.pool.clone(),
            incarnation: place.incarnation,
            epoch: Epoch::default().next(),
            cooldown_seconds: 300,
            sealed: Some(SealedIdentifier::new(vec![1, 2, 3])),
        };
        assert_eq!(store.recovery(&place).await.unwrap(), None);
        for delete in [false, true] {
            store.keep_recovery(&place, &recovery).await.unwrap();
            let read = store.recovery(&place).await.unwrap();
            assert_eq!(read.as_ref(), Some(&recovery));
            let history = history::read(&store, &place).await.unwrap();
            assert_eq!(history.manifest.iter().count(), 0);
            match delete {
                true => collect::delete(&store, &place).await.unwrap(),
                false => collect::retire(&store, &place).await.unwrap(),
            }
            assert_eq!(store.recovery(&place).await.unwrap(), None);
        }
    }
}
