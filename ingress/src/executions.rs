//! The use cases around asynchronous executions, and whatever else has a record: submitted,
//! described, listed, cancelled. A record is all that is needed to tell of one, so any ingress can.

use std::time::Duration;

use proto::{
    blob::Blob,
    execution::Outcome,
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    message::{Answer, Job, Recalled, Request},
    record::{
        ExecutionRecord, Queued, RecordKey, RecordRef, RecordState, StoredOutcome, Submission,
    },
    subject, wire,
};
use records::{
    execution::{Found, Put},
    room::{Entry, Room},
    share::{self, Share},
};
use routing::{placement::LeaseView, served::Served};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    bus::{BusError, executions::Page, port::RouteBus},
    patience::patiently,
    route::{Missing, RouteError, once::OnceError, route},
    service::{Code, Service, ServiceError, Session},
};

/// How often a record that others change meanwhile is looked at anew.
const LOOKS: u32 = 8;
/// How long a cancelled execution may take to end before its caller hears that it still runs: it is
/// interrupted first, and killed after [`limits::INTERRUPT_GRACE`].
const CANCELLED_WITHIN: Duration = Duration::from_secs(10);
/// Time within which a session's owner tells what it remembers. Who is silent is taken to have forgotten.
const RECALLED_WITHIN: Duration = Duration::from_secs(3);
/// Pause before an execution that does not end is cancelled again: it may not have been there yet.
const CANCEL_AGAIN: Duration = Duration::from_millis(250);

/// An execution as its record tells it, or its session's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Where it stands.
    pub state: RecordState,
    /// How it was asked for, if that is known.
    pub submission: Option<Submission>,
    /// What it left, or the failure that ended it; nothing before its end.
    pub end: Option<Result<Outcome, Fault>>,
}

impl Service {
    /// Adds an execution to the queue of its pool, or finds the one that was added under the same id.
    /// `retry` says whether it may be started again when its worker is lost.
    ///
    /// # Errors
    /// The execution will not run: there is no room for it, the id was used for another request, or the
    /// platform failed.
    pub async fn submit(
        &self,
        session: &Session,
        code: Code,
        retry: bool,
    ) -> Result<Execution, ServiceError> {
        let ceiling = Duration::from_secs(session.pool.limits.async_execution_seconds.into());
        let code = Code {
            timeout: code.timeout.min(ceiling),
            ..code
        };
        let retries = if retry { limits::RETRIES_ON_LOSS } else { 0 };
        let queued = Some(Queued { retries });
        let reference = self.record(session, &code, queued);
        let place = subject::execution(&session.pool.id, &session.key, &reference.key);
        let (record, revision) = match self.enter(&place, &reference, session).await? {
            Entered::New(record, revision) => (record, revision),
            Entered::Known(record) => return self.described(record).await,
        };
        let sent = self.send_to_queue(session, code, reference, revision);
        let failed = match sent.await {
            Ok(()) => return self.described(record).await,
            Err(error) => error,
        };
        // It is said that it does not run only after nothing can run it any more.
        let refusal = match &failed {
            ServiceError::QueueFull => FaultCode::SessionBusy,
            _ => FaultCode::StorageUnavailable,
        };
        let fault = StoredOutcome::Fault(Fault::new(refusal, "the execution was not queued"));
        let refused = record.followed_by(RecordState::Refused, Some(fault), self.bus.stamp());
        match self.bus.write_execution(&place, &refused, revision).await {
            Ok(Put::At(_)) => Err(failed),
            Ok(Put::Taken(Some((winner, _)))) => self.described(winner).await,
            Ok(Put::Taken(None) | Put::Full) | Err(_) => Err(OnceError::Pending.into()),
        }
    }

    /// Creates the record of an execution that waits.
    async fn enter(
        &self,
        place: &str,
        reference: &RecordRef,
        session: &Session,
    ) -> Result<Entered, ServiceError> {
        let mut found = self.read(place).await?;
        for _ in 0..LOOKS {
            let expected = match found {
                Some((record, _)) if record.digest != reference.digest => {
                    return Err(OnceError::Conflict.into());
                }
                // Its job may not have been sent: whoever did so may have been cut off.
                Some((record, revision)) if record.state == RecordState::Queued => {
                    return Ok(Entered::New(record, revision));
                }
                Some((record, _)) if record.state != RecordState::Refused => {
                    return Ok(Entered::Known(record));
                }
                Some((_, revision)) => revision,
                None => 0,
            };
            let _entry = self.check_room(session).await?;
            let digest = reference.digest.clone();
            let record = ExecutionRecord::new(RecordState::Queued, digest, None, self.bus.stamp())
                .submitted(reference.submission.clone());
            match self.bus.write_execution(place, &record, expected).await? {
                Put::At(revision) => return Ok(Entered::New(record, revision)),
                Put::Taken(newer) => found = newer,
                Put::Full => return Err(no_room(limits::RECORDS_AGAIN).into()),
            }
        }
        Err(OnceError::Pending.into())
    }

