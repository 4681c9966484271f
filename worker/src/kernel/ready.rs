//! What can be done next with a kernel, without waiting.

use tokio::time::Instant;

use super::{
    Kernel,
    violation::{Gone, Violation},
    watch,
};

/// One of the things that can be done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {
    /// More of the request can be sent.
    Request,
    /// The kernel has said something.
    Frames,
    /// There is something in the pipe of standard output, or it has ended.
    Stdout,
    /// The same of standard error.
    Stderr,
    /// It is time to find out whether the kernel goes on.
    Deadline,
}

impl Kernel {
    /// Waits until there is something to do, as long as the pace demands at least.
    pub(super) async fn ready_for(
        &mut self,
        unsent: bool,
        deadline: Option<Instant>,
    ) -> Result<Ready, Gone> {
        if let Some(pause) = self.pace.pause(Instant::now()) {
            for descriptor in self.descriptors() {
                descriptor.unwatch();
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                status = self.handle.exited() => return Err(Gone::Died(status)),
            }
            self.pace.rested(Instant::now());
        }
        for descriptor in self.descriptors() {
            descriptor.watch().map_err(|_| Violation::Closed)?;
        }
        Ok(tokio::select! {
            () = self.socket.writable(), if unsent => Ready::Request,
            () = self.socket.readable() => Ready::Frames,
            () = self.stdout.readable() => Ready::Stdout,
            () = self.stderr.readable() => Ready::Stderr,
            status = self.handle.exited() => return Err(Gone::Died(status)),
            () = watch::until(deadline) => Ready::Deadline,
        })
    }

    fn descriptors(&mut self) -> [&mut super::Descriptor; 3] {
        [
            &mut self.socket,
            self.stdout.descriptor(),
            self.stderr.descriptor(),
        ]
    }
}
