//! Reading an answer as it happens: server-sent events.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, Response};
use serde_json::Value;

use crate::client::Session;

/// Longest that a stream is read.
const LONGEST: Duration = Duration::from_secs(3600);

/// The events of one answer.
#[derive(Debug)]
pub struct Events {
    response: Response,
    unread: Vec<u8>,
}

/// One event: its name and its data.
pub type Event = (String, Value);

impl Events {
    /// Asks for code to be run and its output to be told as it happens.
    ///
    /// # Errors
    /// Anything but a stream of events.
    pub async fn of(session: &Session, path: &str, version: &str, body: &Value) -> Result<Self> {
        let request = session.versioned(Method::POST, path, version).json(body);
        let request = request.header("accept", "text/event-stream");
        // Whoever reads slowly takes longer than the code.
        let request = request.timeout(LONGEST);
        Self::begin(request.send().await?)
    }

    /// The events of this answer.
    ///
    /// # Errors
    /// Anything but a stream of events.
    pub fn begin(response: Response) -> Result<Self> {
        ensure!(response.status() == 200, "status {}", response.status());
        let kind = response.headers().get("content-type");
        ensure!(kind.is_some_and(|kind| kind == "text/event-stream"));
        Ok(Self {
            response,
            unread: Vec::new(),
        })
    }

    /// The next event; comments are passed over. `None` at the end.
    ///
    /// # Errors
    /// The connection failed, or what came is no event.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let end = self.unread.windows(2).position(|two| two == b"\n\n");
            let Some(end) = end else {
                match self.response.chunk().await? {
                    Some(chunk) => self.unread.extend(chunk),
                    None => return Ok(None),
                }
                continue;
            };
            let rest = self.unread.split_off(end + 2);
            let block = String::from_utf8(std::mem::replace(&mut self.unread, rest))?;
            let field = |name: &str| {
                let lines = block.lines().filter_map(|line| line.strip_prefix(name));
                lines.collect::<Vec<_>>().join("\n")
            };
            let event = field("event: ");
            if !event.is_empty() {
                let data = serde_json::from_str(&field("data: "));
                return Ok(Some((event, data.context("data of an event")?)));
            }
        }
    }
}
