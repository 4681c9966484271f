//! Real stores: a directory, Azurite and moto. Servers are shared by all tests of the binary and end
//! with it, however it ends: they watch their standard input.

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

use serde::Deserialize;

use crate::Store;

/// A store for one test.
pub(super) struct Opened {
    pub(super) store: Store,
    _directory: Option<tempfile::TempDir>,
}

/// A new directory.
pub(super) fn local() -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    Opened {
        store: Store::open(&url).unwrap(),
        _directory: Some(directory),
    }
}

pub(super) fn azurite() -> Opened {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("azurite")).open()
}

pub(super) fn moto() -> Opened {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("moto")).open()
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
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
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

    /// A part of it that no other test has.
    fn open(&self) -> Opened {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/below/{number}", self.ready.url);
        Opened {
            store: Store::open_with(&url, self.ready.environment.clone()).unwrap(),
            _directory: None,
        }
    }
}
