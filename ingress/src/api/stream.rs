//! Answers as they happen: server-sent events for callers who accept them.
//!
//! `stdout` and `stderr` (`{"text": …}`), `display` (a bundle), `truncated` (what was dropped because the
//! caller reads too slowly), and in the end `result`, with what would have been the body of the answer, or
//! `error`, with the body of the refusal.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use proto::{
    execution::{Bundle, Output, Truncated},
    limits,
    trace::TraceContext,
    wire,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    accept::EVENT_STREAM,
    extension::{Kind, ShownOutput},
    front::Caller,
    ran::{self, Ran},
};
use crate::{
    error::ApiError,
    reader::{Event, Events, reader},
    service::{Code, Session},
};

/// Some proxies collect answers before they pass them on.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Longest display output on the bus: that of a frame in another encoding, with what this adds to each of
/// its texts.
const DISPLAY_BYTES: usize = limits::KERNEL_FRAME_BYTES + limits::MIME_TYPES * 16;
/// After so long without an event a comment is sent, so that nobody takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// An execution that is told of as it happens.
struct Running {
    /// What was heard before the answer's head was sent.
    first: Option<First>,
    events: Events,
    /// Ends with the caller.
    task: Task,
    /// The trace of the request.
    trace: TraceContext,
    /// The beginning of a display output.
    display: Vec<u8>,
    over: bool,
}

type Task = AbortOnDropHandle<Result<Ran, ApiError>>;

enum First {
    Event(Event),
    End(Box<Ran>),
}

/// Runs code, and answers with what it shows and at last with the `T` that is made of what it left. What fails
/// before a worker has it is answered as ever.
///
/// # Errors
/// The platform failed before anything ran.
pub async fn run<T: From<Ran> + Serialize + 'static>(
    caller: &Caller,
    session: Session,
    code: Code,
) -> Result<Response, ApiError> {
    let (reader, mut events) = reader();
    let (app, arrived) = (caller.app.clone(), caller.arrived);
    // A task of its own: nothing that a slow caller does may stop the listening to the worker.
    let mut task = AbortOnDropHandle::new(tokio::spawn(async move {
        ran::run(&app.service, arrived, session, code, Some(&reader)).await
    }));
    let first = match events.next().await {
        Some(event) => First::Event(event),
        None => First::End(Box::new(end_of(&mut task).await?)),
    };
    let running = Running {
        first: Some(first),
        events,
        task,
        trace: caller.trace,
        display: vec![],
        over: false,
    };
    let texts = stream::unfold(running, |mut running| async move {
        let text = running.next::<T>().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), running))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(texts)).into_response())
}

async fn end_of(task: &mut Task) -> Result<Ran, ApiError> {
    task.await
        .unwrap_or_else(|error| Err(ApiError::internal(&error)))
}

impl Running {
    /// The text of the next event that has one.
    async fn next<T: From<Ran> + Serialize>(&mut self) -> Option<String> {
        while !self.over {
            let event = match self.first.take() {
                Some(First::Event(event)) => event,
                Some(First::End(ran)) => return Some(self.end::<T>(Ok(*ran))),
                None => match timeout(KEEP_ALIVE, self.events.next()).await {
                    Err(_) => return Some(":\n\n".to_owned()),
                    Ok(Some(event)) => event,
                    Ok(None) => {
                        let ended = end_of(&mut self.task).await;
                        return Some(self.end::<T>(ended));
                    }
                },
            };
            if let Some(told) = self.tell(event) {
                return Some(told);
            }
        }
        None
    }

    fn end<T: From<Ran> + Serialize>(&mut self, ended: Result<Ran, ApiError>) -> String {
        self.over = true;
        let body = ended.and_then(|ran| {
            let body = serde_json::to_string(&T::from(ran));
            body.map_err(|error| ApiError::internal(&error))
        });
        match body {
            Ok(body) => said("result", &body),
            Err(error) => {
                let body = serde_json::to_string(&error.into_body(self.trace));
                said("error", &body.unwrap_or_default())
            }
        }
    }

    fn tell(&mut self, event: Event) -> Option<String> {
        let text = |text: String| json!({ "text": text }).to_string();
        match event {
            // So that the caller has the head at once.
            Event::Started => Some(":\n\n".to_owned()),
            Event::Output(Output::Stdout(shown)) => Some(said("stdout", &text(shown))),
            Event::Output(Output::Stderr(shown)) => Some(said("stderr", &text(shown))),
            Event::Output(Output::Display {
                part,
                last,
                name,
                update,
            }) => {
                let Some(bundle) = self.display(&part, last)? else {
                    let lost = Truncated {
                        displays: 1,
                        ..Truncated::default()
                    };
                    return Some(said("truncated", &dropped(lost).to_string()));
                };
                let shown = serde_json::to_value(ShownOutput::new(Kind::Display, &bundle)).ok()?;
                Some(said("display", &named(shown, name, update).to_string()))
            }
            Event::Output(Output::Cleared) => {
                self.display.clear();
                Some(said("clear", "{}"))
            }
            Event::Output(Output::Dropped(lost)) => {
                self.display.clear();
                Some(said("truncated", &dropped(lost).to_string()))
            }
            Event::Output(Output::Unknown) => None,
        }
    }

    /// The display output that ends with this part, if one does; nothing if it is too long or no output.
    fn display(&mut self, part: &[u8], last: bool) -> Option<Option<Bundle>> {
        let room = DISPLAY_BYTES.saturating_sub(self.display.len());
        // What is cut off here does not decode below.
        let kept = part.get(..room.min(part.len())).unwrap_or_default();
        self.display.extend_from_slice(kept);
        last.then(|| wire::decode(&std::mem::take(&mut self.display)).ok())
    }
}

/// A display with the name that updates of it have, if there may be any.
fn named(mut display: Value, name: Option<u32>, update: bool) -> Value {
    if let (Value::Object(fields), Some(name)) = (&mut display, name) {
        fields.insert("name".to_owned(), name.into());
        fields.insert("update".to_owned(), update.into());
    }
    display
}

fn dropped(lost: Truncated) -> Value {
    let counts = [
        ("stdout", lost.stdout),
        ("stderr", lost.stderr),
        ("displays", lost.displays),
    ];
    let lost = counts.into_iter().filter(|(_, count)| *count > 0);
    Value::Object(
        lost.map(|(name, count)| (name.to_owned(), count.into()))
            .collect::<Map<_, _>>(),
    )
}

/// An event. Lines of data are joined by the caller.
fn said(event: &str, data: &str) -> String {
    let mut text = format!("event: {event}\n");
    for line in data.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_lines_that_nothing_in_it_can_end() {
        let said = said("result", "{\"a\":\n1}");
        assert_eq!(said, "event: result\ndata: {\"a\":\ndata: 1}\n\n");
    }

    #[test]
    fn only_what_was_dropped_is_told() {
        let lost = Truncated {
            stdout: 5,
            ..Truncated::default()
        };
        assert_eq!(dropped(lost), json!({ "stdout": 5 }));
    }
}
