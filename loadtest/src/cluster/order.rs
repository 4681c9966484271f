//! What a stack's owner and its keeper say to each other: one JSON value per line.

use std::{ffi::OsString, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A process to keep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Name for later orders.
    pub(crate) name: String,
    /// Executable.
    pub(crate) program: PathBuf,
    /// Arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Variables added to the environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Where its output is appended.
    pub(crate) log: PathBuf,
    /// Name of the cgroup that stays behind when the process is killed.
    pub(crate) cgroup: Option<String>,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Halt {
    /// SIGTERM, and SIGKILL when that did not do.
    Gently,
    /// SIGKILL.
    Kill,
}

/// What the owner wants. Each order is answered by one [`Report`]; the end of the input ends the
/// whole stack.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Start a process, in the place of an ended one of the same name.
    Run(Process),
    /// Say whether a process runs.
    Check(String),
    /// End a process.
    Halt(String, Halt),
    /// Stop a process without ending it.
    Pause(String),
    /// Let a paused process go on.
    Resume(String),
    /// Leave the directory when the stack ends.
    KeepFiles,
}

/// What became of an order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The process runs under this number.
    Running(u32),
    /// The process has ended, with its exit status in words.
    Ended(String),
    /// It is done.
    Done,
    /// It could not be done.
    Failed(String),
}
