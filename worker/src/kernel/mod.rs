//! The worker's side of a kernel: cells go in over its socket, what they print is read from its
//! pipes. Times and kills are not decided here: see [`crate::session`].
//!
//! | file | what a kernel does |
//! |---|---|
//! | `start` | becomes ready |
//! | `run` | runs cells and shell commands; `cell` is what one leaves behind |
//! | `variables` | hands the session's variables over |
//! | `exchange` | takes a request and answers it: all of the above is made of this |
//! | `idle` | waits between requests |
//! | `violation` | breaks its protocol, and is killed |
//!
//! Below these: `frame` reads and writes what is said, `socket` and `pipe` move bytes over a
//! `descriptor`, `ready` and `pace` choose when, `watch` finds out whether the kernel goes on,
//! `output`, `displays` and `bounds` keep no more than is allowed.

mod aside;
mod bounds;
mod cell;
mod chunk;
mod descriptor;
mod displays;
mod exchange;
pub mod frame;
mod idle;
pub mod output;
mod pace;
mod pipe;
mod ready;
mod run;
mod socket;
mod start;
pub mod variables;
mod violation;
mod watch;

use std::sync::{Arc, atomic::AtomicBool};

use bytes::BytesMut;

pub use self::{
    cell::{Cell, CellEnd},
    run::Program,
    start::KernelError,
    violation::Violation,
};

use crate::sandbox::KernelHandle;
use descriptor::Descriptor;
use output::Output;
use pace::Pace;
use pipe::Pipe;
use watch::Watch;

/// A Python interpreter in a sandbox that waits for cells.
#[derive(Debug)]
pub struct Kernel {
    socket: Descriptor,
    /// What was received and is not a whole frame yet.
    frames: BytesMut,
    stdout: Pipe,
    stderr: Pipe,
    handle: KernelHandle,
    /// A frame has begun to arrive and is not whole.
    receiving: Arc<AtomicBool>,
    /// The request that runs has obeyed an interrupt.
    interrupted: Arc<AtomicBool>,
    /// What was printed since the last request.
    between: Output,
    pace: Pace,
    /// Whether a kernel without a request really waits.
    watch: Watch,
}

impl Kernel {
    /// The process, to interrupt or kill it from outside.
    #[must_use]
    pub fn handle(&self) -> &KernelHandle {
        &self.handle
    }

    /// Whether a part of an answer is here and takes memory: known to whoever waits for the answer, too.
    #[must_use]
    pub fn receiving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.receiving)
    }

    /// Whether an interrupt has ended the code that runs, and only its answer is missing: known to whoever
    /// waits for the answer, too.
    #[must_use]
    pub fn interrupted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }
}
