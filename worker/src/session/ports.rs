//! What a session needs of the world, as traits: with others behind them its stories are told without root,
//! kernels and a bus.

use std::{
    fmt, io,
    process::ExitStatus,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Client, Message, SubscribeError};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use proto::{execution::Language, file::FilePath, inspection::Usage, pool::Limits};
use store::log::{commit::File, upkeep::UpkeepError, writer::Writer};
use tokio::time::Instant;

use crate::{
    files::DataDir,
    kernel::{
        Cell, Kernel, Program,
        variables::{Snapshot, VariablesError},
    },
    listener::{LeaveMarker, Listener},
    sandbox::{Cage, KernelHandle, Meter},
    stock::{self, Reserved, Source, Stock, StockError},
    sync::{RestoreError, SyncError, Synced, Syncer, Transfers},
};

/// Where sandboxes come from.
pub trait StockPort: fmt::Debug + Send + Sync {
    /// Whether a new session with these limits would get an interpreter that is ready.
    fn is_warm(&self, limits: &Limits) -> bool;
    /// Whether the disk has room for a new session with these limits.
    fn has_room(&self, limits: &Limits) -> bool;
    /// Begins to take a sandbox.
    fn reserve(&self, limits: &Limits) -> Box<dyn ReservedPort>;
}

/// A sandbox that is being taken while it is not sure yet that there is a session for it.
#[async_trait]
pub trait ReservedPort: fmt::Debug + Send + Sync {
    /// When it was asked for.
    fn asked(&self) -> Instant;
    /// The sandbox, for the session that there is.
    ///
    /// # Errors
    /// Nothing was ready and nothing could be made.
    async fn take(self: Box<Self>) -> Result<NewSandbox, StockError>;
    /// There is no session: it goes back to where it came from, untouched.
    async fn give_back(self: Box<Self>);
}

/// A sandbox that no session has used.
#[derive(Debug)]
pub struct NewSandbox {
    /// Its outer half.
    pub cage: Arc<dyn NewCagePort>,
    /// Its interpreter.
    pub kernel: Box<dyn KernelPort>,
    /// How it was had.
    pub source: Source,
}

/// The outer half of a sandbox that no session has used.
#[async_trait]
pub trait NewCagePort: CagePort {
    /// A session takes it.
    fn open_for_session(&self);
    /// Whether the worker's disk has room for so many bytes of files. They count as taken until they are there.
    fn make_room(&self, bytes: u64) -> bool;
    /// The files that room was made for are there.
    fn filled(&self);
    /// The session's files as callers reach them.
    ///
    /// # Errors
    /// The session's filesystem failed.
    fn data(&self) -> io::Result<DataDir>;
    /// The files of a session that begins.
    fn fresh_files(
        self: Arc<Self>,
        writer: Writer,
        data: DataDir,
        transfers: Transfers,
    ) -> Box<dyn FilesPort>;
    /// The files of a session that goes on, as its log has them.
    ///
    /// # Errors
    /// They cannot be had; the sandbox is of no use then.
    async fn restored_files(
        self: Arc<Self>,
        writer: Writer,
        data: DataDir,
        transfers: Transfers,
    ) -> Result<Box<dyn FilesPort>, RestoreError>;
}

/// A session's files, and its log, which is to hold them.
#[async_trait]
pub trait FilesPort: fmt::Debug + Send {
    /// The log's end.
    fn writer(&mut self) -> &mut Writer;
    /// Commits everything that changed.
    ///
    /// # Errors
    /// See [`SyncError`].
    async fn commit_all(&mut self) -> Result<Synced, SyncError>;
    /// Commits one path.
    ///
    /// # Errors
    /// See [`SyncError`].
    async fn commit_path(&mut self, path: &FilePath) -> Result<Synced, SyncError>;
    /// What the log holds of a file, if that is what the file has in it now.
    ///
    /// # Errors
    /// The session's filesystem failed.
    async fn describe(&mut self, path: &FilePath) -> io::Result<Option<File>>;
    /// Writes a checkpoint if it is time for one.
    ///
    /// # Errors
    /// See [`UpkeepError`].
    async fn checkpoint_if_due(&mut self) -> Result<(), UpkeepError>;
}

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
    /// Loads the variables of the session's interpreter before. Names those that are lost.
    ///
    /// # Errors
    /// It does not answer, or is gone: it is of no use then.
    async fn restore(
        &mut self,
        variables: &[u8],
        within: Duration,
    ) -> Result<Vec<String>, VariablesError>;
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

