//! What an operator is told of a session: how it stands and why it may be slow, and nothing of what its
//! callers sent or what its code wrote.

use serde::{Deserialize, Serialize};

use crate::{id::OperationId, message::SessionInfo};

/// A session as its owner sees it. Times are milliseconds, counted by the owner's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// What callers may know, too.
    pub session: SessionInfo,
    /// Name of its state, such as `idle` or `running`.
    pub state: String,
    /// The execution that runs, or whose files are being saved.
    #[serde(default)]
    pub running: Option<RunningExecution>,
    /// Executions that wait for others of the session.
    pub waiting: u32,
    /// Uploads, downloads and the like that are under way or wait for the sandbox.
    pub file_operations: u32,
    /// Time since the bus last said that the lease is the owner's.
    pub lease_renewed_ms: u64,
    /// Time since its files were last committed to the object store by this owner; none if they never were.
    #[serde(default)]
    pub committed_ms: Option<u64>,
    /// Whether the last attempt to save its files failed.
    pub is_unsaved: bool,
    /// What its sandbox uses; none if it has none yet, or it cannot be read.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// An execution that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningExecution {
    /// Its name.
    pub operation: OperationId,
    /// Time since its code was started.
    pub since_ms: u64,
    /// Whether the code has ended and its files are being saved.
    pub is_saving: bool,
}

/// What a sandbox uses, as the kernel of the host counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Memory in bytes: private pages, scratch files, and cached pages of `/mnt/data`.
    pub memory_bytes: u64,
    /// Processor time in milliseconds since the sandbox was made.
    pub cpu_ms: u64,
    /// Processes of the session's own.
    pub processes: u32,
}
