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
mod keeper;
mod layout;
mod member;
mod order;
mod pools;
mod ready;
mod supervisor;
mod sweep;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};

pub use builder::{AUDIENCE, ClusterBuilder, ISSUER};
pub use keeper::{keep, leash};
pub use member::Member;
pub use pools::{PoolSpec, pool_path};

use self::{
    builder::{Entry, Kind},
    layout::Layout,
    order::{Halt, Order, Report},
    supervisor::Supervisor,
};
use crate::{client::Client, inventory::Inventory, places::Places, token::Signer, wait::until};

/// How long a process may take until it serves. Generous: machines that test also compile.
const READY_WITHIN: Duration = Duration::from_secs(60);
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
    pool: String,
}

impl Cluster {
    /// A stack to be described.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    pub(crate) async fn start_all(&self) -> Result<()> {
        let (first, rest) = self.members.split_first().context("no processes")?;
        self.start(first.member).await?;
        for entry in rest {
            self.run(entry).await?;
        }
        for entry in rest {
            self.wait_until_ready(entry.member).await?;
        }
        Ok(())
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
        let (http, _) = self.addresses(0)?;
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
            Kind::Ingress { http, https } => Ok((http, https)),
            Kind::Nats | Kind::Worker { .. } => bail!("ingress {ingress} is none"),
        }
    }

    /// Id of a worker.
    ///
    /// # Errors
    /// There is no such worker.
    pub fn worker_id(&self, worker: usize) -> Result<&str> {
        match &self.entry(Member::Worker(worker))?.kind {
            Kind::Worker { id, .. } => Ok(id),
            Kind::Nats | Kind::Ingress { .. } => bail!("worker {worker} is none"),
        }
    }

    /// Path of the first pool's management endpoint.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// A good token, minted by `ingress token`.
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
        builder::another_key(&self.layout, &self.places)
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

    /// Starts a process that does not run and waits until it serves.
    ///
    /// # Errors
    /// It runs already, or it did not get ready.
    pub async fn start(&self, member: Member) -> Result<()> {
        self.run(self.entry(member)?).await?;
        self.wait_until_ready(member).await
    }

    /// Starts a process and waits for its end instead of its readiness; its log is the answer.
    ///
    /// # Errors
    /// It still runs when it should have been ready, or it did get ready.
    pub async fn start_in_vain(&self, member: Member) -> Result<String> {
        match self.start(member).await {
            Ok(()) => bail!("{member} serves"),
            Err(_) => match self
                .supervisor
                .order(Order::Check(member.to_string()))
                .await?
            {
                Report::Ended(_) => Ok(self.log(member)?),
                _ => bail!("{member} neither serves nor ends"),
            },
        }
    }

    /// Ends a process with SIGTERM and says with which status it ended.
    ///
    /// # Errors
    /// It does not run, or survives.
    pub async fn stop(&self, member: Member) -> Result<String> {
        self.halt(member, Halt::Gently).await
    }

    /// Ends a process with SIGKILL.
    ///
    /// # Errors
    /// It does not run, or survives.
    pub async fn kill(&self, member: Member) -> Result<()> {
        self.halt(member, Halt::Kill).await.map(drop)
    }

    /// Ends a process with SIGTERM and starts it anew.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub async fn restart(&self, member: Member) -> Result<()> {
        self.stop(member).await?;
        self.start(member).await
    }

    /// Stops a process where it stands (SIGSTOP).
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self, member: Member) -> Result<()> {
        self.supervisor
            .order(Order::Pause(member.to_string()))
            .await
            .map(drop)
    }

    /// Lets a paused process go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub async fn resume(&self, member: Member) -> Result<()> {
        self.supervisor
            .order(Order::Resume(member.to_string()))
            .await
            .map(drop)
    }

    /// Number of a running process.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pid(&self, member: Member) -> Result<u32> {
        match self
            .supervisor
            .order(Order::Check(member.to_string()))
            .await?
        {
            Report::Running(pid) => Ok(pid),
            other => bail!("{member} does not run: {other:?}"),
        }
    }

    /// What a running worker holds of the host.
    ///
    /// # Errors
    /// It does not run.
    pub async fn inventory(&self, worker: usize) -> Result<Inventory> {
        let pid = self.pid(Member::Worker(worker)).await?;
        let Kind::Worker { id, state } = &self.entry(Member::Worker(worker))?.kind else {
            bail!("worker {worker} is none");
        };
        Ok(Inventory::take(pid, id, state))
    }

    /// Address of the bus, and the password of its user `operator`.
    ///
    /// # Errors
    /// The password cannot be read.
    pub fn operator(&self) -> Result<(SocketAddr, String)> {
        let auth = fs::read_to_string(self.layout.file("nats-operator.auth"))?;
        let password = auth.trim().split_once(':').map(|(_, password)| password);
        let password = password.context("no password for the operator")?;
        Ok((self.layout.nats, password.to_owned()))
    }

    /// Everything that a process has logged.
    ///
    /// # Errors
    /// It never ran.
    pub fn log(&self, member: Member) -> Result<String> {
        let log = fs::read(&self.entry(member)?.process.log)?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Ends of all logs.
    #[must_use]
    pub fn tails(&self) -> String {
        let tail = |entry: &Entry| {
            let lines = layout::tail(&entry.process.log, TAIL_LINES);
            format!(
                "--- {} (end of {})\n{lines}",
                entry.member,
                entry.process.log.display()
            )
        };
        self.members.iter().map(tail).collect()
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

    /// Directory of the object store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.layout.file("store")
    }

    fn entry(&self, member: Member) -> Result<&Entry> {
        let entry = self.members.iter().find(|entry| entry.member == member);
        entry.with_context(|| format!("the stack has no {member}"))
    }

    async fn run(&self, entry: &Entry) -> Result<()> {
        self.supervisor
            .order(Order::Run(entry.process.clone()))
            .await
            .map(drop)
    }

    async fn halt(&self, member: Member, how: Halt) -> Result<String> {
        match self
            .supervisor
            .order(Order::Halt(member.to_string(), how))
            .await?
        {
            Report::Ended(status) => Ok(status),
            other => bail!("{member}: {other:?}"),
        }
    }

    async fn wait_until_ready(&self, member: Member) -> Result<()> {
        let entry = self.entry(member)?;
        let what = format!("{member} serves");
        let ready = until(&what, READY_WITHIN, || async {
            let ready = entry.ready.clone();
            if tokio::task::spawn_blocking(move || ready.holds()).await? {
                return Ok(Some(()));
            }
            self.pid(member).await.map(|_| None)
        });
        let log = || layout::tail(&entry.process.log, TAIL_LINES);
        ready
            .await
            .with_context(|| format!("{member} did not get ready\n{}", log()))
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
