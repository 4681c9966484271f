//! What a session's kernel is doing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use futures_util::future::BoxFuture;
use process::spans;
use proto::{
    blob::Blob,
    execution::Language,
    fault::{Fault, FaultCode},
    limits,
    pool::Limits,
};
use store::Store;
use tokio::{task::JoinHandle, time::Instant};
use tracing::{Instrument, Span};

use super::opening::{OpenError, Opened, Opening};
use crate::{
    kernel::{Cell, Kernel, Program},
    outlet::Outlet,
    sandbox::{Cage, KernelHandle},
    stock::{self, StockError},
};

/// Code as it came, and what it is written in.
#[derive(Debug)]
pub struct Source {
    /// UTF-8 text, here or in the store.
    pub text: Blob,
    /// Decides what runs it.
    pub language: Language,
    /// In the store it is left for another try.
    pub kept: bool,
    /// Environment variables for this run alone.
    pub environment: BTreeMap<String, String>,
    /// Gets its output as it comes.
    pub outlet: Option<Arc<Outlet>>,
}

/// A cell's end, or why it never began.
type Ran = Result<Cell, Fault>;

/// A kernel on its way, waiting, or running a cell.
pub enum Work {
    /// The session is being opened. A task, so that giving up never leaves half of it.
    Starting(JoinHandle<Result<Opened, OpenError>>),
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
pub enum WorkEvent {
    /// The session can be served.
    Opened(Box<Opened>),
    /// It cannot be served here.
    NotOpened(OpenError),
    /// The restarted kernel is ready.
    Restarted,
    /// No other kernel can be had.
    NotRestarted,
    /// The cell ended, and the kernel waits again.
    Finished(Ran),
    /// The kernel died with the cell that it ran.
    DiedWith(Cell),
    /// The kernel died while nothing ran.
    DiedIdle,
}

impl Work {
    /// Opens the session. What is logged on the way belongs to the span.
    #[must_use]
    pub fn start(opening: Opening, store: &Store, span: Span) -> Self {
        let store = store.clone();
        let open = async move {
            let opened = opening.open(store).await;
            opened.inspect_err(|_| spans::fail(&Span::current()))
        };
        Self::Starting(tokio::spawn(open.instrument(span)))
    }

    /// Clears the cage and joins a new kernel.
    #[must_use]
    pub fn restart(cage: Arc<Cage>) -> Self {
        let restart = async move {
            cage.clear().await?;
            stock::join(&cage).await
        };
        Self::Restarting(tokio::spawn(restart.in_current_span()))
    }

    /// Runs a cell from this moment on, if a kernel waits; returns its handle, and what says that it has
    /// obeyed an interrupt. What is logged on the
    /// way belongs to the span.
    pub fn run(
        &mut self,
        code: Source,
        store: &Store,
        limits: &Limits,
        from: Instant,
        span: &Span,
    ) -> Option<(KernelHandle, Arc<AtomicBool>)> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Idle(mut kernel) => {
                let (handle, interrupted) = (kernel.handle().clone(), kernel.interrupted());
                let (store, output) = (store.clone(), limits.output_bytes);
                let run = async move {
                    if from > Instant::now() {
                        tokio::select! {
                            () = tokio::time::sleep_until(from) => {}
                            // The cell finds that there is no kernel any more.
                            _ = kernel.idle() => {}
                        }
                    }
                    let ran = match (text(code.text, code.kept, &store).await, code.language) {
                        (Ok(_), Language::Unknown) => Err(unknown_language()),
                        (Ok(text), language) => {
                            let program = Program {
                                text: &text,
                                environment: &code.environment,
                                output_bytes: output,
                                outlet: code.outlet,
                            };
                            Ok(match language {
                                Language::Shell => kernel.run_command(&program).await,
                                Language::Python | Language::Unknown => kernel.run(&program).await,
                            })
                        }
                        (Err(fault), _) => Err(fault),
                    };
                    (kernel, ran)
                };
                *self = Self::Running(Box::pin(run.instrument(span.clone())));
                Some((handle, interrupted))
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Waits for what becomes of it. May be dropped and called again at any moment. The kernel of an
    /// opened session is given to the caller, who makes it [`Work::Idle`].
    pub async fn next(&mut self) -> WorkEvent {
        let (now, event) = match self {
            Self::Starting(task) => match task.await {
                Ok(Ok(opened)) => (Self::Nothing, WorkEvent::Opened(Box::new(opened))),
                Ok(Err(error)) => (Self::Nothing, WorkEvent::NotOpened(error)),
                Err(panicked) => (Self::Nothing, WorkEvent::NotOpened(cut_off(&panicked))),
            },
            Self::Restarting(task) => match task.await {
                Ok(Ok(kernel)) => (Self::Idle(Box::new(kernel)), WorkEvent::Restarted),
                Ok(Err(error)) => not_restarted(&error),
                Err(panicked) => not_restarted(&panicked),
            },
            Self::Idle(kernel) => {
                let status = kernel.idle().await;
                tracing::info!(%status, "a kernel ended between executions");
                (Self::Nothing, WorkEvent::DiedIdle)
            }
            Self::Running(cell) => match cell.await {
                (_, Ok(cell)) if cell.kernel_is_gone() => {
                    (Self::Nothing, WorkEvent::DiedWith(cell))
                }
                (kernel, ran) => (Self::Idle(kernel), WorkEvent::Finished(ran)),
            },
            Self::Nothing => std::future::pending().await,
        };
        *self = now;
        event
    }
}

fn not_restarted(error: &(dyn std::error::Error + 'static)) -> (Work, WorkEvent) {
    tracing::error!(error, "failed to start a kernel for a session");
    (Work::Nothing, WorkEvent::NotRestarted)
}

fn cut_off(error: &tokio::task::JoinError) -> OpenError {
    OpenError::Data(std::io::Error::other(error.to_string()))
}

fn unknown_language() -> Fault {
    Fault::new(
        FaultCode::Unsupported,
        "this worker does not know the code's language",
    )
}

async fn text(code: Blob, kept: bool, store: &Store) -> Result<String, Fault> {
    let fetched = match code {
        Blob::Staged(object) if kept => {
            let bytes = store.read_result(&object, limits::CODE_BYTES as u64).await;
            bytes.map(Vec::from)
        }
        code => store.fetch_bytes(code, limits::CODE_BYTES).await,
    };
    let bytes = fetched.map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "failed to fetch the code"
        );
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
