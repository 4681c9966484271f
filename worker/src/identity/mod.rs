//! One living worker of an id in a fleet. A run claims its id on the bus and renews the claim for as long as
//! it lives; a second one is refused. The claim says on which boot of which host its run is, so that a worker
//! that crashed starts again at once: on its own host the locks of the host tell whether it is gone.

use std::{io, sync::Arc, time::Duration};

use async_nats::{
    Client,
    client::{Request, RequestErrorKind},
};
use proto::{id::WorkerId, lease::WorkerClaim, limits, subject, wire};
use records::{
    cas::{self, BusError, RecordBus, Write, Written},
    fleet::Standing,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub mod decide;
mod held;
pub mod look;

use decide::{Decision, Holder, Sign, decide};

pub use held::HeldId;

/// Where the kernel says which boot of which host this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How long a run that is asked whether it lives may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Pause between two looks at a claim that has not ended.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Races with other claimants or the end of a claim before the bus is given up.
const RACES: u32 = 10;
/// How long the bus may leave a claim without an answer: servers that have just made the stream choose its
/// leader first.
const BUS_PATIENCE: Duration = Duration::from_secs(30);

/// Why a worker cannot have its id.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another worker has it.
    #[error(
        "worker `{id}` runs already, as `{run}` on {host}: `--id` is unique in a fleet; stop that worker or \
         give this one another `--id`"
    )]
    Taken {
        /// The id.
        id: WorkerId,
        /// The run that has it.
        run: WorkerId,
        /// "this host" or "another host".
        host: &'static str,
    },
    /// The kernel does not say which boot this is.
    #[error("failed to read {BOOT_ID}")]
    Boot(#[source] io::Error),
    /// The bus failed.
    #[error("failed to claim the id of this worker on the bus")]
    Bus(#[from] BusError),
}

/// This run's claim of its id.
#[derive(Debug)]
pub struct Identity {
    bus: Arc<dyn RecordBus>,
    id: WorkerId,
    own: WorkerClaim,
    revision: u64,
}

impl Identity {
    /// Claims `id` for `run`, which must already answer whoever asks whether it lives. Waits for the end of
    /// the claim of a run on another host that is not heard of any more, up to [`limits::WORKER_TTL`], and
    /// for one on this host that is about to give it back.
    ///
    /// # Errors
    /// Another worker of this id lives, or the bus failed.
    pub async fn claim(
        client: &Client,
        bus: Arc<dyn RecordBus>,
        id: &WorkerId,
        run: &WorkerId,
    ) -> Result<Self, IdentityError> {
        let boot = std::fs::read_to_string(BOOT_ID).map_err(IdentityError::Boot)?;
        let mut identity = Self {
            bus,
            id: id.clone(),
            own: WorkerClaim {
                run: run.clone(),
                boot: boot.trim().to_owned(),
            },
            revision: 0,
        };
        let mut watched: Option<(Holder, Instant)> = None;
        let begun = Instant::now();
        loop {
            let holder = match identity.look(client, watched.as_ref()).await {
                Err(_) if begun.elapsed() < BUS_PATIENCE => {
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
                holder => holder?,
            };
            match decide(&identity.own, holder.as_ref()) {
                Decision::Take(over) => match identity.write(over).await {
                    Ok(Written::At(revision)) => {
                        identity.revision = revision;
                        return Ok(identity);
                    }
                    // Somebody else is claiming it, or the old claim has ended just now.
                    Ok(Written::Conflict | Written::Full) => sleep(LOOK_AGAIN).await,
                    // The acknowledgement may be lost: what is there now is looked at.
                    Err(_) if begun.elapsed() < BUS_PATIENCE => sleep(LOOK_AGAIN).await,
                    Err(error) => return Err(error.into()),
                },
                Decision::Refuse => {
                    let by = holder.map(|holder| holder.claim);
                    return Err(identity.taken(by.unwrap_or_else(|| identity.own.clone())));
                }
                Decision::Wait => {
                    if let (Some(holder), None) = (&holder, &watched)
                        && holder.sign != Sign::Answer
                    {
                        tracing::warn!(worker.id = %id, holder = %holder.claim.run,
                            on = identity.host(&holder.claim),
                            at_most_seconds = limits::WORKER_TTL.as_secs(),
                            "this id is claimed by a run that does not answer; \
                             waiting for the end of its claim");
                    }
                    sleep(LOOK_AGAIN).await;
                }
            }
            watched = match (holder, watched) {
                (Some(now), Some((then, since))) if then.claim == now.claim => Some((then, since)),
                (Some(now), _) => Some((now, Instant::now())),
                (None, _) => None,
            };
        }
    }

    /// Renews the claim until `end` is cancelled, or it is lost. Cancels `lost` then, after saying to whom.
    /// What a bus says that may have lost its data is not believed: an older one knows an earlier run.
    pub async fn keep(
        mut self,
        standing: Standing,
        lost: CancellationToken,
        end: CancellationToken,
    ) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = sleep(limits::WORKER_BEAT) => {}
                () = end.cancelled() => return,
            }
            match self.renew().await {
                Ok(()) => failing = false,
                Err(IdentityError::Bus(error)) => {
                    if !failing {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "failed to renew the claim of this worker's id"
                        );
                    }
                    failing = true;
                }
                Err(error) if standing.is_in_doubt() || standing.loss().is_some() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "not believed: the bus may have lost its data");
                }
                Err(error) => {
                    tracing::error!(
                        "{error}; it took the id over while this worker was cut off from the bus"
                    );
                    return lost.cancel();
                }
            }
        }
    }

    /// Gives the id back: nobody has to wait for the end of the claim.
    ///
    /// # Errors
    /// The bus failed; the claim ends by its time.
    pub async fn release(
        bus: &dyn RecordBus,
        id: &WorkerId,
        run: &WorkerId,
    ) -> Result<(), BusError> {
        if let Some((claim, revision)) = read(bus, id).await?
            && claim.run == *run
        {
            bus.delete(subject::WORKERS_STREAM, revision).await?;
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), IdentityError> {
        let mut over = self.revision;
        for _ in 0..RACES {
            match self.write(over).await? {
                Written::At(revision) => {
                    self.revision = revision;
                    return Ok(());
                }
                Written::Conflict | Written::Full => {}
            }
            over = match read(&*self.bus, &self.id).await? {
                // This run's own claim, whose acknowledgement was lost.
                Some((claim, revision)) if claim == self.own => revision,
                Some((claim, _)) => return Err(self.taken(claim)),
                // It ended while the bus could not be reached.
                None => 0,
            };
        }
        Err(BusError::new("claim changes all the time", self.id.to_string()).into())
    }

    /// What is known of whoever has the id, in addition to what is known already.
    async fn look(
        &self,
        client: &Client,
        watched: Option<&(Holder, Instant)>,
    ) -> Result<Option<Holder>, BusError> {
        let Some((claim, revision)) = read(&*self.bus, &self.id).await? else {
            return Ok(None);
        };
        let before = watched.filter(|(before, _)| before.claim == claim);
        Ok(Some(Holder {
            sign: ask(client, &claim.run).await,
            renewed: before.is_some_and(|(before, _)| before.revision != revision),
            unchanged_for: before.map_or(Duration::ZERO, |(_, since)| since.elapsed()),
            claim,
            revision,
        }))
    }

    async fn write(&self, over: u64) -> Result<Written, BusError> {
        let write = Write {
            subject: subject::worker_claim(&self.id),
            payload: cas::encode(&self.own)?,
            expected: Some(over),
            life: None,
        };
        self.bus.write(write).await
    }

    fn taken(&self, by: WorkerClaim) -> IdentityError {
        IdentityError::Taken {
            id: self.id.clone(),
            host: self.host(&by),
            run: by.run,
        }
    }

    fn host(&self, claim: &WorkerClaim) -> &'static str {
        match claim.boot == self.own.boot {
            true => "this host",
            false => "another host, or on this one before it was booted again",
        }
    }
}

async fn read(bus: &dyn RecordBus, id: &WorkerId) -> Result<Option<(WorkerClaim, u64)>, BusError> {
    let claim = subject::worker_claim(id);
    let last = bus.last(subject::WORKERS_STREAM, &claim);
    let Some(stored) = last.await? else {
        return Ok(None);
    };
    let claim = wire::decode(&stored.payload);
    let claim = claim.map_err(|error| BusError::new("claim was not read", error))?;
    Ok(Some((claim, stored.sequence)))
}

/// Asks a run whether it lives.
async fn ask(client: &Client, run: &WorkerId) -> Sign {
    let question = Request::new().timeout(Some(ANSWERS_WITHIN));
    match client
        .send_request(subject::worker_control(run), question)
        .await
    {
        Ok(_) => Sign::Answer,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Sign::Nobody,
        Err(_) => Sign::Silence,
    }
}
