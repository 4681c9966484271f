//! The jobs of an owned session, and how to stop listening without losing one.
//!
//! The client library forgets a subscription at once when it is told to unsubscribe, and with it
//! every message that the server had sent by then (async-nats 0.51, `Command::Unsubscribe` and
//! `Command::Drain`). A subscription that ends after a number of messages ends at the same message
//! on both sides. So the session sends itself the messages that are missing from that number: what
//! others sent before the last of them arrives, and what they send later meets no listener and is
//! placed anew.

use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use proto::{
    id::{PoolId, SessionKey},
    subject,
};

/// Jobs that may be on their way to a session when it leaves; more are lost.
const ON_THEIR_WAY: u64 = 64;
/// How long leaving may take; without a connection it never would end.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// What arrives at a session's subject.
#[derive(Debug)]
pub struct Jobs {
    client: Client,
    subscriber: Subscriber,
    farewell: String,
    received: u64,
}

impl Jobs {
    /// Listens as the session's owner.
    ///
    /// # Errors
    /// The connection is closed for good.
    pub async fn listen(
        client: &Client,
        pool: &PoolId,
        session: &SessionKey,
    ) -> Result<Self, async_nats::SubscribeError> {
        let wildcard = subject::session_wildcard(pool, session);
        let group = subject::OWNER_GROUP.to_owned();
        Ok(Self {
            subscriber: client.queue_subscribe(wildcard, group).await?,
            client: client.clone(),
            farewell: subject::session(pool, session, subject::FAREWELL),
            received: 0,
        })
    }

    /// The next job. Never returns when none can come any more.
    pub async fn next(&mut self) -> Message {
        match self.subscriber.next().await {
            Some(message) => {
                self.received += 1;
                message
            }
            None => std::future::pending().await,
        }
    }

    /// Stops listening; returns every job that arrived until then. Only for the one owner of the
    /// session: with another listener beside it the farewells could go there.
    pub async fn leave(mut self) -> Vec<Message> {
        let mut arrived = vec![];
        while let Some(message) = self.next().now_or_never() {
            arrived.push(message);
        }
        match tokio::time::timeout(LEAVE_WITHIN, self.bid_farewell(&mut arrived)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = &*error, "session not unsubscribed"),
            // The rest ends with the subscription, which is dropped here.
            Err(_) => tracing::warn!("a session's subscription does not end by itself"),
        }
        arrived
    }

    async fn bid_farewell(&mut self, arrived: &mut Vec<Message>) -> Result<(), async_nats::Error> {
        let last = self.received + ON_THEIR_WAY;
        self.subscriber.unsubscribe_after(last).await?;
        for _ in 0..ON_THEIR_WAY {
            let farewell = self.farewell.clone();
            self.client.publish(farewell, Bytes::new()).await?;
        }
        while let Some(message) = self.subscriber.next().await {
            arrived.push(message);
        }
        Ok(())
    }

    /// Stops listening at once, because another owner listens already.
    pub async fn abandon(mut self) {
        if let Err(error) = self.subscriber.unsubscribe().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "session not unsubscribed"
            );
        }
    }
}
