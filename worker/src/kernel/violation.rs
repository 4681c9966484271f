//! How kernels break their protocol, and what becomes of those that do.

use std::{process::ExitStatus, time::Duration};

use super::{Kernel, frame::FrameError};

/// Between the end of a socket and the news of its process's death lies less than this.
const DEATH_KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// What no kernel does by itself: code in the sandbox wrote to its socket, or holds it up. In words that
/// its caller may read.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// Something that is no frame.
    #[error("its channel to the server broke")]
    Malformed(#[from] FrameError),
    /// A frame that answers nothing that was asked, or bytes after an answer.
    #[error("its channel to the server broke")]
    OutOfTurn,
    /// More than [`KERNEL_CELL_BYTES`](proto::limits::KERNEL_CELL_BYTES).
    #[error("its channel to the server broke")]
    TooMuch,
    /// Descriptors came along.
    #[error("its channel to the server broke")]
    Descriptors,
    /// It closed its socket while its process lives on.
    #[error("its channel to the server broke")]
    Closed,
    /// It began a frame and did not go on.
    #[error("its channel to the server broke")]
    Stalled,
    /// It does not take what it is sent, since code runs in it that has no cell.
    #[error("code of an earlier execution was still running in it; this code did not run")]
    Busy,
}

/// Why a kernel does not answer.
#[derive(Debug)]
pub(super) enum Gone {
    /// Its process ended.
    Died(ExitStatus),
    /// It broke its protocol.
    Broken(Violation),
}

impl From<Violation> for Gone {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

impl Kernel {
    /// Kills a kernel that broke its protocol. One that closed its socket has normally ended, which is
    /// known in a moment.
    pub(super) async fn give_up(&mut self, violation: Violation) -> Gone {
        if let Violation::Closed = violation
            && let Ok(status) = tokio::time::timeout(DEATH_KNOWN_WITHIN, self.handle.exited()).await
        {
            return Gone::Died(status);
        }
        let pid = self.handle.pid();
        tracing::warn!(pid, %violation, "a kernel broke its protocol and is killed");
        self.handle.kill();
        Gone::Broken(violation)
    }
}
