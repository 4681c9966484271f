//! The host's disk below the data filesystems: no session may fill it for the others.
//!
//! A data filesystem is larger than its part of the disk may be, and what code writes reaches the disk
//! only later, where it would fail for whoever comes last. So every filesystem may grow only by its
//! part until this looks again ([`shares`]): the kernel itself refuses more (`reserved_clusters` of
//! ext4) when code writes, before anything was promised. When the reserve is reached, no new session is
//! taken, and a session is stopped that takes much ([`shares`] says which).

mod account;
mod shares;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use proto::health::{Check, Health};

use super::error::StartError;

pub(super) use account::Account;
pub(super) use account::Mounted;
use account::Sample;
use shares::{Plan, Role, Room, Use};

/// The part of a disk that is its reserve unless set otherwise.
const RESERVE_PART: u64 = 10;
/// The largest reserve of a disk where none is set.
const RESERVE_BYTES_MAX: u64 = 4 << 30;

/// Time between two looks at a disk on which nothing is held back or that cannot be looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long the space of a stopped session may take to come back before another is stopped.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// How a disk stands.
#[derive(Clone, Copy, Debug)]
pub struct DiskUse {
    /// Bytes that are free; `None` if the disk cannot be looked at.
    pub free: Option<u64>,
    /// Bytes that are to stay free.
    pub reserve: u64,
    /// No new session is taken.
    pub reached: bool,
    /// Sessions that were stopped since the start because they filled the disk.
    pub stopped: u64,
}

/// What the last look found, and who came since.
#[derive(Debug, Default)]
struct Seen {
    uses: Vec<Use>,
    /// Nobody was held back.
    free: bool,
}

/// The disk of a worker's data filesystems. All clones are the same.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    reserve: u64,
    /// Filesystems are allocated whole, so none can grow on the disk.
    whole: bool,
    accounts: Mutex<Vec<Arc<Account>>>,
    seen: Mutex<Seen>,
    reached: AtomicBool,
    health: Mutex<Option<Health>>,
    /// Sessions that were stopped since the start.
    stopped: AtomicU64,
    watch: Mutex<Watch>,
    woken: Condvar,
}

/// What the watching thread waits for.
#[derive(Debug)]
struct Watch {
    look_at: Instant,
    closed: bool,
}

impl Disk {
    /// Looks at the disk below a directory. `reserve` bytes of it stay free, by default a tenth of it, at
    /// most 4 GiB. `whole` says that every filesystem takes all its space when it is made.
    pub(super) fn open(
        directory: &Path,
        reserve: Option<u64>,
        whole: bool,
    ) -> Result<Self, StartError> {
        let failed = |source| StartError::Disk {
            directory: directory.to_owned(),
            source,
        };
        let space = rustix::fs::statvfs(directory).map_err(|error| failed(error.into()))?;
        let size = space.f_blocks.saturating_mul(space.f_frsize);
        let usual = (size / RESERVE_PART).min(RESERVE_BYTES_MAX);
        let inner = Arc::new(Inner {
            directory: directory.to_owned(),
            reserve: reserve.unwrap_or(usual),
            whole,
            accounts: Mutex::default(),
            seen: Mutex::default(),
            reached: AtomicBool::new(false),
            health: Mutex::default(),
            stopped: AtomicU64::new(0),
            watch: Mutex::new(Watch {
                look_at: real_time(),
                closed: false,
            }),
            woken: Condvar::new(),
        });
        let watched = Arc::downgrade(&inner);
        // A thread of its own: looks must not wait for whatever else the worker does.
        let watching = std::thread::Builder::new().name("disk".to_owned());
        watching.spawn(move || watch(&watched)).map_err(failed)?;
        Ok(Self(inner))
    }

    /// Whether a new session may be taken that needs a filesystem of so many bytes, 0 if one is ready.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        if self.0.reached.load(Ordering::Relaxed) {
            return false;
        }
        let needed = if self.0.whole { bytes } else { 0 };
        let room = self.0.room();
        // What cannot be looked at is not refused: making the filesystem says why.
        room.is_none_or(|room| room.free >= room.reserve.saturating_add(needed))
    }

    /// From now on readiness says how the disk stands.
    pub fn report_to(&self, health: Health) {
        *lock(&self.0.health) = Some(health);
        self.0.look_now();
    }

    /// How it stands now.
    #[must_use]
    pub fn usage(&self) -> DiskUse {
        DiskUse {
            free: self.0.room().map(|room| room.free),
            reserve: self.0.reserve,
            reached: self.0.reached.load(Ordering::Relaxed),
            stopped: self.0.stopped.load(Ordering::Relaxed),
        }
    }

    /// Ends the watching.
    pub(super) fn close(&self) {
        lock(&self.0.watch).closed = true;
        self.0.woken.notify_all();
    }

    /// Enters a mounted filesystem; it may grow by its part from now on.
    pub(super) fn enter(&self, mounted: Mounted) -> io::Result<Arc<Account>> {
        let account = Arc::new(Account::open(mounted, Arc::downgrade(&self.0))?);
        lock(&self.0.accounts).push(Arc::clone(&account));
        self.0.look_at(&account);
        Ok(account)
    }

    /// Whether every filesystem takes its space when it is made.
    pub(super) fn is_whole(&self) -> bool {
        self.0.whole
    }
}

