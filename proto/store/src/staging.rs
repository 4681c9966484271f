//! Long bodies on their way between ingress and workers: staging objects, each read once.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetResult, ObjectStore, ObjectStoreExt, WriteMultipart, buffered::BufWriter, path::Path,
};
use proto::{
    blob::{Blob, Staged},
    id::{OperationId, PoolId, SessionKey},
    limits, subject,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{
    Store, StoreError,
    errors::{Errors, Operation},
    probe::PROBES,
};

/// Part size of an upload that arrives bit by bit, in bytes: the least that S3 allows, since one part
/// per upload is held in memory.
const UPLOAD_PART: usize = 5 * 1024 * 1024;
/// Parts of such an upload that may be on their way at once.
const PARTS_AT_ONCE: usize = 1;
/// Part size of what is copied from a reader, in bytes.
const COPY_PART: usize = 8 * 1024 * 1024;
/// No job and no transfer takes longer.
const STAGING_LIFE: Duration = Duration::from_secs(3600);
/// Outlives the record that names it.
const RESULT_LIFE: Duration = limits::RECORD_LIFE.saturating_add(STAGING_LIFE);
/// What is swept by age: prefix and life.
const SWEPT: [(&str, Duration); 3] = [
    (subject::STAGING, STAGING_LIFE),
    (PROBES, STAGING_LIFE),
    (subject::RESULTS, RESULT_LIFE),
];

/// Whose staging object it is; becomes part of its key.
#[derive(Clone, Copy, Debug)]
pub struct StagingScope<'a> {
    /// The session's pool.
    pub pool: &'a PoolId,
    /// The session.
    pub session: &'a SessionKey,
    /// The job.
    pub operation: &'a OperationId,
}

/// An object that is being written.
#[derive(Debug)]
pub struct Upload {
    staged: Staged,
    parts: WriteMultipart,
    errors: Errors,
}

impl Store {
    /// Puts bytes into a new staging object.
    ///
    /// # Errors
    /// The store failed.
    pub async fn stage_bytes(
        &self,
        bytes: impl Into<Bytes>,
        owner: StagingScope<'_>,
        purpose: &str,
    ) -> Result<Staged, StoreError> {
        let bytes = bytes.into();
        let staged = Staged {
            key: self.new_key(owner, purpose),
            size: bytes.len() as u64,
        };
        self.put(&Path::from(&*staged.key), bytes).await?;
        Ok(staged)
    }

    /// Copies `reader` to its end into a staging object.
    ///
    /// # Errors
    /// The store or the reader failed; nothing is left.
    pub async fn stage_reader(
        &self,
        reader: impl AsyncRead + Unpin,
        owner: StagingScope<'_>,
        purpose: &str,
    ) -> Result<Staged, StoreError> {
        let key = self.new_key(owner, purpose);
        let path = Path::from(&*key);
        let mut writer = BufWriter::with_capacity(self.objects.clone(), path, COPY_PART);
        let mut reader = tokio::io::BufReader::with_capacity(limits::INLINE_BYTES, reader);
        match tokio::io::copy_buf(&mut reader, &mut writer).await {
            Ok(size) => {
                let written = writer.shutdown().await;
                written.inspect_err(|_| self.errors.note(Operation::Put))?;
                Ok(Staged { key, size })
            }
            Err(error) => {
                let given_up = writer.abort().await.map_err(StoreError::from);
                self.errors.count(Operation::Put, given_up)?;
                Err(error.into())
            }
        }
    }

    /// Starts a staging object that is written bit by bit.
    ///
    /// # Errors
    /// The store failed.
    pub async fn begin(
        &self,
        owner: StagingScope<'_>,
        purpose: &str,
    ) -> Result<Upload, StoreError> {
        let key = self.new_key(owner, purpose);
        let path = Path::from(&*key);
        let begun = async { Ok(self.objects.put_multipart(&path).await?) };
        let upload = self.request(Operation::Put, begun).await?;
        Ok(Upload {
            staged: Staged { key, size: 0 },
            parts: WriteMultipart::new_with_chunk_size(upload, UPLOAD_PART),
            errors: self.errors.clone(),
        })
    }

