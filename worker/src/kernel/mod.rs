//! The worker's side of a kernel: cells go in over its socket, what they print is read from its
//! pipes. Times and kills are not decided here: see [`crate::session`].

use std::{
    collections::BTreeMap,
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt},
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
use tokio::{io::Interest, time::Instant};
use ulid::Ulid;

mod aside;
mod bounds;
mod descriptor;
pub mod frame;
pub mod output;
mod pace;
mod socket;
pub mod variables;
mod watch;

use crate::{
    outlet::{Outlet, Stream},
    sandbox::{KernelHandle, KernelProcess},
};
use aside::{LONG_BYTES, aside};
use descriptor::Descriptor;
use frame::{FrameError, FromKernel, Mime, Raised, ToKernel};
use output::Captured;
use pace::{Pace, Turn};
use watch::Watch;

/// Bytes read from a pipe or the socket at once; the capacity of a pipe.
const CHUNK: usize = 64 * 1024;
/// Between the end of a socket and the news of its process's death lies less than this.
const DEATH_KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// A Python interpreter in a sandbox that waits for cells.
#[derive(Debug)]
pub struct Kernel {
    socket: Descriptor,
    frames: BytesMut,
    stdout: Descriptor,
    stderr: Descriptor,
    handle: KernelHandle,
    /// A frame has begun to arrive and is not whole.
    receiving: Arc<AtomicBool>,
    pace: Pace,
    /// Which of the pipes are open.
    open: Open,
    /// Whether a kernel without a cell really waits.
    watch: Watch,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    stdout: bool,
    stderr: bool,
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
    /// The kernel is of no further use, for this reason; it was killed.
    Broken(Violation),
}

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
    /// More than [`KERNEL_CELL_BYTES`].
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
        let stdout = stdout.into_nonblocking_fd().map_err(closed)?;
        let stderr = stderr.into_nonblocking_fd().map_err(closed)?;
        let mut kernel = Self {
            socket: Descriptor::new(socket.into(), Interest::READABLE | Interest::WRITABLE),
            frames: BytesMut::new(),
            stdout: Descriptor::new(stdout, Interest::READABLE),
            stderr: Descriptor::new(stderr, Interest::READABLE),
            handle,
            receiving: Arc::default(),
            pace: Pace::new(allowance),
            open: Open {
                stdout: true,
                stderr: true,
            },
            watch: Watch::default(),
        };
        let ready = |said| match said {
            FromKernel::Ready => Heard::Answer(()),
            _ => Heard::OutOfTurn,
        };
        match kernel.hear(&[], &mut Output::new(0), ready).await {
            Ok(()) => Ok(kernel),
            Err(Gone::Broken(violation)) => Err(kernel.broken(violation).await.into()),
            Err(gone) => Err(gone.into()),
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
        let id = unguessable();
        let request = ToKernel::Execute {
            id,
            code: program.text,
            environment: program.environment,
        };
        self.run_to_the_end(id, &request, program).await
    }

    /// Runs a shell command in the same way.
    pub async fn run_command(&mut self, program: &Program<'_>) -> Cell {
        let id = unguessable();
        let request = ToKernel::Command {
            id,
            command: program.text,
            environment: program.environment,
        };
        self.run_to_the_end(id, &request, program).await
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
        let mut end = end.unwrap_or_else(CellEnd::from);
        let mut traceback_cut = 0;
        if let CellEnd::Done {
            error: Some(error), ..
        } = &mut end
        {
            traceback_cut = bounds::cut_error(error, program.output_bytes);
            let told = error.traceback.len() as u64;
            output
                .stderr
                .shrink(program.output_bytes.saturating_sub(told));
        }
        if let CellEnd::Done {
            result: Some(result),
            ..
        } = &mut end
            && bounds::cut_texts(result)
        {
            displays.dropped += 1;
        }
        let (stdout, stdout_cut) = output.stdout.into_text();
        let (stderr, stderr_cut) = output.stderr.into_text();
        Cell {
            end,
            stdout,
            stderr,
            displays: displays.kept,
            truncated: Truncated {
                stdout: stdout_cut,
                stderr: stderr_cut.saturating_add(traceback_cut),
                displays: displays.dropped,
            },
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
            } if of == id => Heard::Answer(CellEnd::Done {
                result: result.map(Bundle::from),
                error,
            }),
            FromKernel::Exited { id: of, status } if of == id => {
                Heard::Answer(CellEnd::Exited(status))
            }
            FromKernel::Display { id: of, data } if of == id => {
                displays.push(data);
                Heard::More
            }
            _ => Heard::OutOfTurn,
        };
        self.ask(request, output, heard).await
    }

    /// Tells the kernel something and hears it out until `heard` finds the answer in what it says. A
    /// kernel that breaks the protocol is killed.
    async fn ask<T>(
        &mut self,
        request: &ToKernel<'_>,
        output: &mut Output,
        heard: impl FnMut(FromKernel) -> Heard<T>,
    ) -> Result<T, Gone> {
        self.pace.begin();
        // What came before the request cannot be its answer.
        let asked = if socket::is_silent(&self.socket) {
            let is_long = request.content_bytes() > LONG_BYTES;
            let request = aside(is_long, || frame::encode(request)).map_err(Violation::from)?;
            self.hear(&request, output, heard).await
        } else {
            Err(Violation::OutOfTurn.into())
        };
        self.watch = Watch::begin(Instant::now());
        match asked {
            Err(Gone::Broken(violation)) => Err(self.broken(violation).await),
            asked => asked,
        }
    }

    /// Sends a request and listens for its answer, which nothing may follow.
    async fn hear<T>(
        &mut self,
        request: &[u8],
        output: &mut Output,
        mut heard: impl FnMut(FromKernel) -> Heard<T>,
    ) -> Result<T, Gone> {
        let mut unsent = request;
        let mut received = 0;
        // When it is looked at whether the kernel goes on.
        let mut look = (!request.is_empty()).then(watch::soon);
        loop {
            let receiving = !self.frames.is_empty();
            self.receiving.store(receiving, Ordering::Relaxed);
            let ready = self.ready_for(!unsent.is_empty(), look).await?;
            let turn = Turn::begin();
            let read = match ready {
                Ready::Request => {
                    if let Some(count) = socket::send(&self.socket, unsent)? {
                        unsent = unsent.get(count..).unwrap_or_default();
                        look = Some(watch::soon());
                    }
                    continue;
                }
                Ready::Look => {
                    // The pace may have kept this side from sending or receiving all the time.
                    if let Some(count) = socket::send(&self.socket, unsent)?
                        && count > 0
                    {
                        unsent = unsent.get(count..).unwrap_or_default();
                        look = Some(watch::soon());
                    } else if !unsent.is_empty() || socket::is_unread(&self.socket) {
                        return Err(Violation::Busy.into());
                    } else if self.frames.is_empty() {
                        look = None;
                    } else if socket::is_silent(&self.socket) {
                        return Err(Violation::Stalled.into());
                    } else {
                        look = Some(watch::soon());
                    }
                    continue;
                }
                Ready::Frames => {
                    let count = socket::receive(&self.socket, &mut self.frames)?;
                    received += count;
                    if received > KERNEL_CELL_BYTES {
                        return Err(Violation::TooMuch.into());
                    }
                    if let Some(answer) = self.take_frames(&mut heard)? {
                        self.pace.read(count, turn.end());
                        return Ok(answer);
                    }
                    if count > 0 {
                        // A frame about this request shows that it was taken.
                        look = (!self.frames.is_empty()).then(watch::soon);
                    }
                    count
                }
                Ready::Stdout => read_once(&self.stdout, &mut output.stdout, &mut self.open.stdout),
                Ready::Stderr => read_once(&self.stderr, &mut output.stderr, &mut self.open.stderr),
            };
            if read > 0 {
                self.pace.read(read, turn.end());
            }
        }
    }

    /// Waits until there is something to do, as long as the pace demands at least.
    async fn ready_for(&mut self, unsent: bool, look: Option<Instant>) -> Result<Ready, Gone> {
        if let Some(pause) = self.pace.pause(Instant::now()) {
            for descriptor in [&mut self.socket, &mut self.stdout, &mut self.stderr] {
                descriptor.rest();
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                status = self.handle.exited() => return Err(Gone::Died(status)),
            }
            self.pace.rested(Instant::now());
        }
        for descriptor in [&mut self.socket, &mut self.stdout, &mut self.stderr] {
            descriptor.watch().map_err(|_| Violation::Closed)?;
        }
        Ok(tokio::select! {
            () = self.socket.writable(), if unsent => Ready::Request,
            () = self.socket.readable() => Ready::Frames,
            () = self.stdout.readable(), if self.open.stdout => Ready::Stdout,
            () = self.stderr.readable(), if self.open.stderr => Ready::Stderr,
            status = self.handle.exited() => return Err(Gone::Died(status)),
            () = watch::at(look) => Ready::Look,
        })
    }

    /// Hears all whole frames, up to the answer.
    fn take_frames<T>(
        &mut self,
        heard: &mut impl FnMut(FromKernel) -> Heard<T>,
    ) -> Result<Option<T>, Violation> {
        loop {
            let is_long = frame::first(&self.frames)?.is_some_and(|length| length > LONG_BYTES);
            let Some(said) = aside(is_long, || frame::take(&mut self.frames))? else {
                return Ok(None);
            };
            match heard(said) {
                Heard::More => {}
                Heard::Answer(answer) if self.frames.is_empty() => return Ok(Some(answer)),
                Heard::Answer(_) | Heard::OutOfTurn => return Err(Violation::OutOfTurn),
            }
        }
    }

    /// A kernel is of no further use. One that closed its socket has normally ended, which is known in a
    /// moment.
    async fn broken(&mut self, violation: Violation) -> Gone {
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

    /// What the pipes hold when the kernel has answered was printed before.
    fn drain(&mut self, output: &mut Output) {
        drain(&self.stdout, &mut output.stdout);
        drain(&self.stderr, &mut output.stderr);
    }

    /// Between cells: keeps the pipes empty, so that background threads and processes do not block
    /// on their output, which belongs to no cell and is dropped. Returns when the process ends: by
    /// itself, or because it does not wait for a cell but writes or runs.
    pub async fn idle(&mut self) -> ExitStatus {
        match self.rest().await {
            Gone::Died(status) => status,
            Gone::Broken(violation) => match self.broken(violation).await {
                Gone::Died(status) => status,
                Gone::Broken(_) => self.handle.exited().await,
            },
        }
    }

    async fn rest(&mut self) -> Gone {
        let mut dropped = Output::new(0);
        loop {
            let ready = match self.ready_for(false, self.watch.due()).await {
                Ok(ready) => ready,
                Err(gone) => return gone,
            };
            let turn = Turn::begin();
            let read = match ready {
                Ready::Frames => match socket::receive(&self.socket, &mut self.frames) {
                    Ok(0) => 0,
                    Ok(_) => return Violation::OutOfTurn.into(),
                    Err(violation) => return violation.into(),
                },
                Ready::Look => match self.watch.look(&self.socket) {
                    Ok(()) => continue,
                    Err(violation) => return violation.into(),
                },
                Ready::Stdout => {
                    read_once(&self.stdout, &mut dropped.stdout, &mut self.open.stdout)
                }
                Ready::Stderr => {
                    read_once(&self.stderr, &mut dropped.stderr, &mut self.open.stderr)
                }
                Ready::Request => continue,
            };
            if read > 0 {
                self.pace.read(read, turn.end());
            }
        }
    }
}

