//! Knows that a data directory is still empty without looking into it, which is all that most calls need.

use std::{io, os::fd::BorrowedFd};

use super::gather::now_ns;

/// Changes this close together may leave the same time: some filesystems keep whole seconds.
const COARSEST_NS: i64 = 2_000_000_000;

/// When a directory was changed last. Whatever is put into it or taken out of it changes that, and nobody
/// but the clock chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    changed_ns: i64,
    /// Whether a change from now on shows another time, whatever the filesystem keeps of times.
    settled: bool,
}

impl Stamp {
    /// The stamp of an open directory, of which the kernel has all that is asked for in memory.
    pub(super) fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let now = now_ns();
        let stat = rustix::fs::fstat(directory)?;
        let nanoseconds = i64::try_from(stat.st_ctime_nsec).map_err(io::Error::other)?;
        let changed_ns = stat
            .st_ctime
            .saturating_mul(1_000_000_000)
            .saturating_add(nanoseconds);
        Ok(Self {
            changed_ns,
            settled: changed_ns < now.saturating_sub(COARSEST_NS),
        })
    }

    /// Whether nothing can have changed since this was taken, until `now` was. It must have been taken before
    /// the directory was looked into.
    pub(super) fn holds(self, now: Self) -> bool {
        self.settled && self.changed_ns == now.changed_ns
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_change_right_after_a_look_is_not_missed() {
        let just = Stamp {
            changed_ns: 7,
            settled: false,
        };
        assert!(!just.holds(just));
        let long_ago = Stamp {
            settled: true,
            ..just
        };
        assert!(long_ago.holds(long_ago));
        let later = Stamp {
            changed_ns: 8,
            ..long_ago
        };
        assert!(!long_ago.holds(later));
    }

    #[test]
    fn what_came_and_went_shows() {
        let directory = tempfile::tempdir().unwrap();
        let root = File::open(directory.path()).unwrap();
        let just = Stamp::of(root.as_fd()).unwrap();
        assert!(!just.settled);
        let before = Stamp {
            settled: true,
            ..just
        };
        assert!(before.holds(Stamp::of(root.as_fd()).unwrap()));
        // The clock of a filesystem ticks every 1 to 10 ms.
        while before.holds(Stamp::of(root.as_fd()).unwrap()) {
            drop(tempfile::NamedTempFile::new_in(&directory).unwrap());
        }
    }
}
