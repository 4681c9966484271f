//! One data filesystem: what it takes of the disk, and how much more it may.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, Weak},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Inner, Role, STOP_WITHIN, lock, real_time, shares};
use crate::sandbox::{kernel_file, volume::Image};

/// What it grew by is counted over one to two of these.
const WINDOW: Duration = Duration::from_secs(5);

/// Unit of [`MetadataExt::blocks`].
const STAT_BLOCK: u64 = 512;

/// A filesystem that was just mounted for a cage.
#[derive(Debug)]
pub(in crate::sandbox) struct Mounted {
    /// Name of the cage.
    pub(in crate::sandbox) cage: String,
    /// Root of the filesystem; that of the cage, which is not kept longer for this.
    pub(in crate::sandbox) data: Weak<OwnedFd>,
    /// What is stored of it.
    pub(in crate::sandbox) image: Image,
    /// Its block device.
    pub(in crate::sandbox) device: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub(in crate::sandbox) struct Account {
    disk: Weak<Inner>,
    mounted: Mounted,
    /// Where the kernel takes the bytes that nobody may use, in blocks.
    reserved: PathBuf,
    block_bytes: u64,
    blocks: u64,
    /// What the kernel itself keeps back, in blocks.
    kept_back: u64,
    /// When it was empty: what it took of itself and of the disk.
    empty: Taken,
    state: Mutex<State>,
    stopped: watch::Sender<bool>,
}

/// Bytes in use.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    inside: u64,
    stored: u64,
}

#[derive(Debug)]
struct State {
    session: bool,
    /// Bytes inside up to which it is filled on behalf of the worker.
    expected_to: u64,
    inside: u64,
    /// The least that it took in the window that ended at this moment, and since.
    before: u64,
    turned: Instant,
    since: u64,
    /// What the kernel was last told, in blocks.
    reserved: u64,
    stopping_since: Option<Instant>,
}

/// How one filesystem stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) used: shares::Use,
    free_blocks: u64,
}

impl Account {
    pub(super) fn open(mounted: Mounted, disk: Weak<Inner>) -> io::Result<Self> {
        let data = mounted.data.upgrade().ok_or(io::ErrorKind::NotFound)?;
        let space = rustix::fs::fstatvfs(&*data)?;
        let device = mounted.device.file_name().unwrap_or_default();
        let reserved = Path::new("/sys/fs/ext4")
            .join(device)
            .join("reserved_clusters");
        let kept_back = match disk
            .upgrade()
            .and_then(|disk| disk.kept_back(space.f_blocks))
        {
            Some(known) => known,
            None => {
                let text = kernel_file::read_text(&reserved)?;
                text.trim().parse().map_err(io::Error::other)?
            }
        };
        let empty = Taken {
            inside: space
                .f_blocks
                .saturating_sub(space.f_bfree)
                .saturating_mul(space.f_frsize),
            stored: mounted.image.stored()?,
        };
        Ok(Self {
            disk,
            mounted,
            reserved,
            block_bytes: space.f_frsize,
            blocks: space.f_blocks,
            kept_back,
            empty,
            state: Mutex::new(State {
                session: false,
                expected_to: 0,
                inside: empty.inside,
                before: 0,
                turned: real_time(),
                since: 0,
                reserved: kept_back,
                stopping_since: None,
            }),
            stopped: watch::Sender::new(false),
        })
    }

    /// What the kernel itself keeps back of a filesystem of so many blocks, if this one has as many.
    pub(super) fn kept_back_of(&self, blocks: u64) -> Option<u64> {
        (self.blocks == blocks).then_some(self.kept_back)
    }

    pub(super) fn name(&self) -> &str {
        &self.mounted.cage
    }

    /// Whether its cage is gone.
    pub(super) fn is_over(&self) -> bool {
        self.mounted.data.strong_count() == 0
    }

    /// A session has it from now on.
    pub(in crate::sandbox) fn open_for_session(&self) {
        lock(&self.state).session = true;
        if let Some(disk) = self.disk.upgrade().filter(|_| self.is_held_back()) {
            disk.look_at(self);
        }
    }

    /// Prepares for so many bytes that the worker itself is about to write; false when the disk does not
    /// have them.
    pub(in crate::sandbox) fn make_room(&self, bytes: u64) -> bool {
        let disk = self.disk.upgrade();
        disk.is_none_or(|disk| disk.promise(self, bytes))
    }

    /// What was promised was used, or is not needed any more.
    pub(in crate::sandbox) fn filled(&self) {
        lock(&self.state).expected_to = 0;
    }

    pub(super) fn expect(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.expected_to = state.inside.saturating_add(bytes);
    }

    /// Returns when the session must end, since it takes too much of a full disk.
    pub(in crate::sandbox) async fn stopped(&self) {
        // The sender lives in `self`.
        drop(self.stopped.subscribe().wait_for(|stopped| *stopped).await);
    }

