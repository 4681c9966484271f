//! What a stack is made of, before it runs.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::Result;
use devkeys::TokenArguments;

use super::{
    Cluster, PoolSpec,
    layout::{self, Layout, Ports, temporary_directory, unique},
    member::Member,
    order::Process,
    pools,
    ready::Ready,
    store::{Shelf, StoreKind},
    supervisor::Supervisor,
};
use crate::{places::Places, token::Signer};

/// Issuer of the tokens of every test stack.
pub const ISSUER: &str = "https://issuer.hearth.test";
/// Audience of the tokens of every test stack, first of the two that ingress accepts by default.
pub const AUDIENCE: &str = "https://dynamicsessions.io";
/// Most replicas that a record of the bus can have.
const REPLICAS_MAX: usize = 5;

/// A stack in the making: one ingress, one worker and one pool, unless told otherwise.
#[derive(Debug)]
#[must_use]
pub struct ClusterBuilder {
    nats_nodes: usize,
    ingresses: usize,
    workers: usize,
    store: StoreKind,
    pools: Vec<Box<dyn PoolChange>>,
    ingress_arguments: Vec<OsString>,
    worker_arguments: Vec<OsString>,
    ingress_environment: Vec<(String, String)>,
    worker_environment: Vec<(String, String)>,
    one_worker_id: bool,
    log_filter: String,
}

trait PoolChange: Send {
    fn apply(self: Box<Self>, pool: PoolSpec) -> PoolSpec;
}

impl<F: FnOnce(PoolSpec) -> PoolSpec + Send> PoolChange for F {
    fn apply(self: Box<Self>, pool: PoolSpec) -> PoolSpec {
        self(pool)
    }
}

impl std::fmt::Debug for dyn PoolChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolChange")
    }
}

impl ClusterBuilder {
    pub(super) fn new() -> Self {
        Self {
            nats_nodes: 1,
            ingresses: 1,
            workers: 1,
            store: StoreKind::Directory,
            pools: Vec::new(),
            ingress_arguments: Vec::new(),
            worker_arguments: Vec::new(),
            ingress_environment: Vec::new(),
            worker_environment: Vec::new(),
            one_worker_id: false,
            log_filter: "info".to_owned(),
        }
    }

    /// So many servers of the bus. More than one are a cluster, of which every record is on all, up
    /// to five.
    pub fn nats_nodes(mut self, count: usize) -> Self {
        self.nats_nodes = count.max(1);
        self
    }

    /// An object store that is reached at this URL and with these environment variables, instead of
    /// a directory.
    pub fn store_url<K: Into<String>, V: Into<String>>(
        mut self,
        url: impl Into<String>,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.store = StoreKind::At(url.into(), texts(environment).collect());
        self
    }

    /// A server of the S3 protocol as object store, instead of a directory. It is in memory: killing
    /// it loses everything.
    pub fn s3_store(mut self) -> Self {
        self.store = StoreKind::S3;
        self
    }

    /// The same behind a proxy that can be told to make trouble; `seed` decides which requests it
    /// hits. See [`Cluster::trouble`].
    pub fn s3_store_behind_proxy(mut self, seed: u64) -> Self {
        self.store = StoreKind::ProxiedS3(seed);
        self
    }

    /// So many ingresses.
    pub fn ingresses(mut self, count: usize) -> Self {
        self.ingresses = count;
        self
    }

    /// So many workers.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// One more pool. The first call replaces the default pool, which is `PoolSpec`'s default.
    pub fn pool(mut self, change: impl FnOnce(PoolSpec) -> PoolSpec + Send + 'static) -> Self {
        self.pools.push(Box::new(change));
        self
    }

    /// More arguments for every ingress, such as `--jwt-required-role executor`.
    pub fn ingress_arguments<I: IntoIterator<Item = S>, S: Into<OsString>>(
        mut self,
        arguments: I,
    ) -> Self {
        self.ingress_arguments
            .extend(arguments.into_iter().map(Into::into));
        self
    }

