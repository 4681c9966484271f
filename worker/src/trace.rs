//! Spans of the log: every line that is logged within one has the trace's id of the request that is worked on,
//! as the ingress that took it has it. Those whose names are verbs are exported, too (`process::spans`).

use process::spans;
use proto::{message::Job, trace::TraceContext};
use tracing::{Span, field};

/// A session's life on this worker.
#[must_use]
pub fn session(job: &Job) -> Span {
    tracing::info_span!("session", pool.id = %job.pool, session.key = %job.session)
}

/// Making a session here for a job.
#[must_use]
pub fn placement(job: &Job) -> Span {
    let span = tracing::info_span!(
        "session.place",
        trace.id = field::Empty,
        pool.id = %job.pool,
        session.key = %job.session
    );
    within(span, job.trace)
}

/// Getting a session ready that a job asks for: its sandbox, and files that it had.
#[must_use]
pub fn opening(job: &Job) -> Span {
    let span = tracing::info_span!("session.open", trace.id = field::Empty);
    within(span, job.trace)
}

/// Taking a job of a session, and doing what it asks for unless that is an execution.
#[must_use]
pub fn job(job: &Job) -> Span {
    let span = tracing::info_span!(
        "job.serve",
        trace.id = field::Empty,
        verb = job.request.verb()
    );
    within(span, job.trace)
}

/// Running an execution.
#[must_use]
pub fn execution(trace: Option<TraceContext>) -> Span {
    within(
        tracing::info_span!("execution.run", trace.id = field::Empty),
        trace,
    )
}

/// Bringing a session's changed files into the store, for what this is called within.
#[must_use]
pub fn commit() -> Span {
    tracing::info_span!("files.commit")
}

/// Renewing a session's lease.
#[must_use]
pub fn renewal() -> Span {
    tracing::info_span!("lease.renew")
}

/// Moving an interpreter into a cage, and waiting until it is ready.
#[must_use]
pub fn joining() -> Span {
    tracing::info_span!("sandbox.join")
}

/// Without a trace the span has no id.
fn within(span: Span, trace: Option<TraceContext>) -> Span {
    if let Some(trace) = trace {
        spans::set_parent(&span, trace);
        span.record("trace.id", trace.trace_id());
    }
    span
}
