//! The real stack on free loopback ports: nats-server, ingresses and workers with a directory, keys
//! and ids of their own, so that any number of stacks run beside each other.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loadtest::cluster::Cluster;
//!
//! let cluster = Cluster::builder().workers(2).pool(|pool| pool.max_sessions(5)).start().await?;
//! let session = cluster.client(0)?.fresh();
//! assert_eq!(session.execute("6 * 7").await?.result, 42);
//! # Ok(()) }
//! ```
//!
//! A separate keeper process holds the stack. It ends it when the [`Cluster`] is dropped and also
//! when its owner dies in whatever way.

mod builder;
mod control;
mod helper;
mod keeper;
mod layout;
mod member;
mod order;
mod pools;
mod ready;
mod store;
mod supervisor;
mod sweep;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, bail};

pub use builder::{AUDIENCE, ClusterBuilder, ISSUER};
pub use keeper::{keep, leash};
pub use member::Member;
pub use pools::{PoolSpec, pool_path};

use proto::id::{ClusterKey, Identifier, PoolId, SessionKey};

use self::{
    builder::{Entry, Kind},
    layout::Layout,
    order::Order,
    store::Shelf,
    supervisor::Supervisor,
};
use crate::{
    client::Client, inventory::Inventory, places::Places, store_proxy::Trouble, token::Signer,
};

/// Lines of each log that are shown when something went wrong.
const TAIL_LINES: usize = 40;

/// A stack. Dropping it ends all its processes and removes its files; if a test panics meanwhile,
/// the files stay and the ends of the logs are shown.
#[derive(Debug)]
pub struct Cluster {
    supervisor: Arc<Supervisor>,
    places: Places,
    layout: Layout,
    members: Vec<Entry>,
    token: String,
    signer: Signer,
    pools: Vec<PoolSpec>,
    shelf: Shelf,
    pool: String,
    /// Helper processes that are paused; one whose worker has died would not be found any more.
    paused: Mutex<BTreeMap<Member, u32>>,
}

impl Cluster {
    /// A stack to be described.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// A client of the first pool through ingress number `ingress`.
    ///
    /// # Errors
    /// There is no such ingress.
    pub fn client(&self, ingress: usize) -> Result<Client> {
        let (http, _) = self.addresses(ingress)?;
        Ok(Client::new(
            format!("http://{http}{}", self.pool),
            &self.token,
        )?)
    }

    /// A client of the pool called `name`, which need not exist.
    ///
    /// # Errors
    /// There is no ingress.
    pub fn client_of(&self, name: &str) -> Result<Client> {
        self.client_of_through(name, 0)
    }

    /// The same through ingress number `ingress`.
    ///
    /// # Errors
    /// There is no such ingress.
    pub fn client_of_through(&self, name: &str, ingress: usize) -> Result<Client> {
        let (http, _) = self.addresses(ingress)?;
        Ok(Client::new(
            format!("http://{http}{}", pool_path(name)),
            &self.token,
        )?)
    }

    /// A client that speaks HTTPS.
    ///
    /// # Errors
    /// There is no such ingress.
    pub fn https_client(&self, ingress: usize) -> Result<Client> {
        let (_, https) = self.addresses(ingress)?;
        Ok(Client::new(
            format!("https://localhost:{}{}", https.port(), self.pool),
            &self.token,
        )?)
    }

    /// HTTP and HTTPS address of an ingress.
    ///
    /// # Errors
    /// There is no such ingress.
    pub fn addresses(&self, ingress: usize) -> Result<(SocketAddr, SocketAddr)> {
        match self.entry(Member::Ingress(ingress))?.kind {
            Kind::Ingress { http, https, .. } => Ok((http, https)),
            Kind::Nats | Kind::Store | Kind::Worker { .. } => bail!("ingress {ingress} is none"),
        }
    }

    /// Addresses of the bus's servers.
    #[must_use]
    pub fn nats(&self) -> Vec<String> {
        self.layout.nats_urls()
    }

    /// User and password for the bus of a role, `ingress`, `worker` or `operator`.
    ///
    /// # Errors
    /// There is no such role.
    pub fn nats_credentials(&self, role: &str) -> Result<(String, String)> {
        let file = self.layout.file(&format!("nats-{role}.auth"));
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let (user, password) = text.trim().split_once(':').context("no password")?;
        Ok((user.to_owned(), password.to_owned()))
    }

    /// Id of a worker.
    ///
    /// # Errors
    /// There is no such worker.
    pub fn worker_id(&self, worker: usize) -> Result<&str> {
        match &self.entry(Member::Worker(worker))?.kind {
            Kind::Worker { id, .. } => Ok(id),
            Kind::Nats | Kind::Store | Kind::Ingress { .. } => bail!("worker {worker} is none"),
        }
    }

    /// Where a worker tells its readiness.
    ///
    /// # Errors
    /// There is no such worker.
    pub fn admin_address(&self, worker: usize) -> Result<SocketAddr> {
        self.admin_address_of(Member::Worker(worker))
    }

    /// Where an ingress or a worker tells its readiness with reasons.
    ///
    /// # Errors
    /// There is no such process.
    pub fn admin_address_of(&self, member: Member) -> Result<SocketAddr> {
        match self.entry(member)?.kind {
            Kind::Worker { admin, .. } | Kind::Ingress { admin, .. } => Ok(admin),
            Kind::Nats | Kind::Store => bail!("{member} does not tell its readiness"),
        }
    }

