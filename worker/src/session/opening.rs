//! From a claimed lease to a sandbox with the session's files: at once for a session that begins,
//! from the commit log for one that goes on.

use std::{sync::Arc, time::Duration};

use process::spans;

use proto::{
    execution::Moved,
    fault::{Fault, FaultCode},
    id::Epoch,
    message::Job,
    recovery::Recovery,
};
use store::{
    Store,
    log::{
        commit::{Node, Variables},
        key::LogKey,
        manifest::Manifest,
        source,
        writer::{TakeOver, TakeOverError, Writer},
    },
};

use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::{
    ports::{CagePort, FilesPort, KernelPort, NewCagePort, NewSandbox, ReservedPort},
    saver::{Committer, Saver, Upkeep},
};
use crate::{
    bus::Responder,
    files::DataDir,
    kernel::{Cell, CellEnd},
    lease::Continuity,
    stock::{Source, StockError},
    sync::{RestoreError, Transfers},
};

/// How long a kernel may take to load variables.
const VARIABLES_WITHIN: Duration = Duration::from_secs(10);

/// A session's sandbox on its way, and who waits for nothing else.
#[derive(Debug)]
pub struct Opening {
    /// The way itself. A task, so that giving up never leaves half of it.
    pub task: JoinHandle<Result<Opened, OpenError>>,
    /// File operations.
    pub held: Vec<(Job, Responder)>,
}

/// Everything that a new owner needs to know of the session that it opens.
#[derive(Debug)]
pub struct Plan {
    /// Where the session's log is.
    pub place: LogKey,
    /// The new owner's.
    pub epoch: Epoch,
    /// Whether there is something to take over.
    pub continuity: Continuity,
    /// What is kept beside its log.
    pub recovery: Option<Recovery>,
    /// The sandbox that it gets.
    pub sandbox: Box<dyn ReservedPort>,
    /// Memory for its files on their way.
    pub transfers: Transfers,
    /// How its files are saved.
    pub upkeep: Upkeep,
}

/// A session that can be served.
#[derive(Debug)]
pub struct Opened {
    /// Where its code runs.
    pub sandbox: Sandbox,
    /// Its interpreter.
    pub kernel: Box<dyn KernelPort>,
    /// How its sandbox was had.
    pub source: Source,
    /// Time since the sandbox was asked for.
    pub took: Duration,
    /// What became of its variables, if it moved.
    pub moved: Option<Moved>,
}

/// The outer half of a session's sandbox, and its files.
#[derive(Debug)]
pub struct Sandbox {
    /// What holds its code.
    pub cage: Arc<dyn CagePort>,
    /// Its files as callers reach them.
    pub data: DataDir,
    /// The way of its files to the store.
    pub saver: Saver,
    /// What saves them.
    pub committer: Committer,
    /// Kills by the memory limit that are accounted for.
    oom_kills: u64,
    /// Processes and threads beyond the limit that are accounted for.
    pids_denied: u64,
}

impl Sandbox {
    /// One in which nothing was killed or refused yet.
    #[must_use]
    pub fn new(
        cage: Arc<dyn CagePort>,
        data: DataDir,
        (saver, committer): (Saver, Committer),
    ) -> Self {
        Self {
            cage,
            data,
            saver,
            committer,
            oom_kills: 0,
            pids_denied: 0,
        }
    }

    /// Whether the memory limit killed something since the last time it was asked.
    pub fn has_run_out_of_memory(&mut self, cell: &Cell) -> bool {
        let (CellEnd::Died(_) | CellEnd::Exited(_)) = &cell.end else {
            return false;
        };
        let kills = self.cage.oom_kills().unwrap_or(self.oom_kills);
        kills > std::mem::replace(&mut self.oom_kills, kills)
    }

    /// Whether a cell failed that does not say why, and more processes and threads were refused since the last time it
    /// was asked.
    pub fn has_run_out_of_tasks(&mut self, cell: &Cell) -> bool {
        if !cell.failed_without_naming_the_task_limit() {
            return false;
        }
        let denied = self.cage.pids_denied().unwrap_or(self.pids_denied);
        denied > std::mem::replace(&mut self.pids_denied, denied)
    }

    /// Whether a cell failed because the worker's disk, not the session's own, had no room for it.
    #[must_use]
    pub fn is_starved(&self, cell: &Cell) -> bool {
        cell.found_no_space() && self.cage.is_starved()
    }
}

