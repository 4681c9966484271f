//! The worker's side of a kernel: cells go in over its socket, what they print is read from its
//! pipes. Times and kills are not decided here: see [`crate::session`].

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use proto::{
    execution::{Bundle, Truncated},
    limits::{DISPLAY_BYTES, DISPLAYS, KERNEL_CELL_BYTES},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
};

pub mod frame;
pub mod output;
pub mod variables;

use crate::{
    outlet::{Outlet, Stream},
    sandbox::{KernelHandle, KernelProcess},
};
use frame::{FromKernel, Raised, ToKernel};
use output::Captured;

/// Bytes read from a pipe at once; the capacity of a pipe.
const CHUNK: usize = 64 * 1024;
/// Between the end of a socket and the news of its process's death lies less than this.
const DEATH_KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// A Python interpreter in a sandbox that waits for cells.
#[derive(Debug)]
pub struct Kernel {
    socket: UnixStream,
    frames: BytesMut,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    handle: KernelHandle,
    cells: u64,
    /// A frame has begun to arrive and is not whole.
    receiving: Arc<AtomicBool>,
}

/// What one cell left behind.
#[derive(Debug)]
pub struct Cell {
    /// How it ended.
    pub end: CellEnd,
    /// Standard output, bounded.
    pub stdout: String,
    /// Standard error, bounded.
    pub stderr: String,
    /// Display outputs, bounded.
    pub displays: Vec<Bundle>,
    /// What these bounds cost.
    pub truncated: Truncated,
}

/// What a kernel is to run, and what becomes of its output.
#[derive(Debug)]
pub struct Program<'a> {
    /// Source text.
    pub text: &'a str,
    /// Environment variables, set for this run alone.
    pub environment: &'a BTreeMap<String, String>,
    /// Bytes that are kept of each output stream.
    pub output_bytes: u64,
    /// Gets the whole output as it comes.
    pub outlet: Option<Arc<Outlet>>,
}

impl<'a> Program<'a> {
    /// Text in the environment as it is.
    #[must_use]
    pub fn plain(text: &'a str, output_bytes: u64) -> Self {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        Self {
            text,
            environment: NONE,
            output_bytes,
            outlet: None,
        }
    }
}

/// How a cell ended, as seen at the kernel's socket.
#[derive(Debug)]
pub enum CellEnd {
    /// The kernel said so.
    Done {
        /// The last expression's value.
        result: Option<Bundle>,
        /// The exception that ended it.
        error: Option<Raised>,
    },
    /// The shell command ended, with this exit status as a shell tells it.
    Exited(u8),
    /// The kernel's process ended.
    Died(ExitStatus),
    /// The kernel said something that is no frame, or closed its socket while its process lives on.
    Broken,
}