    /// Forgets it: its cage is gone.
    pub(in crate::sandbox) fn close(&self) {
        self.mounted.image.remove();
        if let Some(disk) = self.disk.upgrade() {
            let mut accounts = lock(&disk.accounts);
            accounts.retain(|account| !std::ptr::eq(&**account, self));
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.state).stopping_since = Some(real_time());
        self.stopped.send_replace(true);
    }

    /// Whether the session used up its part of the disk, and not its own filesystem.
    pub(in crate::sandbox) fn is_starved(&self) -> bool {
        if !self.is_held_back() {
            return false;
        }
        self.sample().is_some_and(|sample| {
            let reserved = lock(&self.state).reserved;
            let left = sample.free_blocks.saturating_sub(reserved);
            left.saturating_mul(self.block_bytes) < shares::USEFUL_BYTES
                && sample.used.grown >= shares::GROWTH_BYTES
        })
    }

    fn is_held_back(&self) -> bool {
        lock(&self.state).reserved > self.kept_back
    }

    /// Looks at it; `None` when it is gone.
    pub(super) fn sample(&self) -> Option<Sample> {
        let data = self.mounted.data.upgrade()?;
        let space = rustix::fs::fstatvfs(&*data).ok()?;
        drop(data);
        let now = Taken {
            inside: space
                .f_blocks
                .saturating_sub(space.f_bfree)
                .saturating_mul(self.block_bytes),
            stored: self.mounted.image.stored().ok()?,
        };
        let inside = now.inside.saturating_sub(self.empty.inside);
        let stored = now.stored.saturating_sub(self.empty.stored);
        let mut state = lock(&self.state);
        state.inside = now.inside;
        let grown = state.grown(inside.max(stored), real_time());
        let left = space.f_bfree.saturating_sub(self.kept_back);
        let expected = state.expected_to.saturating_sub(now.inside);
        let role = match (state.session, state.stopping_since) {
            (true, Some(since)) if since.elapsed() < STOP_WITHIN => Role::Stopping,
            (true, Some(_)) => Role::Stopped,
            (true, None) => Role::Session,
            (false, _) => Role::Stock,
        };
        Some(Sample {
            used: shares::Use {
                left: left.saturating_mul(self.block_bytes),
                pending: inside.saturating_sub(stored),
                expected,
                taken: inside.max(stored),
                grown,
                role,
            },
            free_blocks: space.f_bfree,
        })
    }

    /// Allows so many bytes more than there were at the sample; `more` says whether this is the turn of
    /// those that get more than before, or of the others.
    pub(super) fn grant(&self, sample: &Sample, part: u64, more: bool) {
        let reserved = if part >= sample.used.left {
            self.kept_back
        } else {
            // One that is kept free for itself is the least that the kernel takes.
            let most = self.blocks.saturating_sub(1);
            let part = part / self.block_bytes.max(1);
            sample
                .free_blocks
                .saturating_sub(part)
                .clamp(self.kept_back, most)
        };
        let mut state = lock(&self.state);
        if reserved == state.reserved || (reserved < state.reserved) != more {
            return;
        }
        // Held, so that the device is still this one's.
        let Some(_data) = self.mounted.data.upgrade() else {
            return;
        };
        match fs::write(&self.reserved, reserved.to_string()) {
            Ok(()) => state.reserved = reserved,
            Err(error) => tracing::error!(
                cage = self.name(),
                %error,
                "failed to bound the growth of a data filesystem"
            ),
        }
    }
}

impl State {
    /// What it grew by lately. Whoever writes over the same bytes again and again does not grow.
    fn grown(&mut self, taken: u64, now: Instant) -> u64 {
        if now.saturating_duration_since(self.turned) > WINDOW {
            self.before = std::mem::replace(&mut self.since, taken);
            self.turned = now;
        }
        self.since = self.since.min(taken);
        taken.saturating_sub(self.before.min(self.since))
    }
}

impl Image {
    /// Bytes that it takes of the disk.
    fn stored(&self) -> io::Result<u64> {
        Ok(self.file().metadata()?.blocks().saturating_mul(STAT_BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_was_added_lately_and_not_what_was_written_again() {
        let begun = real_time();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut state = State {
            session: true,
            expected_to: 0,
            inside: 0,
            before: 0,
            turned: begun,
            since: 0,
            reserved: 0,
            stopping_since: None,
        };
        for round in 0..100 {
            assert_eq!(state.grown(4000 * (round % 2), begun), 4000 * (round % 2));
        }
        assert_eq!(state.grown(9000, after(1)), 9000);
        assert_eq!(state.grown(9000, after(6)), 9000);
        assert_eq!(state.grown(9000, after(12)), 0);
        assert_eq!(state.grown(12_000, after(13)), 3000);
        assert_eq!(state.grown(1000, after(14)), 0);
    }
}
