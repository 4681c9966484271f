//! One session's task: it turns what happens into events, asks the machine, and performs the
//! actions.

use std::sync::{Arc, Weak};

use async_nats::Message;
use futures_util::future::BoxFuture;
use proto::{
    execution::Moved,
    fault::{Fault, FaultCode},
    id::OperationId,
    limits,
    message::Job,
    pool::Pool,
    recovery::Recovery,
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::Instant};
use tracing::{Instrument, Span};

use super::{
    Context, end,
    execution::{Caller, Running, WaitingQueue},
    machine::{self, Event, State},
    opening::{OpenError, Opened, Opening},
    recent::Recent,
    recorded::{RecordedExecutions, Settled},
    saver::{Committer, SaveError, Saved, Saver},
    table::{Note, Seat},
    work::{Work, WorkEvent},
};
use crate::{
    bus::Responder,
    files::DataDir,
    kernel::Cell,
    lease::{
        Continuity, HeldLease, Ownership,
        keeper::Keeper,
        ownership_check::{Confirmation, OwnershipCheck},
    },
    listener::Listener,
    outlet::Outlet,
    sandbox::Cage,
    stock::Reserved,
    trace,
};

/// A session that this worker owns.
pub struct Actor {
    pub(super) context: Context,
    pub(super) pool: Pool,
    /// The first job; names the session.
    pub(super) first: Job,
    pub(super) keeper: Keeper,
    pub(super) ownership_check: OwnershipCheck,
    pub(super) jobs: Listener,
    pub(super) seat: Seat,
    pub(super) state: State,
    pub(super) work: Work,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) queue: WaitingQueue,
    pub(super) running: Option<Running>,
    /// Executions with a record, whether they wait, run or end.
    pub(super) recorded: RecordedExecutions,
    /// What those without a record left.
    pub(super) recent: Recent,
    /// Ways of output that are in use, by their executions.
    pub(super) outlets: Vec<(OperationId, Weak<Outlet>)>,
    /// File operations that wait for the sandbox.
    pub(super) held: Vec<(Job, Responder)>,
    pub(super) file_jobs: JoinSet<()>,
    /// Held by every answer on its way.
    pub(super) answering: Arc<()>,
    /// The cell's files on their way to the object store.
    pub(super) saving: Option<BoxFuture<'static, Result<Saved, SaveError>>>,
    /// What the last attempt to save came to.
    pub(super) saved: Result<Saved, Fault>,
    /// Who asked for the session's end.
    pub(super) stoppers: Vec<Responder>,
    /// Why there is no sandbox.
    pub(super) broken: Option<Fault>,
    /// The worker ends: nothing new begins here.
    pub(super) handing_over: bool,
    pub(super) last_used: Instant,
    pub(super) next_beat: Instant,
    /// The interpreter ended while nothing ran, and nobody was told yet.
    pub(super) lost_between: bool,
    /// The session had another owner before, so there may be something in its log.
    pub(super) continued: bool,
    /// The session came from another worker, and nobody was told yet.
    pub(super) moved: Option<Moved>,
    /// Kills by the memory limit that are accounted for.
    pub(super) oom_kills: u64,
    /// Processes and threads beyond the limit that are accounted for.
    pub(super) pids_denied: u64,
    /// The cell that just ended, for the verdict on it.
    pub(super) ended: Option<Result<Cell, Fault>>,
}

/// The outer half of the session's sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub(super) cage: Arc<Cage>,
    pub(super) data: DataDir,
    pub(super) saver: Saver,
    pub(super) committer: Committer,
}

/// A claimed session and what its actor starts with.
#[derive(Debug)]
pub struct Owned {
    /// The right to act for it.
    pub lease: HeldLease,
    /// Whether it goes on or begins.
    pub continuity: Continuity,
    /// The moment before the claim.
    pub sure: Confirmation,
    /// Where its jobs arrive after the first.
    pub jobs: Listener,
    /// Its sandbox, on its way.
    pub sandbox: Reserved,
}

enum Input {
    Work(WorkEvent),
    Saved(Result<Saved, SaveError>),
    Message(Message),
    Note(Note),
    LeaseLost,
    DiskFull,
    FileJobDone,
    RecordedExecutions(Settled),
    /// There is output for a reader who has room for it.
    Output,
    Due,
}

/// What is kept beside the log. What an earlier owner wrote is not replaced by less.
fn recovery(
    first: &Job,
    ownership: &Ownership,
    continuity: Continuity,
    pool: &Pool,
) -> Option<Recovery> {
    if continuity == Continuity::Continued && first.sealed.is_none() {
        return None;
    }
    Some(Recovery {
        pool: pool.id.clone(),
        incarnation: ownership.incarnation(),
        epoch: ownership.epoch(),
        cooldown_seconds: pool.cooldown_seconds,
        sealed: first.sealed.clone(),
    })
}

