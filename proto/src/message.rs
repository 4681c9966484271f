//! Envelopes of the bus: jobs from ingress to workers, frames back.

use serde::{Deserialize, Serialize};

use crate::{
    about::About,
    blob::{Blob, Logged},
    execution::{Extension, Language, Outcome, Output},
    fault::Fault,
    file::{DirectoryPath, FileEntry, FilePath},
    fleet::PoolDigest,
    id::{Epoch, Identifier, Incarnation, OperationId, PoolId, SessionKey},
    inspection::Inspection,
    record::RecordRef,
    recovery::SealedIdentifier,
    trace::{self, TraceContext},
};

/// Version of the messages inside wire major `h1`. Only optional fields are added within a major.
pub const VERSION: u16 = 3;
/// Oldest version of messages that is understood.
pub const OLDEST_VERSION: u16 = 1;
/// First version that knows records of executions: an older worker would run such a job again.
const RECORDS_SINCE: u16 = 2;
/// First version that knows executions that wait in the queue, environments of executions, and interrupts of
/// whatever runs: an older worker would forget whose they are, or leave the variables out.
const QUEUE_AND_EXTENSIONS_SINCE: u16 = 3;

/// One request for a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Oldest [`VERSION`] that does what is asked, from [`Request::version`]; an older worker refuses.
    pub v: u16,
    /// Names the operation in logs and answers.
    pub operation: OperationId,
    /// The session's pool.
    pub pool: PoolId,
    /// The session.
    pub session: SessionKey,
    /// The session's name as its caller gave it.
    pub identifier: Identifier,
    /// The session's name, sealed, as it may be written into the store. An older ingress does not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedIdentifier>,
    /// The trace that the request belongs to; what cannot be read is none. An older ingress does not send it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "trace::read_or_none"
    )]
    pub trace: Option<TraceContext>,
    /// Time left for the whole job when it was sent, in milliseconds.
    pub budget_ms: u64,
    /// What to do.
    pub request: Request,
}

/// What a job asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Run code.
    Execute {
        /// UTF-8 source text.
        code: Blob,
        /// Time for the code itself, in milliseconds; the pool's ceiling applies.
        timeout_ms: u64,
        /// Where to record it, so that it never runs again; without one nobody asks again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<RecordRef>,
        /// What the code is written in. A worker that does not know this field does not know pools of
        /// anything but Python either.
        #[serde(default, skip_serializing_if = "Language::is_python")]
        language: Language,
        /// What the caller wants beyond the contract.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extension: Option<Extension>,
        /// Its output is sent in frames as it happens. An older worker sends the answer alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stream: bool,
    },
    /// Interrupt whatever runs.
    Interrupt,
    /// The reader of a stream has taken frames. Nobody answers.
    Credit {
        /// The operation id of the stream's execution.
        target: OperationId,
        /// How many.
        frames: u32,
        /// What they cost together ([`Output::cost`]).
        bytes: u64,
    },
    /// Interrupt the execution of this operation id.
    Cancel {
        /// The execution's operation id.
        target: OperationId,
    },
    /// Store a file, replacing one of the same name.
    Upload {
        /// Where.
        path: FilePath,
        /// The bytes.
        content: Blob,
    },
    /// List a directory.
    List {
        /// Which.
        directory: DirectoryPath,
        /// Everything below it too.
        recursive: bool,
    },
    /// Describe one file.
    Stat {
        /// Which.
        path: FilePath,
    },
    /// Fetch one file's bytes.
    Download {
        /// Which.
        path: FilePath,
    },
    /// Remove one file.
    Delete {
        /// Which.
        path: FilePath,
    },
    /// Tell of an execution without a record: one that waits or runs, or ended a short time ago.
    Recall {
        /// Which.
        target: OperationId,
    },
    /// Describe the session.
    Describe,
    /// Tell an operator how the session stands. An older worker refuses.
    Inspect,
    /// End the session.
    Stop,
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

impl Request {
    /// Whether it can be answered from a session's log alone.
    #[must_use]
    pub fn only_reads_files(&self) -> bool {
        match self {
            Self::List { .. } | Self::Stat { .. } | Self::Download { .. } => true,
            Self::Execute { .. }
            | Self::Interrupt
            | Self::Credit { .. }
            | Self::Cancel { .. }
            | Self::Upload { .. }
            | Self::Delete { .. }
            | Self::Recall { .. }
            | Self::Describe
            | Self::Inspect
            | Self::Stop
            | Self::Unknown => false,
        }
    }

