//! Listening on the bus as one of a queue group, and how to stop without losing a message.
//!
//! The client library forgets a subscription at once when it is told to unsubscribe, and with it
//! every message that the server had sent by then (async-nats 0.51, `Command::Unsubscribe` and
//! `Command::Drain`). A subscription that ends after a number of messages ends at the same message
//! on both sides. So whoever leaves sends to the group the messages that are missing from that number:
//! what others sent before the last of them arrives, and what they send later goes to another member
//! or meets no listener.

use std::time::Duration;

use async_nats::{Client, Message, SubscribeError, Subscriber, connection::State};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

/// Most markers that are sent at once: other members have room for as many beside their own messages.
const MARKERS: u64 = 512;
/// Silence after which other members of the group must have got the missing markers.
const SILENCE: Duration = Duration::from_millis(50);
/// How long leaving may take; without a connection it never would end.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// What arrives at a subject.
#[derive(Debug)]
pub struct Listener {
    client: Client,
    subscriber: Subscriber,
    marker: LeaveMarker,
    received: u64,
}

/// How a listener leaves its group.
#[derive(Clone, Debug)]
pub struct LeaveMarker {
    /// Where its markers go: the whole group must hear them there. They have no content and no reply
    /// subject, so that they mean nothing to the others.
    pub subject: String,
    /// Messages that may be on their way to it then; more are lost.
    pub on_their_way: u64,
}

impl Listener {
    /// Listens at `subject` as a member of `group`.
    ///
    /// # Errors
    /// The connection is closed for good.
    pub async fn listen(
        client: &Client,
        subject: String,
        group: &str,
        marker: LeaveMarker,
    ) -> Result<Self, SubscribeError> {
        Ok(Self {
            subscriber: client.queue_subscribe(subject, group.to_owned()).await?,
            client: client.clone(),
            marker,
            received: 0,
        })
    }

    /// The next message. Never returns when none can come any more.
    pub async fn next(&mut self) -> Message {
        match self.subscriber.next().await {
            Some(message) => {
                self.received += 1;
                message
            }
            None => std::future::pending().await,
        }
    }

    /// Stops listening; returns every message that arrived until then, markers included.
    pub async fn leave(mut self) -> Vec<Message> {
        let mut arrived = vec![];
        while let Some(message) = self.next().now_or_never() {
            arrived.push(message);
        }
        match tokio::time::timeout(LEAVE_WITHIN, self.send_markers(&mut arrived)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = &*error, "failed to unsubscribe"),
            // The rest ends with the subscription, which is dropped here.
            Err(_) => tracing::warn!("failed to end a subscription in time"),
        }
        arrived
    }

    /// Each member of the group gets its share of the markers, so more and more are sent.
    async fn send_markers(&mut self, arrived: &mut Vec<Message>) -> Result<(), async_nats::Error> {
        let LeaveMarker {
            subject,
            on_their_way,
        } = &self.marker;
        let last = self.received + on_their_way;
        self.subscriber.unsubscribe_after(last).await?;
        let mut markers = *on_their_way;
        // Without a connection nothing arrives, and what is sent waits for one, before whatever else must
        // be sent.
        while self.client.connection_state() == State::Connected {
            for _ in 0..markers {
                self.client.publish(subject.clone(), Bytes::new()).await?;
            }
            loop {
                match tokio::time::timeout(SILENCE, self.subscriber.next()).await {
                    Ok(Some(message)) => arrived.push(message),
                    Ok(None) => return Ok(()),
                    Err(_) => break,
                }
            }
            markers = MARKERS.min(markers * 2);
        }
        Ok(())
    }

    /// Stops listening at once: another member is to get whatever is on its way.
    pub async fn abandon(mut self) {
        if let Err(error) = self.subscriber.unsubscribe().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to unsubscribe"
            );
        }
    }
}
