//! One session's task: it turns what happens into events, and asks the [`machine`](super::machine) what comes
//! next.

use std::{
    future::{pending, poll_fn},
    sync::Arc,
};

use async_nats::Message;
use proto::{limits, message::Job, pool::Pool};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{Instrument, Span};

use super::{
    Shared, closing,
    machine::{End, Event, Phase, Progress, Stop},
    name::SessionName,
    opening::Opening,
    ports::JobsPort,
    program::not_owner,
    progress,
    queue::{Caller, WaitingQueue, too_late},
    recent::Recent,
    recorded::{RecordedExecutions, Settled},
    state::Session,
    table::{Note, Seat},
};
use crate::{
    bus::Responder,
    kernel::Cell,
    lease::{
        Continuity, HeldLease,
        keeper::Keeper,
        ownership_check::{Confirmation, OwnershipCheck},
    },
};

// An alarm that begins with the code is seen at the next beat at the latest.
const _: () = assert!(limits::HEARTBEAT.as_millis() < 1000);

/// A session that this worker owns.
pub struct Actor {
    pub(super) session: Session,
    pub(super) phase: Phase<Session>,
    pub(super) jobs: Box<dyn JobsPort>,
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
    pub jobs: Box<dyn JobsPort>,
    /// Its place among the living.
    pub seat: Seat,
    /// Its sandbox, on its way.
    pub opening: Opening,
}

enum Input {
    Phase(Event<Session>),
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

impl Actor {
    /// A session that was just claimed.
    #[must_use]
    pub fn new(shared: Shared, pool: Pool, name: SessionName, owned: Owned) -> Self {
        let now = Instant::now();
        let Owned {
            lease,
            continuity,
            sure,
            jobs,
            seat,
            opening,
        } = owned;
        // Answers may be on their way for longer than the session is in use.
        let ownership = lease.ownership().clone().unused();
        let interruptions = shared.interruptions.clone();
        let ownership_check = OwnershipCheck::new(ownership.clone(), interruptions, sure, &pool);
        let session = Session {
            recorded: RecordedExecutions::new(
                shared.records.clone(),
                ownership,
                ownership_check.clone(),
                (name.pool.clone(), name.key.clone()),
                shared.tasks.clone(),
            ),
            keeper: Keeper::new(lease, ownership_check.clone(), &pool, shared.counts.clone()),
            ownership_check,
            seat,
            queue: WaitingQueue::default(),
            recent: Recent::default(),
            outlets: vec![],
            file_jobs: JoinSet::new(),
            answering: Arc::default(),
            refused: vec![],
            handing_over: false,
            last_used: now,
            next_beat: now + limits::HEARTBEAT,
            continued: continuity == Continuity::Continued,
            lost_between: false,
            moved: None,
            has_unkept_files: false,
            shared,
            pool,
            name,
        };
        Self {
            session,
            phase: Phase::Opening(opening),
            jobs,
        }
    }

    /// Serves the session to its end, beginning with its `first` job.
    pub async fn run(mut self, first: Job, responder: Responder, permit: OwnedSemaphorePermit) {
        tracing::debug!(session.key = %self.session.name.key, "session starts");
        self.receive(first, responder).await;
        // It may have entered the table when everybody in it had been told.
        self.session.handing_over |= self.session.shared.draining.is_cancelled();
        let ending = loop {
            if self.session.handing_over && self.session.file_jobs.is_empty() {
                self.step(Progress::HandOver).await;
            }
            if let Phase::Ending(ending) = self.phase {
                break ending;
            }
            let input = self.next().await;
            let span = self.phase.execution().map(|running| running.span.clone());
            let handling = self.handle(input);
            handling
                .instrument(span.unwrap_or_else(Span::current))
                .await;
        };
        let why = ending.why;
        tracing::debug!(session.key = %self.session.name.key, ?why, "session ends");
        Box::pin(closing::close(self.session, self.jobs, ending)).await;
        drop(permit);
    }

    async fn next(&mut self) -> Input {
        let due = self.due();
        let Self {
            session,
            phase,
            jobs,
        } = self;
        let outlet = phase.execution().and_then(|running| running.outlet.clone());
        // Files that are on their way to the store need no more of the disk.
        let cage = match phase.is_saving() {
            true => None,
            false => phase.sandbox().map(|sandbox| Arc::clone(&sandbox.cage)),
        };
        let disk_full = async {
            match cage {
                Some(cage) => cage.stopped_for_disk().await,
                None => pending().await,
            }
        };
        let output = async {
            match outlet {
                Some(outlet) => outlet.ready().await,
                None => pending().await,
            }
        };
        tokio::select! {
            event = progress::of(phase, &session.name, &session.shared.counts) => Input::Phase(event),
            message = poll_fn(|cx| jobs.poll_next(cx)) => Input::Message(message),
            note = session.seat.note() => Input::Note(note),
            () = session.keeper.keep() => Input::LeaseLost,
            () = disk_full => Input::DiskFull,
            Some(_) = session.file_jobs.join_next() => Input::FileJobDone,
            () = output => Input::Output,
            settled = session.recorded.next() => Input::RecordedExecutions(settled),
            () = sleep_until(due) => Input::Due,
        }
    }

    /// The next moment at which something must be done.
    fn due(&self) -> Instant {
        let session = &self.session;
        match self.phase.execution() {
            Some(running) => running
                .alarm()
                .map_or(session.next_beat, |at| at.min(session.next_beat)),
            None if self.somebody_waits() => session.next_beat,
            None => session.last_used + session.pool.cooldown(),
        }
    }