impl Inner {
    fn room(&self) -> Option<Room> {
        let space = rustix::fs::statvfs(&self.directory).ok()?;
        Some(Room {
            free: space.f_bavail.saturating_mul(space.f_frsize),
            reserve: self.reserve,
        })
    }

    /// What the kernel itself keeps back of a filesystem of so many blocks, as another tells.
    fn kept_back(&self, blocks: u64) -> Option<u64> {
        let accounts = lock(&self.accounts);
        accounts
            .iter()
            .find_map(|account| account.kept_back_of(blocks))
    }

    /// Sets the part of a filesystem that is new or that a session has got.
    fn look_at(&self, account: &Account) {
        if !self.grants_newcomer(account) {
            self.look_now();
        }
    }

    /// Sets its part by what is known of the others; false if all must be looked at.
    fn grants_newcomer(&self, account: &Account) -> bool {
        let mut seen = lock(&self.seen);
        let (false, Some(room), Some(sample)) = (self.whole, self.room(), account.sample()) else {
            return false;
        };
        let Some(part) = shares::newcomer(room, &seen.uses, seen.free, sample.used) else {
            return false;
        };
        seen.uses.push(sample.used);
        for more in [false, true] {
            account.grant(&sample, part, more);
        }
        true
    }

    /// Looks before it is time, which may make the next look due sooner.
    fn look_now(&self) {
        let look_at = real_time() + self.look();
        let mut watch = lock(&self.watch);
        if look_at < watch.look_at {
            watch.look_at = look_at;
            self.woken.notify_all();
        }
    }

    /// Looks at everything and sets every filesystem's part. Returns when to look again.
    fn look(&self) -> Duration {
        let mut accounts = lock(&self.accounts);
        // Filesystems that are gone.
        accounts.retain(|account| !account.is_over());
        let Some(room) = self.room() else {
            return LOOK_EVERY;
        };
        if self.whole {
            let reached = room.free < room.reserve;
            drop(accounts);
            self.tell(room, reached);
            return LOOK_EVERY;
        }
        let samples: Vec<(&Arc<Account>, Sample)> = accounts
            .iter()
            .filter_map(|account| Some((account, account.sample()?)))
            .collect();
        let uses: Vec<_> = samples.iter().map(|(_, sample)| sample.used).collect();
        let Plan {
            parts,
            reached,
            stop,
            look_after,
        } = shares::plan(room, &uses);
        let free = samples
            .iter()
            .zip(&parts)
            .all(|((_, sample), part)| *part == sample.used.left);
        *lock(&self.seen) = Seen { uses, free };
        // First those that get less, so that no moment promises more than there is.
        for more in [false, true] {
            for ((account, sample), part) in samples.iter().zip(&parts) {
                account.grant(sample, *part, more);
            }
        }
        // Whoever hears of a stop finds it told.
        self.tell(room, reached);
        if let Some((account, sample)) = stop.and_then(|index| samples.get(index)) {
            tracing::warn!(
                cage = account.name(),
                taken_bytes = sample.used.taken,
                grown_bytes = sample.used.grown,
                free_bytes = room.free,
                reserve_bytes = room.reserve,
                "session stopped: the disk's reserve is reached"
            );
            self.stopped.fetch_add(1, Ordering::Relaxed);
            account.stop();
        }
        look_after
    }

    /// Whether so many bytes can be promised to one filesystem, which gets them then.
    fn promise(&self, account: &Account, bytes: u64) -> bool {
        if self.whole {
            return true;
        }
        let accounts = lock(&self.accounts);
        let samples = accounts.iter().filter_map(|account| account.sample());
        let uses: Vec<_> = samples.map(|sample| sample.used).collect();
        let Some(room) = self.room() else {
            return true;
        };
        let can = shares::can_promise(room, &uses, bytes);
        if can {
            account.expect(bytes);
        }
        drop(accounts);
        self.look_now();
        can
    }

    fn tell(&self, room: Room, reached: bool) {
        let Room { free, reserve } = room;
        if self.reached.swap(reached, Ordering::Relaxed) != reached {
            match reached {
                true => tracing::warn!(
                    free_bytes = free,
                    reserve_bytes = reserve,
                    "the disk's reserve is reached: no new sessions"
                ),
                false => tracing::info!(
                    free_bytes = free,
                    reserve_bytes = reserve,
                    "the disk has room again"
                ),
            }
        }
        if let Some(health) = lock(&self.health).as_ref() {
            if reached {
                let words = format!(
                    "{} MiB are free on the disk of the sessions' files, {} MiB are kept in reserve",
                    free >> 20,
                    reserve >> 20
                );
                health.fail(Check::Disk, words);
            } else {
                health.pass(Check::Disk);
            }
        }
    }
}

fn watch(watched: &Weak<Inner>) {
    while let Some(inner) = watched.upgrade() {
        let pause = inner.look();
        let mut watch = lock(&inner.watch);
        watch.look_at = real_time() + pause;
        loop {
            if watch.closed {
                return;
            }
            let left = watch.look_at.saturating_duration_since(real_time());
            if left.is_zero() {
                break;
            }
            let waited = inner.woken.wait_timeout(watch, left);
            (watch, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The clock by which disks are looked at.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread waits by it without a runtime: what stops tokio's clock does not stop that"
)]
fn real_time() -> Instant {
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
