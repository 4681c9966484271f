//! A simulated worker: everything of a real one that decides, on a machine and at a bus that the story plays.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::{Duration, SystemTime},
};

use async_nats::{Message, PublishError, Subject, SubscribeError};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::{
    ambient::{Ids, Random, WallClock},
    health::Health,
    id::WorkerId,
    lease::WorkerBeat,
    limits,
    message::{OLDEST_VERSION, VERSION},
    pool::{Pool, Pools},
    subject::{self, Readiness},
};
use records::{
    cas::RecordBus,
    execution::Stamps,
    fleet::{Standing, State},
};
use records_model::{
    Connection,
    messages::{Endpoint, Subscription},
};
use routing::bus::connect::Link;
use store::Store;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Chances, World,
    bug::Flawed,
    place::{Host, Power},
};
use crate::{
    bus::{Interruptions, Outbox, Responder},
    clock::Comparison,
    journal::Journal,
    lease::{Ledger, Replicas, beat::Heartbeat},
    listener::LeaveMarker,
    presence,
    record::Records,
    session::{
        Context, Shared,
        ports::{JobsPort, ListenPort},
        table::Note,
    },
    sweep,
    sync::Transfers,
};

/// How long a process may take to leave a group, as a real one.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two looks at a bus in doubt.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A worker. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Member {
    context: Context,
    host: Arc<Host>,
    messages: Endpoint,
    records: Arc<Connection>,
    interruptions: Interruptions,
    /// How far its clock was put forward.
    ahead: Arc<Mutex<Duration>>,
}

impl Member {
    /// Starts a worker of this run.
    pub(super) async fn start(world: &World, run: &str) -> Self {
        let worker: WorkerId = run.parse().unwrap();
        let seed = || world.chance.next();
        let (messages, records) = (world.exchange.connect(seed()), world.bus.connect(seed()));
        let objects = world.objects.connect(seed());
        let on_bus: Arc<dyn RecordBus> = match world.bug {
            Some(bug) => Arc::new(Flawed {
                inner: records.clone(),
                bug,
                worker: worker.clone(),
                own: Mutex::default(),
            }),
            None => records.clone(),
        };
        let host = Arc::new(Host {
            worker: worker.clone(),
            seen: world.seen.clone(),
            chance: Random::seeded(seed()),
            bug: world.bug,
            store: objects.clone(),
            is_calm: AtomicBool::new(false),
            state: watch::Sender::new(Power::On),
        });
        let ahead = Arc::<Mutex<Duration>>::default();
        let (right, put_forward) = (world.bus.wall_clock(), ahead.clone());
        let clock = WallClock::reading(move || -> SystemTime {
            right.now() + *put_forward.lock().unwrap()
        });
        let own = Own {
            worker,
            on_bus,
            host: host.clone(),
        };
        let context = own.context(world, &messages, objects.clone(), clock).await;
        let interruptions = context.shared.interruptions.clone();
        let member = Self {
            context,
            host,
            messages,
            records,
            interruptions,
            ahead,
        };
        member.serve(&own, &world.pool).await;
        member.chances(world.chances);
        member
    }

    fn chances(&self, chances: Chances) {
        self.messages.chances(chances.messages);
        self.records.chances(chances.records);
        self.host.store.chances(chances.objects);
    }

    /// From here on nothing goes wrong by chance.
    pub(super) fn calm(&self) {
        self.chances(Chances::default());
        self.host.is_calm.store(true, Ordering::Relaxed);
    }

    /// Listens, beats and sweeps.
    async fn serve(&self, own: &Own, pool: &Pool) {
        let ledger = own.ledger(pool).await;
        for readiness in [Readiness::Warm, Readiness::Any] {
            let listening = presence::listen(self.context.clone(), ledger.clone(), readiness);
            self.context.shared.tasks.spawn(listening);
        }
        let alive = self
            .messages
            .subscribe(&subject::worker_control(&own.worker), None);
        tokio::spawn(prove_life(alive, self.context.shared.outbox.clone()));
        let (clock, standing) = (self.context.clock.clone(), self.context.standing.clone());
        self.while_on(sweep::slots(ledger, clock, standing.clone()));
        let (beaten, beats) = watch::channel(Instant::now());
        self.while_on(beat(own.heartbeat().await, self.context.clone(), beaten));
        tokio::spawn(self.clone().end_without_beats(beats));
        self.while_on(self.interruptions.clone().watch_clock());
        self.while_on(trust(own.on_bus.clone(), standing));
    }

