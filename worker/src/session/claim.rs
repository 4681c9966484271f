//! From a job that has no owner to a session that lives here.

use std::time::Duration;

use async_nats::Message;
use proto::{
    fault::{Fault, FaultCode},
    message::{Job, Placement, VERSION},
    pool::Pool,
    recovery::Recovery,
    subject::{self, Readiness},
    wire,
};
use records::fleet::Standing;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tracing::{Instrument, Span};

use super::{
    Context,
    actor::{Actor, Owned},
    closing::{self, Owners},
    name::SessionName,
    opening::{Opening, Plan},
    ports::{JobsPort, ReservedPort},
    saver::Upkeep,
};
use crate::{
    bus::Responder,
    lease::{
        ClaimError, Claimed, Continuity, HeldLease, Ledger, Ownership,
        orphan::{self, Leave},
        ownership_check::Confirmation,
    },
    listener::LeaveMarker,
    trace,
};

/// Jobs that may be on their way to a session when it unsubscribes.
const ON_THEIR_WAY: u64 = 64;

/// How long a placement waits for a bus in doubt: shorter than its sender waits for an answer.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Answers a placement: claims the session and starts its actor with the job, or refuses.
pub async fn place(context: Context, ledger: Ledger, readiness: Readiness, message: Message) {
    let Some(inbox) = message.reply else { return };
    let responder = Responder::new(context.shared.outbox.clone(), inbox);
    if readiness == Readiness::Warm && !context.stock.is_warm(&ledger.pool().limits) {
        let busy = Fault::new(FaultCode::Busy, "the worker has no spare");
        return responder.finish(Err(busy)).await;
    }
    let Ok(placement) = wire::decode::<Placement>(&message.payload) else {
        return responder.finish(Err(unsupported())).await;
    };
    let span = trace::placement(&placement.job);
    match admit(&context, &ledger, placement).instrument(span).await {
        Ok(admitted) => {
            let Admitted { job, permit, taken } = admitted;
            let name = SessionName::of(&job);
            discard_ended(&context, &name, taken.continuity);
            let (pool, span) = (ledger.pool().clone(), trace::session(&job));
            let actor = span.in_scope(|| {
                let owned = taken.open(&context, &pool, &name, &job);
                Actor::new(context.shared.clone(), pool, name, owned)
            });
            let serving = actor.run(job, responder, permit).instrument(span);
            context.shared.tasks.spawn(serving);
        }
        Err(fault) => responder.finish(Err(fault)).await,
    }
}

struct Admitted {
    job: Job,
    permit: OwnedSemaphorePermit,
    taken: Taken,
}

/// A claimed session whose sandbox is on its way.
struct Taken {
    lease: HeldLease,
    continuity: Continuity,
    sure: Confirmation,
    jobs: Box<dyn JobsPort>,
    sandbox: Box<dyn ReservedPort>,
}

impl Taken {
    /// Enters the session among the living, and begins to open it.
    fn open(self, context: &Context, pool: &Pool, name: &SessionName, job: &Job) -> Owned {
        let Self {
            lease,
            continuity,
            sure,
            jobs,
            sandbox,
        } = self;
        let shared = &context.shared;
        let ownership = lease.ownership();
        let seat = shared.table.enter(&name.pool, &name.key);
        let plan = Plan {
            place: name.log(ownership.incarnation()),
            epoch: ownership.epoch(),
            continuity,
            recovery: recovery(job, ownership, continuity, pool),
            sandbox,
            transfers: context.transfers.clone(),
            upkeep: Upkeep {
                window: pool.write_behind(),
                counts: shared.counts.clone(),
                tell: Box::new(seat.teller()),
                span: Span::current(),
            },
        };
        let opening = Opening::begin(plan.open(shared.store.clone()), trace::opening(job));
        Owned {
            lease,
            continuity,
            sure,
            jobs,
            seat,
            opening,
        }
    }
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

async fn admit(
    context: &Context,
    ledger: &Ledger,
    placement: Placement,
) -> Result<Admitted, Fault> {
    check(&placement, ledger.pool())?;
    let Placement { job, seen, .. } = placement;
    know_the_bus(&context.standing).await?;
    let busy = || Fault::new(FaultCode::Busy, "the worker has no room");
    if context.shared.draining.is_cancelled()
        || !context.clock.is_right()
        || !context.stock.has_room(&ledger.pool().limits)
    {
        return Err(busy());
    }
    let permit = context
        .room
        .clone()
        .try_acquire_owned()
        .map_err(|_| busy())?;
    let taken = take(context, ledger, &job, seen).await?;
    Ok(Admitted { job, permit, taken })
}

/// Whether the bus has its data: on one from an earlier time, a session that lives would begin anew.
async fn know_the_bus(standing: &Standing) -> Result<(), Fault> {
    // Whoever is asked right after a reconnect knows it in a moment.
    let known = timeout(KNOWN_WITHIN, standing.known()).await;
    if standing.loss().is_some() {
        let words = "the service lost the data that tells which sessions live; nothing was done";
        return Err(Fault::new(FaultCode::BusLost, words));
    }
    known.map_err(|_| {
        // The sender looks again.
        let words = "the worker does not know yet whether the bus has its data";
        Fault::new(FaultCode::NotOwner, words)
    })
}

/// Claims the session and listens to its jobs. Its sandbox is on its way meanwhile.
async fn take(context: &Context, ledger: &Ledger, job: &Job, seen: u64) -> Result<Taken, Fault> {
    let sure = Confirmation::now(&context.shared.interruptions);
    let reserve = || context.stock.reserve(&ledger.pool().limits);
    // Of many first requests for one session only one needs a sandbox.
    let first = context.shared.table.claiming(&job.pool, &job.session);
    let early = first.is_some().then(reserve);
    match listen(context, ledger, job, seen).await {
        Ok((Claimed { lease, continuity }, jobs)) => Ok(Taken {
            lease,
            continuity,
            sure,
            jobs,
            sandbox: early.unwrap_or_else(reserve),
        }),
        Err(fault) => {
            if let Some(sandbox) = early {
                context.shared.tasks.spawn(sandbox.give_back());
            }
            Err(fault)
        }
    }
}

async fn listen(
    context: &Context,
    ledger: &Ledger,
    job: &Job,
    seen: u64,
) -> Result<(Claimed, Box<dyn JobsPort>), Fault> {
    let claimed = ledger.claim(&job.session, &job.identifier, seen).await;
    let claimed = claimed.map_err(|error| {
        let fault = Fault::from(&error);
        not_claimed(context, job, error);
        fault
    })?;
    let wildcard = subject::session_wildcard(&job.pool, &job.session);
    let farewell = LeaveMarker {
        subject: subject::session(&job.pool, &job.session, subject::FAREWELL),
        on_their_way: ON_THEIR_WAY,
    };
    let jobs = context.bus.listen(wildcard, subject::OWNER_GROUP, farewell);
    match jobs.await {
        Ok(jobs) => Ok((claimed, jobs)),
        Err(error) => {
            // The connection is closed for good: the lease ends by its time.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to subscribe to a session's jobs"
            );
            Err(Fault::new(
                FaultCode::Internal,
                "the session could not be served",
            ))
        }
    }
}

