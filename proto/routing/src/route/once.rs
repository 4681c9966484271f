//! Executions with a record: asked for until they have an end, since asking again never runs them again.
//! An owner that has one already lets whoever asks wait with it, or answers what it came to.

use std::time::Duration;

use bytes::Bytes;
use proto::{
    fault::{Fault, FaultCode},
    limits,
    message::{Answer, Job, Request},
    record::{ExecutionRecord, Holder, RecordRef, RecordState, lost},
    subject, wire,
};
use records::execution::{Found, Put};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Heard, Missing, RouteError, ask_owner, owner, route,
    step::{RetryReason, Step, step},
};
use crate::{
    bus::{BusError, port::RouteBus},
    placement::{self, LeaseView, OwnerStatus},
    reader::Reader,
};

/// When a caller's time is over, the record may be looked at and written for this long.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// Pause before an execution is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Why an execution with a record has no result.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// It did not run, and nothing that was sent for it will.
    #[error(transparent)]
    Refused(RouteError),
    /// It is lost, or ended by a failure of the platform's: its record says so.
    #[error(transparent)]
    Failed(Fault),
    /// The bus is not there, and nothing was sent.
    #[error("failed to use the bus")]
    Bus(#[from] BusError),
    /// The operation id was used for another request.
    #[error("this operation id was used for another request")]
    Conflict,
    /// It waits in the queue, and found no room this time.
    #[error("the execution waits in the queue")]
    Queued(#[source] RouteError),
    /// The caller's time is over, or the bus is gone, before its end is known.
    #[error("the execution's end is not known yet")]
    Pending,
}

/// Brings an execution to its session, once, and its result back, for at most `wait`.
///
/// # Errors
/// See [`OnceError`]. What it says of an execution is said to everybody who asks for it.
pub async fn route_once<B: RouteBus>(
    bus: &B,
    job: Job,
    record: RecordRef,
    wait: Duration,
    reader: Option<&Reader>,
) -> Result<Answer, OnceError> {
    let mut once = Once {
        bus,
        subject: subject::execution(&job.pool, &job.session, &record.key),
        job,
        record,
        reader,
        stray: false,
        quiet_since: None,
        silent_since: None,
        elsewhere_since: None,
        refusal: RouteError::OwnerSilent,
    };
    // Without its record in it, a copy of the job would be another execution.
    once.start_over(once.record.seen);
    match timeout(wait, once.pursue()).await {
        Ok(done) => done,
        Err(_) => once.time_over().await,
    }
}

/// One execution on its way.
struct Once<'a, B> {
    bus: &'a B,
    job: Job,
    record: RecordRef,
    /// Gets its output, if this is what begins it.
    reader: Option<&'a Reader>,
    /// Subject of its record.
    subject: String,
    /// Some copy of the job was sent that nobody answered.
    stray: bool,
    /// Since when nothing was heard of it.
    quiet_since: Option<Instant>,
    /// Since when its executor's subjects have had no listener.
    silent_since: Option<Instant>,
    /// Since when the session's lease has not been its executor's.
    elsewhere_since: Option<Instant>,
    /// Why it was refused last.
    refusal: RouteError,
}