    /// Reads a staging object; it is removed when the stream is dropped, at its end or before.
    ///
    /// # Errors
    /// There is no such object, or it has another length than was said.
    pub async fn read(
        &self,
        staged: Staged,
    ) -> Result<impl Stream<Item = Result<Bytes, StoreError>> + Send + use<>, StoreError> {
        let (path, size) = (Path::from(&*staged.key), staged.size);
        let removal = Removal {
            store: self.clone(),
            staged: Some(staged),
        };
        let object = self.open_object(&path).await?;
        if object.meta.size != size {
            return Err(StoreError::Length);
        }
        Ok(Reading {
            stream: object.into_stream().map_err(StoreError::from).boxed(),
            errors: self.errors.clone(),
            _removal: removal,
        })
    }

    /// Reads a staging object into memory and removes it; `limit` bounds it, in bytes.
    ///
    /// # Errors
    /// The store failed or the object is longer.
    pub async fn read_all(&self, staged: Staged, limit: u64) -> Result<Bytes, StoreError> {
        let fits = staged.size <= limit;
        let object = match fits {
            true => self.get(&Path::from(&*staged.key), staged.size).await,
            false => Err(StoreError::Length),
        };
        // Nobody has to wait until it is gone.
        drop(Removal {
            store: self.clone(),
            staged: Some(staged.clone()),
        });
        match object? {
            Some(object) if object.size == staged.size => Ok(object.bytes),
            Some(_) => Err(StoreError::Length),
            None => Err(StoreError::Gone),
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

    /// A body as one piece of memory; `limit` bounds it, in bytes.
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
        let object = self.open_object(&Path::from(&*staged.key)).await?;
        let mut stream = object.into_stream();
        let mut size = 0;
        loop {
            let next = async { Ok(stream.try_next().await?) };
            let Some(part) = self.request(Operation::Get, next).await? else {
                break;
            };
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

    fn new_key(&self, owner: StagingScope<'_>, purpose: &str) -> String {
        let nonce = self.ids.next().to_string().to_lowercase();
        subject::staging_key(owner.pool, owner.session, owner.operation, purpose, &nonce)
    }

    async fn open_object(&self, path: &Path) -> Result<GetResult, StoreError> {
        self.request(Operation::Get, async {
            match self.objects.get(path).await {
                Err(object_store::Error::NotFound { .. }) => Err(StoreError::Gone),
                object => Ok(object?),
            }
        })
        .await
    }

    /// Removes a staging object that nobody will read. A failure costs space only and is logged.
    pub async fn discard(&self, staged: &Staged) {
        if let Err(error) = self.delete_all(vec![Path::from(&*staged.key)]).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to delete a staged object"
            );
        }
    }

    /// Removes what nobody can want any more: staging objects whose reader went away, probes,
    /// results whose records have ended, and what is left of writes that were not finished. `now` is the
    /// [time of the store](Self::time).
    ///
    /// # Errors
    /// The store failed.
    pub async fn sweep(&self, now: SystemTime) -> Result<(), StoreError> {
        let mut old = vec![];
        for (prefix, life) in SWEPT {
            let before = now - life;
            let mut all = self.objects.list(Some(&Path::from(prefix)));
            while let Some(object) = self.next_listed(&mut all).await? {
                if SystemTime::from(object.last_modified) < before {
                    old.push(object.location);
                }
            }
        }
        self.delete_all(old).await?;
        self.remove_remains(now - STAGING_LIFE).await
    }
}

impl Upload {
    /// Adds bytes; waits while the store is slower than the sender.
    ///
    /// # Errors
    /// The store failed.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let room = self.parts.wait_for_capacity(PARTS_AT_ONCE).await;
        let room = room.map_err(StoreError::from);
        self.errors.count(Operation::Put, room)?;
        self.staged.size += bytes.len() as u64;
        self.parts.put(bytes);
        Ok(())
    }

    /// Makes the object whole and visible.
    ///
    /// # Errors
    /// The store failed; nothing is visible.
    pub async fn finish(self) -> Result<Staged, StoreError> {
        let finished = self.parts.finish().await.map_err(StoreError::from);
        self.errors.count(Operation::Put, finished)?;
        Ok(self.staged)
    }

    /// Gives up; nothing is left.
    pub async fn abort(self) {
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to give up an upload"
            );
        }
    }
}

/// Removes an object when it is dropped.
struct Removal {
    store: Store,
    staged: Option<Staged>,
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            let store = self.store.clone();
            tokio::spawn(async move { store.discard(&staged).await });
        }
    }
}

struct Reading {
    stream: BoxStream<'static, Result<Bytes, StoreError>>,
    errors: Errors,
    _removal: Removal,
}

impl Stream for Reading {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(context);
        next.map(|next| next.map(|next| self.errors.count(Operation::Get, next)))
    }
}
