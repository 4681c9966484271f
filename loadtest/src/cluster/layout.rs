//! Files of a stack: keys, passwords, pools, configuration.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use ulid::Ulid;

use super::member::Member;
use crate::places::Places;

/// File with the workers' user and password for the bus.
pub(super) const WORKER_AUTH: &str = "nats-worker.auth";

/// Ports outside the range that the kernel hands out for outgoing connections, so that nothing
/// takes one between looking and listening.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// Directory of a stack with everything that its processes read.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) directory: PathBuf,
    pub(super) nats: Vec<NatsNode>,
}

/// One server of the bus.
#[derive(Clone, Copy, Debug)]
pub(super) struct NatsNode {
    /// Where clients connect.
    pub(super) clients: SocketAddr,
    /// What only a server of a cluster has.
    pub(super) peers: Option<Peers>,
}

/// How servers of a cluster are reached by each other and by whoever looks after them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers {
    pub(super) routes: SocketAddr,
    pub(super) monitor: SocketAddr,
}

/// Ports that one stack has taken, which nobody listens on yet.
#[derive(Debug, Default)]
pub(super) struct Ports(BTreeSet<u16>);

impl Layout {
    /// Fills `directory`, with the configuration of so many servers of the bus.
    pub(super) fn create(
        directory: PathBuf,
        places: &Places,
        pools: &str,
        nats: Vec<NatsNode>,
    ) -> Result<Self> {
        let layout = Self { directory, nats };
        for below in ["store", "log"] {
            fs::create_dir_all(layout.file(below))?;
        }
        layout.write("pools.toml", pools)?;
        layout.write("cluster.key", &secret(32))?;
        layout.configure_nats(places)?;
        devkeys::certificate(&layout.make_keys("keys")?)?;
        Ok(layout)
    }

    /// All servers of the bus.
    pub(super) fn nats_urls(&self) -> Vec<String> {
        let url = |node: &NatsNode| format!("nats://{}", node.clients);
        self.nats.iter().map(url).collect()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes a signing key and its key set in a directory of that name.
    pub(super) fn make_keys(&self, name: &str) -> Result<PathBuf> {
        let directory = self.file(name);
        devkeys::make(&directory)?;
        Ok(directory)
    }

    fn configure_nats(&self, places: &Places) -> Result<()> {
        let [ingress, worker, operator, route] = [(); 4].map(|()| secret(16));
        let server = fs::read_to_string(&places.nats_template)?;
        let cluster = fs::read_to_string(&places.nats_cluster_template)?;
        for (number, node) in self.nats.iter().enumerate() {
            let name = Member::Nats(number).to_string();
            let cluster = match &node.peers {
                None => String::new(),
                Some(peers) => filled(
                    &cluster,
                    &[
                        ("@SERVER_NAME@", &name),
                        ("@MONITOR@", &peers.monitor.to_string()),
                        ("@ROUTE_LISTEN@", &peers.routes.to_string()),
                        ("@ROUTE_PASSWORD@", &route),
                        ("@ROUTES@", &self.routes(&route)),
                    ],
                ),
            };
            let store = self.file(&name);
            fs::create_dir_all(&store)?;
            let store = store.to_str().context("a directory that is no text")?;
            let configuration = filled(
                &server,
                &[
                    ("@LISTEN@", &node.clients.to_string()),
                    ("@STORE_DIR@", store),
                    ("@INGRESS_PASSWORD@", &ingress),
                    ("@WORKER_PASSWORD@", &worker),
                    ("@OPERATOR_PASSWORD@", &operator),
                    ("@CLUSTER@", &cluster),
                ],
            );
            self.write(&format!("{name}.conf"), &configuration)?;
        }
        self.write("nats-operator.auth", &format!("operator:{operator}\n"))?;
        self.write("nats-ingress.auth", &format!("ingress:{ingress}\n"))?;
        self.write(WORKER_AUTH, &format!("worker:{worker}\n"))
    }

    fn routes(&self, password: &str) -> String {
        let peers = self.nats.iter().filter_map(|node| node.peers);
        let routes: Vec<_> = peers
            .map(|peers| format!("\"nats://route:{password}@{}\"", peers.routes))
            .collect();
        routes.join(", ")
    }

    /// Writes a file that only its owner can read.
    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.file(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content.as_bytes())
            .with_context(|| path.display().to_string())
    }
}

fn filled(template: &str, blanks: &[(&str, &str)]) -> String {
    blanks
        .iter()
        .fold(template.to_owned(), |text, (blank, value)| {
            text.replace(blank, value)
        })
}

impl Ports {
    /// A loopback address that nobody listens on, and that was not given away before.
    pub(super) fn address(&mut self) -> Result<SocketAddr> {
        for _ in 0..100 {
            let spread = u128::from(PORTS.end - PORTS.start);
            let port = PORTS.start + u16::try_from(Ulid::new().random() % spread)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if !self.0.contains(&port) && TcpListener::bind(address).is_ok() {
                self.0.insert(port);
                return Ok(address);
            }
        }
        bail!("no free port in {PORTS:?}")
    }

    /// Addresses of so many servers of the bus; more than one are a cluster.
    pub(super) fn nats(&mut self, servers: usize) -> Result<Vec<NatsNode>> {
        let node = |_| {
            let clients = self.address()?;
            let peers = match servers {
                ..=1 => None,
                _ => Some(Peers {
                    routes: self.address()?,
                    monitor: self.address()?,
                }),
            };
            Ok(NatsNode { clients, peers })
        };
        (0..servers).map(node).collect()
    }
}

/// A name that no other stack has.
pub(super) fn unique(prefix: &str) -> String {
    let random = Ulid::new().to_string().to_ascii_lowercase();
    let (_, tail) = random.split_at(random.len() - 8);
    format!("{prefix}{tail}")
}

/// So many random bytes in hexadecimal digits.
fn secret(bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes * 2 {
        text.push_str(&format!(
            "{:016x}",
            Ulid::new().random() & u128::from(u64::MAX)
        ));
    }
    text.truncate(bytes * 2);
    text
}

/// Directory below the system's for temporary files. Short: sockets lie in it.
pub(super) fn temporary_directory() -> Result<PathBuf> {
    let directory = tempfile::Builder::new().prefix("hearth-").tempdir()?;
    Ok(directory.keep())
}

/// The last lines of a log.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| format!("{line}\n"))
        .collect()
}
