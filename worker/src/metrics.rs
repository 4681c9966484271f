//! What a worker counts and measures. The names of all its metrics are here.

use process::metrics::Figures;
use prometheus_client::{
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{sandbox::Disk, session::table::Table};

/// The figures of a worker that serves.
#[derive(Debug)]
pub struct WorkerFigures {
    /// Its sessions.
    pub sessions: Table,
    /// How many it may hold.
    pub capacity: u32,
    /// The disk of their files.
    pub disk: Disk,
}

impl Figures for WorkerFigures {
    fn enter(&self, registry: &mut Registry) {
        let sessions = i64::try_from(self.sessions.len()).unwrap_or(i64::MAX);
        registry.register(
            "sessions",
            "Sessions that this worker holds",
            ConstGauge::new(sessions),
        );
        registry.register(
            "sessions_max",
            "Sessions that this worker may hold",
            ConstGauge::new(i64::from(self.capacity)),
        );
        enter_disk(&self.disk, registry);
    }
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
