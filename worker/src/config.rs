//! Settings, read once from flags and environment. The doc comments are the manual.

use std::path::PathBuf;

use clap::Parser;
use process::{
    log::LogSettings,
    preflight::Output,
    settings::{AdminSettings, FleetSettings},
};
use proto::{id::WorkerId, limits};

use crate::{accept, fleet, lease::Replicas, sandbox};

/// What the binary can do.
#[derive(Debug)]
pub enum Arguments {
    /// Serve sessions: `worker SETTINGS`.
    Serve(Box<Config>),
    /// Look at this host and the settings without serving: `worker check SETTINGS`.
    Check(Box<CheckArguments>),
    /// Accept that the bus lost its data: `worker accept-new-bus`.
    AcceptNewBus(Box<accept::Arguments>),
}

impl Arguments {
    /// Reads them; ends the process when they are wrong. Serving has no name of its own, because it had none
    /// when it was all that a worker did.
    #[must_use]
    pub fn parse() -> Self {
        let mut words: Vec<_> = std::env::args_os().collect();
        let command = words.get(1).and_then(|word| word.to_str());
        if command == Some(CHECK) {
            drop(words.remove(1));
            Self::Check(Box::new(CheckArguments::parse_from(words)))
        } else if command == Some(accept::COMMAND) {
            drop(words.remove(1));
            Self::AcceptNewBus(Box::new(accept::Arguments::parse_from(words)))
        } else {
            Self::Serve(Box::new(Config::parse_from(words)))
        }
    }
}

/// First word of the command line that has a worker look instead of serve.
const CHECK: &str = "check";

/// Looks at this host and at the settings of a worker without starting one: a line for each thing, and exit
/// status 1 when it would not serve.
#[derive(Debug, Parser)]
#[command(name = "worker check", version)]
pub struct CheckArguments {
    /// The settings of the worker.
    #[command(flatten)]
    pub config: Config,
    /// How findings are written.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Runs the sandboxes of Hearth's sessions. Needs root.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "worker",
    version,
    after_help = "`worker check` with the same settings looks at this host and at them without starting."
)]
pub struct Config {
    /// Name of this worker: unique in the fleet, the same over restarts. A second living worker of a name is refused.
    #[arg(long = "id", env = "HEARTH_WORKER_ID")]
    pub id: WorkerId,
    /// What it shares with its fleet.
    #[command(flatten)]
    pub fleet: FleetSettings,
    /// Servers of the bus that hold each record: 1, 3 or 5; 3 in a cluster of three.
    #[arg(long, env = "HEARTH_REPLICAS", default_value_t = Replicas::ONE)]
    pub replicas: Replicas,
    /// Image of the sessions' root file system (erofs).
    #[arg(long, env = "HEARTH_IMAGE")]
    pub image: PathBuf,
    /// The zygote's library; `libzygote.so` beside this binary by default.
    #[arg(long, env = "HEARTH_ZYGOTE_LIBRARY")]
    pub zygote_library: Option<PathBuf>,
    /// Directory for this worker's run-time state; `/run/hearth/<id>` by default. The worker empties it, so
    /// it must be empty or hold a marker of this worker at the first start.
    #[arg(long, env = "HEARTH_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory for the sessions' data filesystems; `/var/lib/hearth/<id>` by default. The worker empties
    /// it, as its state directory.
    #[arg(long, env = "HEARTH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Bytes of the data directory's disk that stay free. When they are reached, no new session is taken and one
    /// that takes much is stopped (`DiskFull`), until there is room. By default a tenth of the disk, at most 4 GiB.
    #[arg(long, env = "HEARTH_DISK_RESERVE_BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// Allocates every session's data filesystem whole on the disk before it is used, so that none can ever
    /// lack space; a worker takes only as many sessions as fit.
    #[arg(long, env = "HEARTH_ALLOCATE_VOLUMES")]
    pub allocate_volumes: bool,
    /// Factor on the time that steps of making and clearing sandboxes may take and that the owner of a session
    /// may be silent, for machines much slower than others.
    #[arg(long, env = "HEARTH_PATIENCE", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub patience: u32,
    /// Sessions that this worker holds at once.
    #[arg(long, env = "HEARTH_MAX_SESSIONS", default_value_t = 600)]
    pub max_sessions: u32,
    /// Empty cages kept ready for each kind of limits, as far as `--stock` allows.
    #[arg(long, env = "HEARTH_CAGES", default_value_t = 8)]
    pub cages: usize,
    /// Cages with a waiting interpreter kept ready for each kind of limits, as far as `--stock` allows.
    #[arg(long, env = "HEARTH_SPARES", default_value_t = 4)]
    pub spares: usize,
    /// Most cages kept ready for all kinds of limits together, with and without an interpreter. Where
    /// more are wanted, the kinds that were used lately get them.
    #[arg(long, env = "HEARTH_STOCK", default_value_t = 48)]
    pub stock: usize,
    /// Memory for large files on their way to and from the object store, all sessions together, in
    /// bytes.
    #[arg(long, env = "HEARTH_TRANSFER_BYTES", default_value_t = 256 << 20)]
    pub transfer_bytes: u64,
    /// How long running executions may go on once this worker was asked to end, in seconds. What runs
    /// longer is interrupted. Whoever stops the process must be more patient than this by 30 seconds.
    #[arg(long, env = "HEARTH_DRAIN_SECONDS", default_value_t = 230)]
    pub drain_seconds: u32,
    /// Created once this worker serves, removed when it ends.
    #[arg(long, env = "HEARTH_READY_FILE")]
    pub ready_file: Option<PathBuf>,
    /// Where every start of an execution is noted before its code runs, for tests that look for code
    /// that ran twice. Such tests are worth little against another build than the one that serves.
    #[arg(long, env = "HEARTH_START_JOURNAL", hide = true)]
    pub start_journal: Option<PathBuf>,
    /// Where operators ask it how it is.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// What is logged.
    #[command(flatten)]
    pub log: LogSettings,
}

