//! One client's requests: sent, repeated where that is safe, and written down.

use std::time::Duration;

use anyhow::Result;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    content,
    history::{Action, Answer, Call, LOG, Recorder},
};
use crate::{
    client::{Client, Session, escape},
    multipart::Multipart,
};

/// The cell that appends.
const APPEND: &str = include_str!("cells/append.py");
/// The cell that only looks.
const PEEK: &str = include_str!("cells/peek.py");
/// The header with the id of an operation.
const OPERATION_ID: &str = "operation-id";

/// How long one request may take before its client gives up: longer than the service looks for an
/// owner.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(12);
/// First and longest pause before a request is repeated.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What a client wants, once for all its repetitions.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Number of the operation.
    pub operation: u32,
    /// What for.
    pub action: Action,
    /// The operation id to send.
    pub id: Option<String>,
    /// Whether it verifies what is left.
    pub last: bool,
}

impl Wish {
    /// Whether it may be sent again when it is not known what became of it.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        match self.action {
            Action::Append(_) => self.id.is_some(),
            Action::Peek | Action::Upload(..) | Action::Download(_) | Action::List => true,
            Action::Delete(_) => false,
        }
    }

    /// Whether asking again would tell no more.
    fn is_final(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Lost(_) => false,
            // What may have run under an id does not run again.
            Answer::Refused(_, code) if code == "ExecutionLost" => self.id.is_some(),
            Answer::Refused(status, _) => !matches!(status, 408 | 409 | 429 | 500..),
            _ => true,
        }
    }
}

/// Sends one session's requests through all ingresses.
#[derive(Debug)]
pub struct Caller<'a> {
    recorder: &'a Recorder,
    sessions: Vec<Session>,
    name: String,
}

impl<'a> Caller<'a> {
    /// A caller for the session of this name.
    #[must_use]
    pub fn new(recorder: &'a Recorder, clients: &[Client], name: &str) -> Self {
        let sessions = clients.iter().map(|client| client.session(name));
        Self {
            recorder,
            sessions: sessions.collect(),
            name: name.to_owned(),
        }
    }

    /// Sends it, first to the ingress of this number, and again to the next ones until there is an
    /// answer or `patience` is over; once only when that is all that is safe. The last answer.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn fulfil(&self, wish: &Wish, first: usize, patience: Duration) -> Result<Answer> {
        let deadline = Instant::now() + patience;
        let mut pause = PAUSES.0;
        for ingress in first.. {
            let answer = self
                .send(wish, ingress % self.sessions.len().max(1))
                .await?;
            if !wish.is_idempotent() || wish.is_final(&answer) || Instant::now() + pause >= deadline
            {
                return Ok(answer);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        Ok(Answer::Lost("no ingress".to_owned()))
    }

    /// Sends it once.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn send(&self, wish: &Wish, ingress: usize) -> Result<Answer> {
        let Some(session) = self.sessions.get(ingress) else {
            return Ok(Answer::Lost("no ingress".to_owned()));
        };
        let mut request = request(session, &wish.action).timeout(ATTEMPT_WITHIN);
        if let Some(id) = &wish.id {
            request = request.header(OPERATION_ID, id);
        }
        let number = self.recorder.sent(Call {
            number: 0,
            operation: wish.operation,
            session: self.name.clone(),
            ingress,
            action: wish.action.clone(),
            sent_id: wish.id.clone(),
            last: wish.last,
            sent_us: 0,
            reply: None,
        })?;
        let (answer, id) = match request.send().await {
            Ok(response) => read(&wish.action, response).await,
            Err(error) => (lost(&error), None),
        };
        self.recorder.answered(number, answer.clone(), id)?;
        Ok(answer)
    }
}

fn request(session: &Session, action: &Action) -> RequestBuilder {
    let execute = |code: String| {
        let properties = json!({
            "codeInputType": "inline", "executionType": "synchronous", "code": code,
        });
        let request = session.request(Method::POST, "code/execute");
        request.json(&json!({ "properties": properties }))
    };
    match action {
        Action::Append(number) => {
            let code = APPEND.replace("@NUMBER@", &number.to_string());
            execute(code.replace("@SESSION@", session.identifier()))
        }
        Action::Peek => execute(PEEK.to_owned()),
        Action::Upload(path, number) => {
            let body = Multipart::file(path, &content::of(*number));
            let request = session.request(Method::POST, "files/upload");
            request
                .header("content-type", body.content_type())
                .body(body.into_body())
        }
        Action::Download(path) => {
            session.request(Method::GET, &format!("files/content/{}", escape(path)))
        }
        Action::Delete(path) => session.request(Method::DELETE, &format!("files/{}", escape(path))),
        Action::List => session.request(Method::GET, "files"),
    }
}

/// The answer in a response, and the operation id that it names.
async fn read(action: &Action, response: Response) -> (Answer, Option<String>) {
    let id = response.headers().get(OPERATION_ID);
    let id = id.and_then(|id| id.to_str().ok()).map(str::to_owned);
    let status = response.status();
    let answer = match response.bytes().await {
        Err(error) => lost(&error),
        Ok(body) if status.is_success() => success(action, &body),
        Ok(body) => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = body
                .pointer("/error/code")
                .and_then(Value::as_str)
                .unwrap_or_default();
            match (action, code) {
                (Action::Download(_) | Action::Delete(_), "FileNotFound") => Answer::Missing,
                _ => Answer::Refused(status.as_u16(), code.to_owned()),
            }
        }
    };
    (answer, id)
}

