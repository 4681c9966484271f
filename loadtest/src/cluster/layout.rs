//! Files of a stack: keys, passwords, pools, configuration.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use ulid::Ulid;

use crate::places::Places;

/// Ports outside the range that the kernel hands out for outgoing connections, so that nothing
/// takes one between looking and listening.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// Directory of a stack with everything that its processes read.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) directory: PathBuf,
    pub(super) nats: SocketAddr,
}

impl Layout {
    /// Fills `directory`.
    pub(super) fn create(directory: PathBuf, places: &Places, pools: &str) -> Result<Self> {
        let layout = Self {
            directory,
            nats: free_address()?,
        };
        for below in ["store", "nats", "log"] {
            fs::create_dir_all(layout.file(below))?;
        }
        layout.write("pools.toml", pools)?;
        layout.write("cluster.key", &secret(32))?;
        layout.configure_nats(places)?;
        layout.make_keys(places, "keys")?;
        run(Command::new(&places.ingress)
            .arg("certificate")
            .arg("--out-dir")
            .arg(layout.file("keys")))?;
        Ok(layout)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes a signing key and its key set in a directory of that name.
    pub(super) fn make_keys(&self, places: &Places, name: &str) -> Result<PathBuf> {
        let directory = self.file(name);
        run(Command::new(&places.ingress)
            .arg("dev-keys")
            .arg("--out-dir")
            .arg(&directory))?;
        Ok(directory)
    }

    fn configure_nats(&self, places: &Places) -> Result<()> {
        let (ingress, worker, operator) = (secret(16), secret(16), secret(16));
        let template = fs::read_to_string(&places.nats_template)?;
        let store = self.file("nats");
        let store = store.to_str().context("a directory that is no text")?;
        let listen = self.nats.to_string();
        let blanks = [
            ("@LISTEN@", listen.as_str()),
            ("@STORE_DIR@", store),
            ("@INGRESS_PASSWORD@", &ingress),
            ("@WORKER_PASSWORD@", &worker),
            ("@OPERATOR_PASSWORD@", &operator),
        ];
        let filled = blanks
            .iter()
            .fold(template, |text, (blank, value)| text.replace(blank, value));
        self.write("nats.conf", &filled)?;
        self.write("nats-operator.auth", &format!("operator:{operator}\n"))?;
        self.write("nats-ingress.auth", &format!("ingress:{ingress}\n"))?;
        self.write("nats-worker.auth", &format!("worker:{worker}\n"))
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

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A loopback address that nobody listens on.
pub(super) fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let spread = u128::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(Ulid::new().random() % spread)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port in {PORTS:?}")
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
