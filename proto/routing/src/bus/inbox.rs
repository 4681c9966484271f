//! One subscription for all answers, shared out to those who wait for them: a subscription for
//! every request would cost two more messages each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{Client, Message, StatusCode};
use futures_util::StreamExt;
use proto::{message::Frame, wire};
use tokio::sync::mpsc;

use super::BusError;

/// Frames that wait for one caller. A caller that is slower loses its inbox and hears of the gap.
const FRAMES: usize = 64;

/// What arrives in an inbox.
#[derive(Debug)]
pub enum Arrival {
    /// A frame, in order.
    Frame(Frame),
    /// Nobody listens at the subject.
    Nobody,
    /// A frame is missing or is none: what comes after cannot be trusted.
    Gap,
}

type Open = Arc<Mutex<HashMap<u64, mpsc::Sender<Message>>>>;

/// All inboxes of this process.
#[derive(Clone, Debug)]
pub struct Inboxes {
    prefix: Arc<str>,
    next: Arc<AtomicU64>,
    open: Open,
}

/// One caller's inbox; closed when dropped.
#[derive(Debug)]
pub struct Inbox {
    inboxes: Inboxes,
    number: u64,
    messages: mpsc::Receiver<Message>,
    expected: u32,
}

impl Inboxes {
    pub(super) async fn open(client: &Client, prefix: &str) -> Result<Self, BusError> {
        let inboxes = Self::below(prefix);
        let subscribed = client.subscribe(inboxes.wildcard()).await;
        let mut messages = subscribed.map_err(|error| BusError::Send(Box::new(error)))?;
        let delivering = inboxes.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                delivering.deliver(message);
            }
        });
        Ok(inboxes)
    }

    /// Inboxes whose subjects begin so. Whoever makes them delivers what arrives at [`Self::wildcard`].
    #[must_use]
    pub fn below(prefix: &str) -> Self {
        Self {
            prefix: format!("{prefix}.r").into(),
            next: Arc::default(),
            open: Open::default(),
        }
    }

    /// The subject of all of them.
    #[must_use]
    pub fn wildcard(&self) -> String {
        format!("{}.*", self.prefix)
    }

    /// Puts a message into its inbox. One that is for none is dropped.
    pub fn deliver(&self, message: Message) {
        let number = message.subject.rsplit('.').next();
        let Some(number) = number.and_then(|token| token.parse().ok()) else {
            return;
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = open.get(&number) else {
            return;
        };
        if sender.try_send(message).is_err() {
            open.remove(&number);
        }
    }

    /// A new inbox.
    #[must_use]
    pub fn open_one(&self) -> Inbox {
        let (sender, messages) = mpsc::channel(FRAMES);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, sender);
        Inbox {
            inboxes: self.clone(),
            number,
            messages,
            expected: 0,
        }
    }
}

impl Inbox {
    /// Where its messages go.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{}.{}", self.inboxes.prefix, self.number)
    }

    /// The next arrival.
    pub async fn next(&mut self) -> Arrival {
        let Some(message) = self.messages.recv().await else {
            return Arrival::Gap;
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Arrival::Nobody;
        }
        match wire::decode::<Frame>(&message.payload) {
            Ok(frame) if frame.n == self.expected => {
                self.expected += 1;
                Arrival::Frame(frame)
            }
            _ => Arrival::Gap,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut open = self
            .inboxes
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.number);
    }
}
