//! What a worker counts and measures. The names of all its metrics are here; what they say is in
//! `docs/metrics.md`, which a test holds against this file.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use async_nats::Client;
use process::metrics::{Figures, seconds};
use prometheus_client::{
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use proto::{execution::Ending, id::PoolId};
use tokio_util::sync::CancellationToken;

use crate::{
    sandbox::Disk,
    session::{machine::SessionEnd, opening::OpenError, table::Table},
    stock::{Source, Stock},
};

/// One label and its value, of which there are few.
type Label = [(&'static str, &'static str); 1];

/// Names of what a renewal of a lease comes to.
const RENEWALS: [&str; 3] = ["renewed", "unanswered", "lost"];

/// Names of how executions end.
const ENDINGS: [&str; 9] = [
    "succeeded",
    "exited",
    "raised",
    "timed_out",
    "out_of_memory",
    "crashed",
    "cancelled",
    "files_not_durable",
    "cut_off",
];

/// Those of them with which an interpreter may be gone.
const LOSSES: [&str; 4] = ["timed_out", "out_of_memory", "crashed", "cancelled"];

/// What is counted as it happens. All clones count together.
#[derive(Clone, Debug)]
pub struct Counts {
    executions: Family<Label, Counter>,
    execution: Histogram,
    kernels_lost: Family<Label, Counter>,
    openings: Family<Label, Histogram, fn() -> Histogram>,
    openings_failed: Family<Label, Counter>,
    ends: Family<Label, Counter>,
    commit: Histogram,
    commits_failed: Counter,
    committed: Counter,
    renewals: Family<Label, Counter>,
}

impl Default for Counts {
    fn default() -> Self {
        let counts = Self {
            executions: Family::default(),
            execution: seconds(),
            kernels_lost: Family::default(),
            openings: Family::new_with_constructor(seconds),
            openings_failed: Family::default(),
            ends: Family::default(),
            commit: seconds(),
            commits_failed: Counter::default(),
            committed: Counter::default(),
            renewals: Family::default(),
        };
        // A rate needs a value before the first event.
        for ending in ENDINGS {
            drop(counts.executions.get_or_create(&[("ending", ending)]));
        }
        for cause in LOSSES {
            drop(counts.kernels_lost.get_or_create(&[("cause", cause)]));
        }
        for source in Source::ALL {
            drop(counts.openings.get_or_create(&[("sandbox", source.name())]));
        }
        for step in OpenError::STEPS {
            drop(counts.openings_failed.get_or_create(&[("step", step)]));
        }
        for why in SessionEnd::ALL {
            drop(counts.ends.get_or_create(&[("why", why.name())]));
        }
        for outcome in RENEWALS {
            drop(counts.renewals.get_or_create(&[("outcome", outcome)]));
        }
        counts
    }
}

impl Counts {
    /// An execution ran for so long and its caller is told how it ended.
    pub fn executed(&self, ending: &Ending, duration: Duration) {
        let (name, kernel_lost) = described(ending);
        self.executions.get_or_create(&[("ending", name)]).inc();
        self.execution.observe(duration.as_secs_f64());
        if kernel_lost {
            self.kernels_lost.get_or_create(&[("cause", name)]).inc();
        }
    }

    /// An execution ran, and its files are not saved.
    pub fn executed_unsaved(&self) {
        let label = [("ending", "files_not_durable")];
        self.executions.get_or_create(&label).inc();
    }

    /// An execution was cut off by its session's end.
    pub fn executed_partly(&self) {
        let label = [("ending", "cut_off")];
        self.executions.get_or_create(&label).inc();
    }

    /// A session was ready so long after its sandbox was asked for.
    pub fn opened(&self, source: Source, took: Duration) {
        let label = [("sandbox", source.name())];
        self.openings
            .get_or_create(&label)
            .observe(took.as_secs_f64());
    }

    /// A session could not be opened, because this step failed.
    pub fn not_opened(&self, step: &'static str) {
        self.openings_failed.get_or_create(&[("step", step)]).inc();
    }

    /// A session ended here.
    pub fn ended(&self, why: SessionEnd) {
        self.ends.get_or_create(&[("why", why.name())]).inc();
    }

    /// A commit is in the store, so long after it was begun, failed attempts included.
    pub fn committed(&self, took: Duration) {
        self.commit.observe(took.as_secs_f64());
    }

    /// So many bytes of files went into the store.
    pub fn wrote(&self, bytes: u64) {
        self.committed.inc_by(bytes);
    }

    /// An attempt to write a commit failed.
    pub fn commit_failed(&self) {
        self.commits_failed.inc();
    }

    /// A lease was renewed.
    pub fn renewed(&self) {
        self.renewal(RENEWALS[0]);
    }

    /// The bus did not answer a renewal.
    pub fn renewal_unanswered(&self) {
        self.renewal(RENEWALS[1]);
    }

    /// Another worker has the lease.
    pub fn lease_lost(&self) {
        self.renewal(RENEWALS[2]);
    }

    fn renewal(&self, outcome: &'static str) {
        self.renewals.get_or_create(&[("outcome", outcome)]).inc();
    }
}

impl Figures for Counts {
    fn enter(&self, registry: &mut Registry) {
        registry.register(
            "executions",
            "Executions that ran, by how they ended",
            self.executions.clone(),
        );
        registry.register_with_unit(
            "execution_duration",
            "How long code ran, without waiting for its session or its files",
            Unit::Seconds,
            self.execution.clone(),
        );
        registry.register(
            "kernels_lost",
            "Interpreters that ended with an execution, so that its session lost its variables, by cause",
            self.kernels_lost.clone(),
        );
        registry.register_with_unit(
            "session_open_duration",
            "Time until a session could run code, by how its sandbox was had: a spare, a cage, or nothing",
            Unit::Seconds,
            self.openings.clone(),
        );
        registry.register(
            "session_open_failures",
            "Sessions that could not be opened here, by the step that failed",
            self.openings_failed.clone(),
        );
        registry.register(
            "sessions_ended",
            "Sessions that ended here, by why",
            self.ends.clone(),
        );
        registry.register_with_unit(
            "commit_duration",
            "Time to bring changed files into the object store, failed attempts included",
            Unit::Seconds,
            self.commit.clone(),
        );
        registry.register(
            "commit_attempts_failed",
            "Attempts to bring files into the object store that failed",
            self.commits_failed.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Bytes of files and variables that were brought into the object store, compressed",
            Unit::Bytes,
            self.committed.clone(),
        );
        registry.register(
            "lease_renewals",
            "Renewals of leases, by what they came to: renewed, unanswered by the bus, or lost to another worker",
            self.renewals.clone(),
        );
    }
}

/// Name of an ending, and whether the interpreter is gone with it.
fn described(ending: &Ending) -> (&'static str, bool) {
    match ending {
        Ending::Succeeded => ("succeeded", false),
        Ending::Exited { .. } => ("exited", false),
        Ending::Raised { .. } => ("raised", false),
        Ending::TimedOut { restarted } => ("timed_out", *restarted),
        Ending::OutOfMemory => ("out_of_memory", true),
        Ending::KernelCrashed { .. } => ("crashed", true),
        Ending::Cancelled { restarted } => ("cancelled", *restarted),
        Ending::Unknown => ("unknown", false),
    }
}

/// The figures of a worker that serves, as they are when asked.
#[derive(Debug)]
pub struct WorkerFigures {
    /// Its sessions.
    pub sessions: Table,
    /// How many it may hold.
    pub capacity: u32,
    /// Most live sessions of each pool, on all workers together.
    pub pools: BTreeMap<PoolId, u32>,
    /// Its ready sandboxes.
    pub stock: Stock,
    /// The disk of their files.
    pub disk: Disk,
    /// Its connection to the bus.
    pub client: Client,
    /// Cancelled once it is to end.
    pub draining: CancellationToken,
}

impl Figures for WorkerFigures {
    fn enter(&self, registry: &mut Registry) {
        self.enter_sessions(registry);
        let (spares, cages) = self.stock.ready();
        let stock = Family::<Label, Gauge>::default();
        for (kind, count) in [("spare", spares), ("cage", cages)] {
            stock.get_or_create(&[("kind", kind)]).set(gauge(count));
        }
        registry.register(
            "stock",
            "Sandboxes that are ready: spares with an interpreter, and empty cages",
            stock,
        );
        let failures = Family::<Label, Counter>::default();
        for (step, count) in self.stock.failures() {
            failures.get_or_create(&[("step", step)]).inc_by(count);
        }
        registry.register(
            "sandbox_failures",
            "Sandboxes that could not be made for sessions or for the stock, by the step that failed",
            failures,
        );
        self.enter_drain(registry);
        enter_disk(&self.disk, registry);
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        registry.register(
            "bus_connects",
            "Connections made to NATS; above 1 the connection was lost",
            ConstCounter::new(connects),
        );
    }
}

impl WorkerFigures {
    fn enter_drain(&self, registry: &mut Registry) {
        let draining = self.draining.is_cancelled();
        let left = if draining { self.sessions.len() } else { 0 };
        registry.register(
            "draining",
            "Whether this worker hands its sessions over because it is to end: 1 or 0",
            ConstGauge::new(i64::from(draining)),
        );
        registry.register(
            "drain_sessions_left",
            "Sessions that a draining worker has not handed over yet",
            ConstGauge::new(gauge(left)),
        );
    }

    fn enter_sessions(&self, registry: &mut Registry) {
        let counts = self.sessions.by_pool();
        let live = Family::<[(&str, String); 1], Gauge>::default();
        let most = Family::<[(&str, String); 1], Gauge>::default();
        for (pool, max) in &self.pools {
            let label = [("pool", pool.to_string())];
            let count = counts.get(pool).copied().unwrap_or_default();
            live.get_or_create(&label).set(gauge(count));
            most.get_or_create(&label).set(i64::from(*max));
        }
        registry.register("sessions", "Sessions that this worker holds, by pool", live);
        registry.register(
            "pool_sessions_max",
            "Sessions that a pool may have on all workers together",
            most,
        );
        registry.register(
            "sessions_max",
            "Sessions that this worker may hold",
            ConstGauge::new(i64::from(self.capacity)),
        );
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn enter_disk(disk: &Disk, registry: &mut Registry) {
    let usage = disk.usage();
    let bytes = |bytes: u64| ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
    if let Some(free) = usage.free {
        registry.register_with_unit(
            "disk_free",
            "Bytes that are free on the disk of the sessions' files",
            Unit::Bytes,
            bytes(free),
        );
    }
    registry.register_with_unit(
        "disk_reserve",
        "Bytes of that disk that are kept in reserve",
        Unit::Bytes,
        bytes(usage.reserve),
    );
    registry.register(
        "disk_reserve_reached",
        "Whether the reserve is reached, so that no new session is taken: 1 or 0",
        ConstGauge::new(i64::from(usage.reached)),
    );
    registry.register(
        "disk_sessions_stopped",
        "Sessions that were stopped because they filled that disk",
        ConstCounter::new(usage.stopped),
    );
}
