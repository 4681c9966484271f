//! Ingresses and the callers behind them: jobs go the real way, and what callers hear is noted.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use loadtest::chaos::history::{Action, Answer};
use proto::{
    ambient::{Ids, Random},
    blob::Blob,
    execution::{Ending, Language, Outcome},
    fault::{Fault, FaultCode},
    fleet::PoolDigest,
    id::{ClusterKey, OperationId, PoolId, SessionKey, WorkerId},
    lease::WorkerBeat,
    message::{self, Carried, Job, Request},
    pool::Pool,
    record::{BodyDigest, ExecutionRecord, RecordKey, RecordRef, Stamp},
    subject, wire,
};
use records::{
    cas::RecordBus,
    execution::{Executions, Found, Put, Stamps},
    fleet::{Standing, State},
};
use records_model::{
    Chances, Change, Connection, Model,
    messages::{Endpoint, MessageChances},
};
use routing::{
    bus::{
        BusError,
        inbox::{Inbox, Inboxes},
        port::RouteBus,
    },
    placement::LeaseView,
    route::{
        Missing, RouteError,
        once::{OnceError, route_once},
        route,
    },
    served::Served,
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::{
    World,
    seen::{Asked, Seen},
};

/// By how much a server that is asked for a hint may be behind.
const BEHIND: Duration = Duration::from_millis(400);
/// How long callers wait for an execution with a name before they ask again.
const WAIT: Duration = Duration::from_secs(100);
/// How often a caller asks for an execution with a name.
const TRIES: usize = 4;

/// An ingress.
#[derive(Clone, Debug)]
pub(super) struct Ingress(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    number: usize,
    pool: Pool,
    bus: Model,
    messages: Endpoint,
    records: Arc<Connection>,
    stamps: Stamps,
    executions: Executions,
    inboxes: Inboxes,
    standing: Standing,
    since: Mutex<Instant>,
    chance: Random,
}

impl Ingress {
    pub(super) fn start(world: &World, number: usize) -> Self {
        let seed = || world.chance.next();
        let (messages, records) = (world.exchange.connect(seed()), world.bus.connect(seed()));
        messages.chances(world.chances.messages);
        records.chances(world.chances.records);
        let inboxes = Inboxes::below(&subject::ingress_inbox(&number.to_string()));
        let (mut arriving, delivering) = (
            messages.subscribe(&inboxes.wildcard(), None),
            inboxes.clone(),
        );
        tokio::spawn(async move {
            while let Some(message) = arriving.arrived().recv().await {
                delivering.deliver(message);
            }
        });
        let stamps = Stamps {
            ids: Ids::seeded(seed()),
            clock: world.bus.wall_clock(),
        };
        let standing = Standing::default();
        standing.set(State::Sound);
        Self(Arc::new(Parts {
            number,
            pool: world.pool.clone(),
            bus: world.bus.clone(),
            messages,
            executions: Executions::over(records.clone(), stamps.clone()),
            stamps,
            records,
            inboxes,
            standing,
            since: Mutex::new(Instant::now()),
            chance: Random::seeded(seed()),
        }))
    }

    /// Its connection to the bus is lost.
    pub(super) fn cut(&self) {
        self.0.records.cut();
        self.0.messages.cut();
        self.0.standing.doubt();
    }

    /// It is connected anew, and finds that the bus has what it had.
    pub(super) fn mend(&self) {
        self.0.records.mend();
        self.0.messages.go_on();
        *self.0.since.lock().unwrap() = Instant::now();
        self.0.standing.trust(self.0.standing.doubts());
    }

    /// From here on nothing goes wrong by chance.
    pub(super) fn calm(&self) {
        let Parts {
            messages, records, ..
        } = &*self.0;
        messages.chances(MessageChances::default());
        records.chances(Chances::default());
    }

    /// The record at a subject, or the one before it, if that was there a moment ago: servers that follow may be
    /// behind the one that leads.
    async fn nearest(&self, stream: &str, subject: &str) -> Result<Option<(Bytes, u64)>, BusError> {
        let last = self.0.records.last(stream, subject).await?;
        let is_new = |at: OffsetDateTime| self.0.bus.now() - at < BEHIND;
        match &last {
            Some(stored) if is_new(stored.time) && self.0.chance.below(2) == 0 => {
                let changes = self.0.bus.changes(stream).into_iter().rev();
                let mut before = changes.filter_map(|change| match change {
                    Change::Written(record) | Change::Deleted(record) | Change::Ended(record) => {
                        (record.subject == subject && record.sequence < stored.sequence)
                            .then_some(record)
                    }
                });
                Ok(before
                    .next()
                    .map(|record| (record.payload, record.sequence)))
            }
            _ => Ok(last.map(|stored| (stored.payload, stored.sequence))),
        }
    }
}

impl RouteBus for Ingress {
    fn ids(&self) -> &Ids {
        &self.0.stamps.ids
    }

    fn stamp(&self) -> Stamp {
        self.0.stamps.stamp()
    }

    async fn send(&self, subject: String, payload: Bytes) -> Result<Inbox, BusError> {
        if !self.0.messages.is_connected() {
            return Err(BusError::Down);
        }
        let inbox = self.0.inboxes.open_one();
        self.0
            .messages
            .publish(subject, Some(inbox.subject()), payload);
        Ok(inbox)
    }

    fn connected_for(&self) -> Duration {
        self.0.since.lock().unwrap().elapsed()
    }

    fn standing(&self) -> Standing {
        self.0.standing.clone()
    }

    async fn lease(&self, pool: &PoolId, session: &SessionKey) -> Result<LeaseView, BusError> {
        self.known_lease(pool, session).await
    }

    async fn known_lease(
        &self,
        pool: &PoolId,
        session: &SessionKey,
    ) -> Result<LeaseView, BusError> {
        let (stream, subject) = (subject::leases_stream(pool), subject::lease(pool, session));
        let found = self.nearest(&stream, &subject).await?;
        Ok(found.map_or(LeaseView::None, |(payload, revision)| {
            LeaseView::Held(wire::decode(&payload).unwrap(), revision)
        }))
    }

    async fn worker(&self, worker: &WorkerId) -> Result<Option<WorkerBeat>, BusError> {
        let found = self
            .nearest(subject::WORKERS_STREAM, &subject::worker(worker))
            .await?;
        Ok(found.map(|(payload, _)| wire::decode(&payload).unwrap()))
    }

    async fn served(&self, _: &PoolId) -> Served {
        Served::Same
    }

    fn pool_digest(&self, _: &PoolId) -> Option<PoolDigest> {
        Some(self.0.pool.digest())
    }

    async fn execution(&self, subject: &str) -> Result<Found, BusError> {
        let found = self.nearest(subject::EXECUTIONS_STREAM, subject).await?;
        Ok(found.map(|(payload, revision)| (wire::decode(&payload).unwrap(), revision)))
    }

    async fn read_execution(&self, subject: &str) -> Result<Found, BusError> {
        Ok(self.0.executions.read(subject).await?)
    }

    async fn write_execution(
        &self,
        subject: &str,
        record: &ExecutionRecord,
        expected: u64,
    ) -> Result<Put, BusError> {
        Ok(self.0.executions.put(subject, record, expected).await?)
    }
}

/// Someone who uses one session, and asks one thing after the other.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) key: SessionKey,
    pub(super) ingresses: Vec<Ingress>,
    pub(super) seen: Arc<Seen>,
    pub(super) cluster: ClusterKey,
    pub(super) chance: Random,
}

