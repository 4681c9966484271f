//! Between the bus and a caller who reads the output of an execution as it happens. What may be on its way
//! is bounded by the worker, which sends no more than a window; the room that the caller made is told back.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use proto::{
    execution::Output,
    id::OperationId,
    limits::{STREAM_WINDOW_BYTES, STREAM_WINDOW_FRAMES},
    message::{Job, Request},
    subject, wire,
};
use tokio::sync::{Notify, mpsc};

use crate::bus::Bus;

/// Events that may wait for the caller: the window, the beginning, and what was given up.
const EVENTS: usize = STREAM_WINDOW_FRAMES + 8;

/// What a caller reads.
#[derive(Debug)]
pub enum Event {
    /// A worker has the execution.
    Started,
    /// The code showed something.
    Output(Output),
}

/// The side of the bus. Dropped when the answer is there, it ends the events.
#[derive(Debug)]
pub struct Reader {
    events: mpsc::Sender<Event>,
    taken: Arc<Taken>,
    started: AtomicBool,
}

/// The side of the caller.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    taken: Arc<Taken>,
}

/// What the caller took and the worker was not told of.
#[derive(Debug, Default)]
struct Taken {
    /// Frames, and what they cost.
    count: Mutex<(usize, usize)>,
    much: Notify,
}

/// Both sides.
#[must_use]
pub fn reader() -> (Reader, Events) {
    let (sender, receiver) = mpsc::channel(EVENTS);
    let taken = Arc::<Taken>::default();
    let reader = Reader {
        events: sender,
        taken: taken.clone(),
        started: AtomicBool::new(false),
    };
    let events = Events {
        events: receiver,
        taken,
    };
    (reader, events)
}

impl Reader {
    /// A worker has the execution; told once. Never waits.
    pub fn started(&self) {
        if !self.started.swap(true, Ordering::Relaxed) {
            self.give(Event::Started);
        }
    }

    /// The code showed something. Never waits.
    pub fn output(&self, output: Output) {
        self.give(Event::Output(output));
    }

    fn give(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            tracing::error!("a worker sends more of a stream than its window");
        }
    }

    /// Tells the owner of the job's session what the caller took, for as long as it is polled.
    pub async fn give_credit(&self, bus: &Bus, job: &Job) -> Infallible {
        loop {
            let (frames, bytes) = self.taken.much().await;
            let request = Request::Credit {
                target: job.operation.clone(),
                frames: u32::try_from(frames).unwrap_or(u32::MAX),
                bytes: bytes as u64,
            };
            let credit = Job {
                v: request.version(),
                operation: OperationId::from_ulid(bus.ids().next()),
                sealed: None,
                budget_ms: 0,
                request,
                ..job.clone()
            };
            let subject = subject::session(&job.pool, &job.session, credit.request.verb());
            let Ok(payload) = wire::encode(&credit) else {
                continue;
            };
            // Nobody answers. What is not told is made up for by the end of the stream.
            if let Err(error) = bus.send(subject, payload.into()).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "credit not sent");
            }
        }
    }
}

impl Events {
    /// The next event; `None` when there is none any more. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await?;
        if let Event::Output(output) = &event {
            self.taken.add(output.cost());
        }
        Some(event)
    }
}

impl Taken {
    fn add(&self, cost: usize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = (count.0 + 1, count.1 + cost);
        if is_much(*count) {
            self.much.notify_one();
        }
    }

    /// Waits until it is worth a message.
    async fn much(&self) -> (usize, usize) {
        loop {
            {
                let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
                if is_much(*count) {
                    return std::mem::take(&mut *count);
                }
            }
            self.much.notified().await;
        }
    }
}

/// What is never told is less than this, so the worker always has room for a frame.
fn is_much((frames, bytes): (usize, usize)) -> bool {
    frames >= STREAM_WINDOW_FRAMES / 4 || bytes >= STREAM_WINDOW_BYTES / 4
}
