//! Why a command was not done.

use std::time::Duration;

use proto::{fault::Fault, id::WorkerId};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Pools are named in the pool file, and none was given.
    #[error("failed to read the pools: give the pool file in --pools")]
    NoPoolFile,
    /// No pool has this name or id.
    #[error("no pool is called `{0}`; the pool file has: {1}")]
    NoPool(String, String),
    /// Several pools have this name.
    #[error("several pools are called `{0}`; give the id instead: {1}")]
    ManyPools(String, String),
    /// No session of this name lives.
    #[error("no session of this identifier lives in pool `{0}`")]
    NoSession(String),
    /// It lives, and no worker holds it.
    #[error(
        "no worker holds the session now: nothing runs in it, and its files are gone {} seconds from now unless \
         a caller uses it before",
        .0.as_secs()
    )]
    NotHeld(Duration),
    /// No worker of this name serves.
    #[error("no worker is called `{0}`; see `hearth workers`")]
    NoWorker(WorkerId),
    /// Nobody answered in time.
    #[error("{0} did not answer within {seconds} seconds", seconds = .1.as_secs())]
    Silent(String, Duration),
    /// The answer was a refusal.
    #[error("{who} refused: {}", fault.message)]
    Refused {
        /// Who was asked.
        who: String,
        /// The answer.
        fault: Fault,
    },
    /// The answer was one to something else: another version.
    #[error("{0} gave an answer that is not understood; are both of the same version?")]
    Answer(String),
}
