//! Reading many leases at once, with the times at which they were written.

use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, header};
use bytes::Bytes;
use futures_util::StreamExt;
use proto::{id::PoolId, lease::Lease, limits, subject, wire};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Bus, BusError};

/// Longest silence between two answers of the server.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A lease and when it was written, by the bus's clock.
pub type Written = (Lease, OffsetDateTime);

/// Why leases could not be listed.
#[derive(Debug, thiserror::Error)]
enum ListError {
    /// The server said no.
    #[error("the server answered {0}")]
    Refused(StatusCode),
    /// It fell silent.
    #[error("the server did not answer to the end")]
    Silent,
}

impl Bus {
    /// The leases of a pool on this subject, which may be a wildcard, from whichever server has them
    /// nearest: a hint. At most [`limits::LISTED_SESSIONS`].
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn leases(&self, pool: &PoolId, subject: &str) -> Result<Vec<Written>, BusError> {
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return Err(BusError::Down);
        }
        let failed = |error| BusError::Read(error);
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(|error| failed(Box::new(error)))?;
        let question = json!({ "multi_last": [subject], "batch": limits::LISTED_SESSIONS });
        let stream = subject::leases_stream(pool);
        let sent = self.client.publish_with_reply(
            format!("$JS.API.DIRECT.GET.{stream}"),
            inbox,
            Bytes::from(question.to_string()),
        );
        sent.await.map_err(|error| failed(Box::new(error)))?;
        let mut leases = vec![];
        loop {
            let answer = tokio::time::timeout(ANSWERS_WITHIN, answers.next()).await;
            let Ok(Some(message)) = answer else {
                return Err(failed(Box::new(ListError::Silent)));
            };
            match message.status {
                None => leases.extend(written(&message)),
                Some(status) if ENDS.contains(&status.as_u16()) => return Ok(leases),
                Some(status) => return Err(failed(Box::new(ListError::Refused(status)))),
            }
        }
    }
}

/// No more, none at all, or no stream: no worker has made it yet.
const ENDS: [u16; 3] = [204, 404, 503];

fn written(message: &Message) -> Option<Written> {
    let time = message.headers.as_ref().and_then(time_of)?;
    match wire::decode(&message.payload) {
        Ok(lease) => Some((lease, time)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a lease is not listed");
            None
        }
    }
}

fn time_of(headers: &HeaderMap) -> Option<OffsetDateTime> {
    let text = headers.get(header::NATS_TIME_STAMP)?;
    OffsetDateTime::parse(text.as_str(), &Rfc3339).ok()
}
