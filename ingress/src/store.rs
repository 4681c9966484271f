//! Long bodies on their way: staging objects in the store that ingress and workers share.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, path::Path, prefix::PrefixStore,
};
use proto::{
    blob::Staged,
    id::{OperationId, PoolId, SessionKey},
    subject,
};
use ulid::Ulid;

/// Part size of long objects in bytes: the least that S3 allows, since one part per upload is held
/// in memory.
const PART: usize = 5 * 1024 * 1024;
/// Parts of one upload that may be on their way at once.
const PARTS_AT_ONCE: usize = 1;

/// The object store below its configured root.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
}

/// The store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's own failure.
    #[error("the object store failed")]
    Store(#[from] object_store::Error),
    /// The local directory cannot be made.
    #[error("the object store's directory cannot be made")]
    Directory(#[from] std::io::Error),
    /// The URL is none, or of an unknown kind.
    #[error("the object store's address is wrong")]
    Address(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An object of another length than was said.
    #[error("the staged object has another length than was said")]
    Length,
}

/// An object that is being written.
#[derive(Debug)]
pub struct Upload {
    key: String,
    size: u64,
    parts: WriteMultipart,
}

impl Store {
    /// Opens the store at a URL; a `file://` directory is created.
    ///
    /// # Errors
    /// The URL is wrong or the directory cannot be made.
    pub fn open(address: &str) -> Result<Self, StoreError> {
        let url = url::Url::parse(address).map_err(|error| StoreError::Address(Box::new(error)))?;
        if url.scheme() == "file" {
            let directory = url.to_file_path();
            let directory =
                directory.map_err(|()| StoreError::Address("not a local path".into()))?;
            std::fs::create_dir_all(directory)?;
        }
        let (objects, prefix) = object_store::parse_url(&url)?;
        Ok(Self {
            objects: Arc::new(PrefixStore::new(objects, prefix)),
        })
    }

    /// Puts bytes into a new staging object.
    ///
    /// # Errors
    /// The store failed.
    pub async fn stage(
        &self,
        bytes: Bytes,
        (pool, session): (&PoolId, &SessionKey),
        operation: &OperationId,
    ) -> Result<Staged, StoreError> {
        let key = key((pool, session), operation);
        let size = bytes.len() as u64;
        self.objects
            .put(&Path::from(&*key), PutPayload::from_bytes(bytes))
            .await?;
        Ok(Staged { key, size })
    }

    /// Starts a staging object that is written bit by bit.
    ///
    /// # Errors
    /// The store failed.
    pub async fn begin(
        &self,
        (pool, session): (&PoolId, &SessionKey),
        operation: &OperationId,
    ) -> Result<Upload, StoreError> {
        let key = key((pool, session), operation);
        let upload = self.objects.put_multipart(&Path::from(&*key)).await?;
        Ok(Upload {
            key,
            size: 0,
            parts: WriteMultipart::new_with_chunk_size(upload, PART),
        })
    }

    /// Reads a staging object; it is removed when the stream is dropped, at its end or before.
    ///
    /// # Errors
    /// There is no such object, or it has another length than was said.
    pub async fn read(
        &self,
        staged: Staged,
    ) -> Result<impl Stream<Item = object_store::Result<Bytes>> + Send + use<>, StoreError> {
        let removal = Removal {
            store: self.clone(),
            key: Some(staged.key.clone()),
        };
        let object = self.objects.get(&Path::from(&*staged.key)).await?;
        if object.meta.size != staged.size {
            return Err(StoreError::Length);
        }
        Ok(Reading {
            stream: object.into_stream(),
            _removal: removal,
        })
    }

    /// Reads a staging object into memory and removes it; `limit` bounds it.
    ///
    /// # Errors
    /// The store failed or the object is longer.
    pub async fn read_all(&self, staged: Staged, limit: u64) -> Result<Bytes, StoreError> {
        let removal = Removal {
            store: self.clone(),
            key: Some(staged.key.clone()),
        };
        if staged.size > limit {
            return Err(StoreError::Length);
        }
        let bytes = self
            .objects
            .get(&Path::from(&*staged.key))
            .await?
            .bytes()
            .await?;
        drop(removal);
        if bytes.len() as u64 == staged.size {
            Ok(bytes)
        } else {
            Err(StoreError::Length)
        }
    }

    /// Removes a staging object that nobody will read. A failure costs space only and is logged.
    pub async fn discard(&self, key: &str) {
        match self.objects.delete(&Path::from(key)).await {
            // Whoever read it has removed it already.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "staged object left"
                );
            }
        }
    }
}

impl Upload {
    /// Adds bytes; waits while the store is slower than the sender.
    ///
    /// # Errors
    /// The store failed.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.parts.wait_for_capacity(PARTS_AT_ONCE).await?;
        self.size += bytes.len() as u64;
        self.parts.put(bytes);
        Ok(())
    }

    /// Makes the object whole and visible.
    ///
    /// # Errors
    /// The store failed; nothing is visible.
    pub async fn finish(self) -> Result<Staged, StoreError> {
        self.parts.finish().await?;
        Ok(Staged {
            key: self.key,
            size: self.size,
        })
    }

    /// Gives up; nothing is left.
    pub async fn abort(self) {
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "upload not given up"
            );
        }
    }
}

/// Removes an object when it is dropped.
struct Removal {
    store: Store,
    key: Option<String>,
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let store = self.store.clone();
            tokio::spawn(async move { store.discard(&key).await });
        }
    }
}

struct Reading {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    _removal: Removal,
}

impl Stream for Reading {
    type Item = object_store::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(context)
    }
}

fn key((pool, session): (&PoolId, &SessionKey), operation: &OperationId) -> String {
    let nonce = Ulid::new().to_string().to_lowercase();
    subject::staging_key(pool, session, operation, "in", &nonce)
}
