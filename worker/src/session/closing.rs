//! The end of a session here: the sandbox goes, the bus is left, then lease and slot are given back,
//! or the session is left to its next owner. In this order.

use std::{future::poll_fn, sync::Arc, time::Duration};

use async_nats::Message;
use proto::{
    fault::{Fault, FaultCode},
    message::Answer,
};
use store::{
    Store,
    log::{
        collect::{self, RetireError},
        key::LogKey,
    },
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    Shared, hand_over,
    machine::{Effects, Ended, Ending, Left, Saving, SessionEnd, Stage},
    opening::{OpenError, Opened, Sandbox},
    ports::{JobsPort, KernelPort},
    program::CellAtWork,
    queue::Caller,
    running::Execution,
    state::Session,
    turns::Turns,
};
use crate::{
    bus::{Outbox, Responder, with_heartbeats},
    lease::{
        HeldLease, LeaseError,
        keeper::Keeper,
        orphan::{self, Leave},
    },
    record,
};

/// File operations that are under way when a session ends may take this long.
const FILE_JOBS_WITHIN: Duration = Duration::from_secs(5);
/// How long, and how often, a session's end is told to a bus that does not answer.
const RELEASE_WITHIN: Duration = Duration::from_secs(12);
const RELEASE_AGAIN: Duration = Duration::from_millis(250);

/// Ends the session.
pub(super) async fn close(
    mut session: Session,
    mut jobs: Box<dyn JobsPort>,
    ending: Ending<Session>,
) {
    let Ending {
        why,
        broken,
        mut stoppers,
        left,
    } = ending;
    session.shared.counts.ended(why);
    let idle_since = session.last_used;
    let log = session.name.log(session.keeper.ownership().incarnation());
    let not_begun = not_begun(why, broken);
    let remains = session.cut_off(left, why, &not_begun).await;
    let Session {
        shared,
        keeper,
        file_jobs,
        recorded,
        continued,
        ..
    } = session;
    let turns = &shared.handing_over;
    if why == SessionEnd::Fenced {
        // The new owner listens already.
        refuse_all(&shared.outbox, jobs.abandon().await).await;
        let ownership = keeper.ownership().clone();
        drop(keeper);
        let cut_off = cut_off(why);
        let tearing_down = async {
            finish(file_jobs, why).await;
            tear_down(remains, why, turns).await
        };
        tokio::join!(recorded.leave(&cut_off), tearing_down);
        // It may have been doubted for no reason.
        let leave = Leave::Vacancy(idle_since);
        shared.give_up_later(ownership, orphan::Reason::Ended, leave);
        return;
    }
    let tearing_down = async {
        let lease = marked(keeper, why).await;
        let tearing_down = async {
            finish(file_jobs, why).await;
            tear_down(remains, why, turns).await
        };
        // While the lease is still this worker's: whoever asks later must not find them running.
        let cut_off = cut_off(why);
        let recording = recorded.end(&not_begun, &cut_off);
        let (written, ()) = tokio::join!(tearing_down, recording);
        (lease, written || continued)
    };
    // Whoever sends a job meanwhile looks for the session anew.
    let refusing = async {
        loop {
            let message = poll_fn(|cx| jobs.poll_next(cx)).await;
            refuse(&shared.outbox, message).await;
        }
    };
    let (lease, written) = tokio::select! {
        done = with_heartbeats(&mut stoppers, tearing_down) => done,
        never = refusing => never,
    };
    refuse_all(&shared.outbox, jobs.leave().await).await;
    let leave = after(why, written, idle_since);
    let leaving = async {
        shared.give_up(lease?, leave).await?;
        // Not before: another owner would go on with its files.
        if leave == Leave::Nothing && written {
            discard(&shared.store, &log, Owners::when(continued)).await;
        }
        Ok(())
    };
    let left = with_heartbeats(&mut stoppers, leaving).await;
    for responder in stoppers {
        responder.finish(stopped(&left)).await;
    }
}

/// What is left of a session's sandbox when everybody has been told.
enum Remains {
    /// It is being made, and must be there before it can be removed.
    Opening(JoinHandle<Result<Opened, OpenError>>),
    /// It is there, and what goes on in it.
    Open(Sandbox, Inside),
    /// There is none.
    Nothing,
}

