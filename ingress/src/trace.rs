//! Following a request: one id from its caller to its session, and one line in the log for its answer.

use std::time::{Duration, Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, Method},
    middleware::Next,
    response::Response,
};
use proto::trace::TraceContext;
use tracing::{Instrument, Span, field};

use crate::{error::ERROR_CODE, metrics::Requests};

/// Name of the header by which a caller says which trace its request belongs to.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The trace that a request belongs to: its caller's, if it names exactly one, otherwise a new one.
#[must_use]
pub fn of(headers: &HeaderMap) -> TraceContext {
    let mut named = headers.get_all(TRACEPARENT).iter();
    let (first, second) = (named.next(), named.next());
    let named = first.filter(|_| second.is_none());
    let named = named.and_then(|value| value.to_str().ok()?.parse::<TraceContext>().ok());
    named.map_or_else(TraceContext::begin, TraceContext::step)
}

/// The trace of the request that this task answers; a new one in a task that answers none.
#[must_use]
pub fn current() -> TraceContext {
    CURRENT
        .try_with(|trace| *trace)
        .unwrap_or_else(|_| TraceContext::begin())
}

/// Answers a request within its trace, and counts it and logs one line once the head of the answer is there. Every line
/// that is logged meanwhile has the trace's id.
pub async fn follow(
    trace: TraceContext,
    method: Method,
    requests: &Requests,
    answer: impl Future<Output = Response>,
) -> Response {
    let begun = Instant::now();
    let span = tracing::info_span!(
        "request.answer",
        trace.id = trace.trace_id(),
        pool = field::Empty
    );
    let answer = async {
        let response = CURRENT.scope(trace, answer).await;
        note_answer(&method, &response, begun.elapsed(), requests);
        response
    };
    answer.instrument(span).await
}

/// Notes in the trace which pool the request is for.
pub fn note_pool(pool: &str) {
    Span::current().record("pool", pool);
}

/// Lets the answer tell which of the routes it came from.
pub async fn note_route(route: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(route);
    response
}

/// Neither path nor query: they hold names of sessions and files.
fn note_answer(method: &Method, response: &Response, took: Duration, requests: &Requests) {
    let route = response.extensions().get::<MatchedPath>();
    let route = route.map(MatchedPath::as_str);
    let error = response.headers().get(ERROR_CODE);
    let code = error.and_then(|code| code.to_str().ok());
    requests.answered(method, route, response.status(), code, took);
    tracing::info!(
        target: "ingress::access",
        %method,
        route,
        status = response.status().as_u16(),
        code,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const NAMED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values.map(|value| (TRACEPARENT, value)).collect()
    }

    #[test]
    fn a_callers_trace_goes_on_and_another_begins_without_one() {
        let named = of(&headers(&[NAMED]));
        assert_eq!(named.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        for values in [&[][..], &["nonsense"], &[NAMED, NAMED]] {
            let begun = of(&headers(values));
            assert_ne!(begun.trace_id(), named.trace_id(), "{values:?}");
        }
    }

    #[tokio::test]
    async fn the_trace_is_known_while_its_request_is_answered() {
        let trace = TraceContext::begin();
        let requests = Requests::default();
        let known = follow(trace, Method::GET, &requests, async {
            assert_eq!(current(), trace);
            Response::default()
        });
        known.await;
        assert_ne!(current(), trace);
    }
}
