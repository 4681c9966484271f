//! Long bodies on their way: staging objects in the store that ingress and workers share.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path, prefix::PrefixStore};
use proto::{
    blob::{Blob, Staged},
    id::{OperationId, PoolId, SessionKey},
    limits, subject,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use ulid::Ulid;

/// Part size of long objects, in bytes.
const PART: usize = 8 * 1024 * 1024;

/// No job and no transfer takes longer.
const STAGING_LIFE: Duration = Duration::from_secs(3600);

/// The object store below its configured root.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
}

/// Whose staging object it is; becomes part of its key.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The session's pool.
    pub pool: &'a PoolId,
    /// The session.
    pub session: &'a SessionKey,
    /// The job.
    pub operation: &'a OperationId,
}

/// The store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's own failure.
    #[error("the object store failed")]
    Store(#[from] object_store::Error),
    /// The other end of a copy failed.
    #[error("bytes could not be copied")]
    Copy(#[from] std::io::Error),
    /// The URL is none, or of an unknown kind.
    #[error("the object store's address is wrong")]
    Address(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Fewer or more bytes than the message said.
    #[error("the staged object has another length than was said")]
    Length,
}

impl Store {
    /// Opens the store at a URL; a `file://` directory is created.
    ///
    /// # Errors
    /// The URL is wrong or the directory cannot be made.
    pub fn open(address: &str) -> Result<Self, StoreError> {
        let url = url::Url::parse(address).map_err(|error| StoreError::Address(Box::new(error)))?;
        if url.scheme() == "file" {
            let directory = url
                .to_file_path()
                .map_err(|()| StoreError::Address("not a local path".into()))?;
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
    pub async fn stage_bytes(
        &self,
        bytes: Vec<u8>,
        owner: Owner<'_>,
        purpose: &str,
    ) -> Result<Staged, StoreError> {
        let staged = Staged {
            key: key(owner, purpose),
            size: bytes.len() as u64,
        };
        self.objects
            .put(&Path::from(&*staged.key), PutPayload::from(bytes))
            .await?;
        Ok(staged)
    }

    /// Copies `reader` to its end into a staging object.
    ///
    /// # Errors
    /// The store or the reader failed; nothing is left.
    pub async fn stage_reader(
        &self,
        reader: impl AsyncRead + Unpin,
        owner: Owner<'_>,
        purpose: &str,
    ) -> Result<Staged, StoreError> {
        let key = key(owner, purpose);
        let path = Path::from(&*key);
        let mut writer =
            object_store::buffered::BufWriter::with_capacity(self.objects.clone(), path, PART);
        let mut reader = tokio::io::BufReader::with_capacity(limits::INLINE_BYTES, reader);
        match tokio::io::copy_buf(&mut reader, &mut writer).await {
            Ok(size) => {
                writer.shutdown().await?;
                Ok(Staged { key, size })
            }
            Err(error) => {
                writer.abort().await?;
                Err(error.into())
            }
        }
    }

    /// Copies a body into `writer` and removes the staging object, whatever happens.
    ///
    /// # Errors
    /// The store or the writer failed, or the object has not the length that was said.
    pub async fn fetch(
        &self,
        blob: &Blob,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), StoreError> {
        match blob {
            Blob::Inline(bytes) => writer.write_all(bytes).await?,
            Blob::Staged(staged) => {
                let copied = self.copy(staged, writer).await;
                self.discard(staged).await;
                copied?;
            }
        }
        Ok(writer.flush().await?)
    }

    /// A body as one piece of memory; `limit` bounds it.
    ///
    /// # Errors
    /// The store failed or the body is longer.
    pub async fn fetch_bytes(&self, blob: Blob, limit: usize) -> Result<Vec<u8>, StoreError> {
        if blob.len() > limit as u64 {
            return Err(StoreError::Length);
        }
        match blob {
            Blob::Inline(bytes) => Ok(bytes),
            Blob::Staged(_) => {
                let mut bytes = Vec::new();
                self.fetch(&blob, &mut bytes).await?;
                Ok(bytes)
            }
        }
    }

    async fn copy(
        &self,
        staged: &Staged,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), StoreError> {
        let mut stream = self
            .objects
            .get(&Path::from(&*staged.key))
            .await?
            .into_stream();
        let mut size = 0;
        while let Some(part) = stream.next().await {
            let part: Bytes = part?;
            size += part.len() as u64;
            if size > staged.size {
                return Err(StoreError::Length);
            }
            writer.write_all(&part).await?;
        }
        if size == staged.size {
            Ok(())
        } else {
            Err(StoreError::Length)
        }
    }

    /// Removes staging objects that nobody can want any more: whoever was to read them went away.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let before = SystemTime::now() - STAGING_LIFE;
        let mut all = self.objects.list(Some(&Path::from(subject::STAGING)));
        while let Some(object) = all.next().await {
            let object = object?;
            if SystemTime::from(object.last_modified) < before {
                self.objects.delete(&object.location).await?;
            }
        }
        Ok(())
    }

    /// Removes a staging object. A failure costs space only and is logged.
    pub async fn discard(&self, staged: &Staged) {
        if let Err(error) = self.objects.delete(&Path::from(&*staged.key)).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "staged object left behind"
            );
        }
    }
}

fn key(owner: Owner<'_>, purpose: &str) -> String {
    let nonce = Ulid::new().to_string().to_lowercase();
    subject::staging_key(owner.pool, owner.session, owner.operation, purpose, &nonce)
}
