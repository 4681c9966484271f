//! The worker's connection to NATS: jobs come in, frames go out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subject};
use proto::{
    fault::Fault,
    id::{Epoch, WorkerId},
    limits,
    message::{Answer, Frame, FrameBody},
    subject, wire,
};
use routing::bus::Connected;
use tokio::time::Instant;

use crate::{config::NatsAuth, outlet::Outlet};

/// Oldest server that works: per-key TTL, limit markers and a fix for false 503s across nodes
/// (nats-server #8233).
const OLDEST_SERVER: (i64, i64, i64) = (2, 14, 2);
/// Messages that wait for one subscriber; more are dropped by the client library.
const SUBSCRIPTION_CAPACITY: usize = 1024;
/// Beat of the clock that notices when this process stood still.
const TICK: Duration = Duration::from_millis(100);
/// A tick that is this late means that others may have acted meanwhile.
const LATE: Duration = Duration::from_millis(400);

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answered, or it refused the credentials.
    #[error("NATS cannot be reached")]
    Connect(#[from] async_nats::ConnectError),
    /// The server lacks what ownership needs.
    #[error("NATS {0} is too old; 2.14.2 or newer is needed")]
    TooOld(String),
}

/// Counts the occasions after which an owner cannot be sure to still be one: every reconnect and
/// every time the process stood still. Whoever answers compares the count with the one at which it
/// last made sure.
#[derive(Clone, Debug, Default)]
pub struct Doubt {
    count: Arc<AtomicU64>,
    connected: Connected,
}

impl Doubt {
    /// The count now.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// When this process last connected.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.connected.clone()
    }

    fn raise(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Watches the clock for ever.
    pub async fn watch_clock(self) {
        loop {
            let before = Instant::now();
            tokio::time::sleep(TICK).await;
            if before.elapsed() > TICK + LATE {
                tracing::warn!(
                    late_ms = before.elapsed().as_millis(),
                    "this process stood still"
                );
                self.raise();
            }
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
) -> Result<(Client, Doubt), ConnectError> {
    let doubt = Doubt::default();
    let raised = doubt.clone();
    let client = ConnectOptions::with_user_and_password(auth.user, auth.password)
        .name(worker)
        .custom_inbox_prefix(subject::worker_inbox(worker))
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(Duration::from_secs(5)))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .max_reconnects(None)
        .reconnect_delay_callback(|tries| {
            Duration::from_millis(20 * u64::try_from(tries).unwrap_or(25).min(25))
        })
        .event_callback(move |event| {
            note(&event, &raised);
            async {}
        })
        .connect(servers)
        .await?;
    let (major, minor, patch) = OLDEST_SERVER;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(ConnectError::TooOld(client.server_info().version));
    }
    Ok((client, doubt))
}

fn note(event: &Event, doubt: &Doubt) {
    match event {
        Event::Connected => {
            doubt.connected.renew();
            doubt.raise();
            tracing::info!("connected to NATS");
        }
        Event::Disconnected | Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::warn!(%event, "NATS connection");
        }
        // Denied permissions arrive only here.
        Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => {
            tracing::error!(%event, "NATS connection");
        }
    }
}

/// The way back to whoever sent a job.
#[derive(Debug)]
pub struct Responder {
    client: Client,
    inbox: Subject,
    epoch: Epoch,
    next: u32,
    asked: Instant,
    /// Output that it sends as it comes.
    outlet: Option<Arc<Outlet>>,
}

impl Responder {
    /// Answers on `inbox`, with no epoch yet.
    #[must_use]
    pub fn new(client: Client, inbox: Subject) -> Self {
        Self {
            client,
            inbox,
            epoch: Epoch::default(),
            next: 0,
            asked: Instant::now(),
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

    /// Says that the work goes on. After [`limits::ANSWERS_WITHIN`] the bus would not carry it, and
    /// whoever hears nothing asks again.
    pub async fn heartbeat(&mut self) {
        if self.asked.elapsed() < limits::ANSWERS_WITHIN {
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
        let frame = Frame {
            epoch: self.epoch,
            n: self.next,
            body,
        };
        self.next += 1;
        let sent = match wire::encode(&frame) {
            Ok(bytes) => self.client.publish(self.inbox.clone(), bytes.into()).await,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "frame not encoded"
                );
                return;
            }
        };
        // The sender hears silence and says that the execution is lost.
        if let Err(error) = sent {
            tracing::error!(error = &error as &dyn std::error::Error, "frame not sent");
        }
    }
}
