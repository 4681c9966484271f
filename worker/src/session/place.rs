//! From a job that has no owner to a session that lives here.

use async_nats::{Message, Subscriber};
use proto::{
    fault::{Fault, FaultCode},
    message::{Job, Placement, VERSION},
    subject::{self, Readiness},
    wire,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{Context, actor::Actor};
use crate::{
    bus::Responder,
    lease::{HeldLease, Ledger},
};

/// Answers a placement: claims the session and starts its actor with the job, or refuses.
pub async fn place(context: Context, ledger: Ledger, readiness: Readiness, message: Message) {
    let Some(inbox) = message.reply else { return };
    let responder = Responder::new(context.client.clone(), inbox);
    if readiness == Readiness::Warm && !context.stock.is_warm(&ledger.pool().limits) {
        let busy = Fault::new(FaultCode::Busy, "the worker has no spare");
        return responder.finish(Err(busy)).await;
    }
    match admit(&context, &ledger, &message.payload).await {
        Ok(admitted) => {
            let tasks = context.tasks.clone();
            let Admitted {
                job,
                permit,
                lease,
                sure_at,
                jobs,
            } = admitted;
            let pool = ledger.pool().clone();
            let actor = Actor::new(context, pool, (lease, sure_at), jobs, job);
            tasks.spawn(actor.run(responder, permit));
        }
        Err(fault) => responder.finish(Err(fault)).await,
    }
}

struct Admitted {
    job: Job,
    permit: OwnedSemaphorePermit,
    lease: HeldLease,
    /// Doubts before the claim.
    sure_at: u64,
    jobs: Subscriber,
}

async fn admit(context: &Context, ledger: &Ledger, payload: &[u8]) -> Result<Admitted, Fault> {
    let placement: Placement = wire::decode(payload).map_err(|_| unsupported())?;
    check(&placement.job, ledger)?;
    let busy = || Fault::new(FaultCode::Busy, "the worker has no room");
    if context.draining.is_cancelled() {
        return Err(busy());
    }
    let permit = context
        .room
        .clone()
        .try_acquire_owned()
        .map_err(|_| busy())?;
    let Placement { job, seen } = placement;
    let Job {
        session,
        identifier,
        pool,
        ..
    } = &job;
    let sure_at = context.doubt.count();
    let lease = ledger
        .claim(session, identifier, seen)
        .await
        .map_err(|error| {
            if let crate::lease::ClaimError::Bus(cause) = &error {
                tracing::error!(pool.id = %pool, session.key = %session,
                error = cause as &dyn std::error::Error, "claim failed");
            }
            Fault::from(&error)
        })?;
    let subject = subject::session_wildcard(pool, session);
    match context
        .client
        .queue_subscribe(subject, subject::OWNER_GROUP.to_owned())
        .await
    {
        Ok(jobs) => Ok(Admitted {
            job,
            permit,
            lease,
            sure_at,
            jobs,
        }),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "session not subscribed"
            );
            if let Err(error) = lease.release().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "lease left behind"
                );
            }
            Err(Fault::new(
                FaultCode::Internal,
                "the session could not be served",
            ))
        }
    }
}

fn check(job: &Job, ledger: &Ledger) -> Result<(), Fault> {
    if job.v > VERSION || job.pool != ledger.pool().id {
        return Err(unsupported());
    }
    Ok(())
}

/// A message of a kind or version that this worker does not know.
pub(super) fn unsupported() -> Fault {
    Fault::new(
        FaultCode::Unsupported,
        "this worker does not know this kind of request",
    )
}
