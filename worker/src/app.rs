//! A whole worker: connects the parts, serves, and ends cleanly.

use std::{collections::BTreeMap, io::ErrorKind, sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::{
    Client,
    jetstream::{self, consumer::PullConsumer},
};
use fleet::Fleet;
use proto::{
    about::About,
    health::{Check, Health},
    id::{PoolId, WorkerId},
    lease::WorkerBeat,
    limits,
    message::{OLDEST_VERSION, VERSION},
    pool::Pools,
    subject::{self, Readiness},
};
use records::{cas::RecordBus, execution::Stamps, fleet::Digests, nats::NatsBus};
use routing::bus::{Bus, NatsAuth};
use store::Store;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    about::{self, Image},
    bus,
    clock::Comparison,
    config::Config,
    identity::HeldId,
    journal::Journal,
    lease::{Ledger, beat::Heartbeat, streams},
    membership,
    metrics::{Counts, WorkerFigures},
    presence, queue,
    readiness::{Readiness as Measured, measuring_bus},
    record::Records,
    sandbox::{HostPlace, Sandboxes},
    session::{Context, Shared, table::Note},
    stock::{self, Bounds, Stock, Targets},
    sweep,
    sync::Transfers,
};

/// How long sessions may take to leave when the time for running executions is over.
const END_WITHIN: Duration = Duration::from_secs(20);
/// How long running executions may go on when the bus has lost its data.
const LOST_WITHIN: Duration = Duration::from_secs(2);
/// The part of it in which sessions get turns to hand over their variables.
const TURNS_WITHIN: Duration = Duration::from_secs(8);
/// Beats of a draining worker that must arrive before it ends, so that nobody waits for its key.
const LAST_BEAT_WITHIN: Duration = Duration::from_secs(1);

/// Why a worker that served ends by itself.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Ended {
    /// Its sandboxes ended together.
    #[error(
        "the helper process `caged` has ended, and every sandbox with it: it was killed, or missed this \
         worker's beats"
    )]
    Machinery,
    /// It lost its id.
    #[error(
        "another worker has taken this worker's `--id` over, because this one was cut off from the bus for \
         longer than its claim lives"
    )]
    Replaced,
    /// It cannot know what its sessions are any more.
    #[error("the bus has lost its data")]
    BusLost,
}

/// A worker that serves.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    /// Its name on the bus.
    run: WorkerId,
    context: Context,
    client: Client,
    stock: Stock,
    sandboxes: Sandboxes,
    heartbeat: Heartbeat,
    /// Its id.
    held: HeldId,
    /// Its pools, as it tells them.
    digests: Digests,
    /// Most live sessions of each pool, on all workers together.
    pools: BTreeMap<PoolId, u32>,
    /// Ends the background tasks.
    stop: CancellationToken,
    background: TaskTracker,
}

