//! Settings, read once from flags and environment. The doc comments are the manual.

use std::path::PathBuf;

use clap::Parser;
use proto::{
    id::WorkerId,
    limits,
    pool::{PoolError, Pools},
};

use crate::{lease::Replicas, sandbox};

/// Runs the sandboxes of Hearth's sessions. Needs root.
#[derive(Clone, Debug, Parser)]
#[command(name = "worker", version)]
pub struct Config {
    /// Name of this worker: unique on its host, the same over restarts.
    #[arg(long = "id", env = "HEARTH_WORKER_ID")]
    pub id: WorkerId,
    /// NATS servers, separated by commas.
    #[arg(
        long,
        env = "HEARTH_NATS",
        default_value = "nats://127.0.0.1:4222",
        value_delimiter = ',',
        num_args = 1
    )]
    pub nats: Vec<async_nats::ServerAddr>,
    /// File with `user:password` for NATS; only its owner may read it.
    #[arg(long, env = "HEARTH_NATS_AUTH")]
    pub nats_auth: PathBuf,
    /// Object store that ingress and workers share, as a URL.
    #[arg(long, env = "HEARTH_STORE")]
    pub store: String,
    /// Servers of the bus that hold each record: 1, or 3 in a cluster of three or more servers.
    #[arg(long, env = "HEARTH_REPLICAS", default_value_t = Replicas::ONE)]
    pub replicas: Replicas,
    /// Pool file (TOML).
    #[arg(long, env = "HEARTH_POOLS")]
    pub pools: PathBuf,
    /// Image of the sessions' root file system (erofs).
    #[arg(long, env = "HEARTH_IMAGE")]
    pub image: PathBuf,
    /// The zygote's library; `libzygote.so` beside this binary by default.
    #[arg(long, env = "HEARTH_ZYGOTE_LIBRARY")]
    pub zygote_library: Option<PathBuf>,
    /// Directory for this worker's run-time state; `/run/hearth/<id>` by default.
    #[arg(long, env = "HEARTH_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory for the sessions' data filesystems; `/var/lib/hearth/<id>` by default.
    #[arg(long, env = "HEARTH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Factor on the time that steps of making and clearing sandboxes may take and that the owner of a session
    /// may be silent, for machines much slower than others.
    #[arg(long, env = "HEARTH_PATIENCE", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub patience: u32,
    /// Sessions that this worker holds at once.
    #[arg(long, env = "HEARTH_MAX_SESSIONS", default_value_t = 600)]
    pub max_sessions: u32,
    /// Empty cages kept ready for each kind of limits.
    #[arg(long, env = "HEARTH_CAGES", default_value_t = 8)]
    pub cages: usize,
    /// Cages with a waiting interpreter kept ready for each kind of limits.
    #[arg(long, env = "HEARTH_SPARES", default_value_t = 4)]
    pub spares: usize,
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
    /// that ran twice; nowhere by default.
    #[arg(long, env = "HEARTH_START_JOURNAL")]
    pub start_journal: Option<PathBuf>,
    /// What is logged: a `tracing` filter.
    #[arg(long, env = "HEARTH_LOG", default_value = "info")]
    pub log: String,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] std::io::Error),
    /// The pool file is not TOML of the expected shape.
    #[error("{0} is not a pool file")]
    Pools(PathBuf, #[source] toml::de::Error),
    /// A pool is refused.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Part of a worker key's life after which `caged` no longer believes that its worker lives: it
/// must kill before the fleet gives the sessions to somebody else.
const BEAT_MARGIN: std::time::Duration = std::time::Duration::from_secs(2);

impl Config {
    /// Reads and checks the pool file.
    ///
    /// # Errors
    /// It cannot be read, or a pool in it is refused.
    pub fn read_pools(&self) -> Result<Pools, ConfigError> {
        let text = read(&self.pools)?;
        let pools: Pools =
            toml::from_str(&text).map_err(|error| ConfigError::Pools(self.pools.clone(), error))?;
        pools.check()?;
        Ok(pools)
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
        config.beat_ttl = limits::WORKER_TTL - BEAT_MARGIN;
        config
    }
}

fn read(path: &PathBuf) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Read(path.clone(), error))
}
