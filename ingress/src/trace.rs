//! Following a request: one id from its caller to its session, and one line in the log for its answer.

use std::time::Duration;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use process::spans::{self, Detail};
use proto::trace::TraceContext;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use crate::{
    headers::ERROR_CODE,
    metrics::{self, Requests},
};

/// Name of the header by which a caller says which trace its request belongs to.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The step of a trace that a caller says asks, if it names exactly one.
fn named(headers: &HeaderMap) -> Option<TraceContext> {
    let mut named = headers.get_all(TRACEPARENT).iter();
    let (first, second) = (named.next(), named.next());
    let named = first.filter(|_| second.is_none());
    named.and_then(|value| value.to_str().ok()?.parse().ok())
}

/// The trace of the request that this task answers; a new one in a task that answers none.
#[must_use]
pub fn current() -> TraceContext {
    CURRENT
        .try_with(|trace| *trace)
        .unwrap_or_else(|_| TraceContext::begin())
}

/// Answers a request within the trace that its caller named, otherwise within a new one, and counts it and logs one line
/// once the head of the answer is there. Every line that is logged meanwhile has the trace's id.
pub async fn follow(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let span = tracing::info_span!(
        "request.answer",
        trace.id = field::Empty,
        pool = field::Empty
    );
    let trace = begin(&span, named(request.headers()));
    span.record("trace.id", trace.trace_id());
    let method = request.method().clone();
    let answer = async {
        let response = CURRENT.scope(trace, next.run(request)).await;
        note_answer(&method, &response, begun.elapsed(), &requests);
        response
    };
    answer.instrument(span).await
}

/// The step of the trace that the span is. Where it is exported its exporter has counted it.
fn begin(span: &Span, asked_by: Option<TraceContext>) -> TraceContext {
    if let Some(asked_by) = asked_by {
        spans::set_parent(span, asked_by);
    }
    spans::context_of(span)
        .or_else(|| asked_by.map(TraceContext::step))
        .unwrap_or_else(TraceContext::begin)
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
    tell(method, route, response.status(), code);
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

/// Notes the answer in the exported span, under the names that OpenTelemetry has for it.
fn tell(method: &Method, route: Option<&str>, status: StatusCode, code: Option<&str>) {
    let span = Span::current();
    let status_code = Detail::Number(status.as_u16().into());
    spans::tell(&span, "http.response.status_code", status_code);
    let method = Detail::Text(metrics::name_of(method));
    spans::tell(&span, "http.request.method", method);
    if let Some(route) = route {
        spans::tell(&span, "http.route", Detail::Text(route));
    }
    if let Some(code) = code {
        spans::tell(&span, "error.type", Detail::Text(code));
    }
    if status.is_server_error() {
        spans::fail(&span);
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::HeaderValue, middleware, routing::get};
    use tower::ServiceExt;

    use super::*;

    const NAMED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values.map(|value| (TRACEPARENT, value)).collect()
    }

    #[test]
    fn a_callers_trace_goes_on_and_another_begins_without_one() {
        let asked_by = named(&headers(&[NAMED]));
        let trace = begin(&Span::none(), asked_by);
        assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(trace.to_string(), NAMED, "a step of its own");
        for values in [&[][..], &["nonsense"], &[NAMED, NAMED]] {
            let asked_by = named(&headers(values));
            assert_eq!(asked_by, None, "{values:?}");
            let begun = begin(&Span::none(), asked_by);
            assert_ne!(begun.trace_id(), trace.trace_id());
        }
    }

    #[tokio::test]
    async fn the_trace_is_known_while_its_request_is_answered() {
        let asked_by: TraceContext = NAMED.parse().unwrap();
        let answer = move || async move {
            assert_eq!(current().trace_id(), asked_by.trace_id());
        };
        let followed = middleware::from_fn_with_state(Requests::default(), follow);
        let router = Router::new().route("/", get(answer)).layer(followed);
        let request = Request::get("/").header(TRACEPARENT, NAMED);
        let answered = router.oneshot(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answered.unwrap().status(), StatusCode::OK);
        assert_ne!(current().trace_id(), asked_by.trace_id());
    }
}
