//! The worker's connection to NATS: jobs come in, frames go out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, PublishError, ServerAddr, Subject, connection::State};
use async_trait::async_trait;
use bytes::Bytes;
use proto::{
    fault::Fault,
    id::{Epoch, WorkerId},
    limits,
    message::{Answer, Frame, FrameBody},
    subject, wire,
};
use routing::bus::{
    ConnectError, Connected, NatsAuth,
    connect::{self, Link, Peer},
};
use tokio::time::Instant;

use crate::outlet::Outlet;

/// Messages that wait for one subscriber; more are dropped by the client library.
const SUBSCRIPTION_CAPACITY: usize = 1024;
/// Beat of the clock that notices when this process stood still.
const TICK: Duration = Duration::from_millis(100);
/// So long without a tick means that others may have acted meanwhile.
const STANDSTILL_MS: u64 = 500;

/// Counts the occasions after which an owner cannot be sure to still be one: every loss and return
/// of the connection, every time the process stood still. Whoever answers compares the count with the one at which it last made sure.
#[derive(Clone, Debug)]
pub struct Interruptions {
    count: Arc<AtomicU64>,
    connected: Connected,
    begun: Instant,
    /// When the process was last seen to run, in milliseconds since it began.
    ticked_ms: Arc<AtomicU64>,
}

impl Default for Interruptions {
    fn default() -> Self {
        Self {
            count: Arc::default(),
            connected: Connected::default(),
            begun: Instant::now(),
            ticked_ms: Arc::default(),
        }
    }
}

impl Interruptions {
    /// The count now. After a standstill it is higher even for the first who asks.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.tick();
        self.count.load(Ordering::Acquire)
    }

    /// When this process last connected.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.connected.clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The connection was lost, or made anew.
    pub fn note(&self, link: Link) {
        self.connected.note(link);
        self.raise();
    }

    /// One occasion more.
    fn raise(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that this process runs.
    fn tick(&self) {
        let now = self.now_ms();
        let still = now.saturating_sub(self.ticked_ms.load(Ordering::Acquire));
        if still > STANDSTILL_MS {
            tracing::warn!(still_ms = still, "this process stood still");
            // Before anybody can see that it runs again.
            self.raise();
        }
        self.ticked_ms.fetch_max(now, Ordering::AcqRel);
    }

    /// Watches the clock for ever.
    pub async fn watch_clock(self) {
        // Nobody owned anything before.
        self.ticked_ms.fetch_max(self.now_ms(), Ordering::AcqRel);
        loop {
            tokio::time::sleep(TICK).await;
            self.tick();
        }
    }
}

/// Connects as a worker.
///
/// # Errors
/// No server can be reached, or it is too old.
pub async fn connect(
    servers: &[ServerAddr],
    auth: NatsAuth,
    worker: &WorkerId,
) -> Result<(Client, Interruptions), ConnectError> {
    let interruptions = Interruptions::default();
    let raised = interruptions.clone();
    let peer = Peer {
        name: worker.to_string(),
        inbox_prefix: subject::worker_inbox(worker),
        subscription_capacity: SUBSCRIPTION_CAPACITY,
    };
    let changed = move |link| raised.note(link);
    let client = connect::connect(servers, auth, peer, changed).await?;
    Ok((client, interruptions))
}

/// Where frames go out.
#[async_trait]
pub trait Outbox: std::fmt::Debug + Send + Sync {
    /// Sends a frame to whoever listens at `inbox`.
    ///
    /// # Errors
    /// The connection is closed for good.
    async fn send(&self, inbox: Subject, frame: Bytes) -> Result<(), PublishError>;
    /// Whether what is sent leaves at once.
    fn is_connected(&self) -> bool;
}

#[async_trait]
impl Outbox for Client {
    async fn send(&self, inbox: Subject, frame: Bytes) -> Result<(), PublishError> {
        self.publish(inbox, frame).await
    }

    fn is_connected(&self) -> bool {
        self.connection_state() == State::Connected
    }
}

/// The way back to whoever sent a job.
#[derive(Debug)]
pub struct Responder {
    outbox: Arc<dyn Outbox>,
    inbox: Subject,
    epoch: Epoch,
    next: u32,
    asked: Instant,
    /// Whether the job was taken and its sender does not know yet.
    owes_acceptance: bool,
    /// Output that it sends as it comes.
    outlet: Option<Arc<Outlet>>,
}

impl Responder {
    /// Answers on `inbox`, with no epoch yet.
    #[must_use]
    pub fn new(outbox: Arc<dyn Outbox>, inbox: Subject) -> Self {
        Self {
            outbox,
            inbox,
            epoch: Epoch::default(),
            next: 0,
            asked: Instant::now(),
            owes_acceptance: false,
            outlet: None,
        }
    }

