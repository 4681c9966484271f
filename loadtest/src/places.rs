//! Where the parts of the stack lie. The only file of this crate that reads the environment.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// Every file that a stack is made of.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `ingress` program.
    pub ingress: PathBuf,
    /// The `worker` program.
    pub worker: PathBuf,
    /// The `hearth` program, which operators use.
    pub hearth: PathBuf,
    /// The `loadtest` program, which also keeps the processes of a stack.
    pub loadtest: PathBuf,
    /// The zygote's library.
    pub zygote_library: PathBuf,
    /// The session image.
    pub image: PathBuf,
    /// The `nats-server` program.
    pub nats_server: PathBuf,
    /// The configuration that `nats-server` is started with, before its blanks are filled in.
    pub nats_template: PathBuf,
    /// What is added to it for each server of a cluster.
    pub nats_cluster_template: PathBuf,
    /// The server of the S3 protocol, which only stacks with such a store need.
    pub s3_server: PathBuf,
}

/// Where the benchmark finds what it measures Hearth against.
#[derive(Clone, Debug)]
pub struct PeerPlaces {
    /// Python of the virtual environment that holds the gateway and ipykernel.
    pub venv: PathBuf,
    /// Exact versions in it.
    pub requirements: PathBuf,
    /// The driver.
    pub script: PathBuf,
}

fn root() -> PathBuf {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_directory
        .parent()
        .unwrap_or(crate_directory)
        .to_owned()
}

fn place(variable: &str, default: impl FnOnce() -> PathBuf) -> PathBuf {
    env::var_os(variable).map_or_else(default, PathBuf::from)
}

impl Places {
    /// Looks where the build puts things; `HEARTH_BIN_DIR`, `HEARTH_ZYGOTE_LIBRARY`,
    /// `HEARTH_IMAGE`, `HEARTH_NATS_SERVER`, `HEARTH_NATS_TEMPLATE`,
    /// `HEARTH_NATS_CLUSTER_TEMPLATE` and `HEARTH_S3_SERVER` override it.
    ///
    /// # Errors
    /// A part is missing; the error names the make target that makes it.
    pub fn find() -> Result<Self> {
        let root = root();
        let programs = place("HEARTH_BIN_DIR", || root.join("target/release"));
        let places = Self {
            ingress: programs.join("ingress"),
            worker: programs.join("worker"),
            hearth: programs.join("hearth"),
            loadtest: programs.join("loadtest"),
            zygote_library: place("HEARTH_ZYGOTE_LIBRARY", || programs.join("libzygote.so")),
            image: place("HEARTH_IMAGE", || root.join(".hearth/image/current.erofs")),
            nats_server: place("HEARTH_NATS_SERVER", || {
                root.join(".hearth/bin/nats-server")
            }),
            nats_template: place("HEARTH_NATS_TEMPLATE", || {
                root.join("infra/nats/hearth.conf.template")
            }),
            nats_cluster_template: place("HEARTH_NATS_CLUSTER_TEMPLATE", || {
                root.join("infra/nats/cluster.conf.template")
            }),
            s3_server: place("HEARTH_S3_SERVER", || {
                root.join(".hearth/stores/venv/bin/s3_server")
            }),
        };
        places.check()?;
        Ok(places)
    }

    fn check(&self) -> Result<()> {
        let parts = [
            (&self.ingress, "make build"),
            (&self.worker, "make build"),
            (&self.hearth, "make build"),
            (&self.loadtest, "make build"),
            (&self.zygote_library, "make build"),
            (&self.image, "make image"),
            (&self.nats_server, "make nats"),
            (&self.nats_template, "git checkout infra/nats"),
            (&self.nats_cluster_template, "git checkout infra/nats"),
        ];
        for (path, remedy) in parts {
            if !path.exists() {
                bail!("{} is missing; `{remedy}` makes it", path.display());
            }
        }
        Ok(())
    }
}

impl PeerPlaces {
    /// Looks beside this crate; `HEARTH_BENCH_VENV` overrides the environment's directory.
    #[must_use]
    pub fn find() -> Self {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
        Self {
            venv: place("HEARTH_BENCH_VENV", || root().join(".hearth/venv/bench")),
            requirements: bench.join("requirements.txt"),
            script: bench.join("peers.py"),
        }
    }
}

/// Debian's Prometheus and its `promtool`: in `HEARTH_PROMETHEUS_DIR` or `.hearth/bin`.
#[must_use]
pub fn prometheus() -> PathBuf {
    place("HEARTH_PROMETHEUS_DIR", || root().join(".hearth/bin"))
}

/// The collector that receives spans: below `HEARTH_STORES` or `.hearth/stores`.
#[must_use]
pub fn span_receiver() -> PathBuf {
    place("HEARTH_STORES", || root().join(".hearth/stores")).join("venv/bin/rotel-agent")
}

/// Tests of the client libraries.
#[must_use]
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where the client libraries are installed: `HEARTH_CLIENTS` or `.hearth/venv/clients`.
#[must_use]
pub fn client_environments() -> PathBuf {
    place("HEARTH_CLIENTS", || root().join(".hearth/venv/clients"))
}

/// Where the benchmark writes its figures for machines: `HEARTH_BENCH_JSON` or
/// `.hearth/bench.json`.
#[must_use]
pub fn bench_report() -> PathBuf {
    place("HEARTH_BENCH_JSON", || root().join(".hearth/bench.json"))
}

/// What makes up requests.
#[must_use]
pub fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Where that is installed: `HEARTH_FUZZ` or `.hearth/venv/fuzz`.
#[must_use]
pub fn fuzz_environment() -> PathBuf {
    place("HEARTH_FUZZ", || root().join(".hearth/venv/fuzz"))
}
