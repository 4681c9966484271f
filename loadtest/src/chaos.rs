//! `loadtest chaos`: mixed traffic over a whole fleet while its processes are killed, paused and
//! restarted and its object store misbehaves; then a proof, from what the clients heard and the
//! workers noted, that nothing was lost, nothing ran twice and no two workers acted for a session.
//!
//! ```text
//!  workload ── requests ──> 2 ingresses ── 3 nats-servers ── 3 workers ── proxy ── object store
//!     │ history                  ^              ^                ^ │         ^          ^
//!     │                          └───── nemesis: kill, pause, restart ───────┴──────────┘
//!     v                                                            v start journals
//!  checker <──────────────────── observer: slots, leases, kernels ─┘
//! ```

pub mod caller;
pub mod checker;
pub mod churn;
pub mod content;
pub mod history;
pub mod journals;
pub mod nemesis;
pub mod observer;
pub mod report;
pub mod workload;

use std::{io::Write, time::Duration};

use anyhow::{Context, Result};
use tokio::time::Instant;
use ulid::Ulid;

pub use self::report::Report;

use self::{
    checker::{Evidence, check},
    history::Recorder,
    nemesis::{Fault, Nemesis, Shape, plan},
    observer::{Observer, Scope},
    workload::{SESSIONS, Workload},
};
use crate::cluster::Cluster;

/// Ingresses of the fleet.
const INGRESSES: usize = 2;
/// Workers of the fleet.
const WORKERS: usize = 3;
/// Servers of the bus.
const NATS: usize = 3;
/// Name of the pool whose sessions live through the run.
const POOL: &str = "python";
/// Slots of that pool beyond its sessions: one whose owner could not give its slot back needs
/// another until the janitor comes.
const SPARE_SLOTS: u32 = 2;

/// How long, and by which chance.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long the faults go on, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub seconds: u64,
    /// Decides which faults and which requests there are; random by default, printed in any case.
    #[arg(long)]
    pub seed: Option<u64>,
    /// What the fleet stores its objects in.
    #[arg(long, value_enum, default_value_t = StoreChoice::S3)]
    pub store: StoreChoice,
}

/// The object store of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreChoice {
    /// A server of the S3 protocol behind a proxy that makes trouble.
    S3,
    /// A directory, which nothing happens to.
    Directory,
}

/// Runs it and prints what came of it. The files of a run with violations are kept.
///
/// # Errors
/// The fleet did not start or did not recover.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<Report> {
    let seed = options.seed.unwrap_or_else(fresh_seed);
    let faults = plan(seed, options.seconds, shape(options.store));
    writeln!(
        out,
        "chaos: seed {seed}, {} s, {} faults planned; {INGRESSES} ingresses, {WORKERS} workers, \
         {NATS} nats-servers, object store: {:?}",
        options.seconds,
        faults.len(),
        options.store,
    )?;
    out.flush()?;
    let cluster = fleet(seed, options.store).await?;
    let ran = Box::pin(ordeal(&cluster, seed, options.seconds, &faults)).await;
    let report = match ran {
        Ok(report) => report,
        Err(error) => {
            cluster.keep_files()?;
            return Err(error.context(cluster.tails()));
        }
    };
    writeln!(out, "{report}")?;
    if !report.violations().is_empty() || !report.casualties().is_empty() {
        std::fs::write(cluster.directory().join("report"), report.to_string())?;
        writeln!(
            out,
            "histories, journals and logs: {}",
            cluster.directory().display()
        )?;
        cluster.keep_files()?;
    }
    Ok(report)
}

fn fresh_seed() -> u64 {
    // Short enough to be typed.
    u64::try_from(Ulid::new().random() % 1_000_000_000).unwrap_or_default()
}

fn shape(store: StoreChoice) -> Shape {
    Shape {
        workers: WORKERS,
        ingresses: INGRESSES,
        nats: NATS,
        proxied: store == StoreChoice::S3,
    }
}

