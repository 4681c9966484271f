//! A whole worker: connects the parts, serves, and ends cleanly.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::{self, consumer::PullConsumer};
use proto::{
    about::About,
    health::Check,
    id::{PoolId, WorkerId},
    lease::WorkerBeat,
    limits,
    message::{OLDEST_VERSION, VERSION},
    pool::Pools,
    subject::{self, Readiness},
};
use routing::bus::{Bus, NatsAuth};
use store::Store;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    about::{self, Image},
    admin, bus,
    config::Config,
    journal::Journal,
    lease::{Ledger, beat::Heart, streams},
    presence, queue,
    readiness::Readiness as Measured,
    record::Records,
    sandbox::Sandboxes,
    session::{
        Context,
        table::{Note, Table},
    },
    stock::{self, Stock, Targets},
    sweep,
    sync::Transfers,
};

/// How long sessions may take to leave when the time for running executions is over.
const END_WITHIN: Duration = Duration::from_secs(20);
/// Sessions that are handed over at once.
const HAND_OVER_AT_ONCE: usize = 8;
/// Beats of a draining worker that must arrive before it ends, so that nobody waits for its key.
const LAST_BEAT_WITHIN: Duration = Duration::from_secs(1);

/// A worker that serves.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    /// Its name on the bus.
    run: WorkerId,
    context: Context,
    sandboxes: Sandboxes,
    heart: Heart,
    /// Ends the background tasks.
    stop: CancellationToken,
    background: TaskTracker,
}

impl Worker {
    /// Connects, makes the first sandboxes ready, and starts to take sessions.
    ///
    /// # Errors
    /// A setting, the bus, the store or the sandbox machinery fails.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let health = admin::open(config.admin_listen).await?;
        let pools = config.read_pools()?;
        let store = Store::open(&config.store)?;
        store.probe().await?;
        let run = config.id.of_run(ulid::Ulid::new())?;
        let journal = Journal::open(config.start_journal.as_deref(), &run)?;
        let (client, doubt) =
            bus::connect(&config.nats, NatsAuth::read(&config.nats_auth)?, &run).await?;
        let jetstream = jetstream::new(client.clone());
        let heart = Heart::open(jetstream.clone(), &run, config.replicas).await?;
        let records = Records::open(jetstream.clone(), store.clone(), config.replicas).await?;
        let mut ledgers = vec![];
        for pool in &pools.pool {
            let ledger = Ledger::open(
                jetstream.clone(),
                run.clone(),
                pool.clone(),
                config.replicas,
            );
            ledgers.push(ledger.await?);
        }
        let queues = streams::open_queues(&jetstream, &pools, config.replicas).await?;
        let inboxes = subject::worker_inbox(&run);
        let bus = Bus::over(client.clone(), &inboxes, doubt.connected()).await?;
        let sandboxes = Sandboxes::start(config.sandbox())
            .await
            .context("sandboxes")?;
        let mut told = vec![];
        for pool in &pools.pool {
            // A host that cannot make sandboxes says so now, not by never being ready.
            let cage = sandboxes
                .cage(&pool.limits)
                .await
                .context("a sandbox to try")?;
            let kernel = stock::join(&cage).await.context("an interpreter to try")?;
            let image = Image::ask(kernel).await.context("the image's contents")?;
            told.push((pool.id.clone(), image.of_pool(pool)));
        }

