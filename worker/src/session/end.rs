//! The end of a session: leave the bus, kill the sandbox, give lease and slot back, in this order.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use proto::{
    fault::{Fault, FaultCode},
    message::Answer,
};

use super::{actor::Actor, machine::End, work::Work};
use crate::{
    bus::Responder,
    lease::{HeldLease, LeaseError},
    sandbox::Cage,
};

/// Messages that were on their way when the subscription ended arrive within this time.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// Ends the session.
pub(super) async fn end(mut actor: Actor, why: End) {
    let refusal = refusal(why);
    for responder in under_way(&mut actor) {
        responder.finish(Err(refusal.clone())).await;
    }
    let lease = actor.keeper.into_lease().await;
    let lease = match lease {
        Some(lease) if why != End::Fenced => stopping(lease).await,
        _ => None,
    };
    let leave = actor.jobs.drain().await;
    if let Err(error) = leave {
        tracing::warn!(error = &error as &dyn std::error::Error, "session not unsubscribed");
    }
    actor.file_jobs.shutdown().await;
    destroy(actor.work, actor.sandbox.map(|sandbox| sandbox.cage)).await;
    if let Some(lease) = lease
        && let Err(error) = lease.release().await
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "lease left behind");
    }
    for responder in actor.stoppers {
        responder.finish(Ok(Answer::Gone)).await;
    }
    // Whoever sent these has not been accepted and looks for the session anew.
    let client = &actor.context.client;
    while let Ok(Some(message)) = tokio::time::timeout(IN_FLIGHT, actor.jobs.next()).await {
        if let Some(inbox) = message.reply {
            let gone = Fault::new(FaultCode::Stopping, "the session has ended");
            Responder::new(client.clone(), inbox).finish(Err(gone)).await;
        }
    }
}

/// What those hear whose work the end cuts off.
fn refusal(why: End) -> Fault {
    match why {
        End::Expired | End::Stopped => {
            Fault::new(FaultCode::Stopping, "the session was stopped; the work may have begun")
        }
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
