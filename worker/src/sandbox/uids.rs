//! Host user ids of cages. Every cage has 65 536 of its own, so that two sessions never share a
//! user, not even across the workers of a host.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Ids of one cage.
pub(super) const RANGE_IDS: u32 = 1 << 16;

/// Cages that one worker can have at once.
pub const RANGES: u32 = 1024;

/// First id of the first block: above those that distributions give to users and their containers.
const FIRST_ID: u32 = 0x2000_0000;

/// Blocks of a host: up to 2^31, above which programs take ids for negative.
const BLOCKS: u32 = 24;

/// All ids that the workers of a host may use.
pub(super) fn ids() -> std::ops::Range<u64> {
    let first = u64::from(FIRST_ID);
    first..first + u64::from(BLOCKS) * u64::from(RANGES) * u64::from(RANGE_IDS)
}

/// Why a worker has no user ids.
#[derive(Debug, thiserror::Error)]
pub enum UidError {
    /// The directory of the lock files cannot be used.
    #[error("lock files of user ids in {directory}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// As many workers as there are blocks run on this host.
    #[error("all {BLOCKS} blocks of user ids are taken by other workers of this host")]
    Exhausted,
}

/// A block of ranges, held by the lock on its file until this and all its ranges are dropped.
#[derive(Debug)]
pub(super) struct UidBlock {
    free: Mutex<VecDeque<u32>>,
    _lock: File,
}

impl UidBlock {
    /// Takes the first block that no living process holds. A lock dies with its process, so the
    /// file that a crashed worker leaves behind is no obstacle.
    pub(super) fn take(directory: &Path) -> Result<Arc<Self>, UidError> {
        let failed = |source| UidError::Directory {
            directory: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        for block in 0..BLOCKS {
            let path = directory.join(format!("block-{block:02}"));
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path);
            let file = file.map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {
                    let first = FIRST_ID + block * RANGES * RANGE_IDS;
                    let free = (0..RANGES).map(|range| first + range * RANGE_IDS).collect();
                    return Ok(Arc::new(Self {
                        free: Mutex::new(free),
                        _lock: file,
                    }));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(UidError::Exhausted)
    }

    /// The range that was unused for the longest time; `None` when all are in use.
    pub(super) fn range(self: &Arc<Self>) -> Option<UidRange> {
        let base = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()?;
        Some(UidRange {
            base,
            block: Arc::clone(self),
        })
    }
}

/// The ids of one cage; dropping it gives them back.
#[derive(Debug)]
pub(super) struct UidRange {
    base: u32,
    block: Arc<UidBlock>,
}

impl UidRange {
    /// The host id that is 0 inside.
    pub(super) fn base(&self) -> u32 {
        self.base
    }
}

impl Drop for UidRange {
    fn drop(&mut self) {
        let mut free = self
            .block
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.push_back(self.base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(FIRST_ID as u64 + (BLOCKS * RANGES) as u64 * RANGE_IDS as u64 <= 1 << 31);

    #[test]
    fn two_workers_never_share_ids() {
        let directory = tempfile::tempdir().unwrap();
        let one = UidBlock::take(directory.path()).unwrap();
        let two = UidBlock::take(directory.path()).unwrap();
        let a = one.range().unwrap();
        let b = two.range().unwrap();
        assert!(a.base().abs_diff(b.base()) >= RANGES * RANGE_IDS);
    }

    #[test]
    fn a_stale_lock_file_is_no_obstacle_and_a_held_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let first = UidBlock::take(directory.path()).unwrap();
        let base = first.range().unwrap().base();
        drop(first);
        assert!(directory.path().join("block-00").exists());
        let again = UidBlock::take(directory.path()).unwrap();
        assert_eq!(again.range().unwrap().base(), base);
        let others: Vec<_> = (1..BLOCKS)
            .map(|_| UidBlock::take(directory.path()).unwrap())
            .collect();
        assert!(matches!(
            UidBlock::take(directory.path()),
            Err(UidError::Exhausted)
        ));
        drop(others);
    }

    #[test]
    fn ranges_come_back_and_run_out() {
        let directory = tempfile::tempdir().unwrap();
        let block = UidBlock::take(directory.path()).unwrap();
        let mut held: Vec<_> = (0..RANGES).map(|_| block.range().unwrap()).collect();
        assert!(block.range().is_none());
        let base = held.remove(17).base();
        assert_eq!(block.range().unwrap().base(), base);
    }
}
