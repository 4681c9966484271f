//! Reading the records of a session's executions, page by page.

use async_nats::Message;
use proto::{
    id::{PoolId, SessionKey},
    limits,
    record::ExecutionRecord,
    subject, wire,
};
use serde_json::json;

use super::{Bus, BusError};

/// A part of the executions of a session, in the order of their last changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub records: Vec<ExecutionRecord>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
}

impl Bus {
    /// The records of a session's executions from the place `from` on (0: all), from whichever server has
    /// them nearest: at most [`limits::EXECUTION_PAGE`].
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn executions(
        &self,
        pool: &PoolId,
        session: &SessionKey,
        from: u64,
    ) -> Result<Page, BusError> {
        let question = json!({
            "next_by_subj": subject::executions_of(pool, session),
            "seq": from.max(1),
            "batch": limits::EXECUTION_PAGE,
            "max_bytes": limits::EXECUTION_PAGE_BYTES,
        });
        let answers = self.answers(subject::EXECUTIONS_STREAM, &question).await;
        let answers = self.or_nothing(answers.map(Some))?;
        let Some((messages, end)) = answers else {
            return Ok(Page {
                records: vec![],
                next: None,
            });
        };
        let more = number(&end, "Nats-Num-Pending").is_some_and(|left| left > 0);
        let last = messages
            .last()
            .and_then(|last| number(last, "Nats-Sequence"));
        Ok(Page {
            records: messages.iter().filter_map(decoded).collect(),
            next: last.filter(|_| more).map(|last| last + 1),
        })
    }
}

fn decoded(message: &Message) -> Option<ExecutionRecord> {
    match wire::decode(&message.payload) {
        Ok(record) => Some(record),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "failed to decode an execution; it is not listed");
            None
        }
    }
}

fn number(message: &Message, header: &str) -> Option<u64> {
    let headers = message.headers.as_ref()?;
    headers.get(header)?.as_str().parse().ok()
}
