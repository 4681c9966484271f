//! The worker's end of one zygote.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Pid;
use tokio::process::Child;
use tokio::sync::{oneshot, watch};
use zygote::wire::{Event, Join};

use super::channel::{Channel, Packet};
use super::config::Config;
use super::error::{SandboxError, StartError};
use super::helper::{self, ended_early, finish};
use super::kernel::{Exit, KernelHandle};
use super::message::{self, LauncherSettings, Reply};
use crate::patience::patiently;

/// How long a zygote may take to import everything.
const WARM_UP: Duration = Duration::from_secs(60);

/// How long a zygote may take to end when told to.
const FAREWELL: Duration = Duration::from_secs(5);

/// What every zygote of a worker starts with.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) config: Config,
    pub(super) image: std::path::PathBuf,
    pub(super) filter: Vec<u8>,
}

/// A running zygote.
#[derive(Debug)]
pub(super) struct Zygote {
    channel: Channel,
    joins: AtomicU32,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
    retired: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

/// Who waits for what; closed once the zygote is gone.
#[derive(Debug, Default)]
struct Waiting {
    joins: HashMap<u64, oneshot::Sender<Result<KernelHandle, i32>>>,
    exits: HashMap<u32, Exit>,
    closed: bool,
}

impl Zygote {
    /// Starts a zygote and waits until it is warm. The task of the second result serves it to
    /// its end.
    pub(super) async fn start(
        seed: &Seed,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), StartError> {
        let failed = |source| StartError::Helper {
            name: super::ZYGOTE,
            source,
        };
        let (channel, mut child) = helper::spawn(&seed.config.helper, super::ZYGOTE)?;
        let settings = LauncherSettings {
            image: seed.image.clone(),
            library: seed.config.zygote_library.clone(),
        };
        channel
            .send(&message::encode(&settings), &[])
            .await
            .map_err(failed)?;
        channel.send(&seed.filter, &[]).await.map_err(failed)?;
        let first = tokio::time::timeout(patiently(WARM_UP), channel.receive()).await;
        let refused = |reason| StartError::Refused {
            name: super::ZYGOTE,
            reason,
        };
        let packet = first
            .map_err(|_| refused(format!("it was not warm within {:?}", patiently(WARM_UP))))?
            .map_err(failed)?;
        match packet {
            Some(packet) if Event::decode(&packet.bytes) == Some(Event::Ready) => {}
            Some(packet) => {
                // While it still is the launcher, it can say why. It ends before this worker does.
                channel.close();
                finish(super::ZYGOTE, &mut child, FAREWELL).await;
                return Err(match message::decode(&packet.bytes) {
                    Ok(Reply::Refused { error }) => refused(error),
                    _ => refused("it said something else than expected".to_owned()),
                });
            }
            None => return Err(ended_early(super::ZYGOTE, &mut child, FAREWELL).await),
        }
        let zygote = Arc::new(Self {
            channel,
            joins: AtomicU32::new(0),
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            retired: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        });
        Ok((Arc::clone(&zygote), zygote.serve(child)))
    }

    /// Forks into a cage. The descriptors are those of [`Join`].
    pub(super) async fn join(
        &self,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<KernelHandle, SandboxError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(SandboxError::NoZygote);
            }
            waiting.joins.insert(id, sender);
        }
        self.joins.fetch_add(1, Ordering::Relaxed);
        if self
            .channel
            .send(&Join { id }.encode(), descriptors)
            .await
            .is_err()
        {
            self.waiting().joins.remove(&id);
            return Err(SandboxError::NoZygote);
        }
        match answer.await {
            Ok(Ok(kernel)) => Ok(kernel),
            Ok(Err(errno)) => Err(SandboxError::Fork(io::Error::from_raw_os_error(errno))),
            Err(_) => Err(SandboxError::NoZygote),
        }
    }

    /// Joins so far.
    pub(super) fn joins(&self) -> u32 {
        self.joins.load(Ordering::Relaxed)
    }

    /// Lets the zygote end once its last kernel has.
    pub(super) fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Waits until the zygote has gone.
    pub(super) async fn ended(&self) {
        // An error would mean that the sender is gone, and it lives in `self`.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, mut child: Child) {
        let mut retired = self.retired.subscribe();
        loop {
            let leave = *retired.borrow_and_update() && {
                let waiting = self.waiting();
                waiting.joins.is_empty() && waiting.exits.is_empty()
            };
            if leave {
                break;
            }
            tokio::select! {
                received = self.channel.receive() => match received {
                    Ok(Some(packet)) => self.take(packet),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the zygote's socket failed");
                        break;
                    }
                },
                changed = retired.changed() => drop(changed),
            }
        }
        let orphans = {
            let mut waiting = self.waiting();
            waiting.closed = true;
            waiting.joins.clear();
            std::mem::take(&mut waiting.exits)
        };
        self.channel.close();
        self.ended.send_replace(true);
        for exit in orphans.into_values() {
            tokio::spawn(exit.watch_orphan());
        }
        finish(super::ZYGOTE, &mut child, FAREWELL).await;
    }

    fn take(&self, packet: Packet) {
        match (
            Event::decode(&packet.bytes),
            packet.descriptors.into_iter().next(),
        ) {
            (Some(Event::Joined { id, pid }), Some(pidfd)) => self.joined(id, pid, pidfd),
            (Some(Event::Refused { id, errno }), _) => {
                if let Some(sender) = self.waiting().joins.remove(&id) {
                    drop(sender.send(Err(errno)));
                }
            }
            (Some(Event::Exited { pid, status }), _) => {
                if let Some(exit) = self.waiting().exits.remove(&pid) {
                    exit.report(ExitStatus::from_raw(status));
                }
            }
            (event, _) => tracing::warn!(?event, "the zygote sent something unexpected"),
        }
    }

    fn joined(&self, id: u64, pid: u32, pidfd: OwnedFd) {
        let Some(number) = Pid::from_raw(pid.cast_signed()) else {
            return;
        };
        let (handle, exit) = KernelHandle::new(number, pidfd);
        let mut waiting = self.waiting();
        waiting.exits.insert(pid, exit);
        if let Some(sender) = waiting.joins.remove(&id)
            && let Err(Ok(abandoned)) = sender.send(Ok(handle))
        {
            // Who asked for it has gone away.
            abandoned.kill();
        }
    }
}
