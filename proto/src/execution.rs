//! What running a piece of code came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{id::Incarnation, limits};

/// What a text to be run is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// A cell of the session's interpreter.
    #[default]
    Python,
    /// A command of a shell, in a process of its own.
    Shell,
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

impl Language {
    /// Whether it is what every peer knows.
    #[must_use]
    pub fn is_python(&self) -> bool {
        *self == Self::Python
    }
}

/// How a cell ended. Every variant is an answer about the caller's code, never about the platform:
/// platform failures are [`crate::fault::Fault`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ending {
    /// It ran to its end.
    Succeeded,
    /// A shell command ran to its end.
    Exited {
        /// Its exit status as a shell tells it: 128 and the signal's number for one that was killed.
        status: u8,
    },
    /// It raised; the traceback is plain text that names the caller's line.
    Raised {
        /// Class name of the exception.
        name: String,
        /// `str()` of the exception.
        message: String,
        /// Formatted traceback without colours.
        traceback: String,
    },
    /// It did not end in time and was interrupted. `restarted` says whether the interpreter had to
    /// be restarted, which loses the variables.
    TimedOut {
        /// Variables are gone.
        restarted: bool,
    },
    /// The session's memory limit killed its interpreter; variables are gone, files are kept.
    OutOfMemory,
    /// The interpreter died for another reason; variables are gone, files are kept.
    KernelCrashed {
        /// Exit code or signal in words, such as `signal 11`.
        how: String,
    },
    /// The caller cancelled it or hung up.
    Cancelled {
        /// Variables are gone.
        restarted: bool,
    },
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

/// Exit status of a command that SIGKILL ended.
pub const KILLED: u8 = 128 + 9;

const TIMED_OUT: &str = "Request timed out waiting for code execution to complete.";
const OUT_OF_MEMORY: &str = "Execution aborted: out of memory.";
const CANCELLED: &str = "Execution cancelled.";

impl Ending {
    /// What is added to stderr for the caller; the first words are the contract's (`api.md` facts
    /// in the service's own error texts), the rest says what became of the session.
    #[must_use]
    pub fn explanation(&self) -> Option<String> {
        const GONE: &str = "The session's variables are lost; its files are kept.";
        let restarted = |restarted: bool| {
            if restarted {
                GONE
            } else {
                "Its variables are kept."
            }
        };
        match self {
            Self::Succeeded | Self::Exited { .. } => None,
            Self::Raised { traceback, .. } => Some(traceback.clone()),
            Self::TimedOut { restarted: lost } => Some(format!("{TIMED_OUT} {}", restarted(*lost))),
            Self::OutOfMemory => Some(format!("{OUT_OF_MEMORY} {GONE}")),
            Self::KernelCrashed { how } => Some(format!(
                "Execution aborted: the Python process ended ({how}). {GONE}"
            )),
            Self::Cancelled { restarted: lost } => {
                Some(format!("{CANCELLED} {}", restarted(*lost)))
            }
            Self::Unknown => Some("Execution ended in a way this server does not know.".to_owned()),
        }
    }

    /// The explanation for a shell command, whose session has no variables to lose.
    #[must_use]
    pub fn explanation_of_command(&self) -> Option<String> {
        const ENDED: &str = "The session's processes were ended; its files are kept.";
        match self {
            Self::TimedOut { restarted: true } => Some(format!("{TIMED_OUT} {ENDED}")),
            Self::TimedOut { restarted: false } => Some(TIMED_OUT.to_owned()),
            Self::OutOfMemory => Some(format!("{OUT_OF_MEMORY} The session's files are kept.")),
            Self::KernelCrashed { how } => Some(format!("Execution aborted ({how}). {ENDED}")),
            Self::Cancelled { restarted: true } => Some(format!("{CANCELLED} {ENDED}")),
            Self::Cancelled { restarted: false } => Some(CANCELLED.to_owned()),
            Self::Succeeded | Self::Exited { .. } | Self::Raised { .. } | Self::Unknown => {
                self.explanation()
            }
        }
    }

    /// The exit status of a shell command, also of one that was stopped: as `timeout` and shells tell it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Exited { status } => *status,
            Self::TimedOut { .. } => 124,
            Self::Cancelled { .. } => 130,
            Self::OutOfMemory | Self::KernelCrashed { .. } => KILLED,
            Self::Raised { .. } | Self::Unknown => 1,
        }
    }

    /// Whether the caller's code did what it was asked to.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Exited { status: 0 })
    }
}

/// One output in all the forms that the kernel offers: mime type and content. PNG and other binary
/// types are base64 text, JSON types are JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle(pub Vec<(String, String)>);

impl Bundle {
    /// The content in one form.
    #[must_use]
    pub fn get(&self, mime: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == mime)
            .map(|(_, content)| content.as_str())
    }
}

/// Whether the files that a cell left are in the object store by the time of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// They are.
    #[default]
    Durable,
    /// They will be within the pool's window ([`crate::pool::Pool::write_behind_ms`]).
    WriteBehind,
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

/// What became of a session's interpreter when the session moved to another worker. Its files came
/// along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Variables came along too, except for those in `lost`.
    pub variables: bool,
    /// Names of variables that did not come along, as far as they are known.
    pub lost: Vec<String>,
}

