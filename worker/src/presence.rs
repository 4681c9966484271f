//! Where this worker listens: for new sessions, and for whoever asks whether it is still there.

use std::{future::poll_fn, sync::Arc};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use proto::{
    id::WorkerId,
    subject::{self, Readiness},
};

use crate::{
    bus::{Outbox, Responder},
    lease::Ledger,
    listener::LeaveMarker,
    session::{Context, claim},
};

/// New sessions that may be on their way to a worker that begins to drain.
const ON_THEIR_WAY: u64 = 256;

/// Answers whoever asks, at the worker's control subject, whether this worker is still there. Never returns
/// but when the bus is gone for good.
pub async fn prove_life(client: Client, asked: Subscriber) {
    let outbox: Arc<dyn Outbox> = Arc::new(client);
    asked
        .filter_map(|message| std::future::ready(message.reply))
        .for_each(async |inbox| Responder::new(outbox.clone(), inbox).accept().await)
        .await;
}

/// Waits until an operator tells this worker to end. Never returns when that cannot be heard: a signal
/// still ends it.
pub async fn told_to_drain(client: Client, worker: WorkerId) {
    match client.subscribe(subject::worker_drain(&worker)).await {
        Ok(mut told) => match told.next().await {
            Some(message) => {
                if let Some(inbox) = message.reply {
                    Responder::new(Arc::new(client), inbox).accept().await;
                }
            }
            None => std::future::pending().await,
        },
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to subscribe to orders to drain"
            );
            std::future::pending::<()>().await;
        }
    }
}

/// Listens for a pool's new sessions until the worker drains: a worker without room, or without a spare
/// where one is wanted, says so at once, and the sender asks elsewhere.
pub async fn listen(context: Context, ledger: Ledger, readiness: Readiness) {
    let subject = subject::place(&ledger.pool().id, readiness);
    let marker = LeaveMarker {
        subject: subject.clone(),
        on_their_way: ON_THEIR_WAY,
    };
    let jobs = context.bus.listen(subject, subject::PLACE_GROUP, marker);
    let mut jobs = match jobs.await {
        Ok(jobs) => jobs,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to subscribe to placements"
            );
            return;
        }
    };
    let answer = |message| {
        let placing = claim::place(context.clone(), ledger.clone(), readiness, message);
        context.shared.tasks.spawn(placing);
    };
    loop {
        tokio::select! {
            message = poll_fn(|cx| jobs.poll_next(cx)) => answer(message),
            () = context.shared.draining.cancelled() => break,
        }
    }
    // What was on its way is refused, and its sender asks elsewhere.
    for message in jobs.leave().await {
        answer(message);
    }
}
