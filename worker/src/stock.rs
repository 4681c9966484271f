//! Sandboxes kept ready, so that a new session need not wait for one to be made: empty cages, and
//! spares in which a kernel already waits. Refilled in the background, one shelf per kind of limits.
//! All shelves together hold a bounded number, and kinds that were used lately get it ([`shares`]).

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use proto::pool::Limits;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    kernel::Kernel,
    sandbox::{Cage, SandboxError, Sandboxes},
    trace,
};

mod failure;
pub mod shares;

use failure::Failures;
pub use failure::StockError;
use shares::Demand;
pub use shares::Targets;

/// Sandboxes that are made at once for the shelves, whatever number of kinds lacks some.
const MADE_AT_ONCE: usize = 2;

/// How often it is looked whether kinds that are used less must leave stock to others.
const SHARE_EVERY: Duration = Duration::from_secs(10);

/// After a failed refill, the time until the next try.
const RETRY: Duration = Duration::from_secs(1);

/// The session that took something from a full shelf gets the processors to itself for so long: it
/// is about to give its first answer, and a shelf that was full can wait.
const FIRST_ANSWER: Duration = Duration::from_millis(30);

/// How much is kept ready.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most of each kind.
    pub kind: Targets,
    /// Most of all kinds together.
    pub total: usize,
}

/// A cage with a kernel that waits for its first cell.
#[derive(Debug)]
pub struct Ready {
    /// The sandbox's outer half.
    pub cage: Cage,
    /// Its interpreter.
    pub kernel: Kernel,
    /// How it was had.
    pub source: Source,
}

/// What there was of a sandbox when a session asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A spare: an interpreter was ready.
    Spare,
    /// An empty cage: an interpreter was joined into it.
    Cage,
    /// Nothing: it was made.
    Nothing,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spare, Self::Cage, Self::Nothing];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spare => "spare",
            Self::Cage => "cage",
            Self::Nothing => "nothing",
        }
    }
}

/// A sandbox that is being taken while it is not sure yet that there is a session for it.
#[derive(Debug)]
#[must_use = "a reservation is taken or given back"]
pub struct Reserved {
    stock: Stock,
    limits: Limits,
    asked: Instant,
    taking: JoinHandle<Result<Ready, StockError>>,
}

impl Reserved {
    /// The sandbox, for the session that there is.
    ///
    /// # Errors
    /// Nothing was ready and nothing could be made.
    pub async fn take(self) -> Result<Ready, StockError> {
        match self.taking.await {
            Ok(taken) => taken,
            Err(cut_off) => Err(SandboxError::System(io::Error::other(cut_off)).into()),
        }
    }

    /// When it was asked for.
    #[must_use]
    pub fn asked(&self) -> Instant {
        self.asked
    }

    /// There is no session: the sandbox goes back on its shelf, untouched.
    pub async fn give_back(self) {
        let (stock, limits) = (self.stock.clone(), self.limits.clone());
        if let Ok(ready) = self.take().await {
            stock.put_back(&limits, ready);
        }
    }
}

/// The ready sandboxes of a worker.
#[derive(Clone, Debug)]
pub struct Stock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sandboxes: Sandboxes,
    bounds: Bounds,
    opened: Instant,
    shelves: HashMap<Limits, Shelf>,
    /// One permit for each sandbox that may be on a shelf or on its way there.
    places: Arc<Semaphore>,
    /// One permit for each that may be made at once.
    making: Semaphore,
    /// Callers that are making a sandbox themselves: refilling waits for them.
    hurried: WaitingCallers,
    changed: Notify,
    failures: Failures,
}

