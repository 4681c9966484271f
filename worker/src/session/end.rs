//! The end of a session here: the sandbox goes, the bus is left, then lease and slot are given back,
//! or the session is left to its next owner. In this order.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Message};
use proto::{
    fault::{Fault, FaultCode},
    message::{Answer, Job},
};
use store::{
    Store,
    log::{
        collect::{self, RetireError},
        key::LogKey,
    },
};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Context,
    actor::{Actor, Sandbox},
    execution::Caller,
    file_job::with_heartbeats,
    hand_over,
    machine::SessionEnd,
    work::Work,
};
use crate::{
    bus::Responder,
    lease::{HeldLease, LeaseError, Ownership, keeper::Keeper},
    record,
    sandbox::Cage,
};

/// File operations that are under way when a session ends may take this long.
const FILE_JOBS_WITHIN: Duration = Duration::from_secs(5);
/// How long, and how often, a session's end is told to a bus that does not answer.
const RELEASE_WITHIN: Duration = Duration::from_secs(12);
const RELEASE_AGAIN: Duration = Duration::from_millis(250);
/// How often, and for how long, a lease is asked for that may have been doubted for no reason.
const RECLAIM: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

/// Where the log of the session is that `job` is about.
pub(super) fn place(job: &Job, ownership: &Ownership) -> LogKey {
    LogKey {
        pool: job.pool.clone(),
        session: job.session.clone(),
        incarnation: ownership.incarnation(),
    }
}

/// Ends the session.
pub(super) async fn end(mut actor: Actor, why: SessionEnd) {
    actor.context.counts.ended(why);
    let idle_since = actor.last_used;
    let log = place(&actor.first, actor.keeper.ownership());
    let waited = refuse_all(&mut actor, why).await;
    let Actor {
        context,
        keeper,
        mut jobs,
        file_jobs,
        saving,
        work,
        sandbox,
        recorded,
        continued,
        mut stoppers,
        ..
    } = actor;
    drop(saving);
    if why == SessionEnd::Fenced {
        // The new owner listens already.
        jobs.abandon().await;
        let ownership = keeper.ownership().clone();
        drop(keeper);
        recorded.leave(&cut_off(why)).await;
        finish(file_jobs, why).await;
        tear_down(work, sandbox, why, &context).await;
        let reclaiming = reclaim(ownership, idle_since);
        context.tasks.spawn(reclaiming);
        return;
    }
    let tearing_down = async {
        let lease = marked(keeper, why).await;
        let tearing_down = async {
            finish(file_jobs, why).await;
            tear_down(work, sandbox, why, &context).await
        };
        // While the lease is still this worker's: whoever asks later must not find them running.
        let cut_off = cut_off(why);
        let recording = recorded.end(&waited, &cut_off);
        let (written, ()) = tokio::join!(tearing_down, recording);
        (lease, written || continued)
    };
    // Whoever sends a job meanwhile looks for the session anew.
    let refusing = async {
        loop {
            refuse(&context.client, jobs.next().await).await;
        }
    };
    let (lease, written) = tokio::select! {
        done = with_heartbeats(&mut stoppers, tearing_down) => done,
        never = refusing => never,
    };
    for message in jobs.leave().await {
        refuse(&context.client, message).await;
    }
    let after = after(why, written);
    let leaving = async {
        give_up(lease?, after, idle_since).await?;
        // Not before: another owner would go on with its files.
        if after == After::Nothing && written {
            discard(&context.store, &log, Owners::when(continued)).await;
        }
        Ok(())
    };
    let left = with_heartbeats(&mut stoppers, leaving).await;
    for responder in stoppers {
        responder.finish(stopped(&left)).await;
    }
}

