//! One session's task: it turns what happens into events, asks the machine, and performs the
//! actions.

use std::{slice, sync::Arc, time::Duration};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use proto::{
    execution::Outcome,
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    message::{Answer, Job, Request, SessionInfo, VERSION},
    pool::Pool,
    wire,
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::Instant};

use super::{
    Context,
    answer::{self, Finished},
    end,
    execution::{Queue, Running, Waiting},
    file_job,
    machine::{self, Action, Event, State, Verdict},
    place::unsupported,
    table::{Note, Seat},
    work::{Happened, Work},
};
use crate::{
    bus::Responder,
    files::DataDir,
    kernel::{Cell, CellEnd},
    lease::{HeldLease, certainty::Certainty, keeper::Keeper},
    sandbox::Cage,
    store::Owner,
};

/// A session that this worker owns.
#[derive(Debug)]
pub struct Actor {
    pub(super) context: Context,
    pub(super) pool: Pool,
    /// The first job; names the session.
    pub(super) first: Job,
    pub(super) keeper: Keeper,
    pub(super) jobs: Subscriber,
    pub(super) seat: Seat,
    pub(super) state: State,
    pub(super) work: Work,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) queue: Queue,
    pub(super) running: Option<Running>,
    /// File operations that wait for the sandbox.
    pub(super) held: Vec<(Job, Responder)>,
    pub(super) file_jobs: JoinSet<()>,
    /// Who asked for the session's end.
    pub(super) stoppers: Vec<Responder>,
    certainty: Certainty,
    last_used: Instant,
    next_beat: Instant,
    /// The interpreter ended while nothing ran, and nobody was told yet.
    lost_between: bool,
    /// Kills by the memory limit that are accounted for.
    oom_kills: u64,
    /// The cell that just ended, for the verdict on it.
    ended: Option<Result<Cell, Fault>>,
}

/// The outer half of the session's sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub(super) cage: Arc<Cage>,
    data: DataDir,
}

enum Happening {
    Work(Happened),
    Message(Message),
    Note(Note),
    LeaseLost,
    FileJobDone,
    Due,
}

impl Actor {
    /// A session with a fresh lease, whose jobs arrive at `jobs` after the `first`.
    #[must_use]
    pub fn new(
        context: Context,
        pool: Pool,
        (lease, sure_at): (HeldLease, u64),
        jobs: Subscriber,
        first: Job,
    ) -> Self {
        let now = Instant::now();
        let ownership = lease.ownership().clone();
        Self {
            certainty: Certainty::new(ownership, context.doubt.clone(), sure_at),
            keeper: Keeper::new(lease, &pool),
            seat: context.table.enter(&first.pool, &first.session),
            work: Work::start(&context.stock, &pool.limits),
            state: State::Starting,
            sandbox: None,
            queue: Queue::default(),
            running: None,
            held: vec![],
            file_jobs: JoinSet::new(),
            stoppers: vec![],
            last_used: now,
            next_beat: now + limits::HEARTBEAT,
            lost_between: false,
            oom_kills: 0,
            ended: None,
            context,
            pool,
            first,
            jobs,
        }
    }

    /// Serves the session to its end.
    pub async fn run(mut self, responder: Responder, permit: OwnedSemaphorePermit) {
        tracing::debug!(session.key = %self.first.session, "session starts");
        let first = self.first.clone();
        self.receive(first, responder).await;
        if self.context.draining.is_cancelled() {
            // It entered the table when everybody in it had been told.
            self.step(Event::Stop).await;
        }
        let why = loop {
            if let State::Ending(why) = self.state {
                break why;
            }
            let happening = self.next().await;
            self.handle(happening).await;
        };
        tracing::debug!(session.key = %self.first.session, ?why, "session ends");
        end::end(self, why).await;
        drop(permit);
    }

    async fn next(&mut self) -> Happening {
        let due = self.due();
        tokio::select! {
            happened = self.work.next() => Happening::Work(happened),
            Some(message) = self.jobs.next() => Happening::Message(message),
            note = self.seat.note() => Happening::Note(note),
            () = self.keeper.keep() => Happening::LeaseLost,
            Some(_) = self.file_jobs.join_next() => Happening::FileJobDone,
            () = tokio::time::sleep_until(due) => Happening::Due,
        }
    }

    /// The next moment at which something must be done.
    fn due(&self) -> Instant {
        match &self.running {
            Some(running) => running
                .alarm
                .map_or(self.next_beat, |at| at.min(self.next_beat)),
            None if self.somebody_waits() => self.next_beat,
            None => self.last_used + self.pool.cooldown(),
        }
    }

    /// Whether somebody must hear that the work goes on.
    fn somebody_waits(&self) -> bool {
        self.running.is_some() || !self.queue.is_empty() || !self.held.is_empty()
    }

