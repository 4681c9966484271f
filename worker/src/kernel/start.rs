//! A process that has just joined its sandbox becomes a kernel.

use std::{process::ExitStatus, sync::Arc};

use bytes::BytesMut;
use tokio::io::Interest;

use super::{
    Kernel,
    descriptor::Descriptor,
    exchange::Meaning,
    frame::FromKernel,
    output::{Output, between},
    pace::Pace,
    pipe::Pipe,
    violation::{Gone, Violation},
    watch::Watch,
};
use crate::sandbox::KernelProcess;

/// A kernel did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Its process ended first.
    #[error("the interpreter ended before it was ready ({0})")]
    Died(ExitStatus),
    /// It spoke out of turn.
    #[error("the interpreter broke the protocol")]
    Protocol(#[from] Violation),
}

impl From<Gone> for KernelError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Died(status) => Self::Died(status),
            Gone::Broken(violation) => Self::Protocol(violation),
        }
    }
}

impl Kernel {
    /// Waits until a freshly joined process says that it is ready.
    ///
    /// # Errors
    /// The process ends or speaks out of turn.
    pub async fn ready(process: KernelProcess) -> Result<Self, KernelError> {
        let KernelProcess {
            socket,
            stdout,
            stderr,
            process: handle,
            allowance,
        } = process;
        let closed = |_| Violation::Closed;
        let socket = socket.into_std().map_err(closed)?;
        let mut kernel = Self {
            socket: Descriptor::new(socket.into(), Interest::READABLE | Interest::WRITABLE),
            frames: BytesMut::new(),
            stdout: Pipe::new(stdout.into_nonblocking_fd().map_err(closed)?),
            stderr: Pipe::new(stderr.into_nonblocking_fd().map_err(closed)?),
            handle,
            receiving: Arc::default(),
            interrupted: Arc::default(),
            between: between(),
            pace: Pace::new(allowance),
            watch: Watch::default(),
        };
        let meaning = |frame, _: &mut Output| match frame {
            FromKernel::Ready => Meaning::Answer(()),
            _ => Meaning::OutOfTurn,
        };
        match kernel.exchange(&[], &mut Output::new(0), meaning).await {
            Ok(()) => Ok(kernel),
            Err(Gone::Broken(violation)) => Err(kernel.give_up(violation).await.into()),
            Err(gone) => Err(gone.into()),
        }
    }
}