impl Actor {
    /// A session that was just claimed for its `first` job.
    #[must_use]
    pub fn new(context: Context, pool: Pool, owned: Owned, first: Job) -> Self {
        let now = Instant::now();
        let Owned {
            lease,
            continuity,
            sure,
            jobs,
            sandbox,
        } = owned;
        let ownership = lease.ownership().clone();
        let ownership_check = OwnershipCheck::new(
            ownership.clone(),
            context.interruptions.clone(),
            sure,
            &pool,
        );
        let session = (first.pool.clone(), first.session.clone());
        let opening = Opening {
            place: end::place(&first, &ownership),
            epoch: ownership.epoch(),
            continuity,
            recovery: recovery(&first, &ownership, continuity, &pool),
            sandbox,
            transfers: context.transfers.clone(),
        };
        Self {
            recorded: RecordedExecutions::new(
                context.records.clone(),
                ownership,
                ownership_check.clone(),
                session,
                context.tasks.clone(),
            ),
            keeper: Keeper::new(
                lease,
                ownership_check.clone(),
                &pool,
                context.counts.clone(),
            ),
            ownership_check,
            seat: context.table.enter(&first.pool, &first.session),
            work: Work::start(opening, &context.store, trace::opening(&first)),
            state: State::Starting,
            sandbox: None,
            queue: WaitingQueue::default(),
            running: None,
            recent: Recent::default(),
            outlets: vec![],
            held: vec![],
            file_jobs: JoinSet::new(),
            answering: Arc::default(),
            saving: None,
            saved: Ok(Saved::default()),
            stoppers: vec![],
            broken: None,
            handing_over: false,
            last_used: now,
            next_beat: now + limits::HEARTBEAT,
            lost_between: false,
            continued: continuity == Continuity::Continued,
            moved: None,
            oom_kills: 0,
            pids_denied: 0,
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
        // It may have entered the table when everybody in it had been told.
        self.handing_over |= self.context.draining.is_cancelled();
        let why = loop {
            if self.handing_over && self.file_jobs.is_empty() {
                self.step(Event::HandOver).await;
            }
            if let State::Ending(why) = self.state {
                break why;
            }
            let input = self.next().await;
            let span = self.running.as_ref().map(|running| running.span.clone());
            let handling = self.handle(input);
            handling
                .instrument(span.unwrap_or_else(Span::current))
                .await;
        };
        tracing::debug!(session.key = %self.first.session, ?why, "session ends");
        Box::pin(end::end(self, why)).await;
        drop(permit);
    }

    async fn next(&mut self) -> Input {
        let due = self.due();
        let saving = matches!(self.state, State::Saving(..));
        let sandbox = self.sandbox.as_ref().filter(|_| !saving);
        let cage = sandbox.map(|sandbox| sandbox.cage.as_ref());
        tokio::select! {
            event = self.work.next() => Input::Work(event),
            saved = outcome_of(&mut self.saving) => Input::Saved(saved),
            message = self.jobs.next() => Input::Message(message),
            note = self.seat.note() => Input::Note(note),
            () = self.keeper.keep() => Input::LeaseLost,
            () = disk_full(cage) => Input::DiskFull,
            Some(_) = self.file_jobs.join_next() => Input::FileJobDone,
            () = output_of(self.running.as_ref()) => Input::Output,
            settled = self.recorded.next() => Input::RecordedExecutions(settled),
            () = tokio::time::sleep_until(due) => Input::Due,
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
    pub(super) fn somebody_waits(&self) -> bool {
        self.running.is_some()
            || !self.queue.is_empty()
            || !self.held.is_empty()
            || !self.recorded.is_empty()
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Work(event) => self.on_work(event).await,
            Input::Saved(saved) => self.saving_ended(saved).await,
            Input::Message(message) => self.message(message).await,
            Input::Note(Note::HandOver) => self.handing_over = true,
            Input::Note(Note::HandOverNow) => {
                self.handing_over = true;
                self.step(Event::Cancel).await;
            }
            Input::Note(Note::LeaseLost) | Input::LeaseLost => {
                self.step(Event::LeaseLost).await;
            }
            Input::DiskFull => self.step(Event::DiskFull).await,
            Input::FileJobDone => self.used(),
            Input::RecordedExecutions(Settled::Begun(waiting)) => self.enqueue(*waiting).await,
            Input::RecordedExecutions(Settled::Told(key, answer)) => {
                self.used();
                self.recorded.tell(&key, &answer).await;
            }
            Input::RecordedExecutions(Settled::NotOwner) => self.step(Event::LeaseLost).await,
            Input::Output => self.send_output().await,
            Input::Due => self.time_passed().await,
        }
    }

    pub(super) fn used(&mut self) {
        self.last_used = Instant::now();
        self.keeper.used();
    }

    async fn on_work(&mut self, event: WorkEvent) {
        let event = match event {
            WorkEvent::Opened(opened) => self.opened(*opened),
            WorkEvent::NotOpened(error) => self.not_opened(&error),
            WorkEvent::Restarted => Event::Ready,
            WorkEvent::NotRestarted => Event::Failed,
            WorkEvent::Finished(Ok(cell)) | WorkEvent::DiedWith(cell) if self.starved(&cell) => {
                Event::DiskFull
            }
            WorkEvent::Finished(ran) => {
                self.ended = Some(ran);
                Event::Finished
            }
            WorkEvent::DiedWith(cell) => {
                self.ended = Some(Ok(cell));
                Event::Died
            }
            WorkEvent::DiedIdle => Event::Died,
        };
        self.step(event).await;
    }

    /// Whether a cell failed because the worker's disk, not the session's own, had no room for it.
    fn starved(&self, cell: &Cell) -> bool {
        let sandbox = self.sandbox.as_ref();
        cell.found_no_space() && sandbox.is_some_and(|sandbox| sandbox.cage.is_starved())
    }

    fn opened(&mut self, opened: Opened) -> Event {
        let Opened {
            cage,
            kernel,
            source,
            took,
            data,
            files,
            moved,
        } = opened;
        let counts = self.context.counts.clone();
        counts.opened(source, took);
        let window = self.pool.write_behind();
        let tell = Box::new(self.seat.teller());
        let (saver, committer) = Saver::start(files, cage.clone(), window, counts, tell);
        self.work = Work::Idle(Box::new(kernel));
        self.moved = moved;
        self.sandbox = Some(Sandbox {
            cage,
            data,
            saver,
            committer,
        });
        for (job, responder) in std::mem::take(&mut self.held) {
            self.start_file_job(job, responder);
        }
        Event::Ready
    }

    fn not_opened(&mut self, error: &OpenError) -> Event {
        let fault = Fault::from(error);
        // That another worker was faster is no failure.
        if matches!(error, OpenError::NoRoom) || fault.code != FaultCode::NotOwner {
            self.context.counts.not_opened(error.step());
            tracing::error!(
                session.key = %self.first.session,
                error = error as &dyn std::error::Error,
                "failed to open a session"
            );
        }
        self.broken = Some(fault);
        Event::Failed
    }

    async fn saving_ended(&mut self, saved: Result<Saved, SaveError>) {
        self.saving = None;
        let event = match &saved {
            Ok(_) => Event::Saved,
            Err(SaveError::Fenced) => Event::LeaseLost,
            // The session's own doing, and its caller's to hear.
            Err(SaveError::Unkeepable(limit)) => {
                tracing::info!(
                    session.key = %self.first.session,
                    error = limit as &dyn std::error::Error,
                    "files not kept"
                );
                Event::Unkeepable
            }
            Err(error) => {
                tracing::error!(
                    session.key = %self.first.session,
                    error = error as &dyn std::error::Error,
                    "failed to save files"
                );
                Event::NotSaved
            }
        };
        self.saved = saved.map_err(|error| Fault::from(&error));
        self.step(event).await;
    }

    async fn time_passed(&mut self) {
        let now = Instant::now();
        if now >= self.next_beat && self.somebody_waits() {
            self.next_beat = now + limits::HEARTBEAT;
            self.keeper.used();
            let running = self.running.iter_mut();
            let running = running.filter_map(|running| running.caller.responder());
            let waiting = self.queue.responders();
            let held = self.held.iter_mut().map(|(_, responder)| responder);
            let recorded = self.recorded.callers();
            for responder in running.chain(waiting).chain(held).chain(recorded) {
                responder.heartbeat().await;
            }
        }
        match &self.running {
            Some(Running {
                alarm: Some(alarm), ..
            }) if now >= *alarm => {
                if self.state == State::Running {
                    self.step(Event::Deadline).await;
                } else if self.grace_is_over() {
                    self.step(Event::GraceOver).await;
                }
            }
            None if now >= self.last_used + self.pool.cooldown() => self.cooldown_over().await,
            _ => {}
        }
    }

    async fn send_output(&mut self) {
        let responder = match self.running.as_mut().map(|running| &mut running.caller) {
            Some(Caller::Plain(responder)) => Some(responder),
            Some(Caller::Recorded(held)) => self.recorded.reader(held.key()),
            None => None,
        };
        if let Some(responder) = responder {
            responder.pump().await;
        }
    }

    async fn cooldown_over(&mut self) {
        let answering = Arc::strong_count(&self.answering) > 1;
        if self.file_jobs.is_empty() && self.recorded.is_empty() && !answering {
            self.step(Event::Expired).await;
        }
        if !matches!(self.state, State::Ending(_)) {
            self.used();
        }
    }

    pub(super) async fn step(&mut self, event: Event) {
        for gone in self.queue.expired(Instant::now()) {
            let words = "the execution's time was over before it could start; it did not run";
            let fault = Fault::new(FaultCode::Expired, words);
            self.refuse(gone.caller, fault).await;
        }
        // What waits while the worker ends goes to the next owner.
        let waiting = !self.queue.is_empty() && !self.handing_over;
        let (state, actions) = machine::on(self.state, event, waiting);
        self.state = state;
        for action in actions {
            self.perform(action).await;
        }
    }
}

async fn disk_full(cage: Option<&Cage>) {
    match cage {
        Some(cage) => cage.stopped_for_disk().await,
        None => std::future::pending().await,
    }
}

async fn output_of(running: Option<&Running>) {
    match running.and_then(|running| running.outlet.as_ref()) {
        Some(outlet) => outlet.ready().await,
        None => std::future::pending().await,
    }
}

async fn outcome_of<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actor")
            .field("session", &self.first.session)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
