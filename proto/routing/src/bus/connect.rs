//! Connecting to NATS, in the same way from every process.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use records::fleet::Standing;
use tokio::time::Instant;

/// Oldest server that works: per-key TTL, limit markers and a fix for false 503s across nodes
/// (nats-server #8233).
const OLDEST_SERVER: (i64, i64, i64) = (2, 14, 2);
/// How often a silent server is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the server may take to answer a request.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// By how much longer each try to reconnect is waited for, and for how many tries that goes on.
const RETRY_STEP: Duration = Duration::from_millis(20);
const RETRY_STEPS: u32 = 25;

/// Credentials for NATS. Has no `Debug`, so that it never reaches a log.
#[expect(missing_debug_implementations, reason = "a secret")]
pub struct NatsAuth {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is readable by others or has no colon.
    #[error("{0} must hold `user:password` and be readable by its owner only")]
    Refused(PathBuf),
}

impl NatsAuth {
    /// Reads `user:password` from a file that is its owner's alone.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it holds something else.
    pub fn read(file: &Path) -> Result<Self, AuthError> {
        let failed = |error| AuthError::Read(file.to_owned(), error);
        let mode = std::fs::metadata(file)
            .map_err(failed)?
            .permissions()
            .mode();
        let text = std::fs::read_to_string(file).map_err(failed)?;
        match text.trim().split_once(':') {
            Some((user, password)) if mode & 0o077 == 0 => Ok(Self {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err(AuthError::Refused(file.to_owned())),
        }
    }
}

/// A process as the bus knows it.
#[derive(Debug)]
pub struct Peer {
    /// What operators of the bus read.
    pub name: String,
    /// The subjects at which it alone may listen for answers.
    pub inbox_prefix: String,
    /// Messages that wait for one subscriber; more are dropped by the client library.
    pub subscription_capacity: usize,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It was made, for the first time or anew.
    Up,
    /// It was lost.
    Down,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answered, or it refused the credentials.
    #[error("NATS at {0} cannot be reached")]
    Connect(String, #[source] async_nats::ConnectError),
    /// The server lacks what ownership needs.
    #[error("NATS {0} is too old; 2.14.2 or newer is needed")]
    TooOld(String),
}

/// Names the servers, without what may be secret in their addresses.
pub(super) fn refused_by(servers: &[ServerAddr], error: async_nats::ConnectError) -> ConnectError {
    let shown = servers
        .iter()
        .map(|server| format!("{}:{}", server.host(), server.port()));
    ConnectError::Connect(shown.collect::<Vec<_>>().join(", "), error)
}

/// How this process's connection fares. Clones share it.
#[derive(Clone, Debug)]
pub struct Connected {
    last: Arc<Mutex<Instant>>,
    standing: Standing,
}

impl Connected {
    /// Notes that the connection was made just now, or lost: behind it may be another bus.
    pub fn note(&self, link: Link) {
        match link {
            Link::Up => *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now(),
            Link::Down => {}
        }
        self.standing.doubt();
    }

    /// Since when it has been connected without a break.
    pub(super) fn since(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the bus behind it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }
}

impl Default for Connected {
    fn default() -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
            standing: Standing::default(),
        }
    }
}

/// Connects, and from then on reconnects for ever. `changed` is told of every change.
///
/// # Errors
/// No server can be reached, or it is too old.
pub async fn connect(
    servers: &[ServerAddr],
    auth: NatsAuth,
    peer: Peer,
    changed: impl Fn(Link) + Send + Sync + 'static,
) -> Result<Client, ConnectError> {
    let options = ConnectOptions::with_user_and_password(auth.user, auth.password)
        .name(peer.name)
        .custom_inbox_prefix(peer.inbox_prefix)
        .ping_interval(PING_EVERY)
        .request_timeout(Some(ANSWERS_WITHIN))
        .subscription_capacity(peer.subscription_capacity)
        .max_reconnects(None)
        .reconnect_delay_callback(|tries| {
            RETRY_STEP * u32::try_from(tries).unwrap_or(RETRY_STEPS).min(RETRY_STEPS)
        })
        .event_callback(move |event| {
            note(&event, &changed);
            async {}
        });
    let client = as_encrypted_as(servers, options).connect(servers).await;
    let client = client.map_err(|error| refused_by(servers, error))?;
    refuse_old(&client)?;
    Ok(client)
}

/// As soon as one address says `tls://`, every connection is encrypted, and only to a server that is named there:
/// what servers tell of others is heard before the encryption begins.
pub(super) fn as_encrypted_as(servers: &[ServerAddr], options: ConnectOptions) -> ConnectOptions {
    if servers.iter().any(ServerAddr::tls_required) {
        options.require_tls(true).ignore_discovered_servers()
    } else {
        options
    }
}

/// Refuses a server that lacks what ownership needs.
pub(super) fn refuse_old(client: &Client) -> Result<(), ConnectError> {
    let (major, minor, patch) = OLDEST_SERVER;
    if client.is_server_compatible(major, minor, patch) {
        Ok(())
    } else {
        Err(ConnectError::TooOld(client.server_info().version))
    }
}

fn note(event: &Event, changed: impl Fn(Link)) {
    match event {
        Event::Connected => {
            changed(Link::Up);
            tracing::info!("connected to NATS");
        }
        Event::Disconnected => {
            changed(Link::Down);
            tracing::warn!(%event, "NATS connection");
        }
        Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::warn!(%event, "NATS connection");
        }
        // Denied permissions arrive only here.
        Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => {
            tracing::error!(%event, "NATS connection");
        }
    }
}
