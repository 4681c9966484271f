//! The settings that ingress and worker have in common, each with its name, environment variable, default
//! and help in one place. Those of the log are in [`crate::log`].

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use async_nats::ServerAddr;
use clap::Args;
use proto::pool::{PoolError, Pools};

use crate::{
    failure::line_of,
    remedy::{HasRemedy, Remedy},
};

/// How a process reaches the bus.
#[derive(Clone, Debug, Args)]
pub struct BusSettings {
    /// NATS servers, separated by commas. `tls://` demands TLS of all of them.
    #[arg(
        long,
        env = "HEARTH_NATS",
        default_value = "nats://127.0.0.1:4222",
        value_delimiter = ',',
        num_args = 1
    )]
    pub nats: Vec<ServerAddr>,
    /// File with `user:password` for NATS. It has mode 0600: only its owner may read it.
    #[arg(long, env = "HEARTH_NATS_AUTH")]
    pub nats_auth: PathBuf,
}

/// What a process shares with its fleet: the bus, the object store and the pools.
#[derive(Clone, Debug, Args)]
pub struct FleetSettings {
    /// The bus.
    #[command(flatten)]
    pub bus: BusSettings,
    /// Object store that ingresses and workers share, as a URL: `file://`, `s3://`, `az://` or `gs://`.
    #[arg(long, env = "HEARTH_STORE")]
    pub store: String,
    /// Pool file (TOML), the same for ingresses and workers.
    #[arg(long, env = "HEARTH_POOLS")]
    pub pools: PathBuf,
}

/// Where operators ask a process how it is.
#[derive(Clone, Debug, Args)]
pub struct AdminSettings {
    /// Address at which `GET /healthz`, `GET /readyz` with reasons and `GET /metrics` are answered, best one
    /// that only the host reaches.
    #[arg(long, env = "HEARTH_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
}

/// Why a pool file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoolsError {
    /// It cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// It is not TOML of the expected shape.
    #[error("{path} is not a pool file: line {line}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A pool is refused.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl HasRemedy for PoolsError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(..) => Some(Remedy::PoolFile),
            Self::Malformed { .. } => Some(Remedy::PoolFileSyntax),
            // Its text says it.
            Self::Pool(_) => None,
        }
    }
}

impl FleetSettings {
    /// Reads and checks the pool file.
    ///
    /// # Errors
    /// It cannot be read, or a pool in it is refused.
    pub fn read_pools(&self) -> Result<Pools, PoolsError> {
        read_pools(&self.pools)
    }

    /// When the pool file was written; 1970 where the file system does not know.
    #[must_use]
    pub fn pools_written(&self) -> SystemTime {
        let written = std::fs::metadata(&self.pools).and_then(|file| file.modified());
        written.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Reads and checks a pool file.
///
/// # Errors
/// It cannot be read, or a pool in it is refused.
pub fn read_pools(path: &Path) -> Result<Pools, PoolsError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| PoolsError::Read(path.to_owned(), error))?;
    let pools: Pools = toml::from_str(&text).map_err(|error| PoolsError::Malformed {
        path: path.to_owned(),
        line: line_of(&text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    pools.check()?;
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        fleet: FleetSettings,
        #[command(flatten)]
        admin: AdminSettings,
    }

    #[test]
    fn several_servers_of_the_bus_are_one_value() {
        let words = "program --nats nats://a:1,nats://b:2 --nats-auth f --store s --pools p";
        let Program { fleet, admin } = Program::parse_from(words.split(' '));
        let ports: Vec<_> = fleet.bus.nats.iter().map(ServerAddr::port).collect();
        assert_eq!(ports, [1, 2]);
        assert_eq!(admin.admin_listen, None);
    }

    #[test]
    fn a_pool_file_that_cannot_be_used_is_named_with_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pools.toml");
        let missing = read_pools(&path).unwrap_err();
        assert!(matches!(missing, PoolsError::Read(..)), "{missing}");
        std::fs::write(&path, "[[pool]]\nid = 7\n\nname =\n").unwrap();
        let malformed = read_pools(&path).unwrap_err().to_string();
        assert!(
            malformed.contains("pools.toml is not a pool file: line 4"),
            "{malformed}"
        );
    }
}