    /// More arguments for every worker, such as `--spares 0`.
    pub fn worker_arguments<I: IntoIterator<Item = S>, S: Into<OsString>>(
        mut self,
        arguments: I,
    ) -> Self {
        self.worker_arguments
            .extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Variables in the environment of every ingress, such as those that make its clock wrong.
    pub fn ingress_environment<K: Into<String>, V: Into<String>>(
        mut self,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.ingress_environment.extend(texts(environment));
        self
    }

    /// The same of every worker.
    pub fn worker_environment<K: Into<String>, V: Into<String>>(
        mut self,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.worker_environment.extend(texts(environment));
        self
    }

    /// Gives all workers the same id, as an operator may by mistake.
    pub fn one_worker_id(mut self) -> Self {
        self.one_worker_id = true;
        self
    }

    /// Starts everything and waits until it serves.
    ///
    /// # Errors
    /// A part is missing, or one did not get ready; its log is in the error.
    pub async fn start(self) -> Result<Cluster> {
        let cluster = self.prepare()?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Writes all files but starts no process.
    ///
    /// # Errors
    /// A part is missing.
    pub fn prepare(self) -> Result<Cluster> {
        let places = Places::find()?;
        let directory = temporary_directory()?;
        let supervisor = Supervisor::start(&places.loadtest, &directory)?;
        let mut specs = Vec::new();
        for change in self.pools {
            specs.push(change.apply(PoolSpec::new()?));
        }
        if specs.is_empty() {
            specs.push(PoolSpec::new()?);
        }
        let mut ports = Ports::default();
        let nats = ports.nats(self.nats_nodes)?;
        let layout = Layout::create(directory, &places, &pools::file(&specs)?, nats)?;
        let signer = Signer::read(&layout.file("keys"))?;
        let token = devkeys::token(&TokenArguments {
            key: layout.file("keys/signing-key.pem"),
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            ttl_seconds: 86_400,
        })?;
        let prefix = unique("t");
        let shelf = Shelf::prepare(self.store, &layout, &mut ports)?;
        let mut roll = Roll {
            places: &places,
            layout: &layout,
            shelf: &shelf,
            ports,
            ingress_arguments: &self.ingress_arguments,
            worker_arguments: &self.worker_arguments,
            ingress_environment: &self.ingress_environment,
            worker_environment: &self.worker_environment,
            log_filter: &self.log_filter,
        };
        let mut members: Vec<_> = (0..self.nats_nodes)
            .filter_map(|number| roll.nats(number))
            .collect();
        members.extend(shelf.members(&roll));
        for number in 0..self.ingresses {
            members.push(roll.ingress(number)?);
        }
        for number in 0..self.workers {
            let name = if self.one_worker_id { 1 } else { number + 1 };
            members.push(roll.worker(number, &format!("{prefix}-{name}"))?);
        }
        members.sort_by_key(|entry| entry.member.stage());
        let pool = specs.first().map(PoolSpec::path).unwrap_or_default();
        Ok(Cluster {
            supervisor,
            places,
            layout,
            members,
            token,
            signer,
            pools: specs,
            shelf,
            pool,
            paused: Mutex::default(),
        })
    }
}

/// Variables and their values.
fn texts<K: Into<String>, V: Into<String>>(
    environment: impl IntoIterator<Item = (K, V)>,
) -> impl Iterator<Item = (String, String)> {
    let environment = environment.into_iter();
    environment.map(|(name, value)| (name.into(), value.into()))
}

/// One process of a stack with everything that is known of it in advance.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) member: Member,
    pub(super) process: Process,
    pub(super) ready: Ready,
    pub(super) kind: Kind,
}

/// What only one kind of process has.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Nats,
    Store,
    Ingress {
        http: SocketAddr,
        https: SocketAddr,
        admin: SocketAddr,
    },
    Worker {
        id: String,
        state: PathBuf,
        journal: PathBuf,
        admin: SocketAddr,
    },
}

/// Describes the processes.
pub(super) struct Roll<'a> {
    pub(super) places: &'a Places,
    layout: &'a Layout,
    shelf: &'a Shelf,
    ports: Ports,
    ingress_arguments: &'a [OsString],
    worker_arguments: &'a [OsString],
    ingress_environment: &'a [(String, String)],
    worker_environment: &'a [(String, String)],
    log_filter: &'a str,
}