impl Caller {
    /// Uses the session until this moment.
    pub(super) async fn work_until(&self, end: Instant) {
        while Instant::now() < end {
            let pause = match self.chance.below(8) {
                0 => self.chance.below(20_000),
                _ => self.chance.below(1500),
            };
            sleep(Duration::from_millis(pause)).await;
            let number = self.seen.number();
            let action = match self.chance.below(4) {
                0 => Action::Peek,
                _ => Action::Append(number),
            };
            match self.chance.below(5) {
                0..2 => drop(self.ask(action, number, None, false).await),
                _ => self.insist(action, number).await,
            }
        }
    }

    /// Asks for an execution with a name until its end is known, or not for much longer.
    async fn insist(&self, action: Action, number: u32) {
        for _ in 0..TRIES {
            let answer = self.ask(action.clone(), number, Some(WAIT), false).await;
            let is_final = match &answer {
                Answer::Refused(500, code) => code == "ExecutionLost" || code == "Fenced",
                Answer::Refused(..) => false,
                Answer::Lost(_) => false,
                _ => true,
            };
            if is_final {
                return;
            }
            sleep(Duration::from_millis(self.chance.below(3000))).await;
        }
    }

    /// Looks at what is left, now that all has recovered.
    pub(super) async fn looks_at_the_end(&self) {
        self.ask(Action::Peek, self.seen.number(), None, true).await;
    }

