//! Listening on the bus as one of a queue group, and how to stop without losing a message.
//!
//! The client library forgets a subscription at once when it is told to unsubscribe, and with it
//! every message that the server had sent by then (async-nats 0.51, `Command::Unsubscribe` and
//! `Command::Drain`). A subscription that ends after a number of messages ends at the same message
//! on both sides. So whoever leaves sends to the group the messages that are missing from that number:
//! what others sent before the last of them arrives, and what they send later goes to another member
//! or meets no listener. The number must be one that the server has not reached when it hears of it,
//! or what it sent beyond is lost.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{
    Client, Message, RequestErrorKind, SubscribeError, Subscriber, connection::State,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use proto::subject;

/// Markers that are sent at once, the next only when the server has sent these on. Whoever leaves at the
/// same time has its share of them on the way to it: fewer than these, however many leave.
const MARKERS: u64 = 128;
/// How long leaving may take; without a connection it never would end.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// What arrives at a subject.
#[derive(Debug)]
pub struct Listener {
    client: Client,
    subscriber: Subscriber,
    marker: LeaveMarker,
    received: u64,
    /// Connections that the client had made when this began.
    connects: u64,
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
        let connects = connects(client);
        Ok(Self {
            connects,
            subscriber: client.queue_subscribe(subject, group.to_owned()).await?,
            client: client.clone(),
            marker,
            received: 0,
        })
    }

    /// The next message. Never returns when none can come any more.
    pub async fn next(&mut self) -> Message {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message. Pending for ever when none can come any more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        match self.subscriber.poll_next_unpin(cx) {
            Poll::Ready(Some(message)) => {
                self.received += 1;
                Poll::Ready(message)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Stops listening; returns every message that arrived until then, markers included.
    pub async fn leave(mut self) -> Vec<Message> {
        let mut arrived = vec![];
        match tokio::time::timeout(LEAVE_WITHIN, self.send_markers(&mut arrived)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = &*error, "failed to unsubscribe"),
            // The rest ends with the subscription, which is dropped here.
            Err(_) => tracing::warn!("failed to end a subscription in time"),
        }
        self.take_arrived(&mut arrived);
        arrived
    }

    /// Each member of the group gets its share of the markers, so they are sent until enough came here.
    async fn send_markers(&mut self, arrived: &mut Vec<Message>) -> Result<(), async_nats::Error> {
        // Without a connection nothing arrives, and what is sent waits for one, before whatever else must
        // be sent.
        if !self.is_connected() {
            return Ok(());
        }
        self.round_trip().await?;
        self.take_arrived(arrived);
        if connects(&self.client) != self.connects {
            // The server counts anew since then and the library does not, so the two would not end at one
            // message, and messages would go on coming to one who does not listen. Those that are on their
            // way now are lost, which is the lesser harm.
            self.subscriber.unsubscribe().await?;
            self.round_trip().await?;
            return Ok(());
        }
        let last = self.received + self.marker.on_their_way + MARKERS;
        self.subscriber.unsubscribe_after(last).await?;
        while self.is_connected() {
            for _ in 0..MARKERS {
                let subject = self.marker.subject.clone();
                self.client.publish(subject, Bytes::new()).await?;
            }
            self.round_trip().await?;
            if self.take_arrived(arrived) == Subscription::Ended {
                break;
            }
        }
        Ok(())
    }

    /// To the server and back: what it sent before has arrived then. It says at once that nobody listens.
    async fn round_trip(&self) -> Result<(), async_nats::Error> {
        match self.client.request(subject::NOBODY, Bytes::new()).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err("somebody listens where nobody does".into()),
        }
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Takes what is here, and waits for nothing.
    fn take_arrived(&mut self, arrived: &mut Vec<Message>) -> Subscription {
        // Tokio has a channel say "nothing yet" to a task that took much of it at once.
        while let Some(next) = tokio::task::unconstrained(self.subscriber.next()).now_or_never() {
            let Some(message) = next else {
                return Subscription::Ended;
            };
            self.received += 1;
            arrived.push(message);
        }
        Subscription::Open
    }

    /// Stops listening at once: another member is to get whatever comes. Returns what is here already; what is on
    /// its way is lost.
    pub async fn abandon(mut self) -> Vec<Message> {
        if let Err(error) = self.subscriber.unsubscribe().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to unsubscribe"
            );
        }
        let mut arrived = vec![];
        self.take_arrived(&mut arrived);
        arrived
    }
}

fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subscription {
    Open,
    Ended,
}
