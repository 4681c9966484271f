//! Many records in answer to one question.

use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;

use super::{Bus, BusError};

/// Longest silence between two answers of the server.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// No more, or none at all.
const ENDS: [u16; 2] = [204, 404];

/// Why records could not be listed.
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
    /// What a stream's nearest server answers to this question: records, and then the message that ends
    /// them. [`BusError::NoStream`] where no server has the stream.
    pub(super) async fn answers(
        &self,
        stream: &str,
        question: &Value,
    ) -> Result<(Vec<Message>, Message), BusError> {
        self.up()?;
        let failed = |error| BusError::Read(error);
        let inbox = self.0.client.new_inbox();
        let answers = self.0.client.subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(|error| failed(Box::new(error)))?;
        let sent = self.0.client.publish_with_reply(
            format!("$JS.API.DIRECT.GET.{stream}"),
            inbox,
            Bytes::from(question.to_string()),
        );
        sent.await.map_err(|error| failed(Box::new(error)))?;
        let mut records = vec![];
        loop {
            let answer = tokio::time::timeout(ANSWERS_WITHIN, answers.next()).await;
            let Ok(Some(message)) = answer else {
                return Err(failed(Box::new(ListError::Silent)));
            };
            match message.status {
                None => records.push(message),
                Some(StatusCode::NO_RESPONDERS) => return Err(BusError::NoStream),
                Some(status) if ENDS.contains(&status.as_u16()) => return Ok((records, message)),
                Some(status) => return Err(failed(Box::new(ListError::Refused(status)))),
            }
        }
    }
}