    /// The command that a process of the stack is started by, to be run by other means.
    ///
    /// # Errors
    /// There is no such process.
    pub fn command(&self, member: Member) -> Result<std::process::Command> {
        let process = &self.entry(member)?.process;
        let mut command = std::process::Command::new(&process.program);
        command
            .args(&process.arguments)
            .envs(process.environment.iter().cloned())
            .current_dir(&self.layout.directory);
        Ok(command)
    }

    /// `hearth` with an operator's credentials, to be given its words.
    #[must_use]
    pub fn operator(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.places.hearth);
        command
            .env("HEARTH_NATS", self.nats().join(","))
            .env("HEARTH_NATS_AUTH", self.layout.file("nats-operator.auth"))
            .env("HEARTH_POOLS", self.layout.file("pools.toml"));
        command
    }

    /// Where a worker notes what it starts; the file is there once it has run.
    ///
    /// # Errors
    /// There is no such worker.
    pub fn journal(&self, worker: usize) -> Result<&Path> {
        match &self.entry(Member::Worker(worker))?.kind {
            Kind::Worker { journal, .. } => Ok(journal),
            Kind::Nats | Kind::Store | Kind::Ingress { .. } => bail!("worker {worker} is none"),
        }
    }

    /// Everyone that the harness starts.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().map(|entry| entry.member)
    }

    /// Internal name of a pool.
    ///
    /// # Errors
    /// The stack has no such pool.
    pub fn pool_id(&self, name: &str) -> Result<&PoolId> {
        let pool = self
            .pools
            .iter()
            .find(|pool| pool.path() == pool_path(name));
        Ok(pool.with_context(|| format!("no pool `{name}`"))?.id())
    }

    /// Internal name of a session of that pool.
    ///
    /// # Errors
    /// The stack has no such pool, or the identifier can be none's.
    pub fn session_key(&self, pool: &str, identifier: &str) -> Result<SessionKey> {
        let key: ClusterKey = fs::read_to_string(self.layout.file("cluster.key"))?.parse()?;
        let identifier: Identifier = identifier.parse()?;
        Ok(SessionKey::derive(&key, self.pool_id(pool)?, &identifier))
    }

    /// Addresses of the object store's server and of the proxy before it.
    ///
    /// # Errors
    /// The store has no proxy.
    pub fn store_addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        self.shelf.addresses()
    }

    /// Tells the proxy of the object store which trouble to make from now on.
    ///
    /// # Errors
    /// There is no proxy, or it does not answer.
    pub async fn trouble(&self, trouble: Trouble) -> Result<()> {
        crate::store_proxy::order(self.shelf.control()?, trouble).await
    }

    /// Path of the first pool's management endpoint.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// A good token, minted as `devkeys token` does.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The key that good tokens are signed with.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// A new signing key that is not in the key set.
    ///
    /// # Errors
    /// It could not be made.
    pub fn another_signer(&self) -> Result<Signer> {
        builder::another_key(&self.layout)
    }

    /// Replaces the key set by one that holds these keys.
    ///
    /// # Errors
    /// It could not be written.
    pub fn publish_keys(&self, signers: &[&Signer]) -> Result<()> {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        let new = self.layout.file("keys/jwks.json.new");
        fs::write(&new, serde_json::json!({ "keys": keys }).to_string())?;
        Ok(fs::rename(new, self.layout.file("keys/jwks.json"))?)
    }

    /// What a running worker holds of the host.
    ///
    /// # Errors
    /// It does not run.
    pub async fn inventory(&self, worker: usize) -> Result<Inventory> {
        let pid = self.pid(Member::Worker(worker)).await?;
        let Kind::Worker { id, state, .. } = &self.entry(Member::Worker(worker))?.kind else {
            bail!("worker {worker} is none");
        };
        Ok(Inventory::take(pid, id, state))
    }

    /// Everything that a process has logged.
    ///
    /// # Errors
    /// It never ran.
    pub fn log(&self, member: Member) -> Result<String> {
        let log = fs::read(&self.entry(member)?.process.log)?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// End of the log of a process.
    #[must_use]
    pub fn tail(&self, member: Member) -> String {
        match self.entry(member) {
            Ok(entry) => {
                let log = &entry.process.log;
                let lines = layout::tail(log, TAIL_LINES);
                format!("--- {member} (end of {})\n{lines}", log.display())
            }
            Err(error) => format!("--- {error}\n"),
        }
    }

    /// Ends of all logs.
    #[must_use]
    pub fn tails(&self) -> String {
        self.members().map(|member| self.tail(member)).collect()
    }

    /// Leaves the directory when the stack ends.
    ///
    /// # Errors
    /// The stack has ended.
    pub fn keep_files(&self) -> Result<()> {
        self.supervisor.order_now(&Order::KeepFiles).map(drop)
    }

    /// Directory that everything of the stack lies in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.layout.directory
    }

    /// Directory of the object store, empty when the store is none.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.layout.file("store")
    }

    fn entry(&self, member: Member) -> Result<&Entry> {
        let entry = self.members.iter().find(|entry| entry.member == member);
        entry.with_context(|| format!("the stack has no {member}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Already failing: a stack that cannot be reached any more has no files to keep.
            drop(self.keep_files());
            eprintln!("{}", self.tails());
        }
    }
}