fn not_claimed(context: &Context, job: &Job, error: ClaimError) {
    let cause = match &error {
        ClaimError::LostRace | ClaimError::Full => return,
        ClaimError::Bus(cause) | ClaimError::Unsure { cause, .. } => cause,
    };
    tracing::error!(pool.id = %job.pool, session.key = %job.session,
        error = cause as &dyn std::error::Error, "failed to claim a session");
    if let ClaimError::Unsure {
        ownership,
        continuity,
        ..
    } = error
    {
        let leave = match continuity {
            Continuity::New { .. } => Leave::Nothing,
            Continuity::Continued => Leave::Vacancy(Instant::now()),
        };
        let shared = &context.shared;
        shared.give_up_later(*ownership, orphan::Reason::Claim, leave);
    }
}

/// What an ended life of the session left in the object store goes now.
fn discard_ended(context: &Context, name: &SessionName, continuity: Continuity) {
    if let Continuity::New { ended: Some(ended) } = continuity {
        let (log, store) = (name.log(ended), context.shared.store.clone());
        // Whether it had one owner is not known.
        let discarding = async move { closing::discard(&store, &log, Owners::Several).await };
        context.shared.tasks.spawn(discarding);
    }
}

fn check(placement: &Placement, pool: &Pool) -> Result<(), Fault> {
    let job = &placement.job;
    if job.v > VERSION || job.pool != pool.id {
        return Err(unsupported());
    }
    match &placement.pool_digest {
        // Another worker has the settings that the sender knows.
        Some(theirs) if *theirs != pool.digest() => {
            let words = "this worker serves the pool with other settings";
            Err(Fault::new(FaultCode::Busy, words))
        }
        Some(_) | None => Ok(()),
    }
}

/// A message of a kind or version that this worker does not know.
pub(super) fn unsupported() -> Fault {
    Fault::new(
        FaultCode::Unsupported,
        "this worker does not know this kind of request",
    )
}

#[cfg(test)]
mod tests {
    use records::fleet::State;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_session_is_placed_on_a_bus_in_doubt() {
        let standing = Standing::default();
        know_the_bus(&standing).await.unwrap();
        standing.set(State::Sound);
        know_the_bus(&standing).await.unwrap();
        standing.doubt();
        let refused = know_the_bus(&standing).await.unwrap_err();
        assert_eq!(refused.code, FaultCode::NotOwner, "the sender asks again");
        let waiting = tokio::spawn({
            let standing = standing.clone();
            async move { know_the_bus(&standing).await }
        });
        tokio::task::yield_now().await;
        assert!(standing.trust(standing.doubts()));
        waiting.await.unwrap().unwrap();
        standing.set(State::Lost("wiped".into()));
        let refused = know_the_bus(&standing).await.unwrap_err();
        assert_eq!(refused.code, FaultCode::BusLost);
    }

    #[test]
    fn a_worker_with_other_settings_of_the_pool_leaves_the_session_to_another() {
        let pool = |limits: &str| -> Pool {
            let text = format!(
                r#"{{"id": "01JDE1KZ0000000000000000PY", "subscription": "s", "resource_group": "r",
                    "name": "python", "max_sessions": 1, "cooldown_seconds": 300, "limits": {limits}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let ours = pool("{}");
        let placement = |pool_digest| Placement {
            job: Job {
                v: 1,
                operation: proto::id::OperationId::from_ulid(ulid::Ulid::nil()),
                pool: ours.id.clone(),
                session: "a".repeat(26).parse().unwrap(),
                identifier: "user-1".parse().unwrap(),
                sealed: None,
                trace: None,
                budget_ms: 1,
                request: proto::message::Request::Describe,
            },
            seen: 0,
            pool_digest,
        };
        check(&placement(None), &ours).unwrap();
        check(&placement(Some(ours.digest())), &ours).unwrap();
        let edited = pool(r#"{"processes": 64}"#);
        let refused = check(&placement(Some(edited.digest())), &ours).unwrap_err();
        assert_eq!(refused.code, FaultCode::Busy, "another is asked");
    }
}
