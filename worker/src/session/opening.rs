//! From a claimed lease to a sandbox with the session's files: at once for a session that begins,
//! from the commit log for one that goes on.

use std::{sync::Arc, time::Duration};

use proto::{
    execution::Moved,
    fault::{Fault, FaultCode},
    id::Epoch,
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

use crate::{
    files::DataDir,
    kernel::Kernel,
    lease::Continuity,
    sandbox::Cage,
    stock::{Ready, Reserved, Source, StockError},
    sync::{RestoreError, Syncer, Transfers},
};

/// How long a kernel may take to load variables.
const VARIABLES_WITHIN: Duration = Duration::from_secs(10);

/// Everything that a new owner needs to know of the session that it opens.
#[derive(Debug)]
pub struct Opening {
    /// Where the session's log is.
    pub place: LogKey,
    /// The new owner's.
    pub epoch: Epoch,
    /// Whether there is something to take over.
    pub continuity: Continuity,
    /// What is kept beside its log.
    pub recovery: Option<Recovery>,
    /// The sandbox that it gets.
    pub sandbox: Reserved,
    /// Memory for its files on their way.
    pub transfers: Transfers,
}

/// A session that can be served.
#[derive(Debug)]
pub struct Opened {
    /// Its sandbox's outer half.
    pub cage: Arc<Cage>,
    /// Its interpreter.
    pub kernel: Kernel,
    /// How its sandbox was had.
    pub source: Source,
    /// Time since the sandbox was asked for.
    pub took: Duration,
    /// Its files as callers reach them.
    pub data: DataDir,
    /// Its files and their log.
    pub files: Syncer,
    /// What became of its variables, if it moved.
    pub moved: Option<Moved>,
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
    /// Makes everything ready.
    ///
    /// # Errors
    /// The sandbox or the files cannot be had. The session's log is whole in any case.
    pub async fn open(self, store: Store) -> Result<Opened, OpenError> {
        match self.continuity {
            Continuity::New { .. } => {
                let asked = self.sandbox.asked();
                let Ready {
                    cage,
                    kernel,
                    source,
                } = self.sandbox.take().await?;
                cage.open_for_session();
                let data = DataDir::new(cage.data(), cage.owner()).map_err(OpenError::Data)?;
                let mut writer = Writer::fresh(store, self.place, self.epoch);
                if let Some(recovery) = self.recovery {
                    writer.remember(recovery);
                }
                Ok(Opened {
                    files: Syncer::fresh(writer, data.clone(), self.transfers),
                    cage: Arc::new(cage),
                    kernel,
                    source,
                    took: asked.elapsed(),
                    data,
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
        let Ready {
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
        let data = DataDir::new(cage.data(), cage.owner()).map_err(OpenError::Data)?;
        let files = Syncer::restore(writer, data.clone(), self.transfers).await?;
        cage.filled();
        let moved = match variables {
            Some(variables) => carry(&store, &self.place, variables, &mut kernel).await,
            None => Moved {
                variables: false,
                lost: vec![],
            },
        };
        Ok(Opened {
            cage: Arc::new(cage),
            kernel,
            source,
            took: asked.elapsed(),
            data,
            files,
            moved: Some(moved),
        })
    }
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
async fn carry(store: &Store, place: &LogKey, variables: Variables, kernel: &mut Kernel) -> Moved {
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
            kernel.handle().kill();
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