    /// Speaks for an owner from here on.
    pub fn as_owner(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Says that the job is in this owner's hands.
    pub async fn accept(&mut self) {
        self.send(FrameBody::Accepted).await;
    }

    /// Takes the job, and leaves it to the answer to say so: most come sooner than the next frame would.
    /// Whoever calls this sees to a [`Self::heartbeat`] within [`limits::ACCEPT_AFTER`].
    pub fn accept_soon(&mut self) {
        self.owes_acceptance = true;
    }

    /// How long until it must speak, if there is no answer before.
    #[must_use]
    pub fn speaks_within(&self) -> Duration {
        match self.owes_acceptance {
            true => limits::ACCEPT_AFTER.saturating_sub(self.asked.elapsed()),
            false => limits::HEARTBEAT,
        }
    }

    /// Says that the work goes on. After [`limits::ANSWERS_WITHIN`] the bus would not carry it, and
    /// whoever hears nothing asks again. Without a connection it would only wait, together with many more.
    /// An acceptance that is owed goes out instead, in any case.
    pub async fn heartbeat(&mut self) {
        if self.owes_acceptance {
            return self.accept().await;
        }
        if self.outbox.is_connected() && self.asked.elapsed() < limits::ANSWERS_WITHIN {
            self.send(FrameBody::Heartbeat).await;
        }
    }

    /// Sends output as well: what is put into the outlet that this returns.
    pub fn stream(&mut self) -> Arc<Outlet> {
        self.outlet.get_or_insert_default().clone()
    }

    /// Sends no output.
    pub fn no_stream(&mut self) {
        self.outlet = None;
    }

    /// Whether it sends output.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.outlet.is_some()
    }

    /// Sends the output that its reader has room for.
    pub async fn pump(&mut self) {
        while let Some(output) = self.outlet.as_ref().and_then(|outlet| outlet.take()) {
            self.send(FrameBody::Output(output)).await;
        }
    }

    /// Sends the rest of the output, as long as its reader takes it.
    pub async fn pump_out(&mut self) {
        let Some(outlet) = self.outlet.clone() else {
            return;
        };
        self.pump().await;
        while !outlet.is_empty() {
            let ready = tokio::time::timeout(limits::STREAM_LINGER, outlet.ready());
            if ready.await.is_err() {
                return;
            }
            self.pump().await;
        }
    }

    /// Says how the job ended, and what of its output nobody took.
    pub async fn finish(mut self, answer: Result<Answer, Fault>) {
        if let Some(lost) = self.outlet.take().and_then(|outlet| outlet.give_up()) {
            self.send(FrameBody::Output(lost)).await;
        }
        let body = match answer {
            Ok(answer) => FrameBody::Done(answer),
            Err(fault) => FrameBody::Failed(fault),
        };
        self.send(body).await;
    }

    async fn send(&mut self, body: FrameBody) {
        // An answer says it, too. A failure does not: without acceptance it may mean "ask another".
        if std::mem::take(&mut self.owes_acceptance)
            && !matches!(body, FrameBody::Accepted | FrameBody::Done(_))
        {
            self.publish(FrameBody::Accepted).await;
        }
        self.publish(body).await;
    }

    async fn publish(&mut self, body: FrameBody) {
        let frame = Frame {
            epoch: self.epoch,
            n: self.next,
            body,
        };
        self.next += 1;
        let sent = match wire::encode(&frame) {
            Ok(bytes) => self.outbox.send(self.inbox.clone(), bytes.into()).await,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to encode a frame"
                );
                return;
            }
        };
        // The sender hears silence and says that the execution is lost.
        if let Err(error) = sent {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to send a frame"
            );
        }
    }
}

/// Does `work` while telling those who wait that it goes on.
pub async fn with_heartbeats<T>(waiting: &mut [Responder], work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let first = waiting.iter().map(Responder::speaks_within).min();
    let mut beat = tokio::time::interval(limits::HEARTBEAT);
    beat.reset_after(first.unwrap_or(limits::HEARTBEAT));
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = beat.tick() => for responder in &mut *waiting {
                responder.heartbeat().await;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_standstill_even_the_first_who_asks_is_in_doubt() {
        let interruptions = Interruptions::default();
        let sure = interruptions.count();
        tokio::time::advance(Duration::from_millis(STANDSTILL_MS)).await;
        assert_eq!(interruptions.count(), sure, "a late tick is no standstill");
        tokio::time::advance(Duration::from_millis(STANDSTILL_MS + 1)).await;
        let doubtful = interruptions.count();
        assert!(doubtful > sure);
        assert_eq!(
            interruptions.count(),
            doubtful,
            "one standstill is one interruptions"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_watched_raises_no_doubt() {
        let interruptions = Interruptions::default();
        let watching = tokio::spawn(interruptions.clone().watch_clock());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(interruptions.count(), 0);
        watching.abort();
    }
}
