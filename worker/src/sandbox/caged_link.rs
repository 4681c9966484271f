//! The worker's end of `caged`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Child;
use tokio::sync::{Semaphore, oneshot, watch};

use super::channel::{Channel, Packet};
use super::config::Config;
use super::error::{SandboxError, StartError};
use super::helper::{self, ended_early, finish};
use super::host_lock::HostLock;
use super::message::{self, CagedSettings, Make, Reply, Request};
use crate::patience::patiently;

/// Cages being made at once. `caged` makes one after the other, and beats wait in the same line.
const MAKES_MAX: usize = 8;

/// How long `caged` may take for its start and for its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `caged` hands over with a new cage.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) data: OwnedFd,
}

/// An answer, with what comes along.
type Answer = Result<Option<Made>, String>;

/// A running `caged`.
#[derive(Debug)]
pub(super) struct CagedLink {
    channel: Channel,
    next: AtomicU64,
    making: Semaphore,
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    ended: watch::Sender<bool>,
}

impl CagedLink {
    /// Starts `caged` and waits until it is ready. The task of the second result serves it to its
    /// end.
    pub(super) async fn start(
        config: &Config,
        image: &std::path::Path,
        lock: &HostLock,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), StartError> {
        let failed = |source| StartError::Helper {
            name: super::CAGED,
            source,
        };
        let (channel, mut child) = helper::spawn(&config.helper, super::CAGED)?;
        let settings = CagedSettings {
            worker: config.worker.as_str().to_owned(),
            image: image.to_owned(),
            beat_ttl: config.beat_ttl,
        };
        channel
            .send(&message::encode(&settings), &lock.descriptors())
            .await
            .map_err(failed)?;
        let refused = |reason: &str| StartError::Refused {
            name: super::CAGED,
            reason: reason.to_owned(),
        };
        let first = tokio::time::timeout(patiently(PATIENCE), channel.receive()).await;
        let packet = first
            .map_err(|_| refused("it is not ready in time"))?
            .map_err(failed)?;
        let Some(packet) = packet else {
            return Err(ended_early(super::CAGED, &mut child, PATIENCE).await);
        };
        let refusal = match message::decode(&packet.bytes).map_err(failed)? {
            Reply::Ready => None,
            Reply::Refused { error } => Some(refused(&error)),
            Reply::NoImage { error } => Some(StartError::Mount {
                path: config.image.clone(),
                reason: error,
            }),
            _ => Some(refused("it answered before it was asked")),
        };
        if let Some(refusal) = refusal {
            // What it says itself comes before this worker's last line, and the lock is free again.
            channel.close();
            finish(super::CAGED, &mut child, PATIENCE).await;
            return Err(refusal);
        }
        let link = Arc::new(Self {
            channel,
            next: AtomicU64::new(0),
            making: Semaphore::new(MAKES_MAX),
            waiting: Mutex::new(Some(HashMap::new())),
            ended: watch::Sender::new(false),
        });
        Ok((Arc::clone(&link), link.serve(child)))
    }

    /// Makes a cage; `describe` fills in the id of the request.
    pub(super) async fn make(
        &self,
        describe: impl FnOnce(u64) -> Make,
    ) -> Result<Made, SandboxError> {
        let permit = self
            .making
            .acquire()
            .await
            .map_err(|_| SandboxError::CagedGone)?;
        let made = self.ask(|id| Request::Make(describe(id))).await?;
        drop(permit);
        made.ok_or_else(|| SandboxError::Caged("it sent no descriptors".to_owned()))
    }

    /// Kills a cage and waits until its processes and cgroups are gone.
    pub(super) async fn destroy(&self, cage: &str) -> Result<(), SandboxError> {
        self.ask(|id| Request::Destroy {
            id,
            cage: cage.to_owned(),
        })
        .await
        .map(|_| ())
    }

    /// Passes a beat on. One that finds the line full is left out: the next follows soon.
    pub(super) fn beat(&self, taken: Instant) {
        let age = u64::try_from(taken.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let taken_nanos = message::now_nanos().saturating_sub(age);
        let packet = message::encode(&Request::Beat { taken_nanos });
        if let Err(error) = self.channel.try_send(&packet) {
            tracing::warn!(%error, "failed to send caged a sign of life");
        }
    }

    /// Has `caged` kill what is left and end.
    pub(super) fn close(&self) {
        self.channel.close();
    }

    /// Waits until `caged` has ended, for whatever reason.
    pub(super) async fn ended(&self) {
        // An error would mean that the sender is gone, and it lives in `self`.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    async fn ask(
        &self,
        request: impl FnOnce(u64) -> Request,
    ) -> Result<Option<Made>, SandboxError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting()
            .as_mut()
            .ok_or(SandboxError::CagedGone)?
            .insert(id, sender);
        if self
            .channel
            .send(&message::encode(&request(id)), &[])
            .await
            .is_err()
        {
            return Err(SandboxError::CagedGone);
        }
        answer
            .await
            .map_err(|_| SandboxError::CagedGone)?
            .map_err(SandboxError::Caged)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, mut child: Child) {
        loop {
            match self.channel.receive().await {
                Ok(Some(packet)) => self.take(packet),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the socket of caged failed");
                    break;
                }
            }
        }
        finish(super::CAGED, &mut child, patiently(PATIENCE)).await;
        *self.waiting() = None;
        self.ended.send_replace(true);
    }

    fn take(&self, packet: Packet) {
        let (id, answer) = match message::decode(&packet.bytes) {
            Ok(Reply::Made { id, pid }) => {
                let made = <[OwnedFd; 2]>::try_from(packet.descriptors).ok();
                (id, Ok(made.map(|[pidfd, data]| Made { pid, pidfd, data })))
            }
            Ok(Reply::Gone { id }) => (id, Ok(None)),
            Ok(Reply::Failed { id, error }) => (id, Err(error)),
            unexpected => {
                tracing::warn!(?unexpected, "caged sent something unexpected");
                return;
            }
        };
        let sender = self
            .waiting()
            .as_mut()
            .and_then(|waiting| waiting.remove(&id));
        if let Some(sender) = sender {
            // Who asked may have gone away; a cage made for nobody is removed with the worker.
            drop(sender.send(answer));
        }
    }
}