/// A kernel did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Its process ended first.
    #[error("the interpreter ended before it was ready ({0})")]
    Died(ExitStatus),
    /// It spoke out of turn.
    #[error("the interpreter broke the protocol")]
    Protocol(#[from] frame::FrameError),
    /// Its socket failed.
    #[error("the interpreter's socket failed")]
    Io(#[from] io::Error),
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
        } = process;
        let frames = BytesMut::new();
        let mut kernel = Self {
            socket,
            frames,
            stdout,
            stderr,
            handle,
            cells: 0,
            receiving: Arc::default(),
        };
        loop {
            match frame::take(&mut kernel.frames)? {
                Some(FromKernel::Ready) => return Ok(kernel),
                Some(_) => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
                None => {}
            }
            tokio::select! {
                read = kernel.socket.read_buf(&mut kernel.frames) => {
                    if read? == 0 {
                        return Err(KernelError::Died(kernel.handle.exited().await));
                    }
                }
                status = kernel.handle.exited() => return Err(KernelError::Died(status)),
            }
        }
    }

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

    /// Runs a cell to its end, whatever ends it.
    pub async fn run(&mut self, program: &Program<'_>) -> Cell {
        let id = self.next_cell();
        let request = ToKernel::Execute {
            id,
            code: program.text,
            environment: program.environment,
        };
        self.run_to_the_end(id, &request, program).await
    }

    /// Runs a shell command in the same way.
    pub async fn run_command(&mut self, program: &Program<'_>) -> Cell {
        let id = self.next_cell();
        let request = ToKernel::Command {
            id,
            command: program.text,
            environment: program.environment,
        };
        self.run_to_the_end(id, &request, program).await
    }

    fn next_cell(&mut self) -> u64 {
        self.cells += 1;
        self.cells
    }

    async fn run_to_the_end(
        &mut self,
        id: u64,
        request: &ToKernel<'_>,
        program: &Program<'_>,
    ) -> Cell {
        let outlet = program.outlet.as_ref();
        let mut output = Output::new(program.output_bytes);
        output.stdout = output.stdout.through(outlet, Stream::Stdout);
        output.stderr = output.stderr.through(outlet, Stream::Stderr);
        let mut displays = Displays {
            outlet,
            ..Displays::default()
        };
        let end = self.cell(id, request, &mut output, &mut displays).await;
        self.drain(&mut output);
        let truncated = Truncated {
            stdout: output.stdout.dropped(),
            stderr: output.stderr.dropped(),
            displays: displays.dropped,
        };
        Cell {
            end: end.unwrap_or_else(CellEnd::from),
            stdout: output.stdout.into_text(),
            stderr: output.stderr.into_text(),
            displays: displays.kept,
            truncated,
        }
    }

    async fn cell(
        &mut self,
        id: u64,
        request: &ToKernel<'_>,
        output: &mut Output,
        displays: &mut Displays<'_>,
    ) -> Result<CellEnd, Gone> {
        let heard = |said| match said {
            FromKernel::Done {
                id: of,
                result,
                error,
            } if of == id => Some(CellEnd::Done {
                result: result.map(Bundle::from),
                error,
            }),
            FromKernel::Exited { id: of, status } if of == id => Some(CellEnd::Exited(status)),
            FromKernel::Display { id: of, data } if of == id => {
                displays.push(data.into());
                None
            }
            // A frame about another cell can only be forged by the session's own code.
            _ => None,
        };
        self.ask(request, output, heard).await
    }

    /// Tells the kernel something and hears it out until `heard` finds the answer in what it says.
    async fn ask<T>(
        &mut self,
        request: &ToKernel<'_>,
        output: &mut Output,
        mut heard: impl FnMut(FromKernel) -> Option<T>,
    ) -> Result<T, Gone> {
        let request = frame::encode(request).map_err(|_| Gone::Broken)?;
        let mut unsent = request.as_slice();
        let mut received = 0;
        let (mut reader, mut writer) = self.socket.split();
        loop {
            match frame::take(&mut self.frames) {
                Ok(None) => {}
                Ok(Some(said)) => match heard(said) {
                    Some(answer) => return Ok(answer),
                    None => continue,
                },
                Err(_) => return Err(Gone::Broken),
            }
            let receiving = !self.frames.is_empty();
            self.receiving.store(receiving, Ordering::Relaxed);
            tokio::select! {
                written = writer.write(unsent), if !unsent.is_empty() => match written {
                    Ok(count) => unsent = unsent.get(count..).unwrap_or_default(),
                    Err(_) => return Err(ended(&self.handle).await),
                },
                read = reader.read_buf(&mut self.frames) => match read {
                    Ok(count @ 1..) => {
                        received += count;
                        if received > KERNEL_CELL_BYTES {
                            return Err(Gone::Broken);
                        }
                    }
                    Ok(0) | Err(_) => return Err(ended(&self.handle).await),
                },
                () = capture(&mut self.stdout, &mut output.stdout) => {}
                () = capture(&mut self.stderr, &mut output.stderr) => {}
                status = self.handle.exited() => return Err(Gone::Died(status)),
            }
        }
    }

    /// What the pipes hold when the kernel has answered was printed before.
    fn drain(&mut self, output: &mut Output) {
        drain(&mut self.stdout, &mut output.stdout);
        drain(&mut self.stderr, &mut output.stderr);
    }

    /// Between cells: keeps the pipes empty, so that background threads and processes do not block
    /// on their output, which belongs to no cell and is dropped. Returns when the process ends.
    pub async fn idle(&mut self) -> ExitStatus {
        let mut dropped = Output::new(0);
        loop {
            tokio::select! {
                () = capture(&mut self.stdout, &mut dropped.stdout) => {}
                () = capture(&mut self.stderr, &mut dropped.stderr) => {}
                status = self.handle.exited() => return status,
            }
        }
    }
}

