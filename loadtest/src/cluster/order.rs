//! What a stack's owner and its keeper say to each other: one JSON value per line.

use std::{ffi::OsString, path::PathBuf};

use rustix::process::Signal;
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

impl Process {
    /// Gives an option that has a value another one.
    pub(crate) fn replace_value(&mut self, option: &str, value: OsString) {
        let at = self.arguments.iter().position(|given| given == option);
        if let Some(given) = at.and_then(|at| self.arguments.get_mut(at + 1)) {
            *given = value;
        }
    }
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Push {
    /// Stop where it stands.
    Pause,
    /// Read settings again.
    HangUp,
    /// Go on.
    Resume,
    /// Read again what can be read while it runs (SIGHUP).
    Reload,
    /// End in its own way.
    End,
    /// End at once.
    Kill,
}

impl Push {
    /// The signal that says so.
    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::HangUp => Signal::HUP,
            Self::Pause => Signal::STOP,
            Self::Resume => Signal::CONT,
            Self::Reload => Signal::HUP,
            Self::End => Signal::TERM,
            Self::Kill => Signal::KILL,
        }
    }
}

/// What the owner wants. Each order is answered at once by one [`Report`]; the end of the input
/// ends the whole stack.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Start a process, in the place of an ended one of the same name.
    Run(Process),
    /// Say whether a process runs.
    Check(String),
    /// Send a process a signal, if it still runs.
    Push(String, Push),
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
