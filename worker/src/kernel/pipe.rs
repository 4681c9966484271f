//! A pipe that a kernel's code prints to.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::io::Interest;

use super::{
    chunk::{CHUNK, with_chunk},
    descriptor::Descriptor,
    output::Captured,
};

/// The end of the pipe that is read.
#[derive(Debug)]
pub(super) struct Pipe {
    descriptor: Descriptor,
    open: bool,
}

impl Pipe {
    /// Of a descriptor that does not block.
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor: Descriptor::new(descriptor, Interest::READABLE),
            open: true,
        }
    }

    /// What the runtime watches.
    pub(super) fn descriptor(&mut self) -> &mut Descriptor {
        &mut self.descriptor
    }

    /// Waits until something can be read, or it has ended; for ever once it is known to have ended.
    pub(super) async fn readable(&self) {
        if !self.open {
            std::future::pending::<()>().await;
        }
        self.descriptor.readable().await;
    }

    /// Reads once; says how much. A pipe that is closed is not read again: the kernel's death or its answer
    /// ends the cell.
    pub(super) fn read_once(&mut self, into: &mut Captured) -> usize {
        let read = with_chunk(|chunk| {
            let read = self.descriptor.try_io(Interest::READABLE, |pipe| {
                Ok(rustix::io::read(pipe, &mut *chunk)?)
            });
            if let Ok(count) = read {
                into.push(chunk.get(..count).unwrap_or_default());
            }
            read
        });
        match read {
            Ok(count @ 1..) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Ok(0) | Err(_) => {
                self.open = false;
                0
            }
        }
    }

    /// Reads exactly what it holds now: a background writer could keep it from ever being empty.
    pub(super) fn drain(&self, into: &mut Captured) {
        let pipe = self.descriptor.as_fd();
        let mut left = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
        while left > 0 {
            let count = with_chunk(|chunk| {
                let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let room = chunk.get_mut(..want)?;
                let count = rustix::io::read(pipe, &mut *room).ok()?;
                into.push(room.get(..count)?);
                Some(count)
            });
            match count {
                None | Some(0) => return,
                Some(count) => left = left.saturating_sub(count as u64),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_util::FutureExt;

    use super::*;

    /// A pipe that is watched, and its writing end.
    fn pipe() -> (Pipe, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut pipe = Pipe::new(reader.into());
        pipe.descriptor().watch().unwrap();
        (pipe, writer)
    }

    #[tokio::test]
    async fn a_pipe_that_has_ended_is_not_ready_again() {
        let (mut pipe, mut writer) = pipe();
        writer.write_all(b"last").unwrap();
        drop(writer);
        let mut output = Captured::new(10);
        pipe.readable().await;
        assert_eq!(pipe.read_once(&mut output), 4);
        pipe.readable().await;
        assert_eq!(pipe.read_once(&mut output), 0);
        assert_eq!(pipe.readable().now_or_never(), None);
        assert_eq!(output.into_text().0, "last");
    }

    #[tokio::test]
    async fn what_a_pipe_holds_is_drained_without_waiting_for_more() {
        let (pipe, mut writer) = pipe();
        let mut output = Captured::new(10);
        pipe.drain(&mut output);
        writer.write_all(b"held").unwrap();
        pipe.drain(&mut output);
        assert_eq!(output.into_text().0, "held");
    }
}
