//! A local store that fails when it is told to.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, local::LocalFileSystem,
    path::Path,
};
use tokio::sync::Notify;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails and has no effect.
    Before,
    /// It has its effect and fails.
    After,
    /// It never returns, and has no effect.
    Hang,
    /// The process is killed before it has an effect.
    KillBefore,
    /// The process is killed when it had its effect.
    KillAfter,
}

/// A fault, and how many operations go well before it.
#[derive(Clone, Copy, Debug)]
struct Planned {
    after: usize,
    fault: Fault,
}

#[derive(Clone)]
pub(super) struct Faulty(Arc<Inner>);

struct Inner {
    objects: LocalFileSystem,
    planned: Mutex<Option<Planned>>,
    operations: AtomicUsize,
    writes: AtomicUsize,
    hung: Notify,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Faulty {
    pub(super) fn over(objects: LocalFileSystem) -> Self {
        Self(Arc::new(Inner {
            objects,
            planned: Mutex::default(),
            operations: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            hung: Notify::new(),
        }))
    }

    /// After so many operations that go well there is this fault, once.
    pub(super) fn plan(&self, after: usize, fault: Fault) {
        *self.0.planned.lock().unwrap() = Some(Planned { after, fault });
    }

    /// From now on all goes well.
    pub(super) fn forgive(&self) {
        *self.0.planned.lock().unwrap() = None;
    }

    /// Operations so far.
    pub(super) fn operations(&self) -> usize {
        self.0.operations.load(Ordering::SeqCst)
    }

    /// Objects written so far.
    pub(super) fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// Waits until an operation hangs.
    pub(super) async fn hung(&self) {
        self.0.hung.notified().await;
    }

    async fn before(&self) -> Result<Option<Fault>> {
        self.0.operations.fetch_add(1, Ordering::SeqCst);
        let fault = {
            let mut planned = self.0.planned.lock().unwrap();
            match &mut *planned {
                Some(Planned { after: 0, fault }) => {
                    let fault = *fault;
                    *planned = None;
                    Some(fault)
                }
                Some(planned) => {
                    planned.after -= 1;
                    None
                }
                None => None,
            }
        };
        match fault {
            Some(Fault::Before) => Err(failure()),
            Some(Fault::KillBefore) => kill(),
            Some(Fault::Hang) => {
                self.0.hung.notify_one();
                std::future::pending().await
            }
            fault => Ok(fault),
        }
    }

    fn after(fault: Option<Fault>) -> Result<()> {
        match fault {
            Some(Fault::After) => Err(failure()),
            Some(Fault::KillAfter) => kill(),
            _ => Ok(()),
        }
    }

    /// A listing with the faults of one operation.
    fn listing(
        self,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async move {
            match self.before().await {
                Ok(fault) => {
                    let all = listing.collect::<Vec<_>>().await;
                    Self::after(fault).map_or_else(|error| vec![Err(error)], |()| all)
                }
                Err(error) => vec![Err(error)],
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }
}

fn failure() -> object_store::Error {
    object_store::Error::Generic {
        store: "Faulty",
        source: "planned".into(),
    }
}

/// Ends this process as a power switch would.
fn kill() -> ! {
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
    loop {
        std::thread::park();
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
        let fault = self.before().await?;
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        let put = self.0.objects.put_opts(location, payload, options).await;
        Self::after(fault)?;
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.before().await?;
        let got = self.0.objects.get_opts(location, options).await;
        Self::after(fault)?;
        got
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        stream::once(async move {
            let fault = match this.before().await {
                Ok(fault) => fault,
                Err(error) => return vec![Err(error)],
            };
            let deleted = this.0.objects.delete_stream(locations).collect().await;
            Self::after(fault).map_or_else(|error| vec![Err(error)], |()| deleted)
        })
        .flat_map(stream::iter)
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.clone().listing(self.0.objects.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.clone()
            .listing(self.0.objects.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.objects.copy_opts(from, to, options).await
    }
}