impl Worker {
    /// Connects, makes the first sandboxes ready, and starts to take sessions.
    ///
    /// # Errors
    /// A setting, the bus, the store or the sandbox machinery fails.
    pub async fn start(config: Config, health: Health) -> anyhow::Result<Self> {
        let pools = config.fleet.read_pools()?;
        let stamps = Stamps::real();
        let store = Store::open(&config.fleet.store, stamps.ids.clone())?;
        store.probe().await?;
        let run = config.id.of_run(stamps.ids.next())?;
        let journal = Journal::open(config.start_journal.as_deref(), &run, &stamps.clock)?;
        let Joined {
            client,
            interruptions,
            jetstream,
            records: on_bus,
            bus,
            mut fleet,
            heartbeat,
        } = Joined::join(&config, &pools, &store, (&run, &stamps), &health).await?;
        let standing = bus.standing();
        let (comparison, clock) =
            Comparison::begin(on_bus.clone(), stamps.clock.clone(), health.clone()).await?;
        // The place on this host first: a claim of a run on this host is taken over because its place is free.
        let place = HostPlace::take(config.sandbox()).await;
        let place = place.context("failed to prepare this host for sandboxes")?;
        let ids = (&config.id, &run);
        let held = HeldId::take(&client, on_bus.clone(), standing.clone(), ids).await?;
        let on_bus = (&jetstream, on_bus, &run, stamps);
        let parts = Parts::make(&config, &pools, &store, on_bus, &mut fleet, place);
        let made = match parts.await {
            Ok(parts) => parts,
            Err(error) => {
                held.release().await;
                return Err(error);
            }
        };
        made.sandboxes.disk().report_to(health.clone());

        let (stop, background) = (CancellationToken::new(), TaskTracker::new());
        let stock = open_stock(&config, &pools, &made.sandboxes, &background, &stop);
        let context = Context {
            shared: Shared::new(
                Arc::new(client.clone()),
                interruptions,
                store,
                (made.records, journal),
            ),
            bus: Arc::new(client.clone()),
            clock,
            health,
            stock: Arc::new(stock.clone()),
            room: Arc::new(Semaphore::new(usize::try_from(config.max_sessions)?)),
            transfers: Transfers::new(config.transfer_bytes),
            standing,
        };
        let worker = Self {
            config,
            run,
            context,
            client,
            stock,
            sandboxes: made.sandboxes,
            heartbeat,
            held,
            digests: membership::digests(&pools),
            pools: maxima(&pools),
            stop,
            background,
        };
        worker.until_stop(comparison.go_on());
        worker.start_background(made.ledgers, made.told);
        worker.until_stop(fleet.watch());
        worker.watch_what_is_shared(bus.clone(), pools);
        Box::pin(worker.take_sessions(bus, made.queues)).await
    }

    /// Has the checks tell of pools that differ, and of records that are full.
    fn watch_what_is_shared(&self, bus: Bus, pools: Pools) {
        let health = self.context.health.clone();
        self.until_stop(membership::compare_pools(bus, pools, health.clone()));
        self.watch_records(health);
    }

    /// From here on it takes sessions, and says so.
    async fn take_sessions(
        self,
        bus: Bus,
        queues: Vec<(PoolId, PullConsumer)>,
    ) -> anyhow::Result<Self> {
        self.stock.filled().await;
        self.serve_queues(&bus, queues);
        self.measure(bus).await;
        let Err(error) = self.say_ready() else {
            return Ok(self);
        };
        // It serves already: what it has goes to others, and nothing of it runs on.
        if let Err(left) = self.end().await {
            tracing::warn!("{left:#}");
        }
        Err(error)
    }