#[derive(Debug, Default)]
struct Shelf {
    inventory: Mutex<Inventory>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Inventory {
    cages: Vec<Placed<Cage>>,
    /// Oldest first: a kernel uses its first moments to get ready for its first cell.
    spares: VecDeque<Placed<Ready>>,
    targets: Targets,
    demand: Demand,
    /// Nothing of this kind could be made the last time that it was tried.
    failed: bool,
}

/// What is on a shelf, with the place that it takes there.
#[derive(Debug)]
struct Placed<T> {
    what: T,
    place: OwnedSemaphorePermit,
}

/// Joins a new kernel into a cage and waits for it.
///
/// # Errors
/// The join or the interpreter's start failed.
pub async fn join(cage: &Cage) -> Result<Kernel, StockError> {
    let joining = async {
        let process = cage.join().await.map_err(StockError::Join)?;
        Ok(Kernel::ready(process).await?)
    };
    joining.instrument(trace::joining()).await
}

impl Stock {
    /// Starts to fill the shelves for these kinds of limits.
    #[must_use]
    pub fn open(
        sandboxes: Sandboxes,
        bounds: Bounds,
        kinds: impl IntoIterator<Item = Limits>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let shelves: HashMap<_, _> = kinds
            .into_iter()
            .map(|limits| (limits, Shelf::default()))
            .collect();
        let kinds: Vec<Limits> = shelves.keys().cloned().collect();
        let inner = Inner {
            sandboxes,
            bounds,
            opened: Instant::now(),
            shelves,
            places: Arc::new(Semaphore::new(bounds.total)),
            making: Semaphore::new(MADE_AT_ONCE),
            hurried: WaitingCallers::default(),
            changed: Notify::new(),
            failures: Failures::default(),
        };
        let stock = Self {
            inner: Arc::new(inner),
        };
        stock.share();
        let (sharing, ended) = (stock.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = sharing.share_for_ever() => {}
            }
        });
        for limits in kinds {
            let (stock, stop) = (stock.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = stock.refill(&limits) => {}
                }
            });
        }
        stock
    }

    /// A sandbox for a new session: a spare, else a joined cage, else one made from nothing.
    ///
    /// # Errors
    /// Nothing was ready and nothing could be made.
    pub async fn take(&self, limits: &Limits) -> Result<Ready, StockError> {
        self.inner.failures.count(self.find_or_make(limits).await)
    }

    async fn find_or_make(&self, limits: &Limits) -> Result<Ready, StockError> {
        let shelf = self.inner.shelves.get(limits);
        if let Some(shelf) = shelf {
            let now = self.inner.opened.elapsed();
            shelf.inventory().demand.used(now);
            shelf.wanted.notify_one();
        }
        while let Some(spare) = shelf.and_then(|shelf| shelf.inventory().spares.pop_front()) {
            self.inner.changed.notify_waiters();
            if spare.what.kernel.handle().exited().now_or_never().is_none() {
                return Ok(spare.what);
            }
        }
        let _hurry = self.inner.hurried.enter();
        let (cage, source) = match shelf.and_then(|shelf| shelf.inventory().cages.pop()) {
            Some(cage) => (cage.what, Source::Cage),
            None => (self.inner.sandboxes.cage(limits).await?, Source::Nothing),
        };
        let kernel = join(&cage).await?;
        Ok(Ready {
            cage,
            kernel,
            source,
        })
    }

    /// Begins to take a sandbox.
    pub fn reserve(&self, limits: &Limits) -> Reserved {
        let (stock, kind) = (self.clone(), limits.clone());
        Reserved {
            stock: self.clone(),
            limits: limits.clone(),
            asked: Instant::now(),
            taking: tokio::spawn(async move { stock.take(&kind).await }.in_current_span()),
        }
    }

    /// A cage that finds its shelf full is dropped, and with that destroyed.
    fn put_back(&self, limits: &Limits, ready: Ready) {
        if let Some(shelf) = self.inner.shelves.get(limits)
            && let Ok(place) = Arc::clone(&self.inner.places).try_acquire_owned()
        {
            let mut inventory = shelf.inventory();
            if inventory.spares.len() < inventory.targets.spares {
                inventory.spares.push_front(Placed { what: ready, place });
                drop(inventory);
                self.inner.changed.notify_waiters();
            }
        }
    }

    /// Whether a new session with these limits would get a spare.
    #[must_use]
    pub fn is_warm(&self, limits: &Limits) -> bool {
        self.inner
            .shelves
            .get(limits)
            .is_some_and(|shelf| !shelf.inventory().spares.is_empty())
    }

    /// Whether the disk has room for a new session with these limits.
    #[must_use]
    pub fn has_room(&self, limits: &Limits) -> bool {
        let shelf = self.inner.shelves.get(limits);
        let ready = shelf.is_some_and(|shelf| {
            let inventory = shelf.inventory();
            !(inventory.spares.is_empty() && inventory.cages.is_empty())
        });
        let bytes = if ready { 0 } else { limits.data_bytes };
        self.inner.sandboxes.disk().has_room(bytes)
    }

    /// Spares and cages that are ready.
    #[must_use]
    pub fn ready(&self) -> (usize, usize) {
        let shelves = self.inner.shelves.values().map(|shelf| {
            let inventory = shelf.inventory();
            (inventory.spares.len(), inventory.cages.len())
        });
        shelves.fold((0, 0), |sum, shelf| (sum.0 + shelf.0, sum.1 + shelf.1))
    }

    /// Names of the steps of making a sandbox, and how often each failed.
    #[must_use]
    pub fn failures(&self) -> [(&'static str, u64); StockError::STEPS.len()] {
        self.inner.failures.by_step()
    }

    /// Waits until every shelf holds its share, or nothing of its kind can be made.
    pub async fn filled(&self) {
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.inner.shelves.values().all(Shelf::is_settled) {
                return;
            }
            changed.await;
        }
    }

    /// Destroys what is ready. The refilling must have been stopped.
    pub async fn close(&self) {
        for shelf in self.inner.shelves.values() {
            let inventory = std::mem::take(&mut *shelf.inventory());
            let spares = inventory.spares.into_iter().map(|spare| spare.what.cage);
            for cage in spares.chain(inventory.cages.into_iter().map(|cage| cage.what)) {
                destroy(cage).await;
            }
        }
    }

    async fn share_for_ever(&self) {
        loop {
            tokio::time::sleep(SHARE_EVERY).await;
            self.share();
        }
    }

    /// Sets every kind's targets by its recent use.
    fn share(&self) {
        let now = self.inner.opened.elapsed();
        let shelves: Vec<&Shelf> = self.inner.shelves.values().collect();
        let uses: Vec<f64> = shelves
            .iter()
            .map(|shelf| shelf.inventory().demand.lately(now))
            .collect();
        let Bounds { kind, total } = self.inner.bounds;
        for (shelf, targets) in shelves.iter().zip(shares::targets(&uses, kind, total)) {
            let before = std::mem::replace(&mut shelf.inventory().targets, targets);
            if before != targets {
                shelf.wanted.notify_one();
            }
        }
    }

    async fn refill(&self, limits: &Limits) {
        let Some(shelf) = self.inner.shelves.get(limits) else {
            return;
        };
        loop {
            let wanted = shelf.wanted.notified();
            if let Some(surplus) = shelf.surplus() {
                destroy(surplus.what).await;
                // Not before: its user ids and its filesystem are free now.
                drop(surplus.place);
                continue;
            }
            if shelf.lacks().is_none() {
                wanted.await;
                tokio::time::sleep(FIRST_ANSWER).await;
                self.share();
                continue;
            }
            let place = if shelf.needs_place() {
                tokio::select! {
                    place = Arc::clone(&self.inner.places).acquire_owned() => place.ok(),
                    // Perhaps there is less to make by now, or something to leave to others.
                    () = wanted => continue,
                }
            } else {
                None
            };
            let Ok(turn) = self.inner.making.acquire().await else {
                return;
            };
            self.inner.hurried.nobody().await;
            // Others may have been used more meanwhile.
            let Some(lack) = shelf.lacks() else { continue };
            let made = self.make(limits, shelf, lack, place).await;
            let made = self.inner.failures.count(made);
            drop(turn);
            let failed_before = std::mem::replace(&mut shelf.inventory().failed, made.is_err());
            self.inner.changed.notify_waiters();
            if let Err(error) = made {
                // Once for as long as it lasts.
                if !failed_before {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "failed to refill the stock");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Makes what lacks, for this place; without one, out of a cage of the shelf if there still is one.
    async fn make(
        &self,
        limits: &Limits,
        shelf: &Shelf,
        lack: Lack,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<(), StockError> {
        let ready = match place {
            None if lack == Lack::Spare => shelf.inventory().cages.pop(),
            Some(_) | None => None,
        };
        let Placed { what: cage, place } = match (ready, place) {
            (Some(ready), _) => ready,
            (None, Some(place)) => Placed {
                what: self.inner.sandboxes.cage(limits).await?,
                place,
            },
            // A session took the cage.
            (None, None) => return Ok(()),
        };
        match lack {
            Lack::Spare => {
                let kernel = join(&cage).await?;
                let what = Ready {
                    cage,
                    kernel,
                    source: Source::Spare,
                };
                shelf.inventory().spares.push_back(Placed { what, place });
            }
            Lack::Cage => shelf.inventory().cages.push(Placed { what: cage, place }),
        }
        Ok(())
    }
}

async fn destroy(cage: Cage) {
    if let Err(error) = cage.destroy().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to remove a cage; it is left behind"
        );
    }
}

/// What a shelf needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Spare,
    Cage,
}

