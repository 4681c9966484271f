//! The closed set of platform failures on the wire. Ingress maps them to HTTP in one file.

use std::time::Duration;

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
    /// The session's disk is full, which `/mnt/data` and `~/.local` share.
    DiskFull,
    /// The disk of the session's worker is full, and the session, which took much of it, was stopped; the
    /// work may have begun, and what it left is not saved.
    StoppedForDisk,
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
    /// The bus lost its data; nothing was done.
    BusLost,
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
    /// Seconds after which trying again makes sense, where whoever refuses knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

impl Fault {
    /// A failure with its words.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// The fault with the time after which trying again makes sense, rounded up to full seconds.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self {
            retry_after_s: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn a_fault_of_an_older_peer_does_not_say_when_to_try_again() {
        #[derive(Serialize)]
        struct Older {
            code: FaultCode,
            message: String,
        }
        let older = Older {
            code: FaultCode::RecordsFull,
            message: "full".to_owned(),
        };
        let fault = Fault::new(FaultCode::RecordsFull, "full");
        let encoded = wire::encode(&older).unwrap();
        assert_eq!(wire::decode::<Fault>(&encoded).unwrap(), fault);
        assert_eq!(wire::encode(&fault).unwrap(), encoded);
    }

    #[test]
    fn who_is_told_when_to_try_again_does_not_come_too_early() {
        for (wait, seconds) in [(1000, 1), (1001, 2), (86_399_999, 86_400), (0, 0)] {
            let fault = Fault::new(FaultCode::RecordsFull, "full");
            let fault = fault.retry_after(Duration::from_millis(wait));
            assert_eq!(fault.retry_after_s, Some(seconds));
        }
    }
}