    /// What it counts as it happens.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.context.shared.counts.clone()
    }

    /// What it measures when asked.
    #[must_use]
    pub fn figures(&self) -> WorkerFigures {
        WorkerFigures {
            sessions: self.context.shared.table.clone(),
            capacity: self.config.max_sessions,
            pools: self.pools.clone(),
            stock: self.stock.clone(),
            disk: self.sandboxes.disk().clone(),
            client: self.client.clone(),
            draining: self.context.shared.draining.clone(),
        }
    }

    /// How often the object store failed it.
    #[must_use]
    pub fn store_errors(&self) -> store::Errors {
        self.context.shared.store.errors().clone()
    }

    /// Runs a task until the worker has ended everything else.
    fn until_stop(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.background.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    fn start_background(&self, ledgers: Vec<Ledger>, told: Vec<(PoolId, About)>) {
        let until = |work: futures_util::future::BoxFuture<'static, ()>| self.until_stop(work);
        let (standing, clock) = (&self.context.standing, &self.context.clock);
        until(Box::pin(
            self.context.shared.interruptions.clone().watch_clock(),
        ));
        until(Box::pin(beat(
            self.heartbeat.clone(),
            self.sandboxes.clone(),
            self.describer(),
        )));
        for (pool, about) in told {
            until(Box::pin(about::tell(self.client.clone(), pool, about)));
        }
        until(Box::pin(sweep::staging(
            self.context.shared.store.clone(),
            clock.clone(),
            standing.clone(),
        )));
        for ledger in ledgers {
            for readiness in [Readiness::Warm, Readiness::Any] {
                // A task of those that the worker's end waits for: it ends by answering everybody.
                let listening = presence::listen(self.context.clone(), ledger.clone(), readiness);
                self.context.shared.tasks.spawn(listening);
            }
            let store = self.context.shared.store.clone();
            until(Box::pin(sweep::logs(
                store,
                ledger.clone(),
                clock.clone(),
                standing.clone(),
            )));
            until(Box::pin(sweep::slots(
                ledger,
                clock.clone(),
                standing.clone(),
            )));
        }
    }

    fn watch_records(&self, health: Health) {
        let (stop, records) = (self.stop.clone(), self.context.shared.records.clone());
        let watching = Box::pin(records.watch(self.config.replicas, health));
        self.background
            .spawn(async move { stop.run_until_cancelled(watching).await });
    }

    /// Takes asynchronous executions, now that there are sandboxes.
    fn serve_queues(&self, bus: &Bus, queues: Vec<(PoolId, PullConsumer)>) {
        for (pool, queue) in queues {
            let serving = queue::serve(self.context.clone(), bus.clone(), pool, queue);
            self.background.spawn(serving);
        }
    }

    /// What the worker's key says at any moment.
    fn describer(&self) -> impl Fn() -> WorkerBeat + Send + Sync + 'static {
        let (context, capacity) = (self.context.clone(), self.config.max_sessions);
        let pools = Some(self.digests.clone());
        move || WorkerBeat {
            capacity,
            sessions: u32::try_from(context.shared.table.len()).unwrap_or(u32::MAX),
            draining: context.shared.draining.is_cancelled(),
            versions: (OLDEST_VERSION, VERSION),
            pools: pools.clone(),
            accepting: Some(membership::is_accepting(&context.health)),
        }
    }

    /// Measures readiness from here on.
    async fn measure(&self, bus: Bus) {
        let measured = Measured {
            health: self.context.health.clone(),
            bus,
            store: self.context.shared.store.clone(),
            sandboxes: self.sandboxes.clone(),
            worker: self.config.id.to_string(),
        };
        measured.begin().await;
        self.until_stop(measured.keep());
    }

    /// Says that this worker takes sessions, which it does once its clock is right.
    fn say_ready(&self) -> anyhow::Result<()> {
        self.context.health.pass(Check::Starting);
        let (config, run) = (self.config.clone(), self.run.clone());
        let clock = self.context.clock.clone();
        if clock.is_right() {
            return say_ready(&config, &run);
        }
        self.until_stop(async move {
            clock.right().await;
            if let Err(error) = say_ready(&config, &run) {
                tracing::error!("{error:#}");
            }
        });
        Ok(())
    }

    /// The checks of this worker and how they stand.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.context.health
    }

    /// Returns when the sandbox machinery has failed for good.
    pub async fn failed(&self) {
        self.sandboxes.failed().await;
    }

    /// Returns when another worker has this worker's id: this one was cut off from the bus for longer than
    /// its claim lives.
    pub async fn replaced(&self) {
        self.held.replaced().await;
    }

    /// Returns when the bus has lost its data, and how.
    pub async fn bus_lost(&self) -> Arc<str> {
        self.context.standing.lost().await
    }

    /// How the bus lost its data, if it did.
    #[must_use]
    pub fn loss(&self) -> Option<Arc<str>> {
        self.context.standing.loss()
    }

    /// Returns when an operator has told this worker to end.
    pub async fn told_to_drain(&self) {
        presence::told_to_drain(self.client.clone(), self.run.clone()).await;
    }

    /// Hands every session over, then ends everything else. Nothing is left behind on this host.
    ///
    /// # Errors
    /// Something is left behind after all; the text says what.
    pub async fn end(self) -> anyhow::Result<()> {
        let patience = Duration::from_secs(self.config.drain_seconds.into());
        let health = &self.context.health;
        health.fail(Check::Draining, "this worker was asked to end");
        self.end_within(patience).await
    }

    /// Ends after the bus has lost its data: files are saved, and executions that no caller can be
    /// answered any more are not waited for.
    ///
    /// # Errors
    /// Something is left behind after all; the text says what.
    pub async fn end_without_bus(self) -> anyhow::Result<()> {
        self.end_within(LOST_WITHIN).await
    }

    async fn end_within(self, patience: Duration) -> anyhow::Result<()> {
        if let Some(file) = &self.config.ready_file
            && let Err(error) = std::fs::remove_file(file)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "failed to remove the ready file");
        }
        self.context.shared.draining.cancel();
        let draining = self.describer()();
        let last = tokio::time::timeout(LAST_BEAT_WITHIN, self.heartbeat.beat(&draining)).await;
        if !matches!(last, Ok(Ok(_))) {
            tracing::warn!("the fleet was not told that this worker ends");
        }
        self.context.shared.table.tell_all(Note::HandOver);
        self.context.shared.tasks.close();
        let mut ended = tokio::time::timeout(patience, self.context.shared.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("executions are cut off by the worker's end");
            self.context.shared.table.tell_all(Note::HandOverNow);
            ended = tokio::time::timeout(TURNS_WITHIN, self.context.shared.tasks.wait()).await;
        }
        if ended.is_err() {
            tracing::warn!("sessions whose variables are not there yet leave without them");
            self.context.shared.handing_over.close();
            let left = END_WITHIN.saturating_sub(TURNS_WITHIN);
            ended = tokio::time::timeout(left, self.context.shared.tasks.wait()).await;
        }
        self.stop.cancel();
        self.background.close();
        self.background.wait().await;
        self.stock.close().await;
        self.sandboxes.stop().await;
        // Last, so that no other worker of this id starts while this one sweeps.
        self.held.release().await;
        ended.context("some sessions did not end in time")
    }
}