/// Part of a worker key's life after which `caged` no longer believes that its worker lives: it
/// must kill before the fleet gives the sessions to somebody else.
const BEAT_MARGIN: std::time::Duration = std::time::Duration::from_secs(2);

impl Config {
    /// How many sandboxes may be kept ready: `--stock`, or what `--max-sessions` leaves of all that a
    /// worker can have.
    #[must_use]
    pub fn stock_total(&self) -> usize {
        let left = sandbox::CAGES_MAX.saturating_sub(self.max_sessions);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if left < self.stock {
            tracing::warn!(
                stock = left,
                "less is kept ready than was set: a worker has at most {} cages",
                sandbox::CAGES_MAX
            );
        }
        self.stock.min(left)
    }

    /// What the sandboxes need to know.
    #[must_use]
    pub fn sandbox(&self) -> sandbox::Config {
        let library = self.zygote_library.clone().unwrap_or_else(|| {
            let beside = std::env::current_exe().unwrap_or_default();
            beside.with_file_name("libzygote.so")
        });
        let mut config = sandbox::Config::new(self.id.clone(), self.image.clone(), library);
        if let Some(directory) = &self.state_dir {
            config.state_dir.clone_from(directory);
        }
        if let Some(directory) = &self.data_dir {
            config.data_dir.clone_from(directory);
        }
        config.fleet = fleet::of_store(&self.fleet.store);
        config.elsewhere = vec![
            self.fleet.pools.clone(),
            self.fleet.bus.nats_auth.clone(),
            config.zygote_library.clone(),
        ];
        config
            .elsewhere
            .extend(store::local_directory(&self.fleet.store));
        config.disk_reserve_bytes = self.disk_reserve_bytes;
        config.allocate_volumes = self.allocate_volumes;
        config.beat_ttl = limits::WORKER_TTL - BEAT_MARGIN;
        config
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_committed_settings_are_those_of_the_code() {
        loadtest::documents::keep_settings("worker", [&Config::command()]);
    }
}