/// Everything that a cell left behind for its caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Standard output of the cell and of its subprocesses, bounded.
    pub stdout: String,
    /// Standard error of the cell and of its subprocesses, bounded, without the traceback.
    pub stderr: String,
    /// Display outputs in order, bounded.
    pub displays: Vec<Bundle>,
    /// The value of the last expression.
    pub result: Option<Bundle>,
    /// Time that the code ran, in milliseconds.
    pub duration_ms: u64,
    /// Whether the files are safe.
    #[serde(default)]
    pub durability: Durability,
    /// The session moved here since its last execution.
    #[serde(default)]
    pub moved: Option<Moved>,
    /// The life of the session that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// What is told only to callers who ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
}

/// What a caller wants beyond the contract ([`Outcome::details`] among it).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Environment variables for this execution alone, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

/// What is told of an execution beyond the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Files that it changed; `None` when that is not known by the time of the answer.
    #[serde(default)]
    pub files: Option<ChangedFiles>,
    /// What it used; `None` when it did not run or that could not be read.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// What is missing of its output.
    #[serde(default)]
    pub truncated: Truncated,
}

/// The files below `/mnt/data` that an execution changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFiles {
    /// Those that are new or have new contents: path and length in bytes.
    pub written: Vec<(String, u64)>,
    /// Paths that are gone. Everything below a directory goes with it.
    pub deleted: Vec<String>,
    /// There are more than [`crate::limits::CHANGED_FILES`].
    pub more: bool,
}

/// What an execution used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time of everything in the sandbox, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Most memory in use at once, in bytes: private pages, scratch files and cached pages of files.
    pub peak_memory_bytes: Option<u64>,
    /// The peak is that of the session so far: this kernel cannot begin anew.
    pub peak_of_session: bool,
    /// Bytes that the interpreter and the processes that it waited for wrote to files on disk.
    pub bytes_written: Option<u64>,
}

/// How much is missing of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncated {
    /// Bytes of standard output.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
    /// Display outputs.
    pub displays: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A piece of what running code shows, as it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Standard output, whole characters.
    Stdout(String),
    /// Standard error, whole characters.
    Stderr(String),
    /// A part of an encoded [`Bundle`]; parts follow each other directly.
    Display {
        /// The bytes.
        #[serde(with = "serde_bytes")]
        part: Vec<u8>,
        /// Nothing of the bundle follows.
        last: bool,
        /// By what an update of it refers to it, if one may.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<u32>,
        /// It replaces those of its name.
        #[serde(default, skip_serializing_if = "is_false")]
        update: bool,
    },
    /// Everything that was shown so far is taken back.
    Cleared,
    /// What would have stood here and was dropped, since its reader was too slow.
    Dropped(Truncated),
    /// Sent by a newer peer.
    #[serde(other)]
    Unknown,
}

impl Output {
    /// What it takes of a stream's window.
    #[must_use]
    pub fn cost(&self) -> usize {
        let bytes = match self {
            Self::Stdout(text) | Self::Stderr(text) => text.len(),
            Self::Display { part, .. } => part.len(),
            Self::Dropped(_) | Self::Cleared | Self::Unknown => 0,
        };
        bytes + limits::STREAM_PIECE_BYTES
    }
}

impl Outcome {
    /// Length of its texts in bytes: whether it fits a message.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let bundle = |bundle: &Bundle| -> usize {
            bundle
                .0
                .iter()
                .map(|(mime, content)| mime.len() + content.len())
                .sum()
        };
        let ending = match &self.ending {
            Ending::Raised {
                name,
                message,
                traceback,
            } => name.len() + message.len() + traceback.len(),
            Ending::KernelCrashed { how } => how.len(),
            Ending::Succeeded
            | Ending::Exited { .. }
            | Ending::TimedOut { .. }
            | Ending::OutOfMemory
            | Ending::Cancelled { .. }
            | Ending::Unknown => 0,
        };
        let details = self.details.iter().filter_map(|more| more.files.as_ref());
        let files: usize = details
            .flat_map(|files| {
                let written = files.written.iter().map(|(path, _)| path);
                written.chain(&files.deleted)
            })
            .map(|path| path.len() + size_of::<u64>())
            .sum();
        let shown: usize = self.displays.iter().chain(&self.result).map(bundle).sum();
        ending + self.stdout.len() + self.stderr.len() + shown + files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_stopped_has_the_status_that_shells_give_it() {
        let table = [
            (Ending::Exited { status: 3 }, 3, None),
            (Ending::TimedOut { restarted: false }, 124, Some(TIMED_OUT)),
            (Ending::Cancelled { restarted: true }, 130, Some(CANCELLED)),
            (Ending::OutOfMemory, 137, Some(OUT_OF_MEMORY)),
        ];
        for (ending, status, words) in table {
            assert_eq!(ending.exit_status(), status, "{ending:?}");
            let explanation = ending.explanation_of_command();
            assert_eq!(explanation.is_some(), words.is_some(), "{ending:?}");
            let told = explanation.unwrap_or_default();
            assert!(told.starts_with(words.unwrap_or_default()), "{told}");
            assert!(!told.contains("variables"), "{told}");
        }
        assert!(
            Ending::Exited { status: 0 }.succeeded() && !Ending::Exited { status: 1 }.succeeded()
        );
    }
}