    /// Whether somebody must hear that the work goes on.
    pub(super) fn somebody_waits(&self) -> bool {
        self.held() > 0 || self.phase.execution().is_some() || self.session.has_waiting()
    }

    /// How many file operations wait for the sandbox.
    pub(super) fn held(&self) -> usize {
        match &self.phase {
            Phase::Opening(opening) => opening.held.len(),
            Phase::Open(..) | Phase::Ending(_) => 0,
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Phase(event) => {
                let event = self.seen(event);
                self.step(event).await;
            }
            Input::Message(message) => self.message(message).await,
            Input::Note(Note::HandOver) => self.session.handing_over = true,
            Input::Note(Note::HandOverNow) => {
                self.session.handing_over = true;
                self.step(Progress::Cancel).await;
            }
            Input::Note(Note::LeaseLost) | Input::LeaseLost => {
                self.step(End::LeaseLost).await;
            }
            Input::DiskFull => self.step(End::DiskFull).await,
            Input::FileJobDone => self.session.used(),
            Input::RecordedExecutions(Settled::Begun(waiting)) => self.enqueue(*waiting).await,
            Input::RecordedExecutions(Settled::Told(key, answer)) => {
                self.session.used();
                self.session.recorded.tell(&key, &answer).await;
            }
            Input::RecordedExecutions(Settled::NotBegun(key)) => {
                self.session.recorded.tell(&key, &Err(not_owner())).await;
                self.step(End::LeaseLost).await;
            }
            Input::RecordedExecutions(Settled::NotOwner) => self.step(End::LeaseLost).await,
            Input::Output => self.send_output().await,
            Input::Due => self.time_passed().await,
        }
    }

    /// What an event means that the phase brought about itself.
    fn seen(&mut self, event: Event<Session>) -> Event<Session> {
        match &event {
            Event::Progress(Progress::Finished(_, Ok(cell)) | Progress::DiedWith(Ok(cell)))
                if self.is_starved(cell) =>
            {
                return End::DiskFull.into();
            }
            Event::Progress(Progress::Saved(_)) => self.session.has_unkept_files = false,
            Event::Progress(Progress::Unkeepable(_)) => self.session.has_unkept_files = true,
            Event::Progress(_) | Event::End(_) => {}
        }
        event
    }

    fn is_starved(&self, cell: &Cell) -> bool {
        let sandbox = self.phase.sandbox();
        sandbox.is_some_and(|sandbox| sandbox.is_starved(cell))
    }

    async fn time_passed(&mut self) {
        let now = Instant::now();
        if now >= self.session.next_beat && self.somebody_waits() {
            self.beat(now).await;
        }
        match self.phase.execution().map(|running| running.alarm()) {
            Some(Some(alarm)) if now >= alarm => match self.phase.stop() {
                Some(Stop::No) => self.step(Progress::Deadline).await,
                Some(Stop::Interrupted(_) | Stop::Killed(_)) | None => {
                    let running = self.phase.execution_mut();
                    if running.is_none_or(|running| running.is_grace_over()) {
                        self.step(Progress::GraceOver).await;
                    }
                }
            },
            Some(_) => {}
            None if now >= self.session.last_used + self.session.pool.cooldown() => {
                self.cooldown_over().await;
            }
            None => {}
        }
    }

    /// Tells everybody who waits that the work goes on.
    async fn beat(&mut self, now: Instant) {
        let Self { session, phase, .. } = self;
        session.next_beat = now + limits::HEARTBEAT;
        session.keeper.used();
        if let Phase::Opening(opening) = phase {
            for (_, responder) in &mut opening.held {
                responder.heartbeat().await;
            }
        }
        let running = phase.execution_mut().into_iter();
        let running = running.filter_map(|running| running.caller.responder());
        let waiting = session.queue.responders();
        let recorded = session.recorded.callers();
        for responder in running.chain(waiting).chain(recorded) {
            responder.heartbeat().await;
        }
    }

    async fn send_output(&mut self) {
        let running = self.phase.execution_mut();
        let responder = match running.map(|running| &mut running.caller) {
            Some(Caller::Plain(responder)) => Some(responder),
            Some(Caller::Recorded(held)) => self.session.recorded.reader(held.key()),
            None => None,
        };
        if let Some(responder) = responder {
            responder.pump().await;
        }
    }

    async fn cooldown_over(&mut self) {
        let session = &self.session;
        let answering = Arc::strong_count(&session.answering) > 1;
        if session.file_jobs.is_empty() && session.recorded.is_empty() && !answering {
            self.step(Progress::Expired).await;
        }
        if !matches!(self.phase, Phase::Ending(_)) {
            self.session.used();
        }
    }

    pub(super) async fn step(&mut self, event: impl Into<Event<Session>>) {
        for gone in self.session.queue.expired(Instant::now()) {
            self.session.refuse_caller(gone.caller, too_late());
        }
        self.phase = std::mem::take(&mut self.phase).on(event, &mut self.session);
        self.tell_refused().await;
    }

    /// Tells those that were refused on the way.
    pub(super) async fn tell_refused(&mut self) {
        for (responder, fault) in std::mem::take(&mut self.session.refused) {
            responder.finish(Err(fault)).await;
        }
    }
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actor")
            .field("session", &self.session.name)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}
