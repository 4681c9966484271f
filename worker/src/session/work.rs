//! What a session's kernel is doing.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use proto::{
    blob::Blob,
    fault::{Fault, FaultCode},
    limits,
    pool::Limits,
};
use tokio::task::JoinHandle;

use crate::{
    kernel::{Cell, Kernel},
    sandbox::{Cage, KernelHandle},
    stock::{self, Ready, Stock, StockError},
    store::Store,
};

/// A cell's end, or why it never began.
type Ran = Result<Cell, Fault>;

/// A kernel on its way, waiting, or running a cell.
pub enum Work {
    /// A sandbox is being taken from the stock. A task, so that giving up never leaves half of one.
    Starting(JoinHandle<Result<Ready, StockError>>),
    /// The kernel waits.
    Idle(Box<Kernel>),
    /// The kernel runs a cell.
    Running(BoxFuture<'static, (Box<Kernel>, Ran)>),
    /// A new kernel is being joined.
    Restarting(JoinHandle<Result<Kernel, StockError>>),
    /// There is none.
    Nothing,
}

/// What became of the work.
#[derive(Debug)]
pub enum Happened {
    /// A new session's sandbox is ready.
    Started(Cage),
    /// The restarted kernel is ready.
    Restarted,
    /// No kernel can be had.
    Failed,
    /// The cell ended, and the kernel waits again.
    Finished(Ran),
    /// The kernel died with the cell that it ran.
    DiedWith(Cell),
    /// The kernel died while nothing ran.
    DiedIdle,
}

impl Work {
    /// Takes a sandbox from the stock.
    #[must_use]
    pub fn start(stock: &Stock, limits: &Limits) -> Self {
        let (stock, limits) = (stock.clone(), limits.clone());
        Self::Starting(tokio::spawn(async move { stock.take(&limits).await }))
    }

    /// Clears the cage and joins a new kernel.
    #[must_use]
    pub fn restart(cage: Arc<Cage>) -> Self {
        Self::Restarting(tokio::spawn(async move {
            cage.clear().await?;
            stock::join(&cage).await
        }))
    }

    /// Runs a cell if a kernel waits; returns its handle.
    pub fn run(&mut self, code: Blob, store: &Store, limits: &Limits) -> Option<KernelHandle> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Idle(mut kernel) => {
                let handle = kernel.handle().clone();
                let (store, output) = (store.clone(), limits.output_bytes);
                *self = Self::Running(Box::pin(async move {
                    let ran = match source(code, &store).await {
                        Ok(code) => Ok(kernel.run(&code, output).await),
                        Err(fault) => Err(fault),
                    };
                    (kernel, ran)
                }));
                Some(handle)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Waits for what becomes of it. May be dropped and called again at any moment.
    pub async fn next(&mut self) -> Happened {
        let (now, happened) = match self {
            Self::Starting(task) => match settled(task).await {
                Ok(Ready { cage, kernel }) => {
                    (Self::Idle(Box::new(kernel)), Happened::Started(cage))
                }
                Err(error) => failed(&*error),
            },
            Self::Restarting(task) => match settled(task).await {
                Ok(kernel) => (Self::Idle(Box::new(kernel)), Happened::Restarted),
                Err(error) => failed(&*error),
            },
            Self::Idle(kernel) => {
                let _status = kernel.idle().await;
                (Self::Nothing, Happened::DiedIdle)
            }
            Self::Running(cell) => match cell.await {
                (_, Ok(cell)) if cell.kernel_is_gone() => (Self::Nothing, Happened::DiedWith(cell)),
                (kernel, ran) => (Self::Idle(kernel), Happened::Finished(ran)),
            },
            Self::Nothing => std::future::pending().await,
        };
        *self = now;
        happened
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> (Work, Happened) {
    tracing::error!(error, "no kernel for a session");
    (Work::Nothing, Happened::Failed)
}

async fn settled<T>(
    task: &mut JoinHandle<Result<T, StockError>>,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    Ok(task.await??)
}

async fn source(code: Blob, store: &Store) -> Result<String, Fault> {
    let bytes = store
        .fetch_bytes(code, limits::CODE_BYTES)
        .await
        .map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "code not fetched");
            Fault::new(
                FaultCode::StorageUnavailable,
                "the code could not be fetched; it did not run",
            )
        })?;
    String::from_utf8(bytes)
        .map_err(|_| Fault::new(FaultCode::Unsupported, "the code is not UTF-8 text"))
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting(_) => "Starting",
            Self::Idle(_) => "Idle",
            Self::Running(_) => "Running",
            Self::Restarting(_) => "Restarting",
            Self::Nothing => "Nothing",
        })
    }
}