    /// What lives goes on where it lives, however its pool is served now.
    async fn check_served(&self, session: &Session) -> Result<(), ServiceError> {
        let served = self.bus.served(&session.pool.id).await;
        if matches!(served, Served::Same | Served::Unknown) {
            return Ok(());
        }
        match self.bus.sure_lease(&session.pool.id, &session.key).await? {
            Some(LeaseView::None) => Err(RouteError::PoolNotServed(served).into()),
            Some(LeaseView::Held(..)) | None => Ok(()),
        }
    }

    async fn check_room(&self, session: &Session) -> Result<Entry, ServiceError> {
        self.check_served(session).await?;
        let share = Share::from(&*session.pool);
        let entry = match self.bus.admit_record(&share).await? {
            Room::Left(entry) => entry,
            Room::Full { retry_after } => return Err(no_room(retry_after).into()),
        };
        let depth = self.bus.queue()?.depth(&session.pool.id).await;
        let depth = depth.map_err(BusError::from)?;
        if depth.all() >= u64::from(session.pool.queued_executions) {
            return Err(ServiceError::QueueFull);
        }
        Ok(entry)
    }

    async fn send_to_queue(
        &self,
        session: &Session,
        code: Code,
        reference: RecordRef,
        revision: u64,
    ) -> Result<(), ServiceError> {
        // Sent again, it is the same message.
        let name = format!("{}-{revision}", reference.key);
        let request = Request::Execute {
            timeout_ms: code.timeout_ms(),
            language: code.language,
            code: self.kept_code(session, &reference.key, code.text).await?,
            record: Some(reference),
            extension: code.extension,
            stream: false,
        };
        let job = wire::encode(&session.job(request, limits::RECORD_LIFE))?;
        let queue = self.bus.queue()?;
        let added = queue.add((&session.pool.id, &session.key), &name, job.into());
        match added.await.map_err(BusError::from)? {
            true => Ok(()),
            false => Err(ServiceError::QueueFull),
        }
    }

    /// Code as it travels that may wait for long and be read more than once.
    async fn kept_code(
        &self,
        session: &Session,
        key: &RecordKey,
        code: String,
    ) -> Result<Blob, ServiceError> {
        if Blob::fits_inline(code.len() as u64) {
            return Ok(Blob::Inline(code.into_bytes()));
        }
        let nonce = self.bus.ids().next().to_string().to_lowercase();
        let object = subject::queued_code_key(&session.pool.id, &session.key, key, &nonce);
        let kept = self.store.keep_result(object, code.into_bytes()).await?;
        Ok(Blob::Staged(kept))
    }

    /// The execution that the session's operation id names; `None` when it has no record and the session's
    /// owner does not remember it.
    ///
    /// # Errors
    /// The platform failed.
    pub async fn execution(&self, session: &Session) -> Result<Option<Execution>, ServiceError> {
        match self.read(&self.place_of(session)).await? {
            Some((record, _)) => self.described(record).await.map(Some),
            None => self.recalled(session).await,
        }
    }

    /// A job about the execution that the session's operation id names, with an id of its own.
    fn job_beside(&self, session: &Session, request: Request, budget: Duration) -> Job {
        Job {
            operation: OperationId::from_ulid(self.bus.ids().next()),
            ..session.job(request, budget)
        }
    }

    /// An execution without a record, from the memory of its session's owner.
    async fn recalled(&self, session: &Session) -> Result<Option<Execution>, ServiceError> {
        let target = session.operation.clone();
        let job = self.job_beside(session, Request::Recall { target }, RECALLED_WITHIN);
        let asked = route(&self.bus, &job, Missing::Refuse, None);
        let recalled = match timeout(RECALLED_WITHIN, asked).await {
            Ok(Ok(Answer::Recalled(Some(recalled)))) => recalled,
            Ok(Ok(Answer::Recalled(None))) | Err(_) => return Ok(None),
            Ok(Ok(_)) => return Err(ServiceError::Answer),
            Ok(Err(RouteError::Fault(fault))) if forgets(fault.code) => return Ok(None),
            Ok(Err(error)) => return Err(error.into()),
        };
        let (state, outcome) = match recalled {
            Recalled::Waits => (RecordState::Queued, None),
            Recalled::Runs => (RecordState::Running, None),
            Recalled::Ended(outcome) => (RecordState::Succeeded, Some(*outcome)),
        };
        let submission = Submission {
            operation: session.operation.clone(),
            language: session.language(),
            stream_characters: None,
            all_forms: false,
            extended: outcome.as_ref().is_some_and(|left| left.details.is_some()),
            queued: None,
        };
        Ok(Some(Execution {
            state,
            submission: Some(submission),
            end: outcome.map(Ok),
        }))
    }

