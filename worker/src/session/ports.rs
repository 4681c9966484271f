//! What a session needs of the world, as traits: with others behind them its stories are told without root,
//! kernels and a bus.

use std::{
    fmt, io,
    process::ExitStatus,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
    time::Duration,
};

use async_nats::Message;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use proto::{execution::Language, inspection::Usage};

use crate::{
    kernel::{
        Cell, Kernel, Program,
        variables::{Snapshot, VariablesError},
    },
    listener::Listener,
    sandbox::{Cage, KernelHandle, Meter},
    stock::{self, StockError},
};

/// The outer half of a sandbox.
#[async_trait]
pub trait CagePort: fmt::Debug + Send + Sync {
    /// Returns when the sandbox took so much of the worker's disk that its session must end.
    async fn stopped_for_disk(&self);
    /// Whether the worker's disk, not the sandbox's own, has no room for it.
    fn is_starved(&self) -> bool;
    /// How long its code must wait for what it made this worker do beyond its share.
    fn owed(&self) -> Duration;
    /// How often the memory limit killed something in it so far.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn oom_kills(&self) -> io::Result<u64>;
    /// How many processes and threads it was refused so far.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn pids_denied(&self) -> io::Result<u64>;
    /// Measures from now on what is used in it; `kernel` is its interpreter's process.
    fn meter(&self, kernel: u32) -> Option<Meter>;
    /// What it uses now.
    fn usage(&self) -> Option<Usage>;
    /// Stops everything in it.
    ///
    /// # Errors
    /// Something goes on.
    async fn freeze(&self) -> io::Result<()>;
    /// Lets everything in it go on.
    ///
    /// # Errors
    /// It stays frozen.
    fn thaw(&self) -> io::Result<()>;
    /// Clears it and joins a new kernel.
    ///
    /// # Errors
    /// No other kernel can be had in it.
    async fn restart(&self) -> Result<Box<dyn KernelPort>, StockError>;
    /// Kills and removes it. A failure is logged.
    async fn destroy(self: Arc<Self>);
}

/// An interpreter that waits for cells.
#[async_trait]
pub trait KernelPort: fmt::Debug + Send {
    /// The way to its process from outside.
    fn signals(&self) -> Arc<dyn SignalsPort>;
    /// Whether it has obeyed an interrupt, and only its answer is missing: known to whoever waits for that, too.
    fn obeyed(&self) -> Arc<AtomicBool>;
    /// Whether a part of an answer is here and takes memory: known to whoever waits for that, too.
    fn receiving(&self) -> Arc<AtomicBool>;
    /// Runs a program to its end, whatever ends it.
    async fn run(&mut self, language: Language, program: &Program<'_>) -> Cell;
    /// Returns when its process has ended while it waited. May be dropped and called again at any moment.
    async fn idle(&mut self) -> ExitStatus;
    /// The session's variables, for as long as it takes; it leaves out what it does not reach within `stop_after`.
    ///
    /// # Errors
    /// It does not answer, or is gone.
    async fn begin_snapshot(&mut self, stop_after: Duration) -> Result<Snapshot, VariablesError>;
}

/// Signals to an interpreter's process.
pub trait SignalsPort: fmt::Debug + Send + Sync {
    /// Its number in the worker's namespace.
    fn pid(&self) -> u32;
    /// SIGINT to it and its foreground group.
    ///
    /// # Errors
    /// It was not sent.
    fn interrupt(&self) -> io::Result<()>;
    /// SIGKILL to it.
    fn kill(&self);
}

/// Jobs that arrive for a session.
pub trait JobsPort: fmt::Debug + Send {
    /// The next one. Pending for ever when none can come any more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Message>;
    /// Stops listening; what arrived until then.
    fn leave(self: Box<Self>) -> BoxFuture<'static, Vec<Message>>;
    /// Stops listening at once: another owner is to get whatever is on its way.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()>;
}

#[async_trait]
impl CagePort for Cage {
    async fn stopped_for_disk(&self) {
        self.stopped_for_disk().await;
    }

    fn is_starved(&self) -> bool {
        self.is_starved()
    }

    fn owed(&self) -> Duration {
        self.allowance().owed()
    }

    fn oom_kills(&self) -> io::Result<u64> {
        self.oom_kills()
    }

    fn pids_denied(&self) -> io::Result<u64> {
        self.pids_denied()
    }

    fn meter(&self, kernel: u32) -> Option<Meter> {
        let mut meter = self.meter();
        meter.watch(kernel);
        Some(meter)
    }

    /// Small files of the kernel's: reading them holds the session up for some ten microseconds.
    fn usage(&self) -> Option<Usage> {
        Some(Usage {
            memory_bytes: self.memory_bytes().ok()?,
            cpu_ms: self.cpu_us().ok()? / 1000,
            processes: u32::try_from(self.processes().ok()?.len()).unwrap_or(u32::MAX),
        })
    }

    async fn freeze(&self) -> io::Result<()> {
        self.freeze().await
    }

    fn thaw(&self) -> io::Result<()> {
        self.thaw()
    }

    async fn restart(&self) -> Result<Box<dyn KernelPort>, StockError> {
        self.clear().await?;
        Ok(Box::new(stock::join(self).await?))
    }

    async fn destroy(self: Arc<Self>) {
        // Whatever else had it has ended by now.
        let Some(cage) = Arc::into_inner(self) else {
            return tracing::error!(
                "a cage is still in use when its session ends; it is left behind"
            );
        };
        if let Err(error) = cage.destroy().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to remove a cage; it is left behind"
            );
        }
    }
}

#[async_trait]
impl KernelPort for Kernel {
    fn signals(&self) -> Arc<dyn SignalsPort> {
        Arc::new(self.handle().clone())
    }

    fn obeyed(&self) -> Arc<AtomicBool> {
        self.interrupted()
    }

    fn receiving(&self) -> Arc<AtomicBool> {
        self.receiving()
    }

    async fn run(&mut self, language: Language, program: &Program<'_>) -> Cell {
        match language {
            Language::Shell => self.run_command(program).await,
            Language::Python | Language::Unknown => self.run(program).await,
        }
    }

    async fn idle(&mut self) -> ExitStatus {
        self.idle().await
    }

    async fn begin_snapshot(&mut self, stop_after: Duration) -> Result<Snapshot, VariablesError> {
        self.begin_snapshot(stop_after).await
    }
}

impl SignalsPort for KernelHandle {
    fn pid(&self) -> u32 {
        self.pid()
    }

    fn interrupt(&self) -> io::Result<()> {
        self.interrupt()
    }

    fn kill(&self) {
        self.kill();
    }
}

impl JobsPort for Listener {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        self.poll_next(cx)
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Vec<Message>> {
        Box::pin((*self).leave())
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin((*self).abandon())
    }
}