/// Why a session cannot be served here.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No sandbox.
    #[error(transparent)]
    Stock(#[from] StockError),
    /// The data filesystem is not reachable.
    #[error("failed to open the data directory")]
    Data(#[source] std::io::Error),
    /// This worker's disk has no room for its files.
    #[error("the disk has no room for the session's files above its reserve")]
    NoRoom,
    /// Another owner was faster, or the log is ahead of the lease.
    #[error("failed to take over the session's log")]
    TakeOver(#[from] TakeOverError),
    /// The files could not be had.
    #[error("failed to restore the session's files")]
    Restore(#[from] RestoreError),
}

impl OpenError {
    /// Names of the steps that can fail.
    pub const STEPS: [&'static str; 7] = [
        "sandbox",
        "join",
        "interpreter",
        "data_directory",
        "disk_room",
        "take_over",
        "restore",
    ];

    /// Name of the step that failed.
    #[must_use]
    pub fn step(&self) -> &'static str {
        let [
            _sandbox,
            _join,
            _interpreter,
            data_directory,
            disk_room,
            take_over,
            restore,
        ] = Self::STEPS;
        match self {
            Self::Stock(error) => error.step(),
            Self::Data(_) => data_directory,
            Self::NoRoom => disk_room,
            Self::TakeOver(_) => take_over,
            Self::Restore(_) => restore,
        }
    }
}

impl Opening {
    /// Begins to open a session. What is logged on the way belongs to the span.
    #[must_use]
    pub fn begin(
        opened: impl Future<Output = Result<Opened, OpenError>> + Send + 'static,
        span: Span,
    ) -> Self {
        let opened = async move {
            let opened = opened.await;
            opened.inspect_err(|_| spans::fail(&Span::current()))
        };
        Self {
            task: tokio::spawn(opened.instrument(span)),
            held: vec![],
        }
    }

    /// What comes of it. May be dropped and called again at any moment before that.
    ///
    /// # Errors
    /// The session cannot be served here.
    pub async fn opened(&mut self) -> Result<Opened, OpenError> {
        let opened = (&mut self.task).await;
        opened.unwrap_or_else(|cut_off| Err(OpenError::Data(std::io::Error::other(cut_off))))
    }
}

impl Plan {
    /// Makes everything ready.
    ///
    /// # Errors
    /// The sandbox or the files cannot be had. The session's log is whole in any case.
    pub async fn open(self, store: Store) -> Result<Opened, OpenError> {
        match self.continuity {
            Continuity::New { .. } => {
                let asked = self.sandbox.asked();
                let NewSandbox {
                    cage,
                    kernel,
                    source,
                } = self.sandbox.take().await?;
                cage.open_for_session();
                let data = cage.data().map_err(OpenError::Data)?;
                let mut writer = Writer::fresh(store, self.place, self.epoch);
                if let Some(recovery) = self.recovery {
                    writer.remember(recovery);
                }
                let files = Arc::clone(&cage).fresh_files(writer, data.clone(), self.transfers);
                Ok(Opened {
                    sandbox: sandbox(cage, data, files, self.upkeep),
                    kernel,
                    source,
                    took: asked.elapsed(),
                    moved: None,
                })
            }
            Continuity::Continued => self.take_over(store).await,
        }
    }

    async fn take_over(self, store: Store) -> Result<Opened, OpenError> {
        let asked = self.sandbox.asked();
        let reading = TakeOver::read(store.clone(), self.place.clone(), self.epoch);
        let taking = async { Ok(self.sandbox.take().await?) };
        let read = async { Ok::<_, OpenError>(reading.await?) };
        let (ready, read) = tokio::try_join!(taking, read)?;
        let NewSandbox {
            cage,
            mut kernel,
            source,
        } = ready;
        cage.open_for_session();
        // The fence comes last: the variables before it are lost if this worker gives up after it.
        if !cage.make_room(bytes_of(read.manifest())) {
            return Err(OpenError::NoRoom);
        }
        let (mut writer, variables) = read.fence().await?;
        if let Some(recovery) = self.recovery {
            writer.remember(recovery);
        }
        let data = cage.data().map_err(OpenError::Data)?;
        let files = Arc::clone(&cage).restored_files(writer, data.clone(), self.transfers);
        let files = files.await?;
        cage.filled();
        let moved = match variables {
            Some(variables) => carry(&store, &self.place, variables, &mut *kernel).await,
            None => Moved {
                variables: false,
                lost: vec![],
            },
        };
        Ok(Opened {
            sandbox: sandbox(cage, data, files, self.upkeep),
            kernel,
            source,
            took: asked.elapsed(),
            moved: Some(moved),
        })
    }
}

fn sandbox(
    cage: Arc<dyn NewCagePort>,
    data: DataDir,
    files: Box<dyn FilesPort>,
    upkeep: Upkeep,
) -> Sandbox {
    Sandbox::new(cage, data, Saver::start(files, upkeep))
}

/// At least what the session's files take of a disk.
fn bytes_of(manifest: &Manifest) -> u64 {
    const BLOCK: u64 = 4096;
    let bytes = manifest.iter().map(|(_, node)| match node {
        Node::File(file) => {
            let extents = file.extents.iter();
            extents.map(|extent| u64::from(extent.len)).sum::<u64>() + BLOCK
        }
        _ => BLOCK,
    });
    bytes.fold(0, u64::saturating_add)
}

/// Brings variables into the new interpreter. Without them the session goes on all the same.
async fn carry(
    store: &Store,
    place: &LogKey,
    variables: Variables,
    kernel: &mut dyn KernelPort,
) -> Moved {
    let none = Moved {
        variables: false,
        lost: vec![],
    };
    let data = match source::fetch_variables(store, place, &variables).await {
        Ok(data) => data,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to fetch variables"
            );
            return none;
        }
    };
    match kernel.restore(&data, VARIABLES_WITHIN).await {
        Ok(more) => Moved {
            variables: true,
            lost: [variables.lost, more].concat(),
        },
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to load variables"
            );
            // It may be anywhere; another takes its place in the cage.
            kernel.signals().kill();
            none
        }
    }
}

impl From<&OpenError> for Fault {
    fn from(error: &OpenError) -> Self {
        match error {
            OpenError::Stock(_) | OpenError::Data(_) => {
                let words = "the session's sandbox could not be made or kept";
                Self::new(FaultCode::SandboxUnavailable, words)
            }
            OpenError::NoRoom => {
                let words =
                    "this worker's disk has no room for the session's files; nothing was done";
                Self::new(FaultCode::NotOwner, words)
            }
            OpenError::TakeOver(TakeOverError::Behind { .. } | TakeOverError::Contended) => {
                let words = "another worker was faster; nothing was done";
                Self::new(FaultCode::NotOwner, words)
            }
            OpenError::TakeOver(_) | OpenError::Restore(_) => {
                let words = "the session's files could not be restored; nothing was done";
                Self::new(FaultCode::StorageUnavailable, words)
            }
        }
    }
}
