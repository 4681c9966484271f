//! What a session does with each job that arrives.

use std::{slice, sync::Arc, time::Duration};

use async_nats::Message;
use proto::{
    execution::Language,
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    message::{Answer, Job, Recalled, Request, VERSION},
    record::{RecordRef, cancelled},
    wire,
};
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    actor::Actor,
    answer,
    claim::unsupported,
    closing, file_job,
    machine::{End, Phase, Progress, Stop},
    opening::Sandbox,
    program::Source,
    queue::{Asked, Caller, Waiting},
    state::Session,
    table::Note,
};
use crate::{
    bus::{Responder, with_heartbeats},
    outlet::Outlet,
    trace,
};

impl Actor {
    pub(super) async fn message(&mut self, message: Message) {
        let Some(inbox) = message.reply else { return };
        let responder = Responder::new(self.session.shared.outbox.clone(), inbox);
        match wire::decode::<Job>(&message.payload) {
            Ok(job) if job.v <= VERSION => self.receive(job, responder).await,
            _ => responder.finish(Err(unsupported())).await,
        }
    }

    pub(super) async fn receive(&mut self, job: Job, responder: Responder) {
        let span = trace::job(&job);
        self.take(job, responder).instrument(span).await;
    }

    async fn take(&mut self, job: Job, mut responder: Responder) {
        responder.as_owner(self.session.keeper.ownership().epoch());
        match job.request {
            Request::Execute { language, .. } if !self.session.runs(language) => {
                responder.finish(Err(another_language())).await;
            }
            Request::Execute {
                code: text,
                timeout_ms,
                language,
                record,
                extension,
                stream,
            } => {
                self.session.used();
                match record.is_none() && !stream {
                    true => self.accept_soon(&mut responder),
                    false => responder.accept().await,
                }
                let session = &mut self.session;
                let queued = record.as_ref().is_some_and(RecordRef::is_queued);
                let outlet = stream.then(|| session.open_stream(&job.operation, &mut responder));
                let detailed = extension.is_some();
                let environment = extension.unwrap_or_default().environment;
                let asked = Asked {
                    operation: job.operation,
                    trace: job.trace,
                    code: Source {
                        text,
                        language,
                        kept: queued,
                        environment,
                        outlet,
                    },
                    timeout: Asked::timeout(timeout_ms, !queued, &session.pool.limits),
                    expires: Instant::now() + Duration::from_millis(job.budget_ms),
                    detailed,
                };
                self.execute(record, asked, responder).await;
            }
            Request::Cancel { target } => self.cancel(&target, responder).await,
            Request::Interrupt => self.interrupt_any(responder).await,
            Request::Credit {
                target,
                frames,
                bytes,
            } => self.session.credit(&target, frames, bytes),
            Request::Upload { .. }
            | Request::List { .. }
            | Request::Stat { .. }
            | Request::Download { .. }
            | Request::Delete { .. } => self.take_file_job(job, responder).await,
            Request::Recall { target } => {
                let recalled = Answer::Recalled(self.recall(&target));
                responder.finish(Ok(recalled)).await;
            }
            Request::Describe => responder.finish(Ok(Answer::Session(self.describe()))).await,
            Request::Inspect => {
                let inspection = Answer::Inspection(Box::new(self.inspect()));
                responder.finish(Ok(inspection)).await;
            }
            Request::Stop => {
                responder.accept().await;
                self.step(End::Stop(responder)).await;
            }
            Request::Unknown => responder.finish(Err(unsupported())).await,
        }
    }

    fn accept_soon(&mut self, responder: &mut Responder) {
        responder.accept_soon();
        let somebody_waits = self.somebody_waits();
        self.session.beat_soon(somebody_waits);
    }

    async fn take_file_job(&mut self, job: Job, mut responder: Responder) {
        self.session.used();
        responder.accept_soon();
        let (held, somebody_waits) = (self.held(), self.somebody_waits());
        let session = &mut self.session;
        if held + session.file_jobs.len() >= limits::SESSION_FILE_JOBS {
            let busy = session.busy(file_job::too_many());
            return responder.finish(Err(busy)).await;
        }
        match &mut self.phase {
            Phase::Open(sandbox, _) => session.start_file_job(sandbox, job, responder),
            // It waits for the sandbox.
            Phase::Opening(opening) => {
                session.beat_soon(somebody_waits);
                opening.held.push((job, responder));
            }
            // The actor takes no job any more then.
            Phase::Ending(_) => responder.finish(Err(closing::gone())).await,
        }
    }

