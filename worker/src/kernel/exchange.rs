//! One request to a kernel and its answer.

use std::sync::atomic::Ordering;

use proto::limits::KERNEL_CELL_BYTES;
use tokio::time::Instant;

use super::{
    Kernel,
    aside::{LONG_BYTES, aside},
    frame::{self, FromKernel, ToKernel},
    output::Output,
    pace::Turn,
    ready::Ready,
    socket,
    violation::{Gone, Violation},
    watch::{self, Watch},
};

/// What a frame means to whoever asked.
pub(super) enum Meaning<T> {
    /// It is the answer.
    Answer(T),
    /// It comes before the answer.
    More,
    /// It is nothing that was asked for.
    OutOfTurn,
}

/// How far a request has come.
struct Progress<'a> {
    /// What the socket had no room for yet.
    unsent: &'a [u8],
    /// When the kernel must have gone on, if it is expected to.
    deadline: Option<Instant>,
}

impl Kernel {
    /// Sends a request and reads until `meaning` finds the answer in a frame. A kernel that breaks the
    /// protocol is killed.
    pub(super) async fn ask<T>(
        &mut self,
        request: &ToKernel<'_>,
        output: &mut Output,
        meaning: impl FnMut(FromKernel, &mut Output) -> Meaning<T>,
    ) -> Result<T, Gone> {
        self.pace.begin();
        // What came before the request cannot be its answer.
        let answer = if socket::is_silent(&self.socket) {
            let is_long = request.content_bytes() > LONG_BYTES;
            let request = aside(is_long, || frame::encode(request)).map_err(Violation::from)?;
            self.exchange(&request, output, meaning).await
        } else {
            Err(Violation::OutOfTurn.into())
        };
        self.watch = Watch::begin(Instant::now());
        match answer {
            Err(Gone::Broken(violation)) => Err(self.give_up(violation).await),
            answer => answer,
        }
    }

    /// Sends the bytes of a request, none for what a kernel says unasked, and reads until its answer, which
    /// nothing may follow.
    pub(super) async fn exchange<T>(
        &mut self,
        request: &[u8],
        output: &mut Output,
        mut meaning: impl FnMut(FromKernel, &mut Output) -> Meaning<T>,
    ) -> Result<T, Gone> {
        let mut progress = Progress::of(request);
        let mut received = 0;
        loop {
            let receiving = !self.frames.is_empty();
            self.receiving.store(receiving, Ordering::Relaxed);
            let unsent = !progress.unsent.is_empty();
            let ready = self.ready_for(unsent, progress.deadline).await?;
            let turn = Turn::begin();
            let read = match ready {
                Ready::Request => {
                    progress.send(self)?;
                    0
                }
                Ready::Deadline => {
                    progress.at_deadline(self)?;
                    0
                }
                Ready::Frames => {
                    let count = socket::receive(&self.socket, &mut self.frames)?;
                    received += count;
                    if received > KERNEL_CELL_BYTES {
                        return Err(Violation::TooMuch.into());
                    }
                    if let Some(answer) = self.take_frames(output, &mut meaning)? {
                        self.pace.read(count, turn.end());
                        return Ok(answer);
                    }
                    if count > 0 {
                        // A frame about this request shows that it was taken.
                        progress.deadline = (!self.frames.is_empty()).then(watch::deadline);
                    }
                    count
                }
                Ready::Stdout => self.stdout.read_once(&mut output.stdout),
                Ready::Stderr => self.stderr.read_once(&mut output.stderr),
            };
            if read > 0 {
                self.pace.read(read, turn.end());
            }
        }
    }

    /// Reads all whole frames, up to the answer.
    fn take_frames<T>(
        &mut self,
        output: &mut Output,
        meaning: &mut impl FnMut(FromKernel, &mut Output) -> Meaning<T>,
    ) -> Result<Option<T>, Violation> {
        loop {
            let is_long = frame::first(&self.frames)?.is_some_and(|length| length > LONG_BYTES);
            let Some(frame) = aside(is_long, || frame::take(&mut self.frames))? else {
                return Ok(None);
            };
            match meaning(frame, output) {
                Meaning::More => {}
                Meaning::Answer(answer) if self.frames.is_empty() => return Ok(Some(answer)),
                Meaning::Answer(_) | Meaning::OutOfTurn => return Err(Violation::OutOfTurn),
            }
        }
    }
}

impl<'a> Progress<'a> {
    fn of(request: &'a [u8]) -> Self {
        Self {
            unsent: request,
            deadline: (!request.is_empty()).then(watch::deadline),
        }
    }

    /// Sends what there is room for; whether that was something.
    fn send(&mut self, kernel: &Kernel) -> Result<bool, Violation> {
        let sent = socket::send(&kernel.socket, self.unsent)?.unwrap_or(0);
        if sent > 0 {
            self.unsent = self.unsent.get(sent..).unwrap_or_default();
            self.deadline = Some(watch::deadline());
        }
        Ok(sent > 0)
    }

    /// Finds out whether the kernel has gone on.
    fn at_deadline(&mut self, kernel: &Kernel) -> Result<(), Violation> {
        // The pace may have kept this side from sending or receiving all the time.
        if self.send(kernel)? {
            return Ok(());
        }
        if !self.unsent.is_empty() || socket::is_unread(&kernel.socket) {
            return Err(Violation::Busy);
        }
        let has_part_of_a_frame = !kernel.frames.is_empty();
        if has_part_of_a_frame && socket::is_silent(&kernel.socket) {
            return Err(Violation::Stalled);
        }
        self.deadline = has_part_of_a_frame.then(watch::deadline);
        Ok(())
    }
}
