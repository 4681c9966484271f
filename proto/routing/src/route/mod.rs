//! Brings a job to the worker that owns its session, or to one that will, and its answer back.

use std::time::Duration;

use bytes::Bytes;
use proto::{
    fault::{Fault, FaultCode},
    id::Incarnation,
    lease::{Lease, LeaseState},
    limits,
    message::{Answer, FrameBody, Job, Placement},
    subject::{self, Readiness},
    wire,
};
use tokio::time::{Instant, timeout};

use crate::{
    bus::{
        BusError,
        inbox::{Arrival, Inbox},
        port::RouteBus,
    },
    patience::patiently,
    placement::{self, LeaseView, Next, OwnerStatus},
    reader::Reader,
    served::Served,
};

mod hang_up;
pub mod once;
pub mod step;

use hang_up::HangUp;

/// A placed job is accepted within this time: the claim's writes are durable and may queue.
const PLACED_WITHIN: Duration = Duration::from_secs(5);
/// First and longest pause before the session's subject is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Refusals of full workers in a row that are answered by asking the next at once.
const BUSY_IN_A_ROW: u32 = 3;
/// Answer of a worker's control subject: nothing but proof of life.
const ALIVE_WITHIN: Duration = Duration::from_millis(500);

/// Why a job has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A worker's refusal or failure.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// No worker had room within [`limits::ROOM_BUDGET`].
    #[error("no worker has room")]
    NoCapacity,
    /// No worker serves the pool, or not with the settings that this process knows.
    #[error("no worker serves the pool with these settings")]
    PoolNotServed(Served),
    /// The session's owner did not answer in time, and is not known to be gone.
    #[error("the session's worker does not answer")]
    OwnerSilent,
    /// No worker serves the session, and the job only reads files: they can be read from the log of
    /// this life of the session.
    #[error("no worker serves the session")]
    Unowned(Incarnation),
    /// The job was delivered and no answer came: it may have had effects.
    #[error("the worker was lost; the request may have had effects")]
    Lost {
        /// A worker said that it had the job.
        accepted: bool,
    },
    /// The bus failed.
    #[error("failed to use the bus")]
    Bus(#[from] BusError),
    /// The message could not be made.
    #[error("failed to encode the job")]
    Wire(#[from] wire::WireError),
}

/// Whether a session that does not exist is made for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made.
    Allocate,
    /// The job fails with [`FaultCode::NotOwner`].
    Refuse,
}

/// What became of one attempt.
enum Heard {
    Answer(Answer),
    /// Final.
    Fault(Fault),
    /// Not accepted; the job had no effect.
    Refused(Fault),
    Nobody,
}

/// One job on its way.
struct Journey<'a, B> {
    bus: &'a B,
    job: &'a Job,
    missing: Missing,
    reader: Option<&'a Reader>,
    started: Instant,
    pause: Duration,
    /// Since when both subjects of the owner have had no listener.
    silent_since: Option<Instant>,
    busy: u32,
    /// Since when no worker takes the session, which nobody owns.
    roomless_since: Option<Instant>,
}

/// Brings the job there and the answer back, and to a reader the output on the way.
///
/// # Errors
/// See [`RouteError`]. After `Lost` the job may have had effects; after all others it had none,
/// unless the fault itself says so.
pub async fn route<B: RouteBus>(
    bus: &B,
    job: &Job,
    missing: Missing,
    reader: Option<&Reader>,
) -> Result<Answer, RouteError> {
    let mut journey = Journey {
        bus,
        job,
        missing,
        reader,
        started: Instant::now(),
        pause: BACK_OFF.0,
        silent_since: None,
        busy: 0,
        roomless_since: None,
    };
    journey.run().await
}

