//! A descriptor of a kernel that the runtime watches, except in pauses. The system wakes whoever watches
//! at every write, even when nothing was read since the last: code that writes single bytes would keep
//! the runtime busy with nothing but news of them, however rarely it is read.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use tokio::io::{Interest, unix::AsyncFd};

/// See the module. Does not block.
#[derive(Debug)]
pub(super) struct Descriptor {
    descriptor: Arc<OwnedFd>,
    interest: Interest,
    watched: Option<AsyncFd<Arc<OwnedFd>>>,
}

impl Descriptor {
    /// Of one that does not block. It is not watched yet.
    pub(super) fn new(descriptor: OwnedFd, interest: Interest) -> Self {
        Self {
            descriptor: Arc::new(descriptor),
            interest,
            watched: None,
        }
    }

    /// From now on the runtime hears what happens to it, what has happened already included.
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that may lie about their descriptor; an owned one \
                  does not"
    )]
    pub(super) fn watch(&mut self) -> io::Result<()> {
        if self.watched.is_none() {
            let descriptor = Arc::clone(&self.descriptor);
            self.watched = Some(AsyncFd::with_interest(descriptor, self.interest)?);
        }
        Ok(())
    }

    /// The runtime hears nothing of it any more.
    pub(super) fn unwatch(&mut self) {
        self.watched = None;
    }

    /// Waits until something can be read, or it has ended; for ever while it is not watched.
    pub(super) async fn readable(&self) {
        self.ready(Interest::READABLE).await;
    }

    /// Waits until something can be written; for ever while it is not watched.
    pub(super) async fn writable(&self) {
        self.ready(Interest::WRITABLE).await;
    }

    async fn ready(&self, interest: Interest) {
        let Some(watched) = &self.watched else {
            return std::future::pending().await;
        };
        // What fails here fails again when it is read or written.
        if let Ok(mut ready) = watched.ready(interest).await {
            ready.retain_ready();
        }
    }

    /// Does something with it that may find that it would block: the runtime waits again then.
    pub(super) fn try_io<T>(
        &self,
        interest: Interest,
        work: impl FnOnce(&OwnedFd) -> io::Result<T>,
    ) -> io::Result<T> {
        match &self.watched {
            Some(watched) => watched.try_io(interest, |descriptor| work(descriptor)),
            None => work(&self.descriptor),
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::fd::AsRawFd};

    use super::*;

    /// Whether some runtime of this process would be woken at every write.
    fn is_watched(descriptor: &Descriptor) -> bool {
        let number = descriptor.as_fd().as_raw_fd().to_string();
        let names = fs::read_dir("/proc/self/fdinfo").unwrap();
        names.filter_map(Result::ok).any(|name| {
            // Others open and close meanwhile.
            let information = fs::read_to_string(name.path()).unwrap_or_default();
            let watched = information
                .lines()
                .filter_map(|line| line.strip_prefix("tfd:"));
            watched
                .filter_map(|line| line.split_ascii_whitespace().next())
                .any(|of| of == number)
        })
    }

    fn read(descriptor: &Descriptor) -> io::Result<usize> {
        let mut bytes = [0; 10];
        descriptor.try_io(Interest::READABLE, |from| {
            Ok(rustix::io::read(from, &mut bytes)?)
        })
    }

    #[tokio::test]
    async fn at_rest_no_write_wakes_the_runtime() {
        let (reader, mut writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut reader = Descriptor::new(reader.into(), Interest::READABLE);
        for _ in 0..3 {
            assert!(!is_watched(&reader));
            reader.watch().unwrap();
            assert!(is_watched(&reader));
            writer.write_all(b"a").unwrap();
            reader.readable().await;
            reader.unwatch();
            assert!(!is_watched(&reader));
            // What comes at rest is not lost.
            writer.write_all(b"b").unwrap();
            reader.watch().unwrap();
            reader.readable().await;
            assert_eq!(read(&reader).unwrap(), 2);
            let nothing = read(&reader).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            reader.unwatch();
        }
    }
}
