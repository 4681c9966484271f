//! Cancels what nobody waits for any more.

use proto::{
    message::{Job, Request},
    subject, wire,
};
use ulid::Ulid;

use crate::bus::Bus;

/// Cancels an execution whose caller goes away before the answer, unless its caller named it: then it
/// finishes and can be fetched.
pub(super) struct HangUp {
    bus: Bus,
    cancel: Option<Job>,
}

impl HangUp {
    pub(super) fn of(bus: &Bus, job: &Job) -> Self {
        let request = Request::Cancel {
            target: job.operation.clone(),
        };
        let cancel = match &job.request {
            Request::Execute { record: None, .. } => Some(Job {
                v: request.version(),
                operation: proto::id::OperationId::from_ulid(Ulid::new()),
                request,
                pool: job.pool.clone(),
                session: job.session.clone(),
                identifier: job.identifier.clone(),
                sealed: None,
                budget_ms: 0,
                trace: job.trace,
            }),
            _ => None,
        };
        Self {
            bus: bus.clone(),
            cancel,
        }
    }

    pub(super) fn answered(&mut self) {
        self.cancel = None;
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        let Some(job) = self.cancel.take() else {
            return;
        };
        let bus = self.bus.clone();
        tokio::spawn(async move {
            let subject = subject::session(&job.pool, &job.session, job.request.verb());
            let Ok(payload) = wire::encode(&job) else {
                return;
            };
            // Nobody waits for the answer: the inbox closes at once.
            if let Err(error) = bus.send(subject, payload.into()).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "cancel not sent");
            }
        });
    }
}