    async fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Work(happened) => self.work_happened(happened).await,
            Happening::Message(message) => self.message(message).await,
            Happening::Note(Note::Stop) => self.step(Event::Stop).await,
            Happening::Note(Note::LeaseLost) | Happening::LeaseLost => {
                self.step(Event::LeaseLost).await;
            }
            Happening::FileJobDone => self.used(),
            Happening::Due => self.time_passed().await,
        }
    }

    fn used(&mut self) {
        self.last_used = Instant::now();
        self.keeper.used();
    }

    async fn work_happened(&mut self, happened: Happened) {
        let event = match happened {
            Happened::Started(cage) => self.started(cage),
            Happened::Restarted => Event::Ready,
            Happened::Failed => Event::Failed,
            Happened::Finished(ran) => {
                self.ended = Some(ran);
                Event::Finished
            }
            Happened::DiedWith(cell) => {
                self.ended = Some(Ok(cell));
                Event::Died
            }
            Happened::DiedIdle => Event::Died,
        };
        self.step(event).await;
    }

    fn started(&mut self, cage: Cage) -> Event {
        match DataDir::new(cage.data(), cage.owner()) {
            Ok(data) => {
                self.sandbox = Some(Sandbox {
                    cage: Arc::new(cage),
                    data,
                });
                for (job, responder) in std::mem::take(&mut self.held) {
                    self.start_file_job(job, responder);
                }
                Event::Ready
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no data directory"
                );
                Event::Failed
            }
        }
    }

    async fn time_passed(&mut self) {
        let now = Instant::now();
        if now >= self.next_beat && self.somebody_waits() {
            self.next_beat = now + limits::HEARTBEAT;
            self.keeper.used();
            let running = self
                .running
                .iter_mut()
                .map(|running| &mut running.responder);
            let waiting = self.queue.iter_mut().map(|waiting| &mut waiting.responder);
            let held = self.held.iter_mut().map(|(_, responder)| responder);
            for responder in running.chain(waiting).chain(held) {
                responder.heartbeat().await;
            }
        }
        match &self.running {
            Some(Running {
                alarm: Some(alarm), ..
            }) if now >= *alarm => {
                let event = match self.state {
                    State::Running => Event::Deadline,
                    _ => Event::GraceOver,
                };
                self.step(event).await;
            }
            None if now >= self.last_used + self.pool.cooldown() => {
                if self.state == State::Idle && self.file_jobs.is_empty() {
                    self.step(Event::Expired).await;
                } else {
                    self.used();
                }
            }
            _ => {}
        }
    }

    async fn message(&mut self, message: Message) {
        let Some(inbox) = message.reply else { return };
        let responder = Responder::new(self.context.client.clone(), inbox);
        match wire::decode::<Job>(&message.payload) {
            Ok(job) if job.v <= VERSION => self.receive(job, responder).await,
            _ => responder.finish(Err(unsupported())).await,
        }
    }

    async fn receive(&mut self, job: Job, mut responder: Responder) {
        responder.as_owner(self.keeper.ownership().epoch());
        match job.request {
            Request::Execute { code, timeout_ms } => {
                self.used();
                responder.accept().await;
                let execution = Waiting {
                    operation: job.operation,
                    responder,
                    code,
                    timeout: Waiting::timeout(timeout_ms, &self.pool.limits),
                    expires: Instant::now() + Duration::from_millis(job.budget_ms),
                };
                match self.queue.push(execution) {
                    Ok(()) => self.step(Event::Queued).await,
                    Err(refused) => {
                        let (responder, busy) = *refused;
                        responder.finish(Err(busy)).await;
                    }
                }
            }
            Request::Cancel { target } => self.cancel(&target, responder).await,
            Request::Upload { .. }
            | Request::List { .. }
            | Request::Stat { .. }
            | Request::Download { .. }
            | Request::Delete { .. } => {
                self.used();
                responder.accept().await;
                if self.held.len() + self.file_jobs.len() >= limits::SESSION_FILE_JOBS {
                    responder.finish(Err(file_job::too_many())).await;
                } else if self.sandbox.is_some() {
                    self.start_file_job(job, responder);
                } else {
                    self.held.push((job, responder));
                }
            }
            Request::Describe => responder.finish(Ok(Answer::Session(self.describe()))).await,
            Request::Stop => {
                responder.accept().await;
                self.stoppers.push(responder);
                self.step(Event::Stop).await;
            }
            Request::Unknown => responder.finish(Err(unsupported())).await,
        }
    }

    fn describe(&self) -> SessionInfo {
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let idle = self.last_used.elapsed();
        SessionInfo {
            identifier: self.first.identifier.clone(),
            incarnation: self.keeper.ownership().incarnation(),
            idle_ms: milliseconds(idle),
            remaining_ms: milliseconds(self.pool.cooldown().saturating_sub(idle)),
        }
    }

    async fn cancel(&mut self, target: &OperationId, responder: Responder) {
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.operation == *target)
        {
            self.step(Event::Cancel).await;
        } else if let Some(waiting) = self.queue.remove(target) {
            self.reply(
                waiting.operation,
                waiting.responder,
                Ok(answer::cancelled()),
            );
        }
        responder.finish(Ok(Answer::Gone)).await;
    }

    fn start_file_job(&mut self, job: Job, mut responder: Responder) {
        let Some(Sandbox { data, .. }) = &self.sandbox else {
            self.held.push((job, responder));
            return;
        };
        let (data, context) = (data.clone(), self.context.clone());
        let (certainty, tell) = (self.certainty.clone(), self.seat.teller());
        self.file_jobs.spawn(async move {
            let work = file_job::perform_in_time(&job, &data, &context.store);
            let answer = file_job::with_heartbeats(slice::from_mut(&mut responder), work).await;
            if !answer::give(responder, &certainty, answer).await {
                tell(Note::LeaseLost);
            }
        });
    }

    /// Answers an execution without making the session wait for the store or the bus.
    fn reply(
        &self,
        operation: OperationId,
        mut responder: Responder,
        outcome: Result<Outcome, Fault>,
    ) {
        let context = self.context.clone();
        let (certainty, tell) = (self.certainty.clone(), self.seat.teller());
        let (pool, session) = (self.first.pool.clone(), self.first.session.clone());
        self.context.tasks.spawn(async move {
            let answer = match outcome {
                Ok(outcome) => {
                    let owner = Owner {
                        pool: &pool,
                        session: &session,
                        operation: &operation,
                    };
                    let carried = answer::carried(outcome, &context.store, owner);
                    file_job::with_heartbeats(slice::from_mut(&mut responder), carried).await
                }
                Err(fault) => Err(fault),
            };
            if !answer::give(responder, &certainty, answer).await {
                tell(Note::LeaseLost);
            }
        });
    }

    async fn step(&mut self, event: Event) {
        for gone in self.queue.expired(Instant::now()) {
            let words = "the execution's time was over before it could start; it did not run";
            gone.responder
                .finish(Err(Fault::new(FaultCode::Expired, words)))
                .await;
        }
        let (state, actions) = machine::on(self.state, event, !self.queue.is_empty());
        self.state = state;
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::RunNext => self.run_next(),
            Action::Interrupt => self.interrupt(),
            Action::KillKernel => {
                if let Some(running) = &mut self.running {
                    running.alarm = None;
                    running.kernel.kill();
                }
            }
            Action::Answer(verdict) => self.answer(verdict),
            Action::NoteLoss => self.lost_between = true,
            Action::Restart => {
                if let Some(sandbox) = &self.sandbox {
                    self.work = Work::restart(sandbox.cage.clone());
                }
            }
            // The actor's loop ends in this state, and `end` does both.
            Action::RefuseAll | Action::TearDown(_) => {}
        }
    }

    fn run_next(&mut self) {
        let Some(next) = self.queue.pop() else { return };
        let limits = &self.pool.limits;
        let Some(kernel) = self.work.run(next.code, &self.context.store, limits) else {
            return;
        };
        let started = Instant::now();
        self.running = Some(Running {
            operation: next.operation,
            responder: next.responder,
            kernel,
            started,
            alarm: Some(started + next.timeout),
        });
    }

    fn interrupt(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.alarm = Some(Instant::now() + limits::INTERRUPT_GRACE);
        if let Err(error) = running.kernel.interrupt() {
            // It is ending by itself, or the grace ends it.
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "kernel not interrupted"
            );
        }
    }

    fn answer(&mut self, verdict: Verdict) {
        self.used();
        let (Some(running), Some(ended)) = (self.running.take(), self.ended.take()) else {
            return;
        };
        let outcome = ended.map(|cell| {
            answer::outcome(Finished {
                out_of_memory: self.memory_ran_out(&cell),
                cell,
                verdict,
                lost_between: std::mem::take(&mut self.lost_between),
                duration: running.started.elapsed(),
            })
        });
        self.reply(running.operation, running.responder, outcome);
    }

    /// Whether the memory limit killed something since the last time it was asked.
    fn memory_ran_out(&mut self, cell: &Cell) -> bool {
        let (CellEnd::Died(_), Some(sandbox)) = (&cell.end, &self.sandbox) else {
            return false;
        };
        let kills = sandbox.cage.oom_kills().unwrap_or(self.oom_kills);
        let more = kills > self.oom_kills;
        self.oom_kills = kills;
        more
    }
}