/// What goes on in a sandbox. It is dropped after the sandbox, so that code that still runs does not see it go.
enum Inside {
    /// A kernel waits.
    Kernel(Box<dyn KernelPort>),
    /// A kernel runs a cell.
    Cell(#[expect(dead_code, reason = "it is there to be dropped")] CellAtWork),
    /// A kernel is on its way into it.
    Restart(<Session as Effects>::Restart),
    /// There is no kernel.
    Nothing,
}

impl From<Option<Box<dyn KernelPort>>> for Inside {
    fn from(kernel: Option<Box<dyn KernelPort>>) -> Self {
        kernel.map_or(Self::Nothing, Self::Kernel)
    }
}

/// What a session's lease becomes; `written` says whether there are files that another worker can go on with.
fn after(why: SessionEnd, written: bool, idle_since: Instant) -> Leave {
    match why {
        SessionEnd::HandedOver => Leave::Vacancy(idle_since),
        SessionEnd::Broken | SessionEnd::DiskFull if written => Leave::Vacancy(idle_since),
        SessionEnd::Expired
        | SessionEnd::Stopped
        | SessionEnd::Broken
        | SessionEnd::DiskFull
        | SessionEnd::Fenced => Leave::Nothing,
    }
}

/// What those hear who asked for the session's end.
fn stopped(left: &Result<(), LeaseError>) -> Result<Answer, Fault> {
    match left {
        Ok(()) => Ok(Answer::Gone),
        // They ask its owner.
        Err(LeaseError::Lost) => Err(not_begun(SessionEnd::Fenced, None)),
        Err(LeaseError::Bus(_)) => {
            let words = "the session was stopped, but its end could not be recorded: its files may be \
                         seen once more";
            Err(Fault::new(FaultCode::Internal, words))
        }
    }
}

/// Who has written to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// Only the one who ends it.
    One,
    /// Others before, who may not know yet that they were replaced.
    Several,
}

impl Owners {
    fn when(continued: bool) -> Self {
        match continued {
            true => Self::Several,
            false => Self::One,
        }
    }
}

impl Session {
    /// Tells everybody who has been accepted and not answered. What has a record is ended there, unless
    /// that is the new owner's to do.
    async fn cut_off(&mut self, left: Left<Self>, why: SessionEnd, not_begun: &Fault) -> Remains {
        let remains = match left {
            Left::Opening(opening) => {
                for (_, responder) in opening.held {
                    responder.finish(Err(not_begun.clone())).await;
                }
                Remains::Opening(opening.task)
            }
            Left::Open(sandbox, stage) => {
                let inside = match stage {
                    Stage::Idle(kernel) => Inside::Kernel(kernel),
                    Stage::Unsaved(kernel) => kernel.into(),
                    Stage::Restarting(restart) => Inside::Restart(restart),
                    Stage::Running(running) => {
                        self.cut_execution(running.execution, why, not_begun).await;
                        Inside::Cell(running.cell)
                    }
                    Stage::Saving(Saving { after, kernel, .. }) => {
                        if let Some(Ended { execution, .. }) = after {
                            self.cut_execution(execution, why, not_begun).await;
                        }
                        kernel.into()
                    }
                };
                Remains::Open(sandbox, inside)
            }
            Left::Bare(sandbox) => Remains::Open(sandbox, Inside::Nothing),
            Left::Nothing => Remains::Nothing,
        };
        while let Some(waiting) = self.queue.pop() {
            let (caller, refused) = (waiting.caller, not_begun.clone());
            self.cut(caller, record::ExecutionEnd::Refused, refused, why)
                .await;
        }
        remains
    }

    async fn cut_execution(
        &mut self,
        execution: Box<Execution>,
        why: SessionEnd,
        not_begun: &Fault,
    ) {
        if execution.may_begin() {
            let refused = record::ExecutionEnd::Refused;
            let (caller, fault) = (execution.caller, not_begun.clone());
            return self.cut(caller, refused, fault, why).await;
        }
        self.shared.counts.executed_partly();
        let end = match why {
            SessionEnd::DiskFull => record::ExecutionEnd::Unsaved,
            SessionEnd::Expired
            | SessionEnd::Stopped
            | SessionEnd::Fenced
            | SessionEnd::HandedOver
            | SessionEnd::Broken => record::ExecutionEnd::Stopped,
        };
        self.cut(execution.caller, end, cut_off(why), why).await;
    }

    /// Ends one execution as `end` says of `fault`.
    async fn cut(
        &mut self,
        caller: Caller,
        end: fn(Fault) -> record::ExecutionEnd,
        fault: Fault,
        why: SessionEnd,
    ) {
        match caller {
            Caller::Plain(responder) => responder.finish(Err(fault)).await,
            // That is the new owner's to say.
            Caller::Recorded(_) if why == SessionEnd::Fenced => {}
            Caller::Recorded(held) => self.recorded.finish(held, end(fault)),
        }
    }
}

/// What those hear whose work the end cuts off.
fn cut_off(why: SessionEnd) -> Fault {
    match why {
        SessionEnd::Expired | SessionEnd::Stopped => Fault::new(
            FaultCode::Stopping,
            "the session was stopped; the work may have begun",
        ),
        SessionEnd::Fenced | SessionEnd::HandedOver => {
            let words = "the session moved to another worker; the work may have had effects";
            Fault::new(FaultCode::Fenced, words)
        }
        SessionEnd::Broken => {
            let words = "the session's sandbox could not be made or kept";
            Fault::new(FaultCode::SandboxUnavailable, words)
        }
        SessionEnd::DiskFull => {
            let words = "the disk of the session's worker is full, and the session, which took much of \
                         it, was stopped: its variables and what this execution wrote are lost, the \
                         files saved before are kept";
            Fault::new(FaultCode::StoppedForDisk, words)
        }
    }
}