    /// Asks once; with a name it is for an execution that has a record.
    async fn ask(
        &self,
        action: Action,
        number: u32,
        named: Option<Duration>,
        last: bool,
    ) -> Answer {
        let place = usize::try_from(self.chance.below(self.ingresses.len() as u64)).unwrap();
        let ingress = &self.ingresses[place];
        let id: OperationId = format!("op-{number}").parse().unwrap();
        let code = match action {
            Action::Append(number) => format!("{id} {number}"),
            _ => id.to_string(),
        };
        let call = self.seen.asks(Asked {
            session: &self.name,
            ingress: ingress.0.number,
            operation: number,
            action,
            id: &id,
            last,
        });
        let job = self.job(ingress, &id, code.as_bytes());
        let heard = match named {
            None => {
                let routed = route(ingress, &job, Missing::Allocate, None).await;
                routed.map_err(|error| refusal(&error))
            }
            Some(wait) => {
                let record = self.record(ingress, &id, code.as_bytes());
                let routed = route_once(ingress, job, record, wait, None).await;
                routed.map_err(|error| refusal_of_named(&error))
            }
        };
        let answer = heard.map_or_else(|refused| refused, |answer| shown(&answer));
        self.seen.hears(call, answer.clone());
        answer
    }

    fn job(&self, ingress: &Ingress, id: &OperationId, code: &[u8]) -> Job {
        let request = Request::Execute {
            code: Blob::Inline(code.to_vec()),
            timeout_ms: 60_000,
            record: None,
            language: Language::Python,
            extension: None,
            stream: false,
        };
        Job {
            v: request.version(),
            operation: id.clone(),
            pool: ingress.0.pool.id.clone(),
            session: self.key.clone(),
            identifier: self.name.parse().unwrap(),
            sealed: None,
            trace: None,
            budget_ms: 240_000,
            request,
        }
    }

    fn record(&self, ingress: &Ingress, id: &OperationId, code: &[u8]) -> RecordRef {
        let timeout = Duration::from_secs(60);
        RecordRef {
            key: RecordKey::derive(&self.cluster, &ingress.0.pool.id, &self.key, id),
            digest: BodyDigest::derive(&self.cluster, &self.key, timeout, code),
            seen: 0,
            submission: None,
        }
    }
}

/// What an execution showed.
fn shown(answer: &message::Answer) -> Answer {
    let message::Answer::Executed(Carried::Inline(outcome)) = answer else {
        return Answer::Alien(format!("{answer:?}"));
    };
    let Outcome { ending, stdout, .. } = &**outcome;
    if *ending != Ending::Succeeded {
        return Answer::Failed(format!("{ending:?}"));
    }
    let numbers = |text: &str| {
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    };
    let (log, trail) = stdout.split_once('\n').unwrap();
    Answer::Shown {
        log: numbers(log),
        trail: numbers(trail),
    }
}

/// What a caller hears of a job without an answer, as ingress has it: only a status below 500 and "no capacity"
/// say that nothing was done.
fn refusal(error: &RouteError) -> Answer {
    match error {
        RouteError::Fault(fault) => refusal_by(fault),
        RouteError::NoCapacity | RouteError::OwnerSilent | RouteError::PoolNotServed(_) => {
            refused(503, "NoCapacity")
        }
        RouteError::Bus(_) => refused(503, "BusUnavailable"),
        RouteError::Lost { .. } => refused(500, "ExecutionLost"),
        RouteError::Unowned(_) | RouteError::Wire(_) => refused(500, "InternalError"),
    }
}

fn refusal_of_named(error: &OnceError) -> Answer {
    match error {
        OnceError::Refused(error) => refusal(error),
        OnceError::Failed(fault) => refusal_by(fault),
        OnceError::Bus(_) => refused(503, "BusUnavailable"),
        OnceError::Conflict => refused(409, "OperationConflict"),
        OnceError::Queued(_) | OnceError::Pending => refused(503, "ExecutionPending"),
    }
}

fn refusal_by(fault: &Fault) -> Answer {
    match fault.code {
        FaultCode::SessionPoolFull | FaultCode::SessionBusy => refused(429, "SessionBusy"),
        FaultCode::Busy | FaultCode::Expired | FaultCode::Refused => refused(503, "NoCapacity"),
        FaultCode::ExecutionLost => refused(500, "ExecutionLost"),
        FaultCode::Stopping => refused(409, "SessionStopped"),
        // Nothing is known of the effects.
        other => refused(500, &format!("{other:?}")),
    }
}

fn refused(status: u16, code: &str) -> Answer {
    Answer::Refused(status, code.to_owned())
}