impl<B: RouteBus> Journey<'_, B> {
    async fn run(&mut self) -> Result<Answer, RouteError> {
        let payload = Bytes::from(wire::encode(self.job)?);
        loop {
            match ask_owner(self.bus, (self.job, self.reader), payload.clone()).await? {
                Heard::Answer(answer) => return Ok(answer),
                Heard::Fault(fault) => return Err(fault.into()),
                Heard::Refused(_) => self.silent_since = None,
                Heard::Nobody => {
                    if let Some(done) = self.without_owner().await? {
                        return done;
                    }
                }
            }
            self.pause_once().await?;
        }
    }

    /// Nobody listens at the session's subject: place it, or find out why not.
    async fn without_owner(&mut self) -> Result<Option<Result<Answer, RouteError>>, RouteError> {
        let (pool, session) = (&self.job.pool, &self.job.session);
        let Some(record) = self.bus.sure_lease(pool, session).await? else {
            self.roomless_since = None;
            self.pause = BACK_OFF.1;
            return Ok(None);
        };
        if record == LeaseView::None && self.missing == Missing::Refuse {
            let none = Fault::new(FaultCode::NotOwner, "the session is not running");
            return Ok(Some(Err(none.into())));
        }
        let owner = self.owner(&record).await?;
        let settled = self.bus.connected_for() >= placement::SETTLED_AFTER;
        match placement::choose(&record, owner, settled) {
            Next::Wait => {
                self.roomless_since = None;
                Ok(None)
            }
            Next::Holder { seen } => match readable(&record) {
                Some(incarnation) if self.job.request.only_reads_files() => {
                    Err(RouteError::Unowned(incarnation))
                }
                _ => self.place(seen).await,
            },
        }
    }

    async fn owner(&mut self, record: &LeaseView) -> Result<OwnerStatus, RouteError> {
        match record {
            LeaseView::Held(lease, _) => Ok(owner(self.bus, lease, &mut self.silent_since).await?),
            LeaseView::None => Ok(OwnerStatus::NONE),
        }
    }

    async fn place(&mut self, seen: u64) -> Result<Option<Result<Answer, RouteError>>, RouteError> {
        // A worker that has other settings would keep other promises.
        match self.bus.served(&self.job.pool).await {
            Served::Same | Served::Unknown => {}
            other @ (Served::Differently | Served::Nowhere) => {
                return Err(RouteError::PoolNotServed(other));
            }
        }
        let placement = Placement {
            job: self.job.clone(),
            seen,
            pool_digest: self.bus.pool_digest(&self.job.pool),
        };
        let payload = Bytes::from(wire::encode(&placement)?);
        for readiness in [Readiness::Warm, Readiness::Any] {
            let subject = subject::place(&self.job.pool, readiness);
            match ask(
                self.bus,
                (self.job, self.reader),
                subject,
                payload.clone(),
                PLACED_WITHIN,
            )
            .await?
            {
                Heard::Answer(answer) => return Ok(Some(Ok(answer))),
                Heard::Fault(fault) => return Ok(Some(Err(fault.into()))),
                // It has no spare any more; another may have room.
                Heard::Refused(fault)
                    if readiness == Readiness::Warm && fault.code == FaultCode::Busy => {}
                Heard::Refused(fault) => return Ok(self.refused(fault).map(Err)),
                Heard::Nobody => {}
            }
        }
        self.no_room();
        Ok(None)
    }

    fn no_room(&mut self) {
        self.pause = BACK_OFF.1;
        self.roomless_since.get_or_insert_with(Instant::now);
    }

    /// What a refused placement means: `None` is another try.
    fn refused(&mut self, fault: Fault) -> Option<RouteError> {
        match fault.code {
            FaultCode::LostRace | FaultCode::NotOwner | FaultCode::Stopping => None,
            FaultCode::Busy => {
                self.busy += 1;
                if self.busy.is_multiple_of(BUSY_IN_A_ROW) {
                    self.no_room();
                }
                None
            }
            _ => Some(fault.into()),
        }
    }

    async fn pause_once(&mut self) -> Result<(), RouteError> {
        if self
            .roomless_since
            .is_some_and(|since| since.elapsed() >= limits::ROOM_BUDGET)
        {
            return Err(RouteError::NoCapacity);
        }
        if self.started.elapsed() >= limits::PLACEMENT_BUDGET {
            return Err(match self.bus.standing().is_in_doubt() {
                true => RouteError::Bus(BusError::InDoubt),
                false => RouteError::OwnerSilent,
            });
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(BACK_OFF.1);
        Ok(())
    }
}

