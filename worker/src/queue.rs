//! Asynchronous executions. The workers of a pool share its queue. Whichever takes a job brings it to its
//! session as an ingress would; the session may be another worker's. The job stays in the queue until its
//! record has an end. A job that is delivered again, because its worker was lost, is recognised by its
//! record and not run again.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, Message, consumer::PullConsumer};
use futures_util::StreamExt;
use proto::{
    id::PoolId,
    limits,
    message::{Job, Request},
    record::{ExecutionRecord, RecordRef, RecordState},
    subject, wire,
};
use routing::{
    bus::{Bus, BusError},
    route::once::{OnceError, route_once},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{interval, sleep},
};

use crate::session::Context;

/// Jobs are asked for with this patience; the next question follows at once.
const ASK_FOR: Duration = Duration::from_secs(5);
/// Pause after the queue could not be read.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Extensions that are asked of the queue in the time after which it would give a job to another worker.
const EXTENSIONS: u32 = 4;

/// What becomes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disposition {
    /// Its record has an end, or it has none any more: it leaves the queue.
    Remove,
    /// It is tried again, here or elsewhere.
    Retry(Duration),
}

/// Takes jobs from a pool's queue, for ever, until the worker drains. Never more at once than it may wait
/// for.
pub async fn serve(context: Context, bus: Bus, pool: PoolId, queue: PullConsumer) {
    let free = Arc::new(Semaphore::new(limits::QUEUED_AT_WORKER));
    let draining = context.shared.draining.clone();
    let serving = async {
        loop {
            // Closed by nobody.
            let Ok(permit) = free.clone().acquire_owned().await else {
                return;
            };
            if let Err(error) = take(&context, &bus, &queue, &free, permit).await {
                tracing::warn!(pool.id = %pool, error = &*error, "failed to read the queue");
                sleep(AGAIN_AFTER).await;
            }
        }
    };
    tokio::select! {
        () = draining.cancelled() => {}
        () = serving => {}
    }
}

/// Takes as many jobs as there are permits, the first of which is `permit`.
async fn take(
    context: &Context,
    bus: &Bus,
    queue: &PullConsumer,
    free: &Arc<Semaphore>,
    permit: OwnedSemaphorePermit,
) -> Result<(), async_nats::Error> {
    let most = free.available_permits() + 1;
    let batch = queue.batch().max_messages(most).expires(ASK_FOR);
    let mut jobs = batch.messages().await?;
    let mut permit = Some(permit);
    while let Some(message) = jobs.next().await {
        let message = message?;
        let permit = match permit.take() {
            Some(permit) => permit,
            None => free.clone().acquire_owned().await?,
        };
        let (bus, draining) = (bus.clone(), context.shared.draining.clone());
        context.shared.tasks.spawn(async move {
            let disposition = tokio::select! {
                // The execution goes on; another worker waits for its end.
                () = draining.cancelled() => Disposition::Retry(Duration::ZERO),
                disposition = process(&bus, &message) => disposition,
                never = extend_ack(&message) => never,
            };
            settle(&message, disposition).await;
            drop(permit);
        });
    }
    Ok(())
}

/// Keeps the queue from delivering the job to another worker, for ever.
async fn extend_ack(message: &Message) -> Disposition {
    let mut tick = interval(limits::QUEUE_SILENCE / EXTENSIONS);
    loop {
        tick.tick().await;
        if let Err(error) = message.ack_with(AckKind::Progress).await {
            tracing::debug!(error = &*error, "failed to keep a job");
        }
    }
}

/// Acknowledges the job, or gives it back. A failure means that it is delivered again, which its record
/// makes harmless.
async fn settle(message: &Message, disposition: Disposition) {
    let told = match disposition {
        Disposition::Remove => message.double_ack().await,
        Disposition::Retry(after) => message.ack_with(AckKind::Nak(Some(after))).await,
    };
    if let Err(error) = told {
        tracing::warn!(
            error = &*error,
            "failed to acknowledge a job or to give it back"
        );
    }
}

/// Brings the job to its session and waits for its end.
async fn process(bus: &Bus, message: &Message) -> Disposition {
    let Some((job, record)) = understood(&message.payload) else {
        tracing::error!("dropping a malformed job");
        return Disposition::Remove;
    };
    let place = subject::execution(&job.pool, &job.session, &record.key);
    match bus.read_execution(&place).await {
        Ok(found) => {
            let found = found.map(|(record, _)| record);
            if !is_under_way(found.as_ref(), &record) {
                return Disposition::Remove;
            }
        }
        Err(error) => return not_known(&error),
    }
    match route_once(bus, job, record, limits::RECORD_LIFE, None).await {
        Ok(_) | Err(OnceError::Failed(_) | OnceError::Conflict | OnceError::Refused(_)) => {
            Disposition::Remove
        }
        Err(OnceError::Queued(reason)) => {
            let reason = &reason as &dyn std::error::Error;
            tracing::debug!(reason, "a job waits in the queue");
            Disposition::Retry(limits::QUEUE_PAUSE)
        }
        Err(OnceError::Pending) => Disposition::Retry(limits::QUEUE_PAUSE),
        Err(OnceError::Bus(error)) => not_known(&error),
    }
}

fn not_known(error: &BusError) -> Disposition {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "failed to read a job's record");
    Disposition::Retry(limits::QUEUE_PAUSE)
}

/// The job with where it is recorded.
fn understood(payload: &[u8]) -> Option<(Job, RecordRef)> {
    let job: Job = wire::decode(payload).ok()?;
    let Request::Execute {
        record: Some(record),
        ..
    } = &job.request
    else {
        return None;
    };
    let record = record.clone();
    Some((job, record))
}

/// Whether the job is still to be run or waited for. Without a record it is one of yesterday, and one
/// that was refused was never promised to anybody.
fn is_under_way(found: Option<&ExecutionRecord>, asked: &RecordRef) -> bool {
    found.is_some_and(|record| {
        record.digest == asked.digest
            && matches!(record.state, RecordState::Queued | RecordState::Running)
    })
}

#[cfg(test)]
mod tests {
    use proto::record::Stamp;

    use super::*;

    fn asked(digit: &str) -> RecordRef {
        RecordRef {
            key: "b".repeat(26).parse().unwrap(),
            digest: digit.repeat(64).parse().unwrap(),
            seen: 0,
            submission: None,
        }
    }

    #[test]
    fn a_job_is_run_or_waited_for_only_while_its_record_says_so() {
        let of = |state| {
            let stamp = Stamp {
                nonce: "n".into(),
                now_ms: 0,
            };
            ExecutionRecord::new(state, asked("0").digest, None, stamp)
        };
        assert!(!is_under_way(None, &asked("0")));
        let table = [
            (RecordState::Queued, true),
            (RecordState::Running, true),
            (RecordState::Succeeded, false),
            (RecordState::Failed, false),
            (RecordState::TimedOut, false),
            (RecordState::Cancelled, false),
            (RecordState::Refused, false),
            (RecordState::Lost, false),
            (RecordState::Unknown, false),
        ];
        for (state, expected) in table {
            assert_eq!(is_under_way(Some(&of(state)), &asked("0")), expected);
            assert!(!is_under_way(Some(&of(state)), &asked("1")), "{state:?}");
        }
    }

    #[test]
    fn what_is_no_execution_with_a_record_is_no_job() {
        assert_eq!(understood(b"no"), None);
    }
}