/// What those hear whose work had not begun: it can be done elsewhere.
fn not_begun(why: SessionEnd, broken: Option<Fault>) -> Fault {
    match why {
        SessionEnd::Fenced | SessionEnd::HandedOver | SessionEnd::DiskFull => {
            let words = "the session moved to another worker; nothing was done";
            Fault::new(FaultCode::NotOwner, words)
        }
        SessionEnd::Broken => broken.unwrap_or_else(|| cut_off(why)),
        SessionEnd::Expired | SessionEnd::Stopped => {
            let words = "the session was stopped; nothing was done";
            Fault::new(FaultCode::Stopping, words)
        }
    }
}

async fn refuse_all(outbox: &Arc<dyn Outbox>, messages: Vec<Message>) {
    for message in messages {
        refuse(outbox, message).await;
    }
}

/// Refuses a job that was not accepted.
async fn refuse(outbox: &Arc<dyn Outbox>, message: Message) {
    if let Some(inbox) = message.reply {
        Responder::new(outbox.clone(), inbox)
            .finish(Err(gone()))
            .await;
    }
}

/// What those hear who come too late.
pub(super) fn gone() -> Fault {
    Fault::new(FaultCode::Stopping, "the session has left this worker")
}

/// The lease; marked as ending when the session is over, so that requests wait for the end.
async fn marked(keeper: Keeper, why: SessionEnd) -> Result<HeldLease, LeaseError> {
    let mut lease = keeper.into_lease().await.ok_or(LeaseError::Lost)?;
    if matches!(
        why,
        SessionEnd::HandedOver | SessionEnd::Broken | SessionEnd::DiskFull
    ) {
        return Ok(lease);
    }
    match lease.stop().await {
        Ok(()) => Ok(lease),
        Err(LeaseError::Lost) => Err(LeaseError::Lost),
        Err(LeaseError::Bus(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to mark a lease"
            );
            Ok(lease)
        }
    }
}

/// File operations that have begun are finished, unless the session is someone else's by now.
async fn finish(mut file_jobs: JoinSet<()>, why: SessionEnd) {
    if why != SessionEnd::Fenced {
        let all = async { while file_jobs.join_next().await.is_some() {} };
        if tokio::time::timeout(FILE_JOBS_WITHIN, all).await.is_err() {
            tracing::warn!("file operations are cut off by the session's end");
        }
    }
    file_jobs.shutdown().await;
}

/// Ends committer and sandbox. Says whether there is anything in the session's log.
async fn tear_down(remains: Remains, why: SessionEnd, turns: &Turns) -> bool {
    let (sandbox, mut inside) = match remains {
        Remains::Nothing => return false,
        Remains::Opening(task) => match task.await {
            Ok(Ok(opened)) => (opened.sandbox, Inside::Kernel(opened.kernel)),
            Ok(Err(_)) | Err(_) => return false,
        },
        Remains::Open(sandbox, inside) => (sandbox, inside),
    };
    let Sandbox {
        cage,
        saver,
        committer,
        data,
        ..
    } = sandbox;
    let patiently = why == SessionEnd::HandedOver;
    let mut turn = None;
    if patiently {
        let kernel = match &mut inside {
            Inside::Kernel(kernel) => Some(kernel),
            Inside::Cell(_) | Inside::Restart(_) | Inside::Nothing => None,
        };
        turn = hand_over::carry_out(kernel, &saver, &*cage, turns).await;
    }
    drop((saver, data));
    let written = committer.end(patiently).await;
    drop(turn);
    if let Inside::Restart(restart) = inside {
        // What is on its way must be there before it can be removed.
        drop(restart.await);
        inside = Inside::Nothing;
    }
    cage.destroy().await;
    drop(inside);
    written
}

impl Shared {
    /// Leaves the lease as it is to be, later if the bus does not say that it is so.
    async fn give_up(&self, mut lease: HeldLease, leave: Leave) -> Result<(), LeaseError> {
        let ownership = lease.ownership().clone();
        let given = match leave {
            Leave::Nothing => release(&mut lease).await,
            Leave::Vacancy(idle_since) => lease.vacate(idle_since.elapsed()).await,
        };
        if let Err(error) = &given {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "failed to give up a lease");
        }
        if let Err(LeaseError::Bus(_)) = given {
            self.give_up_later(ownership, orphan::Reason::Ended, leave);
        }
        given
    }
}

/// Tries for longer than the bus needs to find a new leader: an end that was asked for shall be one.
async fn release(lease: &mut HeldLease) -> Result<(), LeaseError> {
    let deadline = Instant::now() + RELEASE_WITHIN;
    loop {
        match lease.release().await {
            Err(LeaseError::Bus(_)) if Instant::now() < deadline => {
                tokio::time::sleep(RELEASE_AGAIN).await;
            }
            released => return released,
        }
    }
}

/// Removes the objects of a life that has ended. A failure leaves them to the sweeper.
pub(super) async fn discard(store: &Store, log: &LogKey, owners: Owners) {
    let discarded = match owners {
        Owners::One => collect::delete(store, log).await.map_err(RetireError::from),
        Owners::Several => collect::retire(store, log).await,
    };
    if let Err(error) = discarded {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to delete the objects of an ended session"
        );
    }
}