impl Roll<'_> {
    pub(super) fn process(
        &self,
        member: Member,
        program: &Path,
        arguments: Vec<OsString>,
    ) -> Process {
        Process {
            name: member.to_string(),
            program: program.to_owned(),
            arguments,
            environment: vec![("HEARTH_LOG".to_owned(), self.log_filter.to_owned())],
            log: self.layout.file("log").join(format!("{member}.log")),
            cgroup: None,
        }
    }

    fn nats(&self, number: usize) -> Option<Entry> {
        let (member, node) = (Member::Nats(number), self.layout.nats.get(number)?);
        let arguments = vec![
            "-c".into(),
            self.layout.file(&format!("{member}.conf")).into(),
        ];
        Some(Entry {
            member,
            process: self.process(member, &self.places.nats_server, arguments),
            ready: match node.peers {
                None => Ready::Greets(node.clients),
                Some(peers) => Ready::Answers(peers.monitor, "/healthz"),
            },
            kind: Kind::Nats,
        })
    }

    fn shared_arguments(&self, auth: &str) -> Vec<OsString> {
        let options: [(&str, OsString); 4] = [
            ("--nats", self.layout.nats_urls().join(",").into()),
            ("--nats-auth", self.layout.file(auth).into()),
            ("--store", self.shelf.url.clone().into()),
            ("--pools", self.layout.file("pools.toml").into()),
        ];
        options
            .into_iter()
            .flat_map(|(name, value)| [name.into(), value])
            .collect()
    }

    fn ingress(&mut self, number: usize) -> Result<Entry> {
        let member = Member::Ingress(number);
        let (http, https) = (self.ports.address()?, self.ports.address()?);
        let admin = self.ports.address()?;
        let file = |name: &str| OsString::from(self.layout.file(name));
        let mut arguments = vec![OsString::from("serve")];
        arguments.extend(self.shared_arguments("nats-ingress.auth"));
        let options: [(&str, OsString); 9] = [
            ("--admin-listen", admin.to_string().into()),
            ("--listen", http.to_string().into()),
            ("--tls-listen", https.to_string().into()),
            ("--tls-cert", file("keys/cert.pem")),
            ("--tls-key", file("keys/key.pem")),
            ("--cluster-key", file("cluster.key")),
            ("--jwks", file("keys/jwks.json")),
            ("--jwt-issuer", ISSUER.into()),
            ("--instance", unique("i").into()),
        ];
        arguments.extend(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.into(), value]),
        );
        arguments.extend(self.ingress_arguments.iter().cloned());
        let mut process = self.process(member, &self.places.ingress, arguments);
        process.environment.extend(self.shelf.environment.clone());
        process
            .environment
            .extend_from_slice(self.ingress_environment);
        // Nobody balances load here. An argument goes before it.
        let at_once = ("HEARTH_LAME_DUCK_SECONDS".to_owned(), "0".to_owned());
        process.environment.push(at_once);
        Ok(Entry {
            member,
            process,
            ready: Ready::Answers(http, "/readyz"),
            kind: Kind::Ingress { http, https, admin },
        })
    }

    fn worker(&mut self, number: usize, id: &str) -> Result<Entry> {
        let member = Member::Worker(number);
        let ready = self.layout.file(&format!("{member}.ready"));
        let state = self.layout.file(&format!("{member}"));
        let mut arguments = self.shared_arguments(layout::WORKER_AUTH);
        let data = self.layout.file(&format!("{member}-data"));
        let journal = self.layout.file(&format!("{member}.journal"));
        let replicas = self.layout.nats.len().min(REPLICAS_MAX);
        let admin = self.ports.address()?;
        let options: [(&str, OsString); 9] = [
            ("--admin-listen", admin.to_string().into()),
            ("--id", id.into()),
            ("--image", self.places.image.clone().into()),
            (
                "--zygote-library",
                self.places.zygote_library.clone().into(),
            ),
            ("--state-dir", state.clone().into()),
            ("--data-dir", data.into()),
            ("--ready-file", ready.clone().into()),
            ("--replicas", replicas.to_string().into()),
            ("--start-journal", journal.clone().into()),
        ];
        arguments.extend(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.into(), value]),
        );
        arguments.extend(self.worker_arguments.iter().cloned());
        let mut process = self.process(member, &self.places.worker, arguments);
        process.environment.extend(self.shelf.environment.clone());
        process
            .environment
            .extend_from_slice(self.worker_environment);
        process.cgroup = Some(id.to_owned());
        Ok(Entry {
            member,
            process,
            ready: Ready::Wrote(ready),
            kind: Kind::Worker {
                id: id.to_owned(),
                state,
                journal,
                admin,
            },
        })
    }
}

/// Makes another signing key for a stack, to rotate to.
pub(super) fn another_key(layout: &Layout) -> Result<Signer> {
    Signer::read(&layout.make_keys(&layout::unique("keys-"))?)
}
