//! Whether a store keeps the one promise that everything rests on: of all who create the same key,
//! exactly one succeeds. Not everything that calls itself an S3 does.

use bytes::Bytes;
use futures_util::future::join_all;
use object_store::path::Path;

use crate::{Store, StoreError};

/// What the keys of all probes start with.
pub(crate) const PROBES: &str = "probe";
/// Creators of one key.
const CREATORS: usize = 8;
/// Keys that are tried: a store that checks first and writes then keeps its promise now and then.
const ROUNDS: usize = 4;
/// A key that all creators were refused, which S3 does not rule out, is replaced by another one so
/// often.
const SPARE_ROUNDS: usize = 4;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It cannot be reached, or does not allow what is needed. Objects below `probe/` may be left.
    #[error(
        "the object store cannot be written, read and listed; \
         check its address, its credentials and that the bucket exists"
    )]
    Store(#[source] StoreError),
    /// It told more than one creator of the same key that it succeeded.
    #[error(
        "this object store does not keep conditional writes apart ({successes} of {CREATORS} \
         creators of one key succeeded): files would be lost when a session moves; use a local \
         directory, Amazon S3, Azure Blob Storage, Google Cloud Storage, or a server that honours \
         `If-None-Match: *` atomically"
    )]
    NotExclusive {
        /// How many it told so.
        successes: usize,
    },
    /// It overwrote what a creator had been told it created.
    #[error(
        "this object store overwrites existing objects in spite of `If-None-Match: *`: files would \
         be lost when a session moves; use a local directory, Amazon S3, Azure Blob Storage, Google \
         Cloud Storage, or a server that honours it"
    )]
    Overwrites,
    /// It refused every creator of a key, again and again.
    #[error("this object store refuses to create objects with `If-None-Match: *`")]
    Refuses,
    /// What was created cannot be read, or is not in a listing.
    #[error(
        "this object store does not show what was just written: sessions could not be restored; \
         a store with strong consistency is needed"
    )]
    Inconsistent,
}

impl From<StoreError> for ProbeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a round showed.
enum Round {
    Kept,
    /// Nobody created the key, and so nobody lost.
    Void,
}

impl Store {
    /// Finds out whether the store can be used, by a handful of small objects that are removed again.
    /// A store that keeps the promise only most of the time may pass.
    ///
    /// # Errors
    /// It cannot; the text says what to do about it.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let mut kept = 0;
        for _ in 0..ROUNDS + SPARE_ROUNDS {
            let key = Path::from(PROBES).join(self.ids.next().to_string().to_lowercase());
            let round = self.round(&key).await;
            let removed = self.delete_all(vec![key]).await;
            match round? {
                Round::Kept => kept += 1,
                Round::Void => {}
            }
            removed?;
            if kept == ROUNDS {
                return Ok(());
            }
        }
        Err(ProbeError::Refuses)
    }

    async fn round(&self, key: &Path) -> Result<Round, ProbeError> {
        let creators: Vec<Bytes> = (0..CREATORS).map(|_| self.body()).collect();
        let created = creators.iter().map(|body| self.create(key, body.clone()));
        let mut told = vec![];
        for (body, created) in creators.iter().zip(join_all(created).await) {
            if created? {
                told.push(body);
            }
        }
        if told.len() > 1 {
            return Err(ProbeError::NotExclusive {
                successes: told.len(),
            });
        }
        let Some(winner) = self.stored(key).await? else {
            return match told.is_empty() {
                true => Ok(Round::Void),
                false => Err(ProbeError::Inconsistent),
            };
        };
        // Nobody was told when the answer to the winner was lost and its request repeated.
        if told.first().is_some_and(|body| **body != winner) {
            return Err(ProbeError::Overwrites);
        }
        if self.create(key, self.body()).await? || self.stored(key).await? != Some(winner) {
            return Err(ProbeError::Overwrites);
        }
        let listed = self.list(&Path::from(PROBES), None).await?;
        if !listed.iter().any(|object| object.location == *key) {
            return Err(ProbeError::Inconsistent);
        }
        Ok(Round::Kept)
    }

    fn body(&self) -> Bytes {
        self.ids.next().to_string().into()
    }

    async fn stored(&self, key: &Path) -> Result<Option<Bytes>, StoreError> {
        let object = self.get(key, 1024).await?;
        Ok(object.map(|object| object.bytes))
    }
}