/// A worker's connection to its fleet.
struct Joined {
    client: Client,
    interruptions: bus::Interruptions,
    jetstream: jetstream::Context,
    records: Arc<dyn RecordBus>,
    bus: Bus,
    fleet: Fleet,
    heartbeat: Heartbeat,
}

impl Joined {
    /// Connects, and waits until it is known that the bus has what it had: nothing may be made or swept
    /// before.
    async fn join(
        config: &Config,
        pools: &Pools,
        store: &Store,
        (run, stamps): (&WorkerId, &Stamps),
        health: &Health,
    ) -> anyhow::Result<Self> {
        let auth = NatsAuth::read(&config.fleet.bus.nats_auth)?;
        let (client, interruptions) = bus::connect(&config.fleet.bus.nats, auth, run).await?;
        let jetstream = jetstream::new(client.clone());
        let inboxes = subject::worker_inbox(run);
        let connected = interruptions.connected();
        let bus = Bus::over(client.clone(), &inboxes, connected, stamps.clone()).await?;
        bus.know_pools(membership::digests(pools));
        let joining = membership::join(
            store.clone(),
            jetstream.clone(),
            config.replicas,
            pools,
            bus.standing(),
            health,
        );
        let fleet = measuring_bus(health, &bus, joining).await?;
        fleet.stream().replicate(config.replicas.into()).await?;
        let records: Arc<dyn RecordBus> = Arc::new(NatsBus::new(jetstream.clone()));
        let heartbeat = Heartbeat::open(records.clone(), run, config.replicas).await?;
        Ok(Self {
            client,
            interruptions,
            jetstream,
            records,
            bus,
            fleet,
            heartbeat,
        })
    }
}

/// The bus, the run of the worker that uses it, and the stamps of what it writes.
type OnBus<'a> = (
    &'a jetstream::Context,
    Arc<dyn RecordBus>,
    &'a WorkerId,
    Stamps,
);

/// What a worker needs besides its id.
struct Parts {
    records: Records,
    ledgers: Vec<Ledger>,
    queues: Vec<(PoolId, PullConsumer)>,
    sandboxes: Sandboxes,
    told: Vec<(PoolId, About)>,
}