impl<B: RouteBus> Once<'_, B> {
    async fn pursue(&mut self) -> Result<Answer, OnceError> {
        let mut found = self.bus.execution(&self.subject).await?;
        let mut why = RetryReason::Start;
        loop {
            let tried = match self.next(&found, why) {
                Step::Ask { seen } => self.ask(seen).await,
                Step::Attach => self.attach(found.as_ref().map(|(record, _)| record)).await,
                other => match self.settle(other, &found).await {
                    Ok(end) => return end,
                    // Someone else changed the record meanwhile.
                    Err(newer) => {
                        found = newer;
                        continue;
                    }
                },
            };
            why = match tried {
                Ok(answer) => return Ok(answer),
                Err(why) => self.long(why),
            };
            if matches!(why, RetryReason::Silence | RetryReason::FoundRefused) {
                sleep(PAUSE).await;
            }
            found = self.look().await?;
        }
    }

    fn next(&self, found: &Found, why: RetryReason) -> Step {
        let found = found.as_ref().map(|(record, revision)| (record, *revision));
        step(found, &self.record.digest, why, self.stray)
    }

    /// The caller waits no longer: says what is certain.
    async fn time_over(&mut self) -> Result<Answer, OnceError> {
        // It was cut off in the middle of something.
        self.stray = true;
        let settled = timeout(SETTLE_WITHIN, async {
            let mut found = self.bus.read_execution(&self.subject).await;
            loop {
                let Ok(now) = found else {
                    return Err(OnceError::Pending);
                };
                match self
                    .settle(self.next(&now, RetryReason::TimeOver), &now)
                    .await
                {
                    Ok(end) => return end,
                    Err(newer) => found = Ok(newer),
                }
            }
        });
        settled.await.unwrap_or(Err(OnceError::Pending))
    }

    /// Sends the job to its session, or to a worker that will have it.
    async fn ask(&mut self, seen: u64) -> Result<Answer, RetryReason> {
        self.start_over(seen);
        let sent = route(self.bus, &self.job, Missing::Allocate, self.reader).await;
        sent.map_err(|error| self.failed(error))
    }

    /// Sends the job to whoever has it.
    async fn attach(&mut self, record: Option<&ExecutionRecord>) -> Result<Answer, RetryReason> {
        let asked = match wire::encode(&self.job) {
            Ok(payload) => {
                let payload = Bytes::from(payload);
                ask_owner(self.bus, (&self.job, self.reader), payload).await
            }
            Err(error) => Err(error.into()),
        };
        let nobody = match asked {
            Ok(Heard::Answer(answer)) => return Ok(answer),
            Ok(Heard::Fault(fault)) => return Err(self.failed(fault.into())),
            // It is ending the session, and the record with it.
            Ok(Heard::Refused(_)) => return Err(self.quiet(false)),
            Ok(Heard::Nobody) => {
                self.quiet(false);
                true
            }
            // The record says who has it: no copy of the job can be taken up any more.
            Err(RouteError::Lost { accepted }) => {
                self.quiet(accepted);
                false
            }
            Err(RouteError::Bus(_)) => return Err(self.quiet(false)),
            Err(error) => return Err(self.failed(error)),
        };
        let place = record.and_then(|record| record.place.as_ref());
        match place {
            Some(place) if self.executor_is_gone(place, nobody).await => {
                Err(RetryReason::ExecutorGone)
            }
            _ => Err(RetryReason::Silence),
        }
    }

    /// From here on the job starts over the refused record at `seen`.
    fn start_over(&mut self, seen: u64) {
        self.record.seen = seen;
        if let Request::Execute { record, .. } = &mut self.job.request {
            *record = Some(self.record.clone());
        }
    }

    /// Whether whoever has the execution lost its session; `nobody` listened at the session's subject.
    async fn executor_is_gone(&mut self, place: &Holder, nobody: bool) -> bool {
        match self.look_for(place, nobody).await {
            Ok(gone) => gone,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to look for the owner of a session"
                );
                false
            }
        }
    }

    async fn look_for(&mut self, place: &Holder, nobody: bool) -> Result<bool, BusError> {
        let (pool, session) = (&self.job.pool, &self.job.session);
        let standing = self.bus.standing();
        let doubts = standing.doubts();
        let lease = self.bus.known_lease(pool, session).await?;
        if standing.is_in_doubt() || standing.doubts() != doubts {
            self.elsewhere_since = None;
            return Ok(false);
        }
        let owner = match &lease {
            LeaseView::Held(held, _) if nobody => {
                owner(self.bus, held, &mut self.silent_since).await?
            }
            LeaseView::Held(held, _) => {
                self.silent_since = None;
                let key = self.bus.worker(&held.owner).await?;
                OwnerStatus {
                    has_key: key.is_some(),
                    ..OwnerStatus::NONE
                }
            }
            LeaseView::None => OwnerStatus::NONE,
        };
        let elsewhere = if placement::holds(&lease, place) {
            self.elsewhere_since = None;
            Duration::ZERO
        } else {
            self.elsewhere_since
                .get_or_insert_with(Instant::now)
                .elapsed()
        };
        let settled = self.bus.connected_for() >= placement::SETTLED_AFTER;
        Ok(placement::executor_is_gone(
            place, &lease, owner, settled, elsewhere,
        ))
    }

    /// What a failed attempt means.
    fn failed(&mut self, error: RouteError) -> RetryReason {
        match &error {
            RouteError::Lost { accepted } => {
                self.stray = true;
                return self.quiet(*accepted);
            }
            // The connection broke after something was sent.
            RouteError::Bus(_) | RouteError::OwnerSilent if self.quiet_since.is_some() => {
                return RetryReason::Silence;
            }
            RouteError::Fault(fault) => match fault.code {
                FaultCode::Refused => return RetryReason::FoundRefused,
                FaultCode::NotOwner | FaultCode::LostRace | FaultCode::Fenced => {
                    return self.quiet(false);
                }
                _ => self.quiet_since = None,
            },
            RouteError::Bus(_)
            | RouteError::OwnerSilent
            | RouteError::NoCapacity
            | RouteError::PoolNotServed(_)
            // Only of jobs that read files.
            | RouteError::Unowned(_)
            | RouteError::Wire(_) => {}
        }
        self.refusal = error;
        RetryReason::Refused
    }

    /// Notes that nothing is heard, or nothing any more.
    fn quiet(&mut self, heard_before: bool) -> RetryReason {
        if heard_before {
            self.quiet_since = None;
        }
        self.quiet_since.get_or_insert_with(Instant::now);
        RetryReason::Silence
    }

    fn long(&self, why: RetryReason) -> RetryReason {
        let long = |since: Instant| since.elapsed() >= limits::REATTACH_BUDGET;
        match why {
            RetryReason::Silence if self.quiet_since.is_some_and(long) => RetryReason::LongSilence,
            other => other,
        }
    }

    /// Reads the record. Without an answer of the bus nothing can be said of a job that was sent.
    async fn look(&mut self) -> Result<Found, OnceError> {
        let mut failed = false;
        loop {
            match self.bus.read_execution(&self.subject).await {
                Ok(found) => {
                    if failed {
                        // The owner could not be heard, and needs time to be there again, too.
                        self.quiet_since = Some(Instant::now());
                    }
                    return Ok(found);
                }
                Err(_) if self.long(RetryReason::Silence) == RetryReason::LongSilence => {
                    return Err(OnceError::Pending);
                }
                Err(error) if self.stray || self.quiet_since.is_some() => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to read an execution's record"
                    );
                    failed = true;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the journey, or returns the record that keeps it from ending so.
    async fn settle(
        &mut self,
        step: Step,
        found: &Found,
    ) -> Result<Result<Answer, OnceError>, Found> {
        let record = found.as_ref().map(|(record, _)| record);
        match step {
            Step::Conflict => Ok(Err(OnceError::Conflict)),
            Step::Tell => Ok(match record.and_then(ExecutionRecord::answer) {
                Some(answer) => answer.map_err(OnceError::Failed),
                None => Err(OnceError::Pending),
            }),
            Step::Report => Ok(Err(OnceError::Refused(self.refusal()))),
            Step::Postpone => Ok(Err(OnceError::Queued(self.refusal()))),
            Step::Refuse { expected } => {
                let refused = self.refused(record);
                self.write(&refused, expected).await.map(|written| {
                    Err(match written {
                        Some(_) => OnceError::Refused(self.refusal()),
                        None => OnceError::Pending,
                    })
                })
            }
            Step::Lose { expected } => {
                let Some(running) = record else {
                    return Ok(Err(OnceError::Pending));
                };
                let ended = running.after_owner_lost(self.bus.stamp());
                match (self.write(&ended, expected).await?, ended.state) {
                    // Nobody has it, and it goes on.
                    (Some(revision), RecordState::Queued) => Err(Some((ended, revision))),
                    (Some(_), _) => Ok(Err(OnceError::Failed(lost()))),
                    (None, _) => Ok(Err(OnceError::Pending)),
                }
            }
            Step::Pend | Step::Ask { .. } | Step::Attach => Ok(Err(OnceError::Pending)),
        }
    }

    fn refusal(&mut self) -> RouteError {
        std::mem::replace(&mut self.refusal, RouteError::OwnerSilent)
    }

    fn refused(&self, record: Option<&ExecutionRecord>) -> ExecutionRecord {
        match record {
            Some(record) => record.followed_by(RecordState::Refused, None, self.bus.stamp()),
            None => {
                let digest = self.record.digest.clone();
                ExecutionRecord::new(RecordState::Refused, digest, None, self.bus.stamp())
                    .submitted(self.record.submission.clone())
            }
        }
    }

    /// Writes the record and returns its revision; `None` when that is not certain. The error is a record
    /// that is there instead.
    async fn write(&self, record: &ExecutionRecord, expected: u64) -> Result<Option<u64>, Found> {
        match self
            .bus
            .write_execution(&self.subject, record, expected)
            .await
        {
            Ok(Put::At(revision)) => Ok(Some(revision)),
            Ok(Put::Taken(found)) => Err(found),
            Ok(Put::Full) => {
                tracing::error!("no room for records of executions");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to write an execution's record"
                );
                Ok(None)
            }
        }
    }
}
