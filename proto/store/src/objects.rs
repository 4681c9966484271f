//! Whole objects by key, each request with an end.

use std::{fmt, ops::Range, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    path::Path,
};
use proto::{ambient::Ids, limits};

use crate::{
    errors::{Errors, Operation},
    open::Credentials,
};

/// The object store below its configured root.
#[derive(Clone)]
pub struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// The local directory that it is, if it is one.
    pub(crate) directory: Option<Arc<std::path::Path>>,
    /// What its requests are signed with, if they are.
    pub(crate) credentials: Option<Credentials>,
    /// How often it failed.
    pub(crate) errors: Errors,
    /// Where the names of new objects come from, and the nonces by which writes are told apart.
    pub(crate) ids: Ids,
}

/// The store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's own failure.
    #[error("the object store failed")]
    Store(#[from] object_store::Error),
    /// It did not answer within [`limits::STORE_PATIENCE`].
    #[error("the object store did not answer in time")]
    Slow,
    /// The other end of a copy failed.
    #[error("failed to copy bytes")]
    Copy(#[from] std::io::Error),
    /// There is no such object.
    #[error("there is no such object")]
    Gone,
    /// An object of another length than was said, or longer than allowed.
    #[error("the object has another length than was said")]
    Length,
}

impl StoreError {
    /// Whether the store may be down, for everybody alike. What refuses this process alone is something else.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        use object_store::Error as E;
        match self {
            Self::Store(error) => !matches!(
                error,
                E::PermissionDenied { .. }
                    | E::Unauthenticated { .. }
                    | E::InvalidPath { .. }
                    | E::NotSupported { .. }
                    | E::NotImplemented { .. }
                    | E::UnknownConfigurationKey { .. }
            ),
            Self::Slow => true,
            Self::Copy(_) | Self::Gone | Self::Length => false,
        }
    }
}

/// Some bytes of an object.
#[derive(Debug)]
pub(crate) struct Part {
    /// The bytes.
    pub bytes: Bytes,
    /// Length of the whole object.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub written: SystemTime,
}

impl fmt::Debug for Store {
    /// The store behind it holds credentials, which must not be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store(..)")
    }
}

impl Store {
    /// A store over objects that are there already. New objects are named by these ids.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, ids: Ids) -> Self {
        Self {
            objects,
            directory: None,
            credentials: None,
            errors: Errors::default(),
            ids,
        }
    }

    /// Where whoever writes to this store takes new ids from.
    #[must_use]
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// How often the store failed this process.
    #[must_use]
    pub fn errors(&self) -> &Errors {
        &self.errors
    }

    /// Bounds one request, and counts it if it fails.
    pub(crate) async fn request<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(limits::STORE_PATIENCE, work).await;
        let done = done.unwrap_or(Err(StoreError::Slow));
        self.errors.count(operation, done)
    }

    /// Writes an object, whatever was there.
    pub(crate) async fn put(&self, key: &Path, bytes: Bytes) -> Result<(), StoreError> {
        let put = self.objects.put(key, PutPayload::from_bytes(bytes));
        let put = async { Ok(put.await.map(drop)?) };
        self.request(Operation::Put, put).await
    }

    /// Writes an object unless there is one. `false` says that there is, or, on S3, that there may
    /// be; it may also be this very call's, if an answer was lost and the request repeated.
    pub(crate) async fn create(&self, key: &Path, bytes: Bytes) -> Result<bool, StoreError> {
        let options = PutOptions::from(PutMode::Create);
        let put = self
            .objects
            .put_opts(key, PutPayload::from_bytes(bytes), options);
        self.request(Operation::Put, async {
            match put.await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Reads an object of at most `limit` bytes, if there is one.
    pub(crate) async fn get(&self, key: &Path, limit: u64) -> Result<Option<Part>, StoreError> {
        self.get_with(key, GetOptions::default(), limit).await
    }

    /// Reads a range of an object, cut at its end, if there is one.
    pub(crate) async fn get_range(
        &self,
        key: &Path,
        range: Range<u64>,
    ) -> Result<Option<Part>, StoreError> {
        let limit = range.end.saturating_sub(range.start);
        let options = GetOptions::default().with_range(Some(GetRange::Bounded(range)));
        self.get_with(key, options, limit).await
    }

    async fn get_with(
        &self,
        key: &Path,
        options: GetOptions,
        limit: u64,
    ) -> Result<Option<Part>, StoreError> {
        self.request(Operation::Get, async {
            let object = match self.objects.get_opts(key, options).await {
                Ok(object) => object,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if object.range.end.saturating_sub(object.range.start) > limit {
                return Err(StoreError::Length);
            }
            let (size, written) = (object.meta.size, object.meta.last_modified.into());
            let bytes = object.bytes().await?;
            Ok(Some(Part {
                bytes,
                size,
                written,
            }))
        })
        .await
    }

    /// All objects below `prefix`, in no order; with `after`, those with greater keys only.
    pub(crate) async fn list(
        &self,
        prefix: &Path,
        after: Option<&Path>,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut listed = match after {
            Some(after) => self.objects.list_with_offset(Some(prefix), after),
            None => self.objects.list(Some(prefix)),
        };
        let mut objects = vec![];
        // Each page is a request of its own.
        while let Some(object) = self.next_listed(&mut listed).await? {
            objects.push(object);
        }
        Ok(objects)
    }

    /// The next object of a listing.
    pub(crate) async fn next_listed(
        &self,
        listed: &mut BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> Result<Option<ObjectMeta>, StoreError> {
        let next = async { Ok(listed.try_next().await?) };
        self.request(Operation::List, next).await
    }

    /// Deletes objects, many at once where the store can. What is gone already is no failure.
    pub(crate) async fn delete_all(&self, keys: Vec<Path>) -> Result<(), StoreError> {
        let keys = stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut deleted = self.objects.delete_stream(keys).filter(|deleted| {
            let gone = matches!(deleted, Err(object_store::Error::NotFound { .. }));
            ready(!gone)
        });
        loop {
            let next = async { Ok(deleted.next().await.transpose()?) };
            if self.request(Operation::Delete, next).await?.is_none() {
                return Ok(());
            }
        }
    }
}
