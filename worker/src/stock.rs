//! Sandboxes kept ready, so that a new session need not wait for one to be made: empty cages, and
//! spares in which a kernel already waits. Refilled in the background, one stock per kind of
//! limits.

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
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    kernel::{Kernel, KernelError},
    sandbox::{Cage, SandboxError, Sandboxes},
};

/// After a failed refill, the time until the next try.
const RETRY: Duration = Duration::from_secs(1);

/// The session that took something from a full shelf gets the processors to itself for so long: it
/// is about to give its first answer, and a shelf that was full can wait.
const FIRST_ANSWER: Duration = Duration::from_millis(30);

/// How much is kept ready of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// Empty cages.
    pub cages: usize,
    /// Cages with a waiting kernel.
    pub spares: usize,
}

/// A cage with a kernel that waits for its first cell.
#[derive(Debug)]
pub struct Ready {
    /// The sandbox's outer half.
    pub cage: Cage,
    /// Its interpreter.
    pub kernel: Kernel,
}

/// A sandbox that is being taken while it is not sure yet that there is a session for it.
#[derive(Debug)]
#[must_use = "a reservation is taken or given back"]
pub struct Reserved {
    stock: Stock,
    limits: Limits,
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

    /// There is no session: the sandbox goes back on its shelf, untouched.
    pub async fn give_back(self) {
        let (stock, limits) = (self.stock.clone(), self.limits.clone());
        if let Ok(ready) = self.take().await {
            stock.put_back(&limits, ready);
        }
    }
}

/// Why no sandbox could be had.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// No cage, or no process in it.
    #[error("no sandbox could be made")]
    Sandbox(#[from] SandboxError),
    /// The interpreter did not start.
    #[error("no interpreter could be started")]
    Kernel(#[from] KernelError),
}

/// The ready sandboxes of a worker.
#[derive(Clone, Debug)]
pub struct Stock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sandboxes: Sandboxes,
    targets: Targets,
    shelves: HashMap<Limits, Shelf>,
    /// Callers that are making a sandbox themselves: refilling waits for them.
    hurried: Hurried,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Shelf {
    goods: Mutex<Goods>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Goods {
    cages: Vec<Cage>,
    /// Oldest first: a kernel uses its first moments to get ready for its first cell.
    spares: VecDeque<Ready>,
}

/// Joins a new kernel into a cage and waits for it.
///
/// # Errors
/// The join or the interpreter's start failed.
pub async fn join(cage: &Cage) -> Result<Kernel, StockError> {
    Ok(Kernel::ready(cage.join().await?).await?)
}

impl Stock {
    /// Starts to fill the shelves for these kinds of limits.
    #[must_use]
    pub fn open(
        sandboxes: Sandboxes,
        targets: Targets,
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
            targets,
            shelves,
            hurried: Hurried::default(),
            changed: Notify::new(),
        };
        let stock = Self {
            inner: Arc::new(inner),
        };
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
        let shelf = self.inner.shelves.get(limits);
        while let Some(spare) = shelf.and_then(|shelf| shelf.goods().spares.pop_front()) {
            self.inner.changed.notify_waiters();
            shelf.inspect(|shelf| shelf.wanted.notify_one());
            if spare.kernel.handle().exited().now_or_never().is_none() {
                return Ok(spare);
            }
        }
        let _hurry = self.inner.hurried.enter();
        let cage = match shelf.and_then(|shelf| shelf.goods().cages.pop()) {
            Some(cage) => cage,
            None => self.inner.sandboxes.cage(limits).await?,
        };
        shelf.inspect(|shelf| shelf.wanted.notify_one());
        let kernel = join(&cage).await?;
        Ok(Ready { cage, kernel })
    }

    /// Begins to take a sandbox.
    pub fn reserve(&self, limits: &Limits) -> Reserved {
        let (stock, kind) = (self.clone(), limits.clone());
        Reserved {
            stock: self.clone(),
            limits: limits.clone(),
            taking: tokio::spawn(async move { stock.take(&kind).await }),
        }
    }

    /// A cage that finds its shelf full is dropped, and with that destroyed.
    fn put_back(&self, limits: &Limits, ready: Ready) {
        if let Some(shelf) = self.inner.shelves.get(limits) {
            let mut goods = shelf.goods();
            if goods.spares.len() < self.inner.targets.spares {
                goods.spares.push_front(ready);
                drop(goods);
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
            .is_some_and(|shelf| !shelf.goods().spares.is_empty())
    }

    /// Waits until every shelf is full.
    pub async fn filled(&self) {
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self
                .inner
                .shelves
                .values()
                .all(|shelf| shelf.lacks(self.inner.targets).is_none())
            {
                return;
            }
            changed.await;
        }
    }

    /// Destroys what is ready. The refilling must have been stopped.
    pub async fn close(&self) {
        for shelf in self.inner.shelves.values() {
            let goods = std::mem::take(&mut *shelf.goods());
            let spares = goods.spares.into_iter().map(|spare| spare.cage);
            for cage in spares.chain(goods.cages) {
                if let Err(error) = cage.destroy().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cage left behind");
                }
            }
        }
    }

    async fn refill(&self, limits: &Limits) {
        let Some(shelf) = self.inner.shelves.get(limits) else {
            return;
        };
        loop {
            let wanted = shelf.wanted.notified();
            let Some(lack) = shelf.lacks(self.inner.targets) else {
                wanted.await;
                tokio::time::sleep(FIRST_ANSWER).await;
                continue;
            };
            self.inner.hurried.nobody().await;
            match self.make(limits, lack).await {
                Ok(()) => self.inner.changed.notify_waiters(),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "stock not refilled"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn make(&self, limits: &Limits, lack: Lack) -> Result<(), StockError> {
        let Some(shelf) = self.inner.shelves.get(limits) else {
            return Ok(());
        };
        let ready = if lack == Lack::Spare {
            shelf.goods().cages.pop()
        } else {
            None
        };
        let cage = match ready {
            Some(cage) => cage,
            None => self.inner.sandboxes.cage(limits).await?,
        };
        match lack {
            Lack::Spare => {
                let kernel = join(&cage).await?;
                shelf.goods().spares.push_back(Ready { cage, kernel });
            }
            Lack::Cage => shelf.goods().cages.push(cage),
        }
        Ok(())
    }
}

/// What a shelf needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Spare,
    Cage,
}

impl Shelf {
    fn goods(&self) -> MutexGuard<'_, Goods> {
        self.goods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lacks(&self, targets: Targets) -> Option<Lack> {
        let goods = self.goods();
        if goods.spares.len() < targets.spares {
            Some(Lack::Spare)
        } else if goods.cages.len() < targets.cages {
            Some(Lack::Cage)
        } else {
            None
        }
    }
}

/// Counts the callers who make their sandboxes themselves.
#[derive(Debug, Default)]
struct Hurried {
    count: AtomicUsize,
    none: Notify,
}

struct Hurry<'a>(&'a Hurried);

impl Hurried {
    fn enter(&self) -> Hurry<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        Hurry(self)
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

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