impl Parts {
    /// Makes the streams of these pools, and sandboxes. Of sandboxes nothing is left when that fails.
    async fn make(
        config: &Config,
        pools: &Pools,
        store: &Store,
        (jetstream, bus, run, stamps): OnBus<'_>,
        fleet: &mut Fleet,
        place: HostPlace,
    ) -> anyhow::Result<Self> {
        let replicas = config.replicas;
        let ids = stamps.ids.clone();
        let records = Records::open(bus.clone(), store.clone(), pools, replicas, stamps).await?;
        let mut ledgers = vec![];
        for pool in &pools.pool {
            let (bus, ids) = (bus.clone(), ids.clone());
            let ledger = Ledger::open(bus, run.clone(), pool.clone(), replicas, ids);
            ledgers.push(ledger.await?);
        }
        let queues = streams::open_queues(jetstream, pools, replicas).await?;
        fleet.note(membership::streams(pools)).await?;
        let sandboxes = place.start().await;
        let sandboxes = sandboxes.context("failed to start the sandboxes")?;
        let told = match ask_image(pools, &sandboxes).await {
            Ok(told) => told,
            Err(error) => {
                sandboxes.stop().await;
                return Err(error);
            }
        };
        Ok(Self {
            records,
            ledgers,
            queues,
            sandboxes,
            told,
        })
    }
}

fn say_ready(config: &Config, run: &WorkerId) -> anyhow::Result<()> {
    tracing::info!(worker.id = %config.id, worker.run = %run, "ready");
    match &config.ready_file {
        Some(file) => std::fs::write(file, b"").with_context(|| {
            let file = file.display();
            format!("failed to write the ready file {file}; give --ready-file a path that root can write")
        }),
        None => Ok(()),
    }
}

/// Most live sessions of each pool, on all workers together.
fn maxima(pools: &Pools) -> BTreeMap<PoolId, u32> {
    let pools = pools.pool.iter();
    pools
        .map(|pool| (pool.id.clone(), pool.max_sessions))
        .collect()
}

fn open_stock(
    config: &Config,
    pools: &Pools,
    sandboxes: &Sandboxes,
    background: &TaskTracker,
    stop: &CancellationToken,
) -> Stock {
    let bounds = Bounds {
        kind: Targets {
            cages: config.cages,
            spares: config.spares,
        },
        total: config.stock_total(),
    };
    let kinds = pools.pool.iter().map(|pool| pool.limits.clone());
    Stock::open(sandboxes.clone(), bounds, kinds, background, stop)
}

/// What is told of each pool: all pools have the same image, so one sandbox answers for all.
async fn ask_image(pools: &Pools, sandboxes: &Sandboxes) -> anyhow::Result<Vec<(PoolId, About)>> {
    let Some(pool) = pools.pool.first() else {
        return Ok(vec![]);
    };
    // A host that cannot make sandboxes says so now, not by never being ready. One whose disk is full for now
    // serves what needs no new sandbox, and its readiness says why it takes no sessions.
    let cage = sandboxes.trial_cage(&pool.limits).await;
    let cage = cage.context("failed to make a first sandbox")?;
    let kernel = stock::join(&cage).await;
    let kernel = kernel.context("failed to start a first interpreter")?;
    let image = Image::ask(kernel).await;
    let image = image.context("failed to list what the image holds")?;
    let told = pools.pool.iter();
    Ok(told
        .map(|pool| (pool.id.clone(), image.of_pool(pool)))
        .collect())
}

async fn beat(heartbeat: Heartbeat, sandboxes: Sandboxes, describe: impl Fn() -> WorkerBeat) {
    let mut missed = 0_u32;
    loop {
        let next = match heartbeat.beat(&describe()).await {
            Ok(taken) => {
                sandboxes.beat(taken.into_std());
                if missed > 0 {
                    tracing::info!(missed, "the worker's key is written again");
                }
                missed = 0;
                taken + limits::WORKER_BEAT
            }
            Err(error) => {
                if missed == 0 {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to renew this worker's key"
                    );
                }
                missed = missed.saturating_add(1);
                Instant::now() + limits::WORKER_BEAT_AGAIN
            }
        };
        tokio::time::sleep_until(next).await;
    }
}
