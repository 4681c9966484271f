//! Settings, read once from flags and environment. The doc comments are the manual.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use process::{
    log::LogSettings,
    preflight::Output,
    settings::{AdminSettings, BusSettings, FleetSettings},
};
use proto::id::{ClusterKey, IdError};

/// Hearth's front door: authenticates requests and brings them to the sessions' workers.
#[derive(Debug, Parser)]
#[command(name = "ingress", version)]
pub struct Arguments {
    /// What is logged.
    #[command(flatten)]
    pub log: LogSettings,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve requests.
    Serve(Box<Config>),
    /// Make the fleet take this cluster key in place of the one that it has: every session of before becomes
    /// unreachable, and ingresses with the old key end.
    AcceptNewKey(Box<AcceptNewKey>),
    /// Look at this host and the settings of `serve` without serving: a line for each thing, and exit status 1
    /// when it would not serve.
    Check(Box<CheckArguments>),
}

/// What changing the cluster key needs.
#[derive(Debug, Args)]
pub struct AcceptNewKey {
    /// The bus.
    #[command(flatten)]
    pub bus: BusSettings,
    /// File with the new cluster key.
    #[arg(long, env = "HEARTH_CLUSTER_KEY")]
    pub cluster_key: PathBuf,
    /// Do it.
    #[arg(long)]
    pub yes: bool,
}

/// What `check` looks at.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The settings of `serve`.
    #[command(flatten)]
    pub config: Config,
    /// How findings are written.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Settings of the server.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Address for plain HTTP.
    #[arg(long, env = "HEARTH_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where operators ask it how it is: with reasons, which the other addresses do not give, because
    /// anybody may ask there.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// Address for HTTPS.
    #[arg(long, env = "HEARTH_TLS_LISTEN")]
    pub tls_listen: Option<SocketAddr>,
    /// Certificate chain (PEM). Without one a self-signed certificate is made at start.
    #[arg(long, env = "HEARTH_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, env = "HEARTH_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// What it shares with its fleet.
    #[command(flatten)]
    pub fleet: FleetSettings,
    /// File with the cluster key: 64 hexadecimal digits, the same for all ingresses, readable by its owner only.
    /// An ingress with another key than its fleet's does not start.
    #[arg(long, env = "HEARTH_CLUSTER_KEY")]
    pub cluster_key: PathBuf,
    /// Key set (JWKS) that tokens are signed with: a file or an `https://` or `http://` URL. Read again every 60 s.
    #[arg(long, env = "HEARTH_JWKS")]
    pub jwks: String,
    /// Issuer that tokens must name.
    #[arg(long, env = "HEARTH_JWT_ISSUER")]
    pub jwt_issuer: String,
    /// Audiences of which tokens must name one, separated by commas.
    #[arg(
        long,
        env = "HEARTH_JWT_AUDIENCE",
        value_delimiter = ',',
        default_value = "https://dynamicsessions.io,https://acasessions.io"
    )]
    pub jwt_audience: Vec<String>,
    /// Role that a token's `roles` or `scp` claim must hold; without this setting every valid token
    /// may use every pool.
    #[arg(long, env = "HEARTH_JWT_REQUIRED_ROLE")]
    pub jwt_required_role: Option<String>,
    /// Longest time, in seconds, that the caller of an execution with an `operation-id` is kept waiting.
    /// What still runs then goes on, and is answered to whoever asks with the same id.
    #[arg(long, env = "HEARTH_SYNC_SECONDS", default_value_t = proto::limits::SYNC_SECONDS,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub sync_seconds: u32,
    /// How long, in seconds, it goes on taking requests after SIGTERM while `/readyz` already answers 503, so
    /// that load balancers leave before the port is closed.
    #[arg(long, env = "HEARTH_LAME_DUCK_SECONDS", default_value_t = 5)]
    pub lame_duck_seconds: u32,
    /// How long an HTTP/1 connection may be idle, in seconds, the head of its next request included. Longer
    /// than a proxy in front keeps idle connections.
    #[arg(long, env = "HEARTH_IDLE_SECONDS", default_value_t = crate::connections::IDLE_SECONDS,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub idle_seconds: u32,
    /// Factor on the time that a session's owner may be silent, for machines much slower than others.
    #[arg(long, env = "HEARTH_PATIENCE", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub patience: u32,
    /// Name of this process on the bus: letters, digits and `-`, unique in the fleet. Random by default.
    #[arg(long, env = "HEARTH_INSTANCE", value_parser = instance)]
    pub instance: Option<String>,
}

/// Why the cluster key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterKeyError {
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// The file holds something else.
    #[error("{0} does not hold a cluster key")]
    Malformed(PathBuf, #[source] IdError),
    /// Others may read it.
    #[error("{0} holds the cluster key and must be readable by its owner only (chmod 600)")]
    Readable(PathBuf),
}

/// Reads a cluster key from a file that is its owner's alone.
///
/// # Errors
/// The file cannot be read, others may read it, or it holds something else.
pub fn read_cluster_key(path: &Path) -> Result<ClusterKey, ClusterKeyError> {
    let unread = |error| ClusterKeyError::Read(path.to_owned(), error);
    let file = std::fs::metadata(path).map_err(unread)?;
    if file.permissions().mode() & 0o077 != 0 {
        return Err(ClusterKeyError::Readable(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    text.parse()
        .map_err(|error| ClusterKeyError::Malformed(path.to_owned(), error))
}

/// One token of a subject.
fn instance(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len());
    if fits
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 letters, digits or `-`".to_owned())
    }
}