/// The bus as a place to listen at.
#[async_trait]
pub trait ListenPort: fmt::Debug + Send + Sync {
    /// Listens at `subject` as a member of `group`.
    ///
    /// # Errors
    /// The connection is closed for good.
    async fn listen(
        &self,
        subject: String,
        group: &str,
        marker: LeaveMarker,
    ) -> Result<Box<dyn JobsPort>, SubscribeError>;
}

/// Jobs that arrive at a subject.
pub trait JobsPort: fmt::Debug + Send {
    /// The next one. Pending for ever when none can come any more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Message>;
    /// Stops listening; what arrived until then.
    fn leave(self: Box<Self>) -> BoxFuture<'static, Vec<Message>>;
    /// Stops listening at once: another owner is to get whatever comes. What is here already.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, Vec<Message>>;
}

impl StockPort for Stock {
    fn is_warm(&self, limits: &Limits) -> bool {
        self.is_warm(limits)
    }

    fn has_room(&self, limits: &Limits) -> bool {
        self.has_room(limits)
    }

    fn reserve(&self, limits: &Limits) -> Box<dyn ReservedPort> {
        Box::new(self.reserve(limits))
    }
}

#[async_trait]
impl ReservedPort for Reserved {
    fn asked(&self) -> Instant {
        self.asked()
    }

    async fn take(self: Box<Self>) -> Result<NewSandbox, StockError> {
        let stock::Ready {
            cage,
            kernel,
            source,
        } = (*self).take().await?;
        Ok(NewSandbox {
            cage: Arc::new(cage),
            kernel: Box::new(kernel),
            source,
        })
    }

    async fn give_back(self: Box<Self>) {
        (*self).give_back().await;
    }
}

#[async_trait]
impl NewCagePort for Cage {
    fn open_for_session(&self) {
        self.open_for_session();
    }

    fn make_room(&self, bytes: u64) -> bool {
        self.make_room(bytes)
    }

    fn filled(&self) {
        self.filled();
    }

    fn data(&self) -> io::Result<DataDir> {
        DataDir::new(self.data(), self.owner())
    }

    fn fresh_files(
        self: Arc<Self>,
        writer: Writer,
        data: DataDir,
        transfers: Transfers,
    ) -> Box<dyn FilesPort> {
        Box::new(CagedFiles::new(
            Syncer::fresh(writer, data, transfers),
            self,
        ))
    }

    async fn restored_files(
        self: Arc<Self>,
        writer: Writer,
        data: DataDir,
        transfers: Transfers,
    ) -> Result<Box<dyn FilesPort>, RestoreError> {
        let syncer = Syncer::restore(writer, data, transfers).await?;
        Ok(Box::new(CagedFiles::new(syncer, self)))
    }
}

/// Files of a session, which stands still while they are read.
#[derive(Debug)]
struct CagedFiles {
    syncer: Syncer,
    cage: Arc<Cage>,
}

impl CagedFiles {
    fn new(syncer: Syncer, cage: Arc<Cage>) -> Self {
        Self {
            syncer: syncer.paid_by(cage.allowance()),
            cage,
        }
    }
}

#[async_trait]
impl FilesPort for CagedFiles {
    fn writer(&mut self) -> &mut Writer {
        self.syncer.writer()
    }

    async fn commit_all(&mut self) -> Result<Synced, SyncError> {
        self.syncer.commit_all(&self.cage).await
    }

    async fn commit_path(&mut self, path: &FilePath) -> Result<Synced, SyncError> {
        self.syncer.commit_path(path).await
    }

    async fn describe(&mut self, path: &FilePath) -> io::Result<Option<File>> {
        self.syncer.describe(path).await
    }

    async fn checkpoint_if_due(&mut self) -> Result<(), UpkeepError> {
        self.syncer.checkpoint_if_due().await
    }
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

    async fn restore(
        &mut self,
        variables: &[u8],
        within: Duration,
    ) -> Result<Vec<String>, VariablesError> {
        self.restore(variables, within).await
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

#[async_trait]
impl ListenPort for Client {
    async fn listen(
        &self,
        subject: String,
        group: &str,
        marker: LeaveMarker,
    ) -> Result<Box<dyn JobsPort>, SubscribeError> {
        let listener = Listener::listen(self, subject, group, marker).await?;
        Ok(Box::new(listener))
    }
}

impl JobsPort for Listener {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        self.poll_next(cx)
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Vec<Message>> {
        Box::pin((*self).leave())
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Vec<Message>> {
        Box::pin((*self).abandon())
    }
}