/// More executions than a long run names.
const RECORDED: u32 = 100_000;

async fn fleet(seed: u64, store: StoreChoice) -> Result<Cluster> {
    let builder = Cluster::builder()
        .nats_nodes(NATS)
        .ingresses(INGRESSES)
        .workers(WORKERS)
        .worker_arguments(["--cages", "3", "--spares", "2", "--drain-seconds", "5"])
        .pool(|pool| {
            pool.name(POOL)
                .max_sessions(SESSIONS + SPARE_SLOTS)
                .cooldown(3600)
                .recorded_executions(RECORDED)
        })
        .pool(|pool| {
            let pool = pool.name(churn::POOL).max_sessions(churn::MAX_SESSIONS);
            pool.cooldown(churn::COOLDOWN).recorded_executions(RECORDED)
        });
    let builder = match store {
        StoreChoice::S3 => builder.s3_store_behind_proxy(seed),
        StoreChoice::Directory => builder,
    };
    builder.start().await.context("the fleet did not start")
}

/// Faults under load, recovery, and the last questions, twice: of the fleet as the faults left it,
/// and of one whose workers have all been killed at once.
async fn ordeal(cluster: &Cluster, seed: u64, seconds: u64, faults: &[Fault]) -> Result<Report> {
    let recorder = Recorder::create(&cluster.directory().join("history"))?;
    let clock = recorder.clock();
    let scope = scope(cluster)?;
    let observer = Observer::connect(cluster, clock, scope.clone()).await?;
    let nemesis = Nemesis::new(cluster, clock)?;
    let clients = (0..INGRESSES).map(|ingress| cluster.client(ingress));
    let workload = Workload::new(&recorder, clients.collect::<Result<_>>()?, seed);
    workload.begin().await?;

    let comers = (0..INGRESSES).map(|ingress| cluster.client_of_through(churn::POOL, ingress));
    let comers = comers.collect::<Result<Vec<_>>>()?;
    let work = async {
        let until = Instant::now() + Duration::from_secs(seconds);
        let traffic = workload.run(until);
        let (ended, (), ()) = tokio::join!(
            traffic,
            churn::run(&comers, seed, until),
            nemesis.strike(faults)
        );
        ended?;
        nemesis.heal().await?;
        workload.look_back().await?;
        nemesis.kill_all_workers().await?;
        workload.look_back().await
    };
    tokio::select! {
        done = work => done?,
        () = nemesis.revive() => {}
        () = observer.watch() => {}
    }

    let mut evidence = Evidence {
        calls: recorder.calls(),
        sessions: scope.sessions,
        ..Evidence::default()
    };
    let seen = observer.seen();
    (evidence.slots, evidence.owners, evidence.kernels) = (seen.slots, seen.owners, seen.kernels);
    let mut torn = 0;
    for worker in 0..WORKERS {
        let journal = journals::read(cluster.journal(worker)?)?;
        evidence.starts.extend(journal.starts);
        torn += journal.torn;
    }
    let violations = check(&evidence);
    let starts = (evidence.starts.len(), torn);
    Ok(Report::new(
        &evidence.calls,
        nemesis.harm(),
        starts,
        violations,
    ))
}

fn scope(cluster: &Cluster) -> Result<Scope> {
    let pool = |name: &str, max: u32| {
        let id = cluster.pool_id(name)?.clone();
        Ok::<_, anyhow::Error>((name.to_owned(), id, u64::from(max)))
    };
    let sessions = workload::names().map(|name| {
        let key = cluster.session_key(POOL, &name)?;
        Ok::<_, anyhow::Error>((name, key))
    });
    Ok(Scope {
        pools: vec![
            pool(POOL, SESSIONS + SPARE_SLOTS)?,
            pool(churn::POOL, churn::MAX_SESSIONS)?,
        ],
        sessions: sessions.collect::<Result<_>>()?,
    })
}
