//! A kernel between two requests.

use std::process::ExitStatus;

use super::{
    Kernel,
    pace::Turn,
    ready::Ready,
    socket,
    violation::{Gone, Violation},
};

impl Kernel {
    /// Keeps the pipes empty, so that background threads and processes do not block on their output, of which
    /// the beginning goes to the next cell. Returns when the process ends: by itself, or because it does not
    /// wait for a request but writes or runs.
    pub async fn idle(&mut self) -> ExitStatus {
        let gone = match self.until_gone().await {
            Gone::Broken(violation) => self.give_up(violation).await,
            gone @ Gone::Died(_) => gone,
        };
        match gone {
            Gone::Died(status) => status,
            Gone::Broken(_) => self.handle.exited().await,
        }
    }

    async fn until_gone(&mut self) -> Gone {
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
                Ready::Deadline => match self.watch.look(&self.socket) {
                    Ok(()) => 0,
                    Err(violation) => return violation.into(),
                },
                Ready::Stdout => self.stdout.read_once(&mut self.between.stdout),
                Ready::Stderr => self.stderr.read_once(&mut self.between.stderr),
                Ready::Request => 0,
            };
            if read > 0 {
                self.pace.read(read, turn.end());
            }
        }
    }
}