/// The socket is closed: normally because the process is gone, which is known in a moment.
async fn ended(handle: &KernelHandle) -> Gone {
    match tokio::time::timeout(DEATH_KNOWN_WITHIN, handle.exited()).await {
        Ok(status) => Gone::Died(status),
        Err(_) => Gone::Broken,
    }
}

/// Why a kernel does not answer. See [`CellEnd`].
#[derive(Debug)]
enum Gone {
    Died(ExitStatus),
    Broken,
}

impl From<Gone> for CellEnd {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Died(status) => Self::Died(status),
            Gone::Broken => Self::Broken,
        }
    }
}

/// What came out of both pipes.
#[derive(Debug)]
struct Output {
    stdout: Captured,
    stderr: Captured,
}

impl Output {
    /// Keeps `limit` bytes of each.
    fn new(limit: u64) -> Self {
        Self {
            stdout: Captured::new(limit),
            stderr: Captured::new(limit),
        }
    }
}

#[derive(Debug, Default)]
struct Displays<'a> {
    kept: Vec<Bundle>,
    bytes: usize,
    dropped: u64,
    outlet: Option<&'a Arc<Outlet>>,
}

impl Displays<'_> {
    fn push(&mut self, bundle: Bundle) {
        if let Some(outlet) = self.outlet {
            outlet.display(&bundle);
        }
        let sizes = bundle
            .0
            .iter()
            .map(|(mime, content)| mime.len() + content.len());
        let size: usize = sizes.sum();
        if self.kept.len() < DISPLAYS && self.bytes.saturating_add(size) <= DISPLAY_BYTES {
            self.bytes += size;
            self.kept.push(bundle);
        } else {
            self.dropped += 1;
        }
    }
}

/// Reads once. A closed pipe never becomes ready again: the kernel's death or `done` ends the cell.
async fn capture(pipe: &mut pipe::Receiver, into: &mut Captured) {
    loop {
        if pipe.readable().await.is_err() {
            return std::future::pending().await;
        }
        match read_once(pipe, into) {
            Ok(1..) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return std::future::pending().await,
        }
    }
}

/// The chunk lives here and not in the future above, of which every session holds two.
fn read_once(pipe: &pipe::Receiver, into: &mut Captured) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let count = pipe.try_read(&mut chunk)?;
    into.push(chunk.get(..count).unwrap_or_default());
    Ok(count)
}

/// Reads exactly what the pipe holds now: a background writer could keep it from ever being empty.
fn drain(pipe: &mut pipe::Receiver, into: &mut Captured) {
    let mut left = rustix::io::ioctl_fionread(pipe.as_fd()).unwrap_or(0);
    if left == 0 {
        return;
    }
    let mut chunk = [0; CHUNK];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let Some(room) = chunk.get_mut(..want) else {
            return;
        };
        match rustix::io::read(pipe.as_fd(), room) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                into.push(chunk.get(..count).unwrap_or_default());
                left = left.saturating_sub(count as u64);
            }
        }
    }
}

impl Cell {
    /// Whether there is no kernel any more that could run another cell.
    #[must_use]
    pub fn kernel_is_gone(&self) -> bool {
        matches!(self.end, CellEnd::Died(_) | CellEnd::Broken)
    }
}