fn lost(error: &reqwest::Error) -> Answer {
    // Its words would repeat the address in every line.
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    Answer::Lost(what.to_owned())
}

fn success(action: &Action, body: &[u8]) -> Answer {
    let alien = |what: &str| Answer::Alien(what.to_owned());
    match action {
        Action::Append(_) | Action::Peek => {
            executed(body).unwrap_or_else(|| alien("an execution's answer that is none"))
        }
        Action::Upload(..) | Action::Delete(_) => Answer::Done,
        Action::Download(path) if path == LOG => match lines(body) {
            Some(log) => Answer::Lines(log),
            None => alien("a log with lines that nobody writes"),
        },
        Action::Download(_) => match content::number_of(body) {
            Ok(number) => Answer::Content(number),
            Err(what) => Answer::Alien(what),
        },
        Action::List => files(body).unwrap_or_else(|| alien("a list that is none")),
    }
}

fn executed(body: &[u8]) -> Option<Answer> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| body.get("properties")?.get(name)?.as_str();
    match text("status")? {
        "Success" => {
            let (log, trail) = text("stdout")?.split_once('\n')?;
            Some(Answer::Shown {
                log: numbers(log)?,
                trail: numbers(trail)?,
            })
        }
        _ => {
            let last = text("stderr")?.lines().last().unwrap_or_default();
            Some(Answer::Failed(last.to_owned()))
        }
    }
}

/// Numbers that were printed with spaces between them.
fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split_whitespace()
        .map(|number| number.parse().ok())
        .collect()
}

/// Numbers that stand in a line each, the last one's end included.
fn lines(body: &[u8]) -> Option<Vec<u32>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut lines = text.split('\n');
    let rest = lines.next_back()?;
    rest.is_empty()
        .then(|| lines.map(|line| line.parse().ok()).collect())?
}

fn files(body: &[u8]) -> Option<Answer> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let file = |file: &Value| {
        let properties = file.get("properties")?;
        let name = properties.get("filename")?.as_str()?;
        Some((name.to_owned(), properties.get("size")?.as_u64()?))
    };
    let files = body.get("value")?.as_array()?;
    files
        .iter()
        .map(file)
        .collect::<Option<_>>()
        .map(Answer::Files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executed_as(status: &str, stdout: &str) -> Answer {
        let properties = json!({ "status": status, "stdout": stdout, "stderr": "a\nlast words" });
        let body = json!({ "properties": properties }).to_string();
        success(&Action::Peek, body.as_bytes())
    }

    #[test]
    fn what_an_execution_shows_is_read() {
        let shown = |log: &[u32], trail: &[u32]| Answer::Shown {
            log: log.to_vec(),
            trail: trail.to_vec(),
        };
        assert_eq!(executed_as("Success", "1 2\n2\n"), shown(&[1, 2], &[2]));
        assert_eq!(executed_as("Success", "\n\n"), shown(&[], &[]));
        assert_eq!(
            executed_as("Failure", "1"),
            Answer::Failed("last words".into())
        );
        assert!(matches!(
            executed_as("Success", "1 x\n\n"),
            Answer::Alien(_)
        ));
    }

    #[test]
    fn a_log_has_whole_lines_of_numbers() {
        assert_eq!(lines(b""), Some(vec![]));
        assert_eq!(lines(b"1\n22\n"), Some(vec![1, 22]));
        for torn in [&b"1\n2"[..], b"1\n\n", b"1\nx\n", b"\xff\n"] {
            assert_eq!(lines(torn), None, "{torn:?}");
        }
    }

    fn wish(action: Action, id: Option<&str>) -> Wish {
        Wish {
            operation: 1,
            action,
            id: id.map(str::to_owned),
            last: false,
        }
    }

    #[test]
    fn only_what_is_safe_is_repeated() {
        assert!(wish(Action::Append(1), Some("id")).is_idempotent());
        assert!(!wish(Action::Append(1), None).is_idempotent());
        assert!(!wish(Action::Delete("a".into()), None).is_idempotent());
        assert!(wish(Action::Upload("a".into(), 1), None).is_idempotent());
    }

    #[test]
    fn code_that_may_have_run_is_not_asked_for_again() {
        let refused = |status, code: &str| Answer::Refused(status, code.into());
        let (named, nameless) = (
            wish(Action::Append(1), Some("id")),
            wish(Action::Peek, None),
        );
        assert!(named.is_final(&refused(500, "ExecutionLost")));
        assert!(!nameless.is_final(&refused(500, "ExecutionLost")));
        assert!(named.is_final(&refused(400, "SessionRequestValidationFailed")));
        assert!(!named.is_final(&refused(503, "NoCapacity")));
        assert!(!named.is_final(&refused(429, "SessionBusy")));
        assert!(!named.is_final(&Answer::Lost("x".into())) && named.is_final(&Answer::Missing));
    }
}
