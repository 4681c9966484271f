//! What a stack is made of, before it runs.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{
    Cluster, PoolSpec,
    layout::{self, Layout, free_address, run, temporary_directory, unique},
    member::Member,
    order::Process,
    pools,
    ready::Ready,
    supervisor::Supervisor,
};
use crate::{places::Places, token::Signer};

/// Issuer of the tokens of every test stack.
pub const ISSUER: &str = "https://issuer.hearth.test";
/// Audience of the tokens of every test stack, first of the two that ingress accepts by default.
pub const AUDIENCE: &str = "https://dynamicsessions.io";

/// A stack in the making: one ingress, one worker and one pool, unless told otherwise.
#[derive(Debug)]
#[must_use]
pub struct ClusterBuilder {
    ingresses: usize,
    workers: usize,
    pools: Vec<Box<dyn PoolChange>>,
    ingress_arguments: Vec<OsString>,
    worker_arguments: Vec<OsString>,
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
            ingresses: 1,
            workers: 1,
            pools: Vec::new(),
            ingress_arguments: Vec::new(),
            worker_arguments: Vec::new(),
            log_filter: "info".to_owned(),
        }
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
        let layout = Layout::create(directory, &places, &pools::file(&specs)?)?;
        let signer = Signer::read(&layout.file("keys"))?;
        let token = run(std::process::Command::new(&places.ingress)
            .args([
                "token",
                "--issuer",
                ISSUER,
                "--audience",
                AUDIENCE,
                "--ttl-seconds",
                "86400",
            ])
            .arg("--key")
            .arg(layout.file("keys/signing-key.pem")))?;
        let prefix = unique("t");
        let roll = Roll {
            places: &places,
            layout: &layout,
            ingress_arguments: &self.ingress_arguments,
            worker_arguments: &self.worker_arguments,
            log_filter: &self.log_filter,
        };
        let mut members = vec![roll.nats()];
        for number in 0..self.ingresses {
            members.push(roll.ingress(number)?);
        }
        for number in 0..self.workers {
            members.push(roll.worker(number, &format!("{prefix}-{}", number + 1)));
        }
        let pool = specs.first().map(PoolSpec::path).unwrap_or_default();
        Ok(Cluster {
            supervisor,
            places,
            layout,
            members,
            token,
            signer,
            pool,
        })
    }
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
    Ingress {
        http: std::net::SocketAddr,
        https: std::net::SocketAddr,
    },
    Worker {
        id: String,
        state: PathBuf,
    },
}

struct Roll<'a> {
    places: &'a Places,
    layout: &'a Layout,
    ingress_arguments: &'a [OsString],
    worker_arguments: &'a [OsString],
    log_filter: &'a str,
}

impl Roll<'_> {
    fn process(&self, member: Member, program: &Path, arguments: Vec<OsString>) -> Process {
        Process {
            name: member.to_string(),
            program: program.to_owned(),
            arguments,
            environment: vec![("HEARTH_LOG".to_owned(), self.log_filter.to_owned())],
            log: self.layout.file("log").join(format!("{member}.log")),
            cgroup: None,
        }
    }

    fn nats(&self) -> Entry {
        let member = Member::Nats;
        let arguments = vec!["-c".into(), self.layout.file("nats.conf").into()];
        Entry {
            member,
            process: self.process(member, &self.places.nats_server, arguments),
            ready: Ready::Greets(self.layout.nats),
            kind: Kind::Nats,
        }
    }

    fn shared_arguments(&self, auth: &str) -> Vec<OsString> {
        let store = self.layout.file("store");
        let options: [(&str, OsString); 4] = [
            ("--nats", format!("nats://{}", self.layout.nats).into()),
            ("--nats-auth", self.layout.file(auth).into()),
            ("--store", format!("file://{}", store.display()).into()),
            ("--pools", self.layout.file("pools.toml").into()),
        ];
        options
            .into_iter()
            .flat_map(|(name, value)| [name.into(), value])
            .collect()
    }

    fn ingress(&self, number: usize) -> Result<Entry> {
        let member = Member::Ingress(number);
        let (http, https) = (free_address()?, free_address()?);
        let file = |name: &str| OsString::from(self.layout.file(name));
        let mut arguments = vec![OsString::from("serve")];
        arguments.extend(self.shared_arguments("nats-ingress.auth"));
        let options: [(&str, OsString); 8] = [
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
        Ok(Entry {
            member,
            process: self.process(member, &self.places.ingress, arguments),
            ready: Ready::Answers(http),
            kind: Kind::Ingress { http, https },
        })
    }

    fn worker(&self, number: usize, id: &str) -> Entry {
        let member = Member::Worker(number);
        let ready = self.layout.file(&format!("{member}.ready"));
        let state = self.layout.file(&format!("{member}"));
        let mut arguments = self.shared_arguments("nats-worker.auth");
        let data = self.layout.file(&format!("{member}-data"));
        let options: [(&str, OsString); 6] = [
            ("--id", id.into()),
            ("--image", self.places.image.clone().into()),
            (
                "--zygote-library",
                self.places.zygote_library.clone().into(),
            ),
            ("--state-dir", state.clone().into()),
            ("--data-dir", data.into()),
            ("--ready-file", ready.clone().into()),
        ];
        arguments.extend(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.into(), value]),
        );
        arguments.extend(self.worker_arguments.iter().cloned());
        let mut process = self.process(member, &self.places.worker, arguments);
        process.cgroup = Some(id.to_owned());
        Entry {
            member,
            process,
            ready: Ready::Wrote(ready),
            kind: Kind::Worker {
                id: id.to_owned(),
                state,
            },
        }
    }
}

/// Makes another signing key for a stack, to rotate to.
pub(super) fn another_key(layout: &Layout, places: &Places) -> Result<Signer> {
    Signer::read(&layout.make_keys(places, &layout::unique("keys-"))?)
}
