//! What an execution's answer tells in every contract: headers beside its body, and its streams.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proto::execution::{Durability, Moved, Outcome};
use utoipa::openapi::Type;

/// Whether the files of the execution are saved.
const FILES: HeaderName = HeaderName::from_static("x-hearth-files");
/// What came along when the session moved.
const RESTORED: HeaderName = HeaderName::from_static("x-hearth-restored");
/// What did not.
const LOST_VARIABLES: HeaderName = HeaderName::from_static("x-hearth-lost-variables");
/// The life of the session.
const SESSION_GUID: HeaderName = HeaderName::from_static("x-ms-session-guid");
/// Milliseconds until the request was read and understood.
const PREPARATION: HeaderName = HeaderName::from_static("x-ms-preparation-time");
/// Milliseconds that the code ran.
const RAN: HeaderName = HeaderName::from_static("x-ms-container-execution-duration");
/// Milliseconds from there to the result: finding or making the sandbox, waiting, running, saving.
const SERVICE: HeaderName = HeaderName::from_static("x-ms-total-execution-service-time");
/// Milliseconds of these until the worker had answered.
const REQUEST: HeaderName = HeaderName::from_static("x-ms-execution-request-time");
/// Milliseconds of these that reading a long result took, which lies in the store.
const READ: HeaderName = HeaderName::from_static("x-ms-execution-read-response-time");
/// Milliseconds from the request's head to the answer's.
const OVERALL: HeaderName = HeaderName::from_static("x-ms-overall-execution-time");
/// Longest list of names, in bytes; many servers and proxies take no longer header.
const NAMES_BYTES: usize = 4096;
/// Python names may hold any letters; a header holds ASCII, and `,` parts the names.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b',').add(b' ');

/// The headers, with the type of their values and what these are.
#[must_use]
pub fn described() -> [(HeaderName, Type, &'static str); 10] {
    [
        (
            FILES,
            Type::String,
            "`durable`, or `write-behind` where files may follow their answer.",
        ),
        (
            RESTORED,
            Type::String,
            "On the first answer after a move: `files`, or `files, variables`.",
        ),
        (
            LOST_VARIABLES,
            Type::String,
            "Names that could not be carried on a move.",
        ),
        (
            SESSION_GUID,
            Type::String,
            "Names this life of the session.",
        ),
        (
            PREPARATION,
            Type::Integer,
            "Milliseconds until the request was read.",
        ),
        (RAN, Type::Integer, "Milliseconds that the code ran."),
        (
            SERVICE,
            Type::Integer,
            "Milliseconds from the request to its result.",
        ),
        (
            REQUEST,
            Type::Integer,
            "Milliseconds of these until the session had answered.",
        ),
        (
            READ,
            Type::Integer,
            "Milliseconds of these for reading a long answer.",
        ),
        (
            OVERALL,
            Type::Integer,
            "Milliseconds from the request's head to the answer's.",
        ),
    ]
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Until its body was read.
    pub preparation: Duration,
    /// From there to the outcome.
    pub service: Duration,
    /// Of this, for reading the outcome.
    pub reading: Duration,
}

/// The headers of an answer to whoever waited.
#[must_use]
pub fn headers(outcome: &Outcome, times: Times) -> HeaderMap {
    let spans = [
        (PREPARATION, times.preparation),
        (SERVICE, times.service),
        (REQUEST, times.service.saturating_sub(times.reading)),
        (READ, times.reading),
        (OVERALL, times.preparation + times.service),
    ];
    let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let spans = spans.map(|(name, span)| (name, milliseconds(span).into()));
    let mut headers = HeaderMap::from_iter(spans);
    headers.extend(headers_of(outcome));
    headers
}

/// Those that tell of the execution itself.
#[must_use]
pub fn headers_of(outcome: &Outcome) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(RAN, outcome.duration_ms.into());
    let guid = outcome.incarnation.map(|incarnation| incarnation.guid());
    if let Some(guid) = guid.and_then(|guid| HeaderValue::from_str(&guid).ok()) {
        headers.insert(SESSION_GUID, guid);
    }
    let files = match outcome.durability {
        Durability::Durable => "durable",
        Durability::WriteBehind | Durability::Unknown => "write-behind",
    };
    headers.insert(FILES, HeaderValue::from_static(files));
    if let Some(Moved { variables, lost }) = &outcome.moved {
        let restored = if *variables {
            "files, variables"
        } else {
            "files"
        };
        headers.insert(RESTORED, HeaderValue::from_static(restored));
        if let Some(names) = names(lost) {
            headers.insert(LOST_VARIABLES, names);
        }
    }
    headers
}

/// Standard error of the code with what is to be said of its end, on a line of its own.
#[must_use]
pub fn stderr(outcome: &Outcome, explanation: Option<String>) -> String {
    let mut stderr = outcome.stderr.clone();
    if let Some(explanation) = explanation {
        if !stderr.is_empty() && !stderr.ends_with('\n') {
            stderr.push('\n');
        }
        stderr.push_str(&explanation);
    }
    stderr
}

/// As many names as fit.
fn names(lost: &[String]) -> Option<HeaderValue> {
    let mut list = String::new();
    for name in lost {
        let name = utf8_percent_encode(name, ESCAPED).to_string();
        if list.len() + name.len() + 2 > NAMES_BYTES {
            break;
        }
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(&name);
    }
    if list.is_empty() {
        return None;
    }
    HeaderValue::from_str(&list).ok()
}

#[cfg(test)]
pub(super) mod tests;