    /// Last token of the subject that carries it.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Execute { .. } => "exec",
            Self::Cancel { .. } => "cancel",
            Self::Interrupt => "interrupt",
            Self::Credit { .. } => "credit",
            Self::Upload { .. } => "upload",
            Self::List { .. } => "list",
            Self::Stat { .. } => "stat",
            Self::Download { .. } => "download",
            Self::Delete { .. } => "delete",
            Self::Recall { .. } => "recall",
            Self::Describe => "describe",
            Self::Inspect => "inspect",
            Self::Stop => "stop",
            Self::Unknown => "unknown",
        }
    }

    /// Oldest version of the messages whose receivers do what is asked.
    #[must_use]
    pub fn version(&self) -> u16 {
        match self {
            Self::Execute {
                record: Some(record),
                ..
            } if record.is_queued() => QUEUE_AND_EXTENSIONS_SINCE,
            Self::Execute {
                extension: Some(extension),
                ..
            } if !extension.environment.is_empty() => QUEUE_AND_EXTENSIONS_SINCE,
            Self::Interrupt | Self::Credit { .. } | Self::Recall { .. } => {
                QUEUE_AND_EXTENSIONS_SINCE
            }
            Self::Execute {
                record: Some(_), ..
            } => RECORDS_SINCE,
            _ => OLDEST_VERSION,
        }
    }
}

/// A job for whichever worker has room, with what its sender saw of the session's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The job; the new owner answers it on the same inbox.
    pub job: Job,
    /// Stream sequence of the lease record (or of what deleted it) that the sender saw, 0 for none.
    /// The worker claims on exactly this revision: one that it read itself would be newer than the
    /// decision to place, and two workers could both own the session.
    pub seen: u64,
    /// The pool's settings as the sender knows them: a worker with others refuses, so that another is asked.
    /// An older sender does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_digest: Option<PoolDigest>,
}

/// One message from a worker about a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Epoch of the owner that speaks; 0 while it owns nothing.
    pub epoch: Epoch,
    /// 0, 1, 2 … for this job: a gap means that the bus dropped one.
    pub n: u32,
    /// What it says.
    pub body: FrameBody,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameBody {
    /// The owner has the job. From here on it may have effects.
    Accepted,
    /// It still works on it.
    Heartbeat,
    /// Output of an execution that is streamed; counts as a heartbeat.
    Output(Output),
    /// The answer; the last frame.
    Done(Answer),
    /// The failure; the last frame.
    Failed(Fault),
}

/// Answers by kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `Execute`: an [`Outcome`], inline or as a staged object in the same encoding.
    Executed(Carried),
    /// To `Upload` and `Stat`.
    File(FileEntry),
    /// To `List`, sorted by path.
    Files(Vec<FileEntry>),
    /// To `List`, when the entries are too long for a frame: the staging object holds the encoded entries.
    ManyFiles(crate::blob::Staged),
    /// To `Download`.
    Content {
        /// The file.
        entry: FileEntry,
        /// Its bytes.
        content: Blob,
    },
    /// To `Download`, for a file whose bytes its reader finds in the session's log.
    Logged {
        /// The file.
        entry: FileEntry,
        /// Its bytes.
        content: Logged,
    },
    /// To `Delete`, `Stop` and `Cancel`.
    Gone,
    /// To `Interrupt`: whether something ran.
    Interrupted(bool),
    /// To `Recall`; `None` for one that is not remembered.
    Recalled(Option<Recalled>),
    /// To `Describe`.
    Session(SessionInfo),
    /// To `Inspect`.
    Inspection(Box<Inspection>),
    /// To whoever asks what a pool's sandboxes hold ([`crate::subject::about`]).
    About(About),
}

/// How an execution without a record stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recalled {
    /// Others run before it.
    Waits,
    /// It runs, or its files are being saved.
    Runs,
    /// It left this.
    Ended(Box<Outcome>),
}

/// An outcome inside the frame, or the staging object that holds its encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carried {
    /// Small enough for the frame.
    Inline(Box<Outcome>),
    /// [`crate::wire::encode`]d outcome in the store.
    Staged(crate::blob::Staged),
    /// An encoded outcome in the store, of an execution with a record: whoever reads it leaves it for others who ask.
    Kept(crate::blob::Staged),
}

/// A session as it is told to callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its name.
    pub identifier: Identifier,
    /// Its life.
    pub incarnation: Incarnation,
    /// Milliseconds since its last request.
    pub idle_ms: u64,
    /// Milliseconds until it ends if nothing comes.
    pub remaining_ms: u64,
}
