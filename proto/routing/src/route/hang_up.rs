//! Cancels what nobody waits for any more.

use proto::{
    id::OperationId,
    message::{Job, Request},
    subject, wire,
};

use crate::bus::port::RouteBus;

/// Cancels an execution whose caller goes away before the answer, or hears that nobody took it in time, unless
/// its caller named it: then it finishes and can be fetched.
pub(super) struct HangUp<'a, B: RouteBus> {
    bus: &'a B,
    job: &'a Job,
    waited_for: bool,
}

impl<'a, B: RouteBus> HangUp<'a, B> {
    pub(super) fn new(bus: &'a B, job: &'a Job) -> Self {
        Self {
            bus,
            job,
            waited_for: matches!(job.request, Request::Execute { record: None, .. }),
        }
    }

    pub(super) fn answered(&mut self) {
        self.waited_for = false;
    }

    fn cancel(&self) -> Job {
        let request = Request::Cancel {
            target: self.job.operation.clone(),
        };
        Job {
            v: request.version(),
            operation: OperationId::from_ulid(self.bus.ids().next()),
            request,
            pool: self.job.pool.clone(),
            session: self.job.session.clone(),
            identifier: self.job.identifier.clone(),
            sealed: None,
            budget_ms: 0,
            trace: self.job.trace,
        }
    }
}

impl<B: RouteBus> Drop for HangUp<'_, B> {
    fn drop(&mut self) {
        if !self.waited_for {
            return;
        }
        let (bus, job) = (self.bus.clone(), self.cancel());
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
