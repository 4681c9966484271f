//! Spans of the log: every line that is logged within one has the trace's id of the request that is worked on,
//! as the ingress that took it has it.

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

/// Taking a job of a session.
#[must_use]
pub fn job(job: &Job) -> Span {
    let span = tracing::info_span!("job", trace.id = field::Empty, verb = job.request.verb());
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

/// Without a trace the span has no id.
fn within(span: Span, trace: Option<TraceContext>) -> Span {
    if let Some(trace) = trace {
        span.record("trace.id", trace.trace_id());
    }
    span
}
