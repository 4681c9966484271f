//! Whether a kernel that has answered waits for its next request. A cell can write an answer and run on;
//! what tells is whether its process takes off the socket what is sent there, which nobody in the
//! sandbox can feign without reading it.

use std::{future::pending, time::Duration};

use proto::limits::KERNEL_SILENCE;
use tokio::time::Instant;

use super::{
    descriptor::Descriptor,
    frame::{self, ToKernel},
    socket,
    violation::Violation,
};

/// A kernel that gets its next request sooner is not asked: the request itself tells.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// What is known of a kernel without a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Watch {
    /// It waits.
    #[default]
    Waits,
    /// It is probed then.
    Unknown(Instant),
    /// It must have taken a probe off its socket by then.
    Probed(Instant),
}

impl Watch {
    /// Of a kernel that has just answered.
    pub(super) fn begin(now: Instant) -> Self {
        Self::Unknown(now + PROBE_AFTER)
    }

    /// When to [`look`](Self::look).
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Waits => None,
            Self::Unknown(at) | Self::Probed(at) => Some(*at),
        }
    }

    /// Sends a probe, or sees what became of it.
    pub(super) fn look(&mut self, socket: &Descriptor) -> Result<(), Violation> {
        *self = match self {
            Self::Waits => Self::Waits,
            Self::Unknown(_) => {
                let probe = frame::encode(&ToKernel::Probe)?;
                if !socket::send_at_once(socket, &probe)? {
                    return Err(Violation::Busy);
                }
                Self::Probed(deadline())
            }
            Self::Probed(_) if socket::is_unread(socket) => return Err(Violation::Busy),
            Self::Probed(_) => Self::Waits,
        };
        Ok(())
    }
}

/// When a kernel must have gone on that is expected to do so now.
pub(super) fn deadline() -> Instant {
    Instant::now() + KERNEL_SILENCE
}

/// Waits until then; for ever without a deadline.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => pending().await,
    }
}
