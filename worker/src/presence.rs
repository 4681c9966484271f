//! Where this worker listens for new sessions: only while it has room for one, and on the warm
//! subject only while a spare is ready, so that NATS itself picks a worker that can serve at once.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use proto::{
    id::WorkerId,
    pool::Pool,
    subject::{self, Readiness},
};
use tokio_util::task::TaskTracker;

use crate::{
    bus::Responder,
    lease::Ledger,
    session::{Context, place},
};

/// How often it is looked at whether to listen. A worker that listens without room answers `Busy`,
/// one that has room and does not listen is asked a moment later.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Jobs that were on their way when listening ended arrive within this time.
const IN_FLIGHT: Duration = Duration::from_millis(200);

/// Answers whoever asks whether this worker is still there. Never returns but when the bus is gone
/// for good.
pub async fn prove_life(client: Client, worker: WorkerId) {
    let asked = match client.subscribe(subject::worker_control(&worker)).await {
        Ok(asked) => asked,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "proof of life not heard"
            );
            return;
        }
    };
    asked
        .filter_map(|message| std::future::ready(message.reply))
        .for_each(async |inbox| Responder::new(client.clone(), inbox).accept().await)
        .await;
}

/// Listens for a pool's new sessions until the worker drains.
pub fn announce(context: &Context, ledger: &Ledger, background: &TaskTracker) {
    for readiness in [Readiness::Warm, Readiness::Any] {
        background.spawn(listen(context.clone(), ledger.clone(), readiness));
    }
}

async fn listen(context: Context, ledger: Ledger, readiness: Readiness) {
    let subject = subject::place(&ledger.pool().id, readiness);
    let mut look = tokio::time::interval(LOOK_EVERY);
    while !context.draining.is_cancelled() {
        look.tick().await;
        if !wanted(&context, ledger.pool(), readiness) {
            continue;
        }
        let group = subject::PLACE_GROUP.to_owned();
        match context.client.queue_subscribe(subject.clone(), group).await {
            Ok(jobs) => take(&context, &ledger, jobs, readiness).await,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "placement not heard"
                );
            }
        }
    }
}

/// Takes jobs for as long as they are wanted, and then those that were on their way.
async fn take(context: &Context, ledger: &Ledger, mut jobs: Subscriber, readiness: Readiness) {
    let start = |message| {
        context
            .tasks
            .spawn(place::place(context.clone(), ledger.clone(), message));
    };
    let mut look = tokio::time::interval(LOOK_EVERY);
    while wanted(context, ledger.pool(), readiness) {
        tokio::select! {
            message = jobs.next() => match message {
                Some(message) => start(message),
                None => return,
            },
            _ = look.tick() => {}
            () = context.draining.cancelled() => break,
        }
    }
    if let Err(error) = jobs.drain().await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "placement still heard"
        );
    }
    while let Ok(Some(message)) = tokio::time::timeout(IN_FLIGHT, jobs.next()).await {
        start(message);
    }
}

fn wanted(context: &Context, pool: &Pool, readiness: Readiness) -> bool {
    let room = !context.draining.is_cancelled() && context.room.available_permits() > 0;
    match readiness {
        Readiness::Any => room,
        Readiness::Warm => room && context.stock.is_warm(&pool.limits),
    }
}