    /// Does something for as long as the machine is on.
    fn while_on(&self, work: impl Future<Output = ()> + Send + 'static) {
        let host = self.host.clone();
        tokio::spawn(async move { host.while_on(work).await });
    }

    /// Whatever sandboxes it has end when the fleet may believe that it is gone, and the worker with them.
    async fn end_without_beats(self, mut beats: watch::Receiver<Instant>) {
        loop {
            let last = *beats.borrow_and_update();
            tokio::select! {
                biased;
                changed = beats.changed() => if changed.is_err() { return },
                () = sleep_until(last + limits::WORKER_TTL) => return self.crash(),
            }
        }
    }

    /// Whether its machine is gone.
    pub(super) fn is_gone(&self) -> bool {
        *self.host.state.borrow() == Power::Off
    }

    /// Its machine is gone, and nothing that it was about to do happens.
    pub(super) fn crash(&self) {
        self.host.state.send_replace(Power::Off);
        self.host.store.stop();
        self.records.stop();
        self.messages.cut();
    }

    /// Its machine stands still.
    pub(super) fn stop(&self) {
        if self.is_gone() {
            return;
        }
        self.host.state.send_replace(Power::Still);
        self.host.store.stop();
        self.records.stop();
        self.messages.stop();
    }

    /// Its machine goes on.
    pub(super) fn go_on(&self) {
        if self.is_gone() {
            return;
        }
        self.host.store.go_on();
        self.records.go_on();
        self.messages.go_on();
        self.host.state.send_replace(Power::On);
    }

    /// Its connection to the bus is lost.
    pub(super) fn cut(&self) {
        if self.is_gone() {
            return;
        }
        self.records.cut();
        self.messages.cut();
        self.interruptions.note(Link::Down);
    }

    /// It is connected anew.
    pub(super) fn mend(&self) {
        if self.is_gone() {
            return;
        }
        self.records.mend();
        self.messages.go_on();
        self.interruptions.note(Link::Up);
    }

    /// The object store fails it.
    pub(super) fn lose_store(&self) {
        if !self.is_gone() {
            self.host.store.fail();
        }
    }

    /// The object store is there again.
    pub(super) fn find_store(&self) {
        if !self.is_gone() {
            self.host.store.go_on();
        }
    }

    /// Its clock is put forward by so much, from the right time.
    pub(super) fn put_forward(&self, by: Duration) {
        *self.ahead.lock().unwrap() = by;
    }

    /// It hands its sessions over and ends, as far as it can.
    pub(super) async fn drain(&self) {
        let shared = &self.context.shared;
        shared.draining.cancel();
        shared.table.tell_all(Note::HandOver);
        shared.tasks.close();
        if timeout(Duration::from_secs(10), shared.tasks.wait())
            .await
            .is_err()
        {
            shared.table.tell_all(Note::HandOverNow);
            drop(timeout(Duration::from_secs(20), shared.tasks.wait()).await);
        }
        self.crash();
    }
}

/// What a worker is made of.
struct Own {
    worker: WorkerId,
    on_bus: Arc<dyn RecordBus>,
    host: Arc<Host>,
}

impl Own {
    async fn context(
        &self,
        world: &World,
        messages: &Endpoint,
        objects: store_model::Connection,
        clock: WallClock,
    ) -> Context {
        let store = Store::over(Arc::new(objects), self.ids());
        let pools = Pools {
            pool: vec![world.pool.clone()],
        };
        let stamps = Stamps {
            ids: self.ids(),
            clock: clock.clone(),
        };
        drop(self.heartbeat().await);
        let (bus, kept) = (self.on_bus.clone(), store.clone());
        let records = Records::open(bus, kept, &pools, Replicas::ONE, stamps).await;
        let outbox = Arc::new(Frames(messages.clone()));
        let interruptions = Interruptions::default();
        let standing = interruptions.connected().standing();
        standing.set(State::Sound);
        let health = Health::default();
        let compared = Comparison::begin(self.on_bus.clone(), clock, health.clone()).await;
        let (comparison, clock) = compared.unwrap();
        let host = self.host.clone();
        tokio::spawn(async move { host.while_on(comparison.go_on()).await });
        Context {
            shared: Shared::new(
                outbox,
                interruptions,
                store,
                (records.unwrap(), Journal::default()),
            ),
            health,
            bus: Arc::new(Frames(messages.clone())),
            clock,
            stock: Arc::new(self.host.clone()),
            room: Arc::new(Semaphore::new(8)),
            transfers: Transfers::new(1 << 30),
            standing,
        }
    }

