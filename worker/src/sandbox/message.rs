//! What the worker says to `caged` and to the zygote launcher, and what `caged` answers.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// First message to `caged`. Its configuration arrives here, because its command line and its
/// environment are visible and therefore empty. One descriptor comes along: the lock of the state
/// directory, which `caged` holds as long as it lives.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CagedSettings {
    /// Id of the worker, part of the names of its cgroups.
    pub(super) worker: String,
    /// Block device with the image.
    pub(super) image: PathBuf,
    /// All cages are killed this long after the last beat.
    pub(super) beat_ttl: Duration,
}

/// Every later message to `caged`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Request {
    /// Make a cage; answered by [`Reply::Made`] or [`Reply::Failed`].
    Make(Make),
    /// Kill a cage and remove it; answered by [`Reply::Gone`] or [`Reply::Failed`].
    Destroy { id: u64, cage: String },
    /// The worker's lease was renewed; `taken_nanos` is the time before the renewal was sent, on
    /// the clock that all processes of a host share ([`now_nanos`]).
    Beat { taken_nanos: u64 },
}

/// The cage to make.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Make {
    pub(super) id: u64,
    /// Name, unique in the worker.
    pub(super) cage: String,
    /// First of the 65 536 host uids and gids of the cage.
    pub(super) uid_base: u32,
    /// Block device with the session's data filesystem.
    pub(super) data: PathBuf,
    /// What is deleted in it is given back to the disk at once.
    pub(super) discard: bool,
    pub(super) limits: CageLimits,
}

/// The limits that a cage enforces; see `proto::pool::Limits` for their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CageLimits {
    pub(super) memory_bytes: u64,
    pub(super) processes: u32,
    pub(super) cpu_millis: u32,
    pub(super) scratch_bytes: u64,
}

/// Answers of `caged`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Reply {
    /// The settings were taken, the image is mounted.
    Ready,
    /// `caged` or the launcher cannot start.
    Refused { error: String },
    /// `caged` cannot start, because the image cannot be mounted.
    NoImage { error: String },
    /// The cage exists. A pidfd of its PID 1 and the root of its data filesystem come along.
    Made { id: u64, pid: u32 },
    /// The cage's processes and cgroups are gone.
    Gone { id: u64 },
    /// The request failed, and what it had begun was undone as far as possible.
    Failed { id: u64, error: String },
}

/// First message to the zygote launcher. The second is for the zygote itself: the filter.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LauncherSettings {
    /// Block device with the image.
    pub(super) image: PathBuf,
    /// The library that the zygote loads.
    pub(super) library: PathBuf,
}

/// A message as a packet.
pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Plain structures of numbers and text always encode; an empty packet would end the peer.
    serde_json::to_vec(message).unwrap_or_default()
}

/// The message in a packet.
pub(super) fn decode<T: DeserializeOwned>(packet: &[u8]) -> std::io::Result<T> {
    serde_json::from_slice(packet).map_err(std::io::Error::other)
}

/// Nanoseconds since boot, time spent suspended included.
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock that two processes share, and that does not stop with the host"
)]
pub(super) fn now_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