/// What a session's lease becomes; `written` says whether there are files that another worker can go on with.
fn after(why: SessionEnd, written: bool) -> After {
    match why {
        SessionEnd::HandedOver => After::Vacancy,
        SessionEnd::Broken | SessionEnd::DiskFull if written => After::Vacancy,
        SessionEnd::Expired
        | SessionEnd::Stopped
        | SessionEnd::Broken
        | SessionEnd::DiskFull
        | SessionEnd::Fenced => After::Nothing,
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

/// What becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It is over.
    Nothing,
    /// It goes on with its next owner.
    Vacancy,
}

/// Tells everybody who has been accepted and not answered. What has a record is ended there, unless
/// that is the new owner's to do. Returns what is told of work that had not begun.
async fn refuse_all(actor: &mut Actor, why: SessionEnd) -> Fault {
    if let Some(running) = actor.running.take() {
        actor.context.counts.executed_partly();
        let caller = running.caller;
        let end = match why {
            SessionEnd::DiskFull => record::ExecutionEnd::Unsaved,
            _ => record::ExecutionEnd::Stopped,
        };
        cut(actor, caller, end, cut_off(why), why).await;
    }
    let waited = not_begun(why, actor.broken.take());
    while let Some(waiting) = actor.queue.pop() {
        let (caller, refused) = (waiting.caller, waited.clone());
        cut(actor, caller, record::ExecutionEnd::Refused, refused, why).await;
    }
    for (_, responder) in actor.held.drain(..) {
        responder.finish(Err(waited.clone())).await;
    }
    waited
}

/// Ends one execution as `end` says of `fault`.
async fn cut(
    actor: &mut Actor,
    caller: Caller,
    end: fn(Fault) -> record::ExecutionEnd,
    fault: Fault,
    why: SessionEnd,
) {
    match caller {
        Caller::Plain(responder) => responder.finish(Err(fault)).await,
        Caller::Recorded(_) if why == SessionEnd::Fenced => {}
        Caller::Recorded(held) => actor.recorded.finish(held, end(fault)),
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

/// Refuses a job that was not accepted.
async fn refuse(client: &Client, message: Message) {
    if let Some(inbox) = message.reply {
        let gone = Fault::new(FaultCode::Stopping, "the session has left this worker");
        Responder::new(client.clone(), inbox)
            .finish(Err(gone))
            .await;
    }
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
async fn tear_down(
    work: Work,
    sandbox: Option<Sandbox>,
    why: SessionEnd,
    context: &Context,
) -> bool {
    let mut turn = None;
    let mut written = false;
    let mut cage = None;
    let work = match sandbox {
        Some(Sandbox {
            cage: outer,
            saver,
            committer,
            data,
        }) => {
            let work = match why {
                SessionEnd::HandedOver => {
                    let turns = &context.handing_over;
                    let (work, last) = hand_over::carry_out(work, &saver, &outer, turns).await;
                    turn = last;
                    work
                }
                SessionEnd::Expired
                | SessionEnd::Stopped
                | SessionEnd::Fenced
                | SessionEnd::Broken
                | SessionEnd::DiskFull => work,
            };
            drop((saver, data));
            written = committer.end(why == SessionEnd::HandedOver).await;
            cage = Some(outer);
            work
        }
        None => work,
    };
    drop(turn);
    destroy(work, cage).await;
    written
}

async fn destroy(work: Work, cage: Option<Arc<Cage>>) {
    // What is being made must be there before it can be destroyed.
    let opened = match work {
        Work::Starting(task) => task.await.ok().and_then(Result::ok),
        Work::Restarting(task) => {
            drop(task.await);
            None
        }
        Work::Idle(_) | Work::Running(_) | Work::Nothing => None,
    };
    let opened = opened.map(|opened| opened.cage);
    for cage in opened.into_iter().chain(cage).filter_map(Arc::into_inner) {
        if let Err(error) = cage.destroy().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to remove a cage; it is left behind"
            );
        }
    }
}

/// Leaves the lease as it is to be.
async fn give_up(
    mut lease: HeldLease,
    after: After,
    idle_since: Instant,
) -> Result<(), LeaseError> {
    let given = match after {
        After::Nothing => release(&mut lease).await,
        After::Vacancy => lease.vacate(idle_since.elapsed()).await,
    };
    if let Err(error) = &given {
        // It ends by its own time, or is taken over from a worker that is gone.
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "failed to delete a lease; it is left behind"
        );
    }
    given
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

/// Leaves the session to its next owner if it turns out that it had not been lost: a live worker's
/// lease without a session behind it would keep callers waiting until it expires.
async fn reclaim(ownership: Ownership, idle_since: Instant) {
    let (every, within) = RECLAIM;
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        match ownership.hold().await {
            // A failure is logged, and nobody waits for it.
            Ok(lease) => return drop(give_up(lease, After::Vacancy, idle_since).await),
            Err(LeaseError::Lost) => return,
            Err(LeaseError::Bus(_)) => tokio::time::sleep(every).await,
        }
    }
}
