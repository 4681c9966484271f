//! What a session does with each job that arrives.

use std::{slice, sync::Arc, time::Duration};

use async_nats::Message;
use proto::{
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
    actor::{Actor, Sandbox},
    answer,
    claim::unsupported,
    execution::{Asked, Caller, Waiting},
    file_job,
    machine::{Event, State},
    table::Note,
    work::Source,
};
use crate::{bus::Responder, outlet::Outlet, trace};

impl Actor {
    pub(super) async fn message(&mut self, message: Message) {
        let Some(inbox) = message.reply else { return };
        let responder = Responder::new(self.context.client.clone(), inbox);
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
        responder.as_owner(self.keeper.ownership().epoch());
        match job.request {
            Request::Execute { language, .. }
                if self.pool.container_type.language() != Some(language) =>
            {
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
                self.used();
                match record.is_none() && !stream {
                    true => self.accept_soon(&mut responder),
                    false => responder.accept().await,
                }
                let queued = record.as_ref().is_some_and(RecordRef::is_queued);
                let outlet = stream.then(|| self.open_stream(&job.operation, &mut responder));
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
                    timeout: Asked::timeout(timeout_ms, !queued, &self.pool.limits),
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
            } => self.credit(&target, frames, bytes),
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
                self.stoppers.push(responder);
                self.step(Event::Stop).await;
            }
            Request::Unknown => responder.finish(Err(unsupported())).await,
        }
    }

    fn accept_soon(&mut self, responder: &mut Responder) {
        responder.accept_soon();
        self.beat_soon();
    }

    /// Has the next beat say that a job was taken, if there is no answer before.
    fn beat_soon(&mut self) {
        let soon = Instant::now() + limits::ACCEPT_AFTER;
        self.next_beat = match self.somebody_waits() {
            true => self.next_beat.min(soon),
            false => soon,
        };
    }

    async fn take_file_job(&mut self, job: Job, mut responder: Responder) {
        self.used();
        responder.accept_soon();
        if self.held.len() + self.file_jobs.len() >= limits::SESSION_FILE_JOBS {
            responder.finish(Err(self.busy(file_job::too_many()))).await;
        } else {
            self.start_file_job(job, responder);
        }
    }

    async fn execute(&mut self, record: Option<RecordRef>, asked: Asked, responder: Responder) {
        let Some(record) = record else {
            let caller = Caller::Plain(responder);
            return self.enqueue(Waiting { asked, caller }).await;
        };
        if let Err(refused) = self.recorded.ask(record, asked, responder) {
            let (responder, fault) = *refused;
            responder.finish(Err(self.busy(fault))).await;
        }
    }

    /// Puts an execution into the queue.
    pub(super) async fn enqueue(&mut self, execution: Waiting) {
        match self.queue.push(execution) {
            Ok(()) => self.step(Event::Queued).await,
            Err(refused) => {
                let (caller, busy) = *refused;
                let busy = self.busy(busy);
                self.refuse(caller, busy).await;
            }
        }
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

    fn recall(&self, target: &OperationId) -> Option<Recalled> {
        let runs = self.running.as_ref();
        if runs.is_some_and(|running| running.operation == *target) {
            return Some(Recalled::Runs);
        }
        if self.queue.has(target) {
            return Some(Recalled::Waits);
        }
        let outcome = self.recent.get(target)?;
        Some(Recalled::Ended(outcome.clone().into()))
    }

    async fn cancel(&mut self, target: &OperationId, responder: Responder) {
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.operation == *target)
        {
            self.step(Event::Cancel).await;
        } else if let Some(waiting) = self.queue.remove(target) {
            let operation = waiting.asked.operation;
            if let Caller::Plain(_) = &waiting.caller {
                self.recent.keep(&operation, &cancelled());
            }
            self.reply(operation, waiting.caller, Ok(cancelled()));
        }
        responder.finish(Ok(Answer::Gone)).await;
    }

    async fn interrupt_any(&mut self, responder: Responder) {
        let runs = matches!(self.state, State::Running | State::Interrupted(_));
        if runs {
            self.step(Event::Cancel).await;
        }
        responder.finish(Ok(Answer::Interrupted(runs))).await;
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

    /// Begins a file operation, or keeps it until there is a sandbox.
    pub(super) fn start_file_job(&mut self, job: Job, mut responder: Responder) {
        let Some(Sandbox { data, saver, .. }) = &self.sandbox else {
            self.beat_soon();
            self.held.push((job, responder));
            return;
        };
        let files = file_job::Files {
            incarnation: self.keeper.ownership().incarnation(),
            data: data.clone(),
            saver: saver.clone(),
            store: self.context.store.clone(),
        };
        let (ownership_check, tell) = (self.ownership_check.clone(), self.seat.teller());
        let span = trace::job(&job);
        let work = async move {
            let work = file_job::perform_in_time(&job, &files);
            let answer = file_job::with_heartbeats(slice::from_mut(&mut responder), work).await;
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