        let (stop, background) = (CancellationToken::new(), TaskTracker::new());
        let stock = open_stock(&config, &pools, &sandboxes, &background, &stop);
        let context = Context {
            health,
            client,
            doubt,
            store,
            records,
            stock,
            journal,
            room: Arc::new(Semaphore::new(usize::try_from(config.max_sessions)?)),
            table: Table::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            transfers: Transfers::new(config.transfer_bytes),
            handing_over: Arc::new(Semaphore::new(HAND_OVER_AT_ONCE)),
        };
        let worker = Self {
            config,
            run,
            context,
            sandboxes,
            heart,
            stop,
            background,
        };
        worker.start_background(ledgers, told);
        worker.context.stock.filled().await;
        worker.serve_queues(&bus, queues);
        worker.measure(bus).await;
        worker.say_ready()?;
        Ok(worker)
    }

    fn start_background(&self, ledgers: Vec<Ledger>, told: Vec<(PoolId, About)>) {
        let until = |work: futures_util::future::BoxFuture<'static, ()>| {
            let stop = self.stop.clone();
            self.background.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = work => {}
                }
            });
        };
        until(Box::pin(self.context.doubt.clone().watch_clock()));
        until(Box::pin(beat(
            self.heart.clone(),
            self.sandboxes.clone(),
            self.describer(),
        )));
        let (client, run) = (self.context.client.clone(), self.run.clone());
        until(Box::pin(presence::prove_life(client, run)));
        for (pool, about) in told {
            until(Box::pin(about::tell(
                self.context.client.clone(),
                pool,
                about,
            )));
        }
        until(Box::pin(sweep::staging(self.context.store.clone())));
        for ledger in ledgers {
            for readiness in [Readiness::Warm, Readiness::Any] {
                // A task of those that the worker's end waits for: it ends by answering everybody.
                let listening = presence::listen(self.context.clone(), ledger.clone(), readiness);
                self.context.tasks.spawn(listening);
            }
            let store = self.context.store.clone();
            until(Box::pin(sweep::logs(store, ledger.clone())));
            until(Box::pin(sweep::slots(ledger)));
        }
    }

    /// Takes executions that nobody waits for, now that there are sandboxes.
    fn serve_queues(&self, bus: &Bus, queues: Vec<(PoolId, PullConsumer)>) {
        for (pool, queue) in queues {
            let serving = queue::serve(self.context.clone(), bus.clone(), pool, queue);
            self.background.spawn(serving);
        }
    }

    /// What the worker's key says at any moment.
    fn describer(&self) -> impl Fn() -> WorkerBeat + Send + Sync + 'static {
        let (context, capacity) = (self.context.clone(), self.config.max_sessions);
        move || WorkerBeat {
            capacity,
            sessions: u32::try_from(context.table.len()).unwrap_or(u32::MAX),
            draining: context.draining.is_cancelled(),
            versions: (OLDEST_VERSION, VERSION),
        }
    }

    /// Measures readiness from here on.
    async fn measure(&self, bus: Bus) {
        let measured = Measured {
            health: self.context.health.clone(),
            bus,
            store: self.context.store.clone(),
            sandboxes: self.sandboxes.clone(),
            worker: self.config.id.to_string(),
        };
        measured.begin().await;
        let stop = self.stop.clone();
        self.background.spawn(async move {
            stop.run_until_cancelled_owned(measured.keep()).await;
        });
    }

    fn say_ready(&self) -> anyhow::Result<()> {
        self.context.health.pass(Check::Starting);
        tracing::info!(worker.id = %self.config.id, worker.run = %self.run, "ready");
        match &self.config.ready_file {
            Some(file) => std::fs::write(file, b"").context("the ready file was not written"),
            None => Ok(()),
        }
    }

    /// Returns when the sandbox machinery has failed for good.
    pub async fn failed(&self) {
        self.sandboxes.failed().await;
    }

    /// Returns when an operator has told this worker to end.
    pub async fn told_to_drain(&self) {
        presence::told_to_drain(self.context.client.clone(), self.run.clone()).await;
    }

    /// Hands every session over, then ends everything else. Nothing is left behind on this host.
    ///
    /// # Errors
    /// Something is left behind after all; the text says what.
    pub async fn end(self) -> anyhow::Result<()> {
        if let Some(file) = &self.config.ready_file
            && let Err(error) = std::fs::remove_file(file)
        {
            tracing::warn!(%error, "the ready file was not removed");
        }
        let health = &self.context.health;
        health.fail(Check::Draining, "this worker was asked to end");
        self.context.draining.cancel();
        let draining = self.describer()();
        let last = tokio::time::timeout(LAST_BEAT_WITHIN, self.heart.beat(&draining)).await;
        if !matches!(last, Ok(Ok(_))) {
            tracing::warn!("the fleet was not told that this worker ends");
        }
        self.context.table.tell_all(Note::HandOver);
        self.context.tasks.close();
        let patience = Duration::from_secs(self.config.drain_seconds.into());
        let mut ended = tokio::time::timeout(patience, self.context.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("executions are cut off by the worker's end");
            self.context.table.tell_all(Note::HandOverNow);
            ended = tokio::time::timeout(END_WITHIN, self.context.tasks.wait()).await;
        }
        self.stop.cancel();
        self.background.close();
        self.background.wait().await;
        self.context.stock.close().await;
        self.sandboxes.stop().await;
        ended.context("some sessions did not end in time")
    }
}

fn open_stock(
    config: &Config,
    pools: &Pools,
    sandboxes: &Sandboxes,
    background: &TaskTracker,
    stop: &CancellationToken,
) -> Stock {
    let targets = Targets {
        cages: config.cages,
        spares: config.spares,
    };
    let kinds = pools.pool.iter().map(|pool| pool.limits.clone());
    Stock::open(sandboxes.clone(), targets, kinds, background, stop)
}

async fn beat(heart: Heart, sandboxes: Sandboxes, describe: impl Fn() -> WorkerBeat) {
    let mut missed = 0_u32;
    loop {
        let next = match heart.beat(&describe()).await {
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
                    tracing::warn!(error = &error as &dyn std::error::Error, "no beat");
                }
                missed = missed.saturating_add(1);
                Instant::now() + limits::WORKER_BEAT_AGAIN
            }
        };
        tokio::time::sleep_until(next).await;
    }
}