/// What can be done without waiting.
#[derive(Clone, Copy, Debug)]
enum Ready {
    /// More of the request can be sent.
    Request,
    /// The kernel has said something.
    Frames,
    Stdout,
    Stderr,
    /// It is time to look whether the kernel goes on.
    Look,
}

/// What a frame means to whoever asked.
enum Heard<T> {
    /// It is the answer.
    Answer(T),
    /// It comes before the answer.
    More,
    /// It is nothing that was asked for.
    OutOfTurn,
}

/// A number that nobody can know before it is sent, so that no answer can be written ahead.
fn unguessable() -> u64 {
    let (_, number) = Ulid::new().into();
    number
}

/// Why a kernel does not answer. See [`CellEnd`].
#[derive(Debug)]
enum Gone {
    Died(ExitStatus),
    Broken(Violation),
}

impl From<Violation> for Gone {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

impl From<Gone> for CellEnd {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Died(status) => Self::Died(status),
            Gone::Broken(violation) => Self::Broken(violation),
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
    fn push(&mut self, mime: Mime) {
        let mut bundle = Bundle::from(mime);
        let cut = bounds::cut_texts(&mut bundle);
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
            self.dropped += u64::from(cut);
        } else {
            self.dropped += 1;
        }
    }
}

/// Reads once; says how much. A pipe that is closed is not read again: the kernel's death or `done` ends
/// the cell. The chunk lives here and not in the futures above, of which there is one for every session.
fn read_once(pipe: &Descriptor, into: &mut Captured, open: &mut bool) -> usize {
    let mut chunk = [0; CHUNK];
    let read = pipe.try_io(Interest::READABLE, |pipe| {
        Ok(rustix::io::read(pipe, &mut chunk)?)
    });
    match read {
        Ok(count @ 1..) => {
            into.push(chunk.get(..count).unwrap_or_default());
            count
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Ok(0) | Err(_) => {
            *open = false;
            0
        }
    }
}

/// Reads exactly what the pipe holds now: a background writer could keep it from ever being empty.
fn drain(pipe: &Descriptor, into: &mut Captured) {
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

/// Signal that ends a process whose write to a mapped file finds no space.
const BUS_ERROR: i32 = 7;
/// What says that a write found no space, in whatever an interpreter or a program shows of it.
const NO_SPACE: [&str; 2] = ["No space left on device", "Errno 28"];

impl Cell {
    /// Whether it failed, and says that some filesystem had no space. It may say so falsely.
    #[must_use]
    pub fn found_no_space(&self) -> bool {
        let says = |text: &str| NO_SPACE.iter().any(|words| text.contains(words));
        match &self.end {
            CellEnd::Done { error, .. } => error
                .as_ref()
                .is_some_and(|raised| says(&raised.message) || says(&raised.traceback)),
            CellEnd::Exited(status) => *status != 0 && says(&self.stderr),
            CellEnd::Died(status) => status.signal() == Some(BUS_ERROR) || says(&self.stderr),
            CellEnd::Broken(_) => says(&self.stderr),
        }
    }

    /// Whether there is no kernel any more that could run another cell.
    #[must_use]
    pub fn kernel_is_gone(&self) -> bool {
        matches!(self.end, CellEnd::Died(_) | CellEnd::Broken(_))
    }
}
