//! SIGHUP: read what can change in a running process again, and never end because of it.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// SIGHUPs of this process. Clones hear each of them.
#[derive(Clone, Debug)]
pub struct Hangup(watch::Receiver<u64>);

impl Hangup {
    /// Hears SIGHUP from here on. Until then one would end the process, so this comes first.
    /// Needs a runtime.
    ///
    /// # Errors
    /// The signal cannot be heard.
    pub fn listen() -> io::Result<Self> {
        let mut signals = signal(SignalKind::hangup())?;
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(async move {
            while signals.recv().await.is_some() && !sender.is_closed() {
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the next one; several that came since the last count as one.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nothing sends any more: the runtime ends.
            std::future::pending::<()>().await;
        }
    }
}
