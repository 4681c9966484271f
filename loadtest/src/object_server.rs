//! Servers of the protocols of real object stores, for tests. A server ends with the process that started
//! it, however that ends: it watches its standard input.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A server that `infra/stores/serve.py` runs, in memory and on a free port of loopback.
#[derive(Debug)]
pub struct ObjectServer {
    /// Holds the other end of its standard input.
    _child: Child,
    ready: Ready,
    parts: AtomicU64,
}

/// What `infra/stores/serve.py` says.
#[derive(Debug, Deserialize)]
struct Ready {
    url: String,
    environment: HashMap<String, String>,
}

/// URL of a part of a store, and the environment variables that go with it.
pub type Part = (String, HashMap<String, String>);

impl ObjectServer {
    /// Starts `moto` (S3) or `azurite` (Azure Blob Storage) and waits until it serves. The environment
    /// variable `HEARTH_STORES` says where `make stores` has put them, if not in `.hearth/stores`.
    ///
    /// # Errors
    /// `make stores` has not been run, or the server does not start.
    pub fn start(kind: &str) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let stores = env::var_os("HEARTH_STORES");
        let stores = stores.map_or_else(|| root.join(".hearth/stores"), PathBuf::from);
        let python = stores.join("venv/bin/python");
        ensure!(
            python.exists(),
            "{} is missing: run `make stores`",
            python.display()
        );
        let mut child = Command::new(python)
            .arg(root.join("infra/stores/serve.py"))
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let ready = serde_json::from_str(&line);
        Ok(Self {
            _child: child,
            ready: ready.with_context(|| format!("{kind} did not start"))?,
            parts: AtomicU64::new(1),
        })
    }

    /// A part of it that nobody else has.
    #[must_use]
    pub fn part(&self) -> Part {
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/below/{number}", self.ready.url);
        (url, self.ready.environment.clone())
    }
}