    fn ids(&self) -> Ids {
        Ids::seeded(self.host.chance.next())
    }

    async fn ledger(&self, pool: &Pool) -> Ledger {
        let (bus, worker) = (self.on_bus.clone(), self.worker.clone());
        let ledger = Ledger::open(bus, worker, pool.clone(), Replicas::ONE, self.ids());
        ledger.await.unwrap()
    }

    async fn heartbeat(&self) -> Heartbeat {
        let heartbeat = Heartbeat::open(self.on_bus.clone(), &self.worker, Replicas::ONE);
        heartbeat.await.unwrap()
    }
}

/// A worker's end of what carries messages.
#[derive(Clone, Debug)]
struct Frames(Endpoint);

#[async_trait]
impl Outbox for Frames {
    async fn send(&self, inbox: Subject, frame: Bytes) -> Result<(), PublishError> {
        self.0.publish(inbox.to_string(), None, frame);
        Ok(())
    }

    fn is_connected(&self) -> bool {
        self.0.is_connected()
    }
}

#[async_trait]
impl ListenPort for Frames {
    async fn listen(
        &self,
        subject: String,
        group: &str,
        _: LeaveMarker,
    ) -> Result<Box<dyn JobsPort>, SubscribeError> {
        Ok(Box::new(Jobs(self.0.subscribe(&subject, Some(group)))))
    }
}

#[derive(Debug)]
struct Jobs(Subscription);

impl JobsPort for Jobs {
    fn poll_next(&mut self, context: &mut TaskContext<'_>) -> Poll<Message> {
        match self.0.arrived().poll_recv(context) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn leave(mut self: Box<Self>) -> BoxFuture<'static, Vec<Message>> {
        Box::pin(async move {
            self.0.unsubscribe();
            let mut arrived = vec![];
            let all = async {
                while let Some(message) = self.0.arrived().recv().await {
                    arrived.push(message);
                }
            };
            drop(timeout(LEAVE_WITHIN, all).await);
            arrived
        })
    }

    fn abandon(mut self: Box<Self>) -> BoxFuture<'static, Vec<Message>> {
        self.0.unsubscribe();
        let mut arrived = vec![];
        while let Ok(message) = self.0.arrived().try_recv() {
            arrived.push(message);
        }
        Box::pin(async { arrived })
    }
}

/// Answers whoever asks whether this worker is still there.
async fn prove_life(mut asked: Subscription, outbox: Arc<dyn Outbox>) {
    while let Some(message) = asked.arrived().recv().await {
        if let Some(inbox) = message.reply {
            Responder::new(outbox.clone(), inbox).accept().await;
        }
    }
}

async fn beat(heartbeat: Heartbeat, context: Context, beaten: watch::Sender<Instant>) {
    loop {
        let beat = WorkerBeat {
            capacity: 8,
            sessions: u32::try_from(context.shared.table.len()).unwrap(),
            draining: context.shared.draining.is_cancelled(),
            versions: (OLDEST_VERSION, VERSION),
            pools: None,
            accepting: None,
        };
        let pause = match heartbeat.beat(&beat).await {
            Ok(taken) => {
                beaten.send_replace(taken);
                limits::WORKER_BEAT
            }
            Err(_) => limits::WORKER_BEAT_AGAIN,
        };
        sleep(pause).await;
    }
}

/// Believes a bus in doubt again when it answers, as whoever watches the fleet's generation does.
async fn trust(bus: Arc<dyn RecordBus>, standing: Standing) {
    loop {
        let doubts = standing.doubts();
        if standing.is_in_doubt() && bus.describe(subject::WORKERS_STREAM).await.is_ok() {
            standing.trust(doubts);
        }
        sleep(LOOK_AGAIN).await;
    }
}
