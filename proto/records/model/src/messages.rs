//! Messages between processes, as core NATS carries them: at most once, in order, to whoever listens at the moment.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use proto::ambient::Random;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::model::lock;

pub mod suite;

/// What carries messages. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Exchange(Arc<Mutex<Switch>>);

/// Who listens where.
#[derive(Debug, Default)]
struct Switch {
    listening: Vec<Listening>,
    next: u64,
    /// How often a group was asked to choose one of its members: they take turns.
    chosen: usize,
}

#[derive(Debug)]
struct Listening {
    number: u64,
    process: Arc<Process>,
    subject: String,
    group: Option<String>,
    way: mpsc::UnboundedSender<Carried>,
    /// When the last message arrives that is on its way: none overtakes another.
    last: Instant,
}

/// A message on its way.
#[derive(Debug)]
struct Carried {
    arrives: Instant,
    connection: u64,
    message: Message,
}

/// How often a message of a thousand is lost, and how long its way is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageChances {
    /// It never arrives.
    pub lost: u64,
    /// It takes longer, and so do those behind it.
    pub late: u64,
    /// Most that it takes longer.
    pub latest: Duration,
    /// The longest that others are on their way.
    pub slowest: Duration,
}

/// How a process is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Up,
    /// Nobody hears it, and it hears nobody.
    Cut,
    /// It stands still, and what is sent to it waits.
    Still,
}

#[derive(Debug)]
struct Process {
    line: watch::Sender<Line>,
    /// Rises when the connection is cut: what was on its way over an older one is lost.
    connection: AtomicU64,
    outgoing: Mutex<Vec<Outgoing>>,
    random: Random,
    chances: Mutex<MessageChances>,
}

#[derive(Debug)]
struct Outgoing {
    subject: String,
    reply: Option<String>,
    payload: Bytes,
}

/// One process's end of the exchange. Clones are the same.
#[derive(Clone, Debug)]
pub struct Endpoint {
    exchange: Exchange,
    process: Arc<Process>,
}

/// What arrives at a subject. Dropped, it stops listening.
#[derive(Debug)]
pub struct Subscription {
    exchange: Exchange,
    number: u64,
    arrived: mpsc::UnboundedReceiver<Message>,
}

impl Exchange {
    /// Connects a process. What becomes of its messages comes from the seed, once it has
    /// [`Endpoint::chances`] of anything.
    #[must_use]
    pub fn connect(&self, seed: u64) -> Endpoint {
        let process = Process {
            line: watch::Sender::new(Line::Up),
            connection: AtomicU64::new(1),
            outgoing: Mutex::default(),
            random: Random::seeded(seed),
            chances: Mutex::default(),
        };
        Endpoint {
            exchange: self.clone(),
            process: Arc::new(process),
        }
    }

    /// Carries a message to everybody who listens alone and to one of each group.
    fn carry(&self, sender: &Process, outgoing: Outgoing) {
        let mut switch = lock(&self.0);
        let to = switch.receivers(&outgoing.subject);
        if to.is_empty() {
            if let Some(reply) = outgoing.reply {
                let nobody = message(reply, None, Bytes::new(), Some(StatusCode::NO_RESPONDERS));
                for receiver in switch.receivers(&nobody.subject) {
                    switch.send(sender, receiver, nobody.clone());
                }
            }
            return;
        }
        let Outgoing {
            subject,
            reply,
            payload,
        } = outgoing;
        let message = message(subject, reply, payload, None);
        for receiver in to {
            switch.send(sender, receiver, message.clone());
        }
    }
}

impl Switch {
    /// Places of those who get a message at this subject.
    fn receivers(&mut self, subject: &str) -> Vec<usize> {
        let reached = |listening: &&(usize, &Listening)| {
            let (_, listening) = *listening;
            *listening.process.line.borrow() != Line::Cut && matches(&listening.subject, subject)
        };
        let all: Vec<_> = self.listening.iter().enumerate().collect();
        let all: Vec<_> = all.iter().filter(reached).collect();
        let mut to = vec![];
        let mut groups: Vec<(&str, Vec<usize>)> = vec![];
        for (place, listening) in all {
            let Some(group) = &listening.group else {
                to.push(*place);
                continue;
            };
            match groups.iter_mut().find(|(known, _)| known == group) {
                Some((_, members)) => members.push(*place),
                None => groups.push((group, vec![*place])),
            }
        }
        for (_, members) in groups {
            self.chosen += 1;
            let turn = self.chosen.checked_rem(members.len()).unwrap_or(0);
            to.extend(members.get(turn));
        }
        to
    }

