//! A store that answers wrongly when told to, and whose clock can be turned forward, in front of a
//! real one.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    path::Path,
};

/// What happens to a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is made, and answered truthfully.
    None,
    /// It is made, and the answer is lost.
    LostAnswer,
    /// It never arrives, and that looks the same.
    LostRequest,
    /// It is made, the answer is lost, and the client repeats it by itself.
    Repeated,
    /// It is not made, and S3 says that there is a conflict.
    Conflict,
}

/// Applies faults to conditional writes, one each, in order; then none.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<VecDeque<Fault>>,
    clock: Arc<Mutex<Clock>>,
}

#[derive(Debug, Default)]
struct Clock {
    /// How far it is ahead.
    ahead: Duration,
    /// How far it was ahead when an object was written.
    written: HashMap<Path, Duration>,
}

impl Clock {
    fn date(&self, meta: ObjectMeta) -> ObjectMeta {
        let ahead = self.written.get(&meta.location).copied();
        ObjectMeta {
            last_modified: meta.last_modified + ahead.unwrap_or_default(),
            ..meta
        }
    }
}

impl Faulty {
    pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            clock: Arc::default(),
        })
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.lock().unwrap().ahead += time;
    }

    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }
}

fn lost() -> Error {
    Error::Generic {
        store: "faulty",
        source: "the connection broke".into(),
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let mut fault = Fault::None;
        if options.mode == PutMode::Create {
            fault = self.faults.lock().unwrap().pop_front().unwrap_or(fault);
        }
        let put = || {
            let mut clock = self.clock.lock().unwrap();
            let ahead = clock.ahead;
            if options.mode != PutMode::Create || !clock.written.contains_key(location) {
                clock.written.insert(location.clone(), ahead);
            }
            self.inner
                .put_opts(location, payload.clone(), options.clone())
        };
        match fault {
            Fault::None => put().await,
            Fault::LostRequest => Err(lost()),
            Fault::LostAnswer => {
                drop(put().await);
                Err(lost())
            }
            Fault::Repeated => {
                drop(put().await);
                put().await
            }
            Fault::Conflict => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "409 ConditionalRequestConflict".into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut got = self.inner.get_opts(location, options).await?;
        got.meta = self.clock.lock().unwrap().date(got.meta);
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let clock = self.clock.clone();
        let listed = self.inner.list(prefix);
        listed
            .map_ok(move |meta| clock.lock().unwrap().date(meta))
            .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let clock = self.clock.clone();
        let listed = self.inner.list_with_offset(prefix, offset);
        listed
            .map_ok(move |meta| clock.lock().unwrap().date(meta))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}
