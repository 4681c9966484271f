//! The kinds of object stores that the same tests run on. Servers are shared by all tests of the
//! binary and end with it, however it ends: they watch their standard input.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use loadtest::cluster::{Cluster, ClusterBuilder};
use serde::Deserialize;

/// Where a stack's objects are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ObjectStore {
    /// A directory of the stack's own.
    Directory,
    /// moto, a server of the S3 protocol.
    S3,
    /// Azurite, a server of the protocol of Azure Blob Storage.
    Azure,
}

impl ObjectStore {
    /// A stack over a part of the store that no other stack has.
    pub(crate) fn builder(self) -> ClusterBuilder {
        static S3: OnceLock<Server> = OnceLock::new();
        static AZURE: OnceLock<Server> = OnceLock::new();
        let builder = Cluster::builder();
        match self {
            Self::Directory => builder,
            Self::S3 => S3.get_or_init(|| Server::start("moto")).below(builder),
            Self::Azure => AZURE
                .get_or_init(|| Server::start("azurite"))
                .below(builder),
        }
    }
}

struct Server {
    /// Holds the other end of its standard input.
    _child: Child,
    ready: Ready,
}

/// What `infra/stores/serve.py` says.
#[derive(Deserialize)]
struct Ready {
    url: String,
    environment: HashMap<String, String>,
}

impl Server {
    fn start(kind: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let stores = env::var_os("HEARTH_STORES");
        let stores = stores.map_or_else(|| root.join(".hearth/stores"), PathBuf::from);
        let python = stores.join("venv/bin/python");
        assert!(
            python.exists(),
            "{} is missing: run `make stores`",
            python.display()
        );
        let mut child = Command::new(python)
            .arg(root.join("infra/stores/serve.py"))
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line);
        Self {
            _child: child,
            ready: ready.unwrap_or_else(|_| panic!("{kind} did not start")),
        }
    }

    fn below(&self, builder: ClusterBuilder) -> ClusterBuilder {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/stack/{number}", self.ready.url);
        builder.store_url(url, self.ready.environment.clone())
    }
}

/// Makes each of these functions, which take the kind of object store, a test on every kind.
macro_rules! on_every_object_store {
    ($($test:ident),+ $(,)?) => {
        mod on_a_directory {
            use crate::object_store::ObjectStore;
            $(#[tokio::test] async fn $test() { super::$test(ObjectStore::Directory).await; })+
        }
        mod on_s3 {
            use crate::object_store::ObjectStore;
            $(#[tokio::test] async fn $test() { super::$test(ObjectStore::S3).await; })+
        }
        mod on_azure {
            use crate::object_store::ObjectStore;
            $(#[tokio::test] async fn $test() { super::$test(ObjectStore::Azure).await; })+
        }
    };
}
pub(crate) use on_every_object_store;
