//! Variables on a planned move: they leave one kernel as bytes and enter another. Only kernels read the
//! bytes, because reading them runs the session's own code.

use std::{fmt, process::ExitStatus, time::Duration};

use proto::limits::SNAPSHOT_BYTES;

use super::{
    Kernel,
    exchange::Meaning,
    frame::{FromKernel, Lost, ToKernel, Variables},
    output::Output,
    violation::{Gone, Violation},
};

/// A kernel is told to stop this many times earlier than it is given up: it looks at the time between two
/// variables only, and may have to write some of them twice.
const EARLIER: u32 = 3;

/// The variables of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Those that can be carried, at most [`SNAPSHOT_BYTES`]. Opaque outside a sandbox. Empty if the
    /// kernel could carry nothing at all.
    pub data: Vec<u8>,
    /// Those that cannot, as the user is told: at most [`proto::limits::LOST_NAMES`] short names without
    /// control characters, of which the last may say how many more there are.
    pub lost: Vec<String>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (data, lost) = (self.data.len(), self.lost.len());
        write!(f, "Snapshot({data} bytes, {lost} lost)")
    }
}

/// Variables did not get out of a kernel or into one. The kernel is of no further use: it has to be killed
/// if it lives.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// Its process ended, as when the user's own code does so or the memory was not enough.
    #[error("the interpreter ended ({0})")]
    Died(ExitStatus),
    /// It has not answered in time.
    #[error("the interpreter did not answer within {0:?}")]
    TooSlow(Duration),
    /// It broke the protocol.
    #[error("the interpreter broke the protocol")]
    Broken(#[source] Violation),
    /// More than [`SNAPSHOT_BYTES`]; the kernel was not asked and is as it was.
    #[error("variables of {0} bytes, at most {SNAPSHOT_BYTES} are carried")]
    TooLong(usize),
}

impl From<Gone> for VariablesError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Died(status) => Self::Died(status),
            Gone::Broken(violation) => Self::Broken(violation),
        }
    }
}

impl Kernel {
    /// The session's variables. For a kernel that runs no cell; afterwards it can run more. What the
    /// user's own code prints meanwhile is dropped.
    ///
    /// # Errors
    /// The kernel dies, breaks, or has not answered `within` this time.
    pub async fn snapshot(&mut self, within: Duration) -> Result<Snapshot, VariablesError> {
        let snapshot = self.begin_snapshot(earlier(within));
        let answer = tokio::time::timeout(within, snapshot).await;
        answer.map_err(|_| VariablesError::TooSlow(within))?
    }

    /// The same for as long as it takes; the kernel leaves out what it does not reach within `stop_after`.
    /// Whoever does not wait for the end has a kernel that is of no further use.
    ///
    /// # Errors
    /// The kernel dies or breaks.
    pub async fn begin_snapshot(
        &mut self,
        stop_after: Duration,
    ) -> Result<Snapshot, VariablesError> {
        let request = ToKernel::Snapshot {
            max_bytes: SNAPSHOT_BYTES,
            within_ms: milliseconds(stop_after),
        };
        let meaning = |frame, _: &mut Output| match frame {
            FromKernel::Snapshot {
                variables: Variables(data),
                lost: Lost(lost),
            } => Meaning::Answer(Snapshot { data, lost }),
            _ => Meaning::OutOfTurn,
        };
        self.ask_about_variables(&request, meaning).await
    }

    /// Takes the variables of a [`Snapshot`] over. For a fresh kernel, before its first cell. The names of
    /// those that were in the snapshot and could not be read, told as in [`Snapshot::lost`]. What the
    /// user's own code prints meanwhile is dropped.
    ///
    /// # Errors
    /// As with [`Kernel::snapshot`], or `data` is too long.
    pub async fn restore(
        &mut self,
        data: &[u8],
        within: Duration,
    ) -> Result<Vec<String>, VariablesError> {
        if data.len() > SNAPSHOT_BYTES {
            return Err(VariablesError::TooLong(data.len()));
        }
        let request = ToKernel::Restore {
            variables: data,
            within_ms: milliseconds(earlier(within)),
        };
        let meaning = |frame, _: &mut Output| match frame {
            FromKernel::Restored { lost: Lost(lost) } => Meaning::Answer(lost),
            _ => Meaning::OutOfTurn,
        };
        let answer = self.ask_about_variables(&request, meaning);
        let answer = tokio::time::timeout(within, answer).await;
        answer.map_err(|_| VariablesError::TooSlow(within))?
    }

    async fn ask_about_variables<T>(
        &mut self,
        request: &ToKernel<'_>,
        meaning: impl FnMut(FromKernel, &mut Output) -> Meaning<T>,
    ) -> Result<T, VariablesError> {
        let mut dropped = Output::new(0);
        let answer = self.ask(request, &mut dropped, meaning).await?;
        self.drain(&mut dropped);
        Ok(answer)
    }
}

/// When a kernel is told to stop that is given up after `within`.
#[must_use]
pub fn earlier(within: Duration) -> Duration {
    within / EARLIER
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
