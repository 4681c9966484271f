//! Keeps one warm zygote at hand: replaces it when it dies, when it has made its number of
//! sessions, and when it is old. A replaced one lives on until its last session has ended.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::error::{SandboxError, StartError};
use super::kernel::KernelHandle;
use super::zygote_link::{Seed, Zygote};
use crate::patience::patiently;

/// How long a join waits for a zygote when there is none.
const WAIT: Duration = Duration::from_secs(15);

/// First and longest pause between attempts to start a zygote.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The zygotes of a worker.
#[derive(Debug)]
pub(super) struct Zygotes {
    current: watch::Sender<Option<Arc<Zygote>>>,
    joins_max: u32,
    worn: Notify,
    stopping: watch::Sender<bool>,
}

impl Zygotes {
    /// Starts the first zygote. The task of the second result keeps one at hand until
    /// [`stop`](Self::stop), and then sees all of them off.
    pub(super) async fn start(
        seed: Seed,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), StartError> {
        let (zygote, serve) = Zygote::start(&seed).await?;
        let mut served = JoinSet::new();
        served.spawn(serve);
        let zygotes = Arc::new(Self {
            current: watch::Sender::new(Some(zygote)),
            joins_max: seed.config.zygote_joins.max(1),
            worn: Notify::new(),
            stopping: watch::Sender::new(false),
        });
        Ok((Arc::clone(&zygotes), zygotes.keep(seed, served)))
    }

    /// Forks the current zygote.
    pub(super) async fn join(
        &self,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<KernelHandle, SandboxError> {
        loop {
            let zygote = self.current().await?;
            match zygote.join(descriptors).await {
                // It died meanwhile and has forked nobody for us: the next one may.
                Err(SandboxError::NoZygote) => {
                    let is_it = |one: &Arc<Zygote>| Arc::ptr_eq(one, &zygote);
                    self.current.send_if_modified(|current| {
                        current.take_if(|current| is_it(current)).is_some()
                    });
                }
                joined => {
                    if zygote.joins() >= self.joins_max {
                        self.worn.notify_one();
                    }
                    return joined;
                }
            }
        }
    }

    /// The current zygote, as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Zygote>>> {
        self.current.subscribe()
    }

    /// Lets all zygotes end, each after its last kernel.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    async fn current(&self) -> Result<Arc<Zygote>, SandboxError> {
        let mut current = self.current.subscribe();
        let found = tokio::time::timeout(patiently(WAIT), current.wait_for(Option::is_some)).await;
        let found = found
            .ok()
            .and_then(Result::ok)
            .and_then(|zygote| zygote.clone());
        found.ok_or(SandboxError::NoZygote)
    }

    async fn keep(self: Arc<Self>, seed: Seed, mut served: JoinSet<()>) {
        let mut stopping = self.stopping.subscribe();
        loop {
            let current = self.current.borrow().clone();
            if let Some(zygote) = current {
                tokio::select! {
                    () = zygote.ended() => {
                        tracing::warn!("a zygote has ended, a new one is started");
                        self.current.send_replace(None);
                    }
                    () = self.worn.notified() => {}
                    () = tokio::time::sleep(seed.config.zygote_age) => {}
                    _ = stopping.wait_for(|stop| *stop) => break,
                }
            }
            let next = tokio::select! {
                next = start_patiently(&seed) => next,
                _ = stopping.wait_for(|stop| *stop) => break,
            };
            served.spawn(next.1);
            if let Some(old) = self.current.send_replace(Some(next.0)) {
                old.retire();
            }
            while served.try_join_next().is_some() {}
        }
        if let Some(zygote) = self.current.send_replace(None) {
            zygote.retire();
        }
        while served.join_next().await.is_some() {}
    }
}

async fn start_patiently(seed: &Seed) -> (Arc<Zygote>, impl Future<Output = ()> + Send + use<>) {
    let (mut pause, longest) = PAUSES;
    loop {
        match Zygote::start(seed).await {
            Ok(started) => return started,
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to start a zygote"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