    async fn execute(&mut self, record: Option<RecordRef>, asked: Asked, responder: Responder) {
        let Some(record) = record else {
            let caller = Caller::Plain(responder);
            return self.enqueue(Waiting { asked, caller }).await;
        };
        if let Err(refused) = self.session.recorded.ask(record, asked, responder) {
            let (responder, fault) = *refused;
            responder.finish(Err(self.session.busy(fault))).await;
        }
    }

    /// Puts an execution into the queue.
    pub(super) async fn enqueue(&mut self, execution: Waiting) {
        match self.session.queue.push(execution) {
            Ok(()) => self.step(Progress::Queued).await,
            Err(refused) => {
                let (caller, busy) = *refused;
                let busy = self.session.busy(busy);
                self.session.refuse_caller(caller, busy);
                self.tell_refused().await;
            }
        }
    }

    fn recall(&self, target: &OperationId) -> Option<Recalled> {
        let runs = self.phase.execution();
        if runs.is_some_and(|running| running.operation == *target) {
            return Some(Recalled::Runs);
        }
        if self.session.queue.has(target) {
            return Some(Recalled::Waits);
        }
        let outcome = self.session.recent.get(target)?;
        Some(Recalled::Ended(outcome.clone().into()))
    }

    async fn cancel(&mut self, target: &OperationId, responder: Responder) {
        let runs = self.phase.execution();
        if runs.is_some_and(|running| running.operation == *target) {
            self.step(Progress::Cancel).await;
        } else if let Some(waiting) = self.session.queue.remove(target) {
            let operation = waiting.asked.operation;
            if let Caller::Plain(_) = &waiting.caller {
                self.session.recent.keep(&operation, &cancelled());
            }
            self.session
                .reply(operation, waiting.caller, Ok(cancelled()));
        }
        responder.finish(Ok(Answer::Gone)).await;
    }

    async fn interrupt_any(&mut self, responder: Responder) {
        let runs = matches!(self.phase.stop(), Some(Stop::No | Stop::Interrupted(_)));
        if runs {
            self.step(Progress::Cancel).await;
        }
        responder.finish(Ok(Answer::Interrupted(runs))).await;
    }
}

impl Session {
    /// Whether its pool runs code in this language.
    fn runs(&self, language: Language) -> bool {
        self.pool.container_type.language() == Some(language)
    }

    /// What a job is refused with that finds no place here. After a standstill the session may be another
    /// worker's, and the places here are taken by what was sent meanwhile: then the job is looked after anew.
    fn busy(&self, fault: Fault) -> Fault {
        if fault.code != FaultCode::SessionBusy || self.ownership_check.is_sure() {
            return fault;
        }
        let words = "the session may have moved to another worker; nothing was done";
        Fault::new(FaultCode::NotOwner, words)
    }

    /// The way of an execution's output, to be found by its name for as long as it is in use.
    fn open_stream(&mut self, operation: &OperationId, responder: &mut Responder) -> Arc<Outlet> {
        let outlet = responder.stream();
        self.outlets.retain(|(_, known)| known.strong_count() > 0);
        self.outlets
            .push((operation.clone(), Arc::downgrade(&outlet)));
        outlet
    }

    fn credit(&self, target: &OperationId, frames: u32, bytes: u64) {
        let named = self.outlets.iter().filter(|(name, _)| name == target);
        if let Some(outlet) = named.filter_map(|(_, outlet)| outlet.upgrade()).next() {
            outlet.credit(frames, bytes);
        }
    }

    /// Begins a file operation.
    pub(super) fn start_file_job(&mut self, sandbox: &Sandbox, job: Job, mut responder: Responder) {
        let files = file_job::Files {
            incarnation: self.keeper.ownership().incarnation(),
            data: sandbox.data.clone(),
            saver: sandbox.saver.clone(),
            store: self.shared.store.clone(),
        };
        let (ownership_check, tell) = (self.ownership_check.clone(), self.seat.teller());
        let span = trace::job(&job);
        let work = async move {
            let work = file_job::perform_in_time(&job, &files);
            let answer = with_heartbeats(slice::from_mut(&mut responder), work).await;
            if !answer::give(responder, &ownership_check, answer).await {
                tell(Note::LeaseLost);
            }
        };
        self.file_jobs.spawn(work.instrument(span));
    }
}

/// The pool files of ingress and worker differ.
fn another_language() -> Fault {
    Fault::new(
        FaultCode::Unsupported,
        "the pool does not run code in this language",
    )
}
