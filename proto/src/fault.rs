//! The closed set of platform failures on the wire. Ingress maps them to HTTP in one file.

use serde::{Deserialize, Serialize};

/// A failure's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The worker does not own the session, or gave it up before the work began; the sender looks
    /// again.
    NotOwner,
    /// Another worker won the session; the sender looks again.
    LostRace,
    /// The session is ending; the sender waits and then starts anew.
    Stopping,
    /// This worker has no room; the sender asks another.
    Busy,
    /// The pool's maximum of live sessions is reached.
    SessionPoolFull,
    /// Too many executions wait in the session.
    SessionBusy,
    /// No such file below `/mnt/data`.
    FileNotFound,
    /// The path names a directory where a file is wanted, or the reverse.
    WrongFileType,
    /// The path leaves `/mnt/data` or cannot be a file's.
    InvalidPath,
    /// `/mnt/data` is full.
    DiskFull,
    /// The file is too large to be sent.
    FileTooLarge,
    /// The object store did not answer as it should.
    StorageUnavailable,
    /// The work was done, but what it left in `/mnt/data` is not in the object store.
    FilesNotDurable,
    /// The work was done, but what is in `/mnt/data` is not saved: there is too much of something, until
    /// the session removes some of it.
    TooManyFiles,
    /// The work was done, but what is in `/mnt/data` is not saved: a path in it is too long.
    PathTooLong,
    /// A sandbox could not be made or died while it was needed.
    SandboxUnavailable,
    /// The worker lost the session while it worked; the work may have had effects.
    Fenced,
    /// The operation id was used for another request.
    OperationConflict,
    /// The execution's session was lost; it may have run, and its record says so for ever.
    ExecutionLost,
    /// The execution's record says that it was refused; the sender may start it over.
    Refused,
    /// No more records of executions can be kept.
    RecordsFull,
    /// The job's time was over before it started.
    Expired,
    /// The message is of a kind or version that this worker does not know.
    Unsupported,
    /// Anything else; the log of the process that says it has the details.
    Internal,
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

/// A failure with words for the caller. The words never hold user code or file contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Its name.
    pub code: FaultCode,
    /// What happened, for people.
    pub message: String,
}

impl Fault {
    /// A failure with its words.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
