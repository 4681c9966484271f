//! The end of a session: leave the bus, kill the sandbox, give lease and slot back, in this order.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use proto::{
    fault::{Fault, FaultCode},
    message::Answer,
};

use tokio::task::JoinSet;

use super::{actor::Actor, file_job::with_heartbeats, machine::End, work::Work};
use crate::{
    bus::Responder,
    lease::{HeldLease, LeaseError, keeper::Keeper},
    sandbox::Cage,
};

/// File operations that are under way when a session ends may take this long.
const FILE_JOBS_WITHIN: Duration = Duration::from_secs(5);

/// Ends the session.
pub(super) async fn end(mut actor: Actor, why: End) {
    let refusal = refusal(why);
    for responder in under_way(&mut actor) {
        responder.finish(Err(refusal.clone())).await;
    }
    let Actor {
        context,
        keeper,
        mut jobs,
        file_jobs,
        work,
        sandbox,
        mut stoppers,
        ..
    } = actor;
    let tearing_down = async {
        let lease = marked(keeper, why).await;
        finish(file_jobs, why).await;
        destroy(work, sandbox.map(|sandbox| sandbox.cage)).await;
        lease
    };
    if why == End::Fenced {
        // The new owner listens already.
        leave(&mut jobs).await;
    }
    // Whoever sends a job meanwhile looks for the session anew.
    let refusing = async {
        refuse(&context.client, &mut jobs).await;
        std::future::pending().await
    };
    let lease = tokio::select! {
        lease = with_heartbeats(&mut stoppers, tearing_down) => lease,
        never = refusing => never,
    };
    leave(&mut jobs).await;
    refuse(&context.client, &mut jobs).await;
    if let Some(lease) = lease
        && let Err(error) = lease.release().await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "lease left behind"
        );
    }
    for responder in stoppers {
        responder.finish(Ok(Answer::Gone)).await;
    }
}

async fn leave(jobs: &mut Subscriber) {
    if let Err(error) = jobs.drain().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "session not unsubscribed"
        );
    }
}

/// Refuses jobs until the subscription has ended.
async fn refuse(client: &Client, jobs: &mut Subscriber) {
    while let Some(message) = jobs.next().await {
        if let Some(inbox) = message.reply {
            let gone = Fault::new(FaultCode::Stopping, "the session has ended");
            Responder::new(client.clone(), inbox)
                .finish(Err(gone))
                .await;
        }
    }
}

/// The lease, marked as ending; `None` when it is someone else's.
async fn marked(keeper: Keeper, why: End) -> Option<HeldLease> {
    match keeper.into_lease().await {
        Some(lease) if why != End::Fenced => stopping(lease).await,
        _ => None,
    }
}

/// File operations that have begun are finished, unless the session is someone else's by now.
async fn finish(mut file_jobs: JoinSet<()>, why: End) {
    if why != End::Fenced {
        let all = async { while file_jobs.join_next().await.is_some() {} };
        if tokio::time::timeout(FILE_JOBS_WITHIN, all).await.is_err() {
            tracing::warn!("file operations are cut off by the session's end");
        }
    }
    file_jobs.shutdown().await;
}

/// What those hear whose work the end cuts off.
fn refusal(why: End) -> Fault {
    match why {
        End::Expired | End::Stopped => Fault::new(
            FaultCode::Stopping,
            "the session was stopped; the work may have begun",
        ),
        End::Fenced => {
            let words = "the session moved to another worker; the work may have had effects";
            Fault::new(FaultCode::Fenced, words)
        }
        End::Broken => {
            let words = "the session's sandbox could not be made or kept";
            Fault::new(FaultCode::SandboxUnavailable, words)
        }
    }
}

fn under_way(actor: &mut Actor) -> Vec<Responder> {
    let running = actor.running.take().map(|running| running.responder);
    let mut all: Vec<_> = running.into_iter().collect();
    while let Some(waiting) = actor.queue.pop() {
        all.push(waiting.responder);
    }
    all.extend(actor.held.drain(..).map(|(_, responder)| responder));
    all
}

/// Marks the lease, so that requests wait for the end. `None` when it is someone else's already.
async fn stopping(mut lease: HeldLease) -> Option<HeldLease> {
    match lease.stop().await {
        Ok(()) => Some(lease),
        Err(LeaseError::Lost) => None,
        Err(LeaseError::Bus(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "lease not marked");
            Some(lease)
        }
    }
}

async fn destroy(work: Work, cage: Option<Arc<Cage>>) {
    // What is being made must be there before it can be destroyed.
    let started = match work {
        Work::Starting(task) => task.await.ok().and_then(Result::ok).map(|ready| ready.cage),
        Work::Restarting(task) => {
            drop(task.await);
            None
        }
        Work::Idle(_) | Work::Running(_) | Work::Nothing => None,
    };
    for cage in started.into_iter().chain(cage.and_then(Arc::into_inner)) {
        if let Err(error) = cage.destroy().await {
            tracing::error!(error = &error as &dyn std::error::Error, "cage left behind");
        }
    }
}
