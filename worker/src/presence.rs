//! Where this worker listens: for new sessions, and for whoever asks whether it is still there.

use async_nats::Client;
use futures_util::StreamExt;
use proto::{
    id::WorkerId,
    subject::{self, Readiness},
};

use crate::{
    bus::Responder,
    lease::Ledger,
    session::{Context, place},
};

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

/// Waits until an operator tells this worker to end. Never returns when that cannot be heard: a signal
/// still ends it.
pub async fn told_to_drain(client: Client, worker: WorkerId) {
    match client.subscribe(subject::worker_drain(&worker)).await {
        Ok(mut told) => match told.next().await {
            Some(message) => {
                if let Some(inbox) = message.reply {
                    Responder::new(client, inbox).accept().await;
                }
            }
            None => std::future::pending().await,
        },
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "orders to drain are not heard"
            );
            std::future::pending::<()>().await;
        }
    }
}

/// Listens for a pool's new sessions, for ever: a worker without room, or without a spare where one is
/// wanted, says so at once, and the sender asks elsewhere. It does not stop listening meanwhile, because
/// what is on its way to a subscription that ends is lost.
pub async fn listen(context: Context, ledger: Ledger, readiness: Readiness) {
    let subject = subject::place(&ledger.pool().id, readiness);
    let group = subject::PLACE_GROUP.to_owned();
    let mut jobs = match context.client.queue_subscribe(subject, group).await {
        Ok(jobs) => jobs,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "placement not heard"
            );
            return;
        }
    };
    while let Some(message) = jobs.next().await {
        let placing = place::place(context.clone(), ledger.clone(), readiness, message);
        context.tasks.spawn(placing);
    }
}