impl Shelf {
    fn inventory(&self) -> MutexGuard<'_, Inventory> {
        self.inventory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lacks(&self) -> Option<Lack> {
        let inventory = self.inventory();
        if inventory.spares.len() < inventory.targets.spares {
            Some(Lack::Spare)
        } else if inventory.cages.len() < inventory.targets.cages {
            Some(Lack::Cage)
        } else {
            None
        }
    }

    /// Whether what lacks takes a place that the shelf does not have yet.
    fn needs_place(&self) -> bool {
        let inventory = self.inventory();
        inventory.spares.len() >= inventory.targets.spares || inventory.cages.is_empty()
    }

    /// Whether there is as much as there can be for now.
    fn is_settled(&self) -> bool {
        let failed = self.inventory().failed;
        failed || self.lacks().is_none()
    }

    /// Takes out what is more than the shelf's share.
    fn surplus(&self) -> Option<Placed<Cage>> {
        let mut inventory = self.inventory();
        let Inventory {
            cages,
            spares,
            targets,
            ..
        } = &mut *inventory;
        if cages.len() + spares.len() <= targets.all() {
            return None;
        }
        cages.pop().or_else(|| {
            let Placed { what, place } = spares.pop_back()?;
            Some(Placed {
                what: what.cage,
                place,
            })
        })
    }
}

/// Counts the callers who make their sandboxes themselves.
#[derive(Debug, Default)]
struct WaitingCallers {
    count: AtomicUsize,
    none: Notify,
}

struct WaitingCaller<'a>(&'a WaitingCallers);

impl WaitingCallers {
    fn enter(&self) -> WaitingCaller<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        WaitingCaller(self)
    }

    async fn nobody(&self) {
        loop {
            let none = self.none.notified();
            tokio::pin!(none);
            none.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