    fn send(&mut self, sender: &Process, receiver: usize, message: Message) {
        let Some(receiver) = self.listening.get_mut(receiver) else {
            return;
        };
        let ways = [sender, &receiver.process].map(Process::way);
        let [Some(there), Some(back)] = ways else {
            return;
        };
        let arrives = (Instant::now() + there + back).max(receiver.last);
        receiver.last = arrives;
        let carried = Carried {
            arrives,
            connection: receiver.process.connection.load(Ordering::Acquire),
            message,
        };
        // Whoever does not listen any more gets nothing.
        drop(receiver.way.send(carried));
    }
}

impl Process {
    /// How long a message takes between it and the servers; `None` if it is lost.
    fn way(&self) -> Option<Duration> {
        let MessageChances {
            lost,
            late,
            latest,
            slowest,
        } = *lock(&self.chances);
        let drawn = self.random.below(1000);
        let upto = |most: Duration| {
            let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
            Duration::from_micros(self.random.below(most.saturating_add(1)))
        };
        match drawn {
            _ if drawn < lost => None,
            _ if drawn < lost + late => Some(upto(latest)),
            _ => Some(upto(slowest)),
        }
    }
}

impl Endpoint {
    /// From here on the seed decides with these chances what becomes of messages from and to this process.
    pub fn chances(&self, chances: MessageChances) {
        *lock(&self.process.chances) = chances;
    }

    /// Whether what it sends leaves at once.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.process.line.borrow() != Line::Cut
    }

    /// Cuts its connection: the servers notice at once. What is on its way to it is lost, and what it sends
    /// waits, as the client library has it.
    pub fn cut(&self) {
        self.process.connection.fetch_add(1, Ordering::AcqRel);
        self.process.line.send_replace(Line::Cut);
    }

    /// Has it stand still: to the servers it is still there. What is sent to it, and what it sends, waits.
    pub fn stop(&self) {
        self.process.line.send_replace(Line::Still);
    }

    /// It is connected, or goes on, and sends what waited.
    pub fn go_on(&self) {
        self.process.line.send_replace(Line::Up);
        for outgoing in std::mem::take(&mut *lock(&self.process.outgoing)) {
            self.exchange.carry(&self.process, outgoing);
        }
    }

    /// Listens at a subject, alone or as one of a group.
    #[must_use]
    pub fn subscribe(&self, subject: &str, group: Option<&str>) -> Subscription {
        let (way, carried) = mpsc::unbounded_channel();
        let (arrives, arrived) = mpsc::unbounded_channel();
        tokio::spawn(deliver(self.process.clone(), carried, arrives));
        let mut switch = lock(&self.exchange.0);
        switch.next += 1;
        let number = switch.next;
        switch.listening.push(Listening {
            number,
            process: self.process.clone(),
            subject: subject.to_owned(),
            group: group.map(str::to_owned),
            way,
            last: Instant::now(),
        });
        Subscription {
            exchange: self.exchange.clone(),
            number,
            arrived,
        }
    }

    /// Sends a message. Whoever gets it may answer at `reply`; so do the servers if nobody listens.
    pub fn publish(&self, subject: String, reply: Option<String>, payload: Bytes) {
        let outgoing = Outgoing {
            subject,
            reply,
            payload,
        };
        let line = *self.process.line.borrow();
        match line {
            Line::Up => self.exchange.carry(&self.process, outgoing),
            Line::Cut | Line::Still => lock(&self.process.outgoing).push(outgoing),
        }
    }
}

/// Brings what is on its way to where it is taken from.
async fn deliver(
    process: Arc<Process>,
    mut carried: mpsc::UnboundedReceiver<Carried>,
    arrives: mpsc::UnboundedSender<Message>,
) {
    let mut line = process.line.subscribe();
    while let Some(next) = carried.recv().await {
        sleep_until(next.arrives).await;
        let moves = line.wait_for(|line| *line != Line::Still).await.is_ok();
        let is_whole = process.connection.load(Ordering::Acquire) == next.connection;
        if moves && is_whole && arrives.send(next.message).is_err() {
            return;
        }
    }
}

impl Subscription {
    /// What arrives.
    pub fn arrived(&mut self) -> &mut mpsc::UnboundedReceiver<Message> {
        &mut self.arrived
    }

    /// Stops listening; what is on its way still arrives, and then nothing more.
    pub fn unsubscribe(&self) {
        let mut switch = lock(&self.exchange.0);
        switch
            .listening
            .retain(|listening| listening.number != self.number);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}

fn message(
    subject: String,
    reply: Option<String>,
    payload: Bytes,
    status: Option<StatusCode>,
) -> Message {
    Message {
        length: subject.len() + payload.len(),
        subject: subject.into(),
        reply: reply.map(Into::into),
        payload,
        headers: None,
        status,
        description: None,
    }
}

/// Whether a subject is one of those that a pattern stands for.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}
