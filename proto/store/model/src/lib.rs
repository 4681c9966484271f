//! The object store in memory, with one end for each process and faults from a seed. It keeps what real stores keep,
//! as the suite of the crate `store` shows, which all of them pass.
//!
//! Only tests depend on this crate; no program has it.
#![forbid(unsafe_code)]

use std::{
    fmt,
    future::pending,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};
use proto::ambient::Random;
use tokio::{sync::watch, time::sleep};

/// The objects. Clones hold the same.
#[derive(Clone, Debug, Default)]
pub struct Objects(Arc<InMemory>);

/// How often in a thousand requests what happens, and how long the ways are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chances {
    /// The store says that it failed, and has done nothing.
    pub failed: u64,
    /// The connection breaks, and it was done.
    pub broken: u64,
    /// No answer comes, and nothing was done.
    pub lost: u64,
    /// No answer comes, and it was done.
    pub unheard: u64,
    /// The longest that a request or its answer is on its way.
    pub slowest: Duration,
}

/// How a process reaches the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Up,
    /// The store fails every request.
    Down,
    /// Requests and answers wait.
    Still,
}

/// One process's end of the store.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    objects: Objects,
    random: Random,
    chances: Mutex<Chances>,
    line: watch::Sender<Line>,
    /// Objects that are to be said to be written and are not.
    dropped: AtomicU32,
}

#[derive(Clone, Copy)]
enum Fate {
    Answered,
    Failed,
    Broken,
    Lost,
    Unheard,
}

impl Objects {
    /// One process's end. Its faults come from the seed, once it has [`Connection::chances`] of any.
    #[must_use]
    pub fn connect(&self, seed: u64) -> Connection {
        Connection(Arc::new(Shared {
            objects: self.clone(),
            random: Random::seeded(seed),
            chances: Mutex::default(),
            line: watch::Sender::new(Line::Up),
            dropped: AtomicU32::new(0),
        }))
    }
}

impl Connection {
    /// From here on the seed decides with these chances what goes wrong.
    pub fn chances(&self, chances: Chances) {
        *self.0.known() = chances;
    }

    /// The store fails every request of this process.
    pub fn fail(&self) {
        self.0.line.send_replace(Line::Down);
    }

    /// This process stands still: its requests and their answers wait.
    pub fn stop(&self) {
        self.0.line.send_replace(Line::Still);
    }

    /// The store answers, or the process goes on.
    pub fn go_on(&self) {
        self.0.line.send_replace(Line::Up);
    }

    /// The next object that is created is said to be there and is not: a bug, for tests of what finds it.
    pub fn drop_next(&self) {
        self.0.dropped.fetch_add(1, Ordering::AcqRel);
    }

    /// Performs a request, or does not.
    async fn ask<T>(&self, act: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let shared = &self.0;
        let (fate, there, back) = shared.course();
        on_its_way(there).await;
        shared.moves().await;
        let is_down = *shared.line.borrow() == Line::Down;
        let answer = match if is_down { Fate::Failed } else { fate } {
            Fate::Failed => Err(failed("the store failed")),
            Fate::Lost => pending().await,
            Fate::Answered => act.await,
            Fate::Broken => {
                drop(act.await);
                Err(failed("the connection broke"))
            }
            Fate::Unheard => {
                drop(act.await);
                pending().await
            }
        };
        on_its_way(back).await;
        shared.moves().await;
        answer
    }

    /// Whether this creation is one of those that only seem to happen.
    fn drops(&self, options: &PutOptions) -> bool {
        let one_less = |dropped: u32| dropped.checked_sub(1);
        options.mode == PutMode::Create
            && self
                .0
                .dropped
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
                .is_ok()
    }
}

impl Shared {
    fn known(&self) -> std::sync::MutexGuard<'_, Chances> {
        self.chances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long as this process stands still.
    async fn moves(&self) {
        let mut line = self.line.subscribe();
        // Whoever asks has the sender, too.
        drop(line.wait_for(|line| *line != Line::Still).await);
    }

    fn course(&self) -> (Fate, Duration, Duration) {
        let Chances {
            failed,
            broken,
            lost,
            unheard,
            slowest,
        } = *self.known();
        let drawn = self.random.below(1000);
        let mut below = 0;
        let fates = [
            (failed, Fate::Failed),
            (broken, Fate::Broken),
            (lost, Fate::Lost),
            (unheard, Fate::Unheard),
        ];
        let fate = fates.into_iter().find(|(chance, _)| {
            below += chance;
            drawn < below
        });
        let way = || {
            let most = u64::try_from(slowest.as_micros()).unwrap_or(u64::MAX);
            Duration::from_micros(self.random.below(most.saturating_add(1)))
        };
        (fate.map_or(Fate::Answered, |(_, fate)| fate), way(), way())
    }
}

async fn on_its_way(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn failed(what: &'static str) -> Error {
    Error::Generic {
        store: "model",
        source: what.into(),
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("model")
    }
}

#[async_trait]
impl ObjectStore for Connection {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if self.drops(&options) {
            return Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: object_store::Extensions::default(),
            });
        }
        self.ask(self.0.objects.0.put_opts(location, payload, options))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.ask(self.0.objects.0.put_multipart_opts(location, options))
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.ask(self.0.objects.0.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.ask(self.0.objects.0.get_ranges(location, ranges))
            .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.objects.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.0.objects.0.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.0.objects.0.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.ask(self.0.objects.0.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.ask(self.0.objects.0.copy_opts(from, to, options))
            .await
    }
}

impl Connection {
    /// A list is one request.
    fn listed(
        &self,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let asking = self.clone();
        let all = async move { asking.ask(list.try_collect::<Vec<_>>()).await };
        let all = futures_util::stream::once(all);
        all.map_ok(|all| futures_util::stream::iter(all.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }
}