    /// A page of the session's executions, from the place `from` on.
    ///
    /// # Errors
    /// The platform failed.
    pub async fn executions(&self, session: &Session, from: u64) -> Result<Page, ServiceError> {
        let (pool, key) = (&session.pool.id, &session.key);
        Ok(self.bus.executions(pool, key, from).await?)
    }

    /// Cancels the execution that the session's operation id names: one that waits never begins, one that
    /// runs is interrupted. Returns how it stands afterwards, which is its end unless that takes long;
    /// `None` when it has no record and the session's owner does not remember it.
    ///
    /// # Errors
    /// The platform failed.
    pub async fn cancel(&self, session: &Session) -> Result<Option<Execution>, ServiceError> {
        let place = self.place_of(session);
        let deadline = Instant::now() + CANCELLED_WITHIN;
        loop {
            let Some((record, revision)) = self.read(&place).await? else {
                match self.recalled(session).await? {
                    Some(Execution { end: None, .. }) if Instant::now() < deadline => {
                        self.ask_to_cancel(session).await;
                        sleep(CANCEL_AGAIN).await;
                        continue;
                    }
                    other => return Ok(other),
                }
            };
            match record.state {
                RecordState::Queued => {
                    let cancelled = record.cancelled(self.bus.stamp())?;
                    let put = self.bus.write_execution(&place, &cancelled, revision);
                    if let Put::At(_) = put.await? {
                        return self.described(cancelled).await.map(Some);
                    }
                }
                RecordState::Running if Instant::now() < deadline => {
                    self.ask_to_cancel(session).await;
                    sleep(CANCEL_AGAIN).await;
                }
                _ => return self.described(record).await.map(Some),
            }
        }
    }

    /// Asks the session's owner to cancel it. Without one, whoever takes its job from the queue finds out.
    async fn ask_to_cancel(&self, session: &Session) {
        let target = session.operation.clone();
        let job = self.job_beside(session, Request::Cancel { target }, CANCELLED_WITHIN);
        let asked = route(&self.bus, &job, Missing::Refuse, None);
        if let Ok(Err(error)) = timeout(patiently(limits::ACCEPT_WITHIN), asked).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "execution not cancelled yet");
        }
    }

    fn place_of(&self, session: &Session) -> String {
        let (pool, key) = (&session.pool.id, &session.key);
        let record = RecordKey::derive(&self.cluster_key, pool, key, &session.operation);
        subject::execution(pool, key, &record)
    }

    async fn read(&self, place: &str) -> Result<Found, ServiceError> {
        Ok(self.bus.read_execution(place).await?)
    }

    /// With what it left.
    async fn described(&self, record: ExecutionRecord) -> Result<Execution, ServiceError> {
        let end = match record.answer() {
            None => None,
            Some(Err(fault)) => Some(Err(fault)),
            Some(Ok(answer)) => Some(Ok(self.executed(answer).await?)),
        };
        Ok(Execution {
            state: record.state,
            submission: record.submission,
            end,
        })
    }
}

/// What became of the attempt to create a record.
enum Entered {
    /// The execution waits, and its job is to be sent.
    New(ExecutionRecord, u64),
    /// Somebody has it, or it has ended.
    Known(ExecutionRecord),
}

/// Refusals of those who cannot remember: there is no owner, or it is of an older version.
fn forgets(code: FaultCode) -> bool {
    matches!(
        code,
        FaultCode::NotOwner | FaultCode::Unsupported | FaultCode::Stopping
    )
}

fn no_room(retry_after: Duration) -> RouteError {
    let wait = share::words(retry_after);
    let words = format!(
        "the pool has recorded as many executions within 24 hours as it may; there is room again in {wait}"
    );
    let full = Fault::new(FaultCode::RecordsFull, words);
    full.retry_after(retry_after).into()
}