/// What is known of an owner at whose session subject nobody listens. `silent_since` is since when its
/// control subject has had no listener either.
async fn owner<B: RouteBus>(
    bus: &B,
    lease: &Lease,
    silent_since: &mut Option<Instant>,
) -> Result<OwnerStatus, BusError> {
    let key = bus.worker(&lease.owner).await?;
    let mut control = bus
        .send(subject::worker_control(&lease.owner), Bytes::new())
        .await?;
    let silent = matches!(
        timeout(ALIVE_WITHIN, control.next()).await,
        Ok(Arrival::Nobody)
    );
    if silent {
        silent_since.get_or_insert_with(Instant::now);
    } else {
        *silent_since = None;
    }
    Ok(OwnerStatus {
        has_key: key.is_some(),
        draining: key.is_some_and(|beat| beat.draining),
        silent: silent_since.map(|since| since.elapsed()),
    })
}

/// Sends the job to whoever owns the session and listens to the end.
async fn ask_owner<B: RouteBus>(
    bus: &B,
    (job, reader): (&Job, Option<&Reader>),
    payload: Bytes,
) -> Result<Heard, RouteError> {
    let subject = subject::session(&job.pool, &job.session, job.request.verb());
    ask(
        bus,
        (job, reader),
        subject,
        payload,
        patiently(limits::ACCEPT_WITHIN),
    )
    .await
}

/// Sends the job to one subject and listens to the end.
async fn ask<B: RouteBus>(
    bus: &B,
    (job, reader): (&Job, Option<&Reader>),
    subject: String,
    payload: Bytes,
    accept_within: Duration,
) -> Result<Heard, RouteError> {
    let mut inbox = bus.send(subject, payload).await?;
    let mut hang_up = HangUp::new(bus, job);
    let heard = match timeout(accept_within, inbox.next()).await {
        Ok(Arrival::Nobody) => Ok(Heard::Nobody),
        Ok(Arrival::Frame(frame)) => match frame.body {
            FrameBody::Accepted | FrameBody::Heartbeat => {
                return listen(reader, &mut inbox, hang_up).await;
            }
            // Nobody sends output before it accepted.
            FrameBody::Output(_) => Err(RouteError::Lost { accepted: false }),
            FrameBody::Done(answer) => Ok(Heard::Answer(answer)),
            FrameBody::Failed(fault) => Ok(before_acceptance(fault)),
        },
        // Delivered, as far as anyone knows.
        Ok(Arrival::Gap) | Err(_) => Err(RouteError::Lost { accepted: false }),
    };
    if heard.is_ok() {
        hang_up.answered();
    }
    heard
}

async fn listen<B: RouteBus>(
    reader: Option<&Reader>,
    inbox: &mut Inbox,
    mut hang_up: HangUp<'_, B>,
) -> Result<Heard, RouteError> {
    if let Some(reader) = reader {
        reader.started();
    }
    loop {
        match timeout(patiently(limits::SILENCE), inbox.next()).await {
            Ok(Arrival::Frame(frame)) => match frame.body {
                FrameBody::Accepted | FrameBody::Heartbeat => {}
                FrameBody::Output(output) => {
                    if let Some(reader) = reader {
                        reader.output(output);
                    }
                }
                FrameBody::Done(answer) => {
                    hang_up.answered();
                    return Ok(Heard::Answer(answer));
                }
                FrameBody::Failed(fault) => {
                    hang_up.answered();
                    return Ok(match fault.code {
                        // The owner gave the session up before it began with the job.
                        FaultCode::NotOwner => Heard::Refused(fault),
                        _ => Heard::Fault(fault),
                    });
                }
            },
            Ok(Arrival::Nobody | Arrival::Gap) | Err(_) => {
                return Err(RouteError::Lost { accepted: true });
            }
        }
    }
}

/// The life of a session that has no owner and goes on.
fn readable(record: &LeaseView) -> Option<Incarnation> {
    match record {
        LeaseView::Held(lease, _) if lease.state != LeaseState::Stopping => Some(lease.incarnation),
        LeaseView::Held(..) | LeaseView::None => None,
    }
}

/// A failure without acceptance: some mean "look again", the others are final.
fn before_acceptance(fault: Fault) -> Heard {
    match fault.code {
        FaultCode::NotOwner
        | FaultCode::LostRace
        | FaultCode::Stopping
        | FaultCode::Busy
        | FaultCode::SessionPoolFull => Heard::Refused(fault),
        _ => Heard::Fault(fault),
    }
}
