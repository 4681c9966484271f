//! Sandboxes on a real kernel, with the real image: needs root.

mod counters;
mod disk;
mod forged;
mod inside;
mod isolation;
mod leftovers;
mod lifecycle;
mod limits;
mod observation;
mod share;
mod stock;
mod variables;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proto::pool::Limits;
use rustix::io::ioctl_fionread;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use worker::patience::patiently;
use worker::sandbox::{Cage, Config, KernelProcess, Sandboxes};

/// The factor by which this machine is slower than others, as a worker has it.
fn be_patient() {
    let factor = std::env::var("HEARTH_PATIENCE").map_or(1, |text| text.parse().unwrap());
    worker::patience::set(factor);
}

/// No single step of a test takes longer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn within<T>(what: &str, step: impl Future<Output = T>) -> T {
    be_patient();
    let limit = patiently(PATIENCE);
    let done = tokio::time::timeout(limit, step).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

/// The session image: `HEARTH_IMAGE`, or the one that the build keeps in the checkout.
pub(crate) fn image() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.hearth/image/current.erofs");
    let image = std::env::var_os("HEARTH_IMAGE").map_or(built, PathBuf::from);
    assert!(
        image.exists(),
        "{} is missing: build the session image first",
        image.display()
    );
    image
}

/// The zygote library that was built together with this test.
pub(crate) fn zygote_library() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .with_file_name("libzygote.so")
}

/// Held for reading by every test with a host, for writing by those that count things of the whole
/// process.
static COMPANY: RwLock<()> = RwLock::const_new(());

/// A worker's sandboxes with directories of their own.
pub(crate) struct Host {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) config: Config,
    beats: tokio::task::JoinHandle<()>,
    directory: TempDir,
    company: Option<RwLockReadGuard<'static, ()>>,
}

/// Waits until no other test has a host.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    COMPANY.write().await
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let company = COMPANY.read().await;
        let (directory, mut config) = config();
        adjust(&mut config);
        Self {
            company: Some(company),
            ..Self::start_at(directory, config).await
        }
    }

    /// For tests that are alone or share somebody else's directory.
    pub(crate) async fn start_at(directory: TempDir, config: Config) -> Self {
        be_patient();
        let sandboxes = Sandboxes::start(config.clone()).await.unwrap();
        let beating = sandboxes.clone();
        let beats = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_secs(1));
            loop {
                every.tick().await;
                beating.beat(std::time::Instant::now());
            }
        });
        Self {
            sandboxes,
            config,
            beats,
            directory,
            company: None,
        }
    }

    pub(crate) async fn cage(&self) -> Cage {
        within("a cage", self.sandboxes.cage(&limits()))
            .await
            .unwrap()
    }

    pub(crate) async fn session(&self) -> (Cage, Session) {
        let cage = self.cage().await;
        let session = Session::join(&cage).await;
        (cage, session)
    }

    /// From now on the worker is silent.
    pub(crate) fn fall_silent(&self) {
        self.beats.abort();
    }

    /// Stops; the emptied directories come back.
    pub(crate) async fn stop(self) -> TempDir {
        self.beats.abort();
        within("the stop", self.sandboxes.stop()).await;
        self.directory
    }
}

/// Settings of a worker that no other test and no other process shares.
pub(crate) fn config() -> (TempDir, Config) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = tempfile::tempdir().unwrap();
    let worker = format!("test-{}-{number}", std::process::id())
        .parse()
        .unwrap();
    let mut config = Config::new(worker, image(), zygote_library());
    config.state_dir = directory.path().join("state");
    config.data_dir = directory.path().join("data");
    config.helper = env!("CARGO_BIN_EXE_worker").into();
    be_patient();
    config.beat_ttl = patiently(config.beat_ttl);
    (directory, config)
}

pub(crate) fn limits() -> Limits {
    Limits {
        data_bytes: 64 << 20,
        ..Limits::default()
    }
}

/// A conversation with a kernel.
pub(crate) struct Session {
    pub(crate) kernel: KernelProcess,
    next: u64,
}

impl Session {
    /// Joins a cage and waits until the kernel is ready.
    pub(crate) async fn join(cage: &Cage) -> Self {
        let kernel = within("a join", cage.join()).await.unwrap();
        let mut session = Self { kernel, next: 1 };
        let first = within("the first frame", session.frame()).await.unwrap();
        assert_eq!(first["type"], "ready", "{first}");
        session
    }

    /// Runs code; what it printed.
    pub(crate) async fn run(&mut self, code: &str) -> String {
        self.send(code).await;
        within("the end of a cell", self.done()).await
    }

    /// Runs code that prints one JSON value.
    pub(crate) async fn json(&mut self, code: &str) -> Value {
        let printed = self.run(code).await;
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed:?}"))
    }

    pub(crate) async fn send(&mut self, code: &str) {
        let frame = json!({ "type": "execute", "id": self.next, "code": code }).to_string();
        let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
        self.next += 1;
        self.kernel.socket.write_all(&length).await.unwrap();
        self.kernel
            .socket
            .write_all(frame.as_bytes())
            .await
            .unwrap();
    }

    /// Reads output until the cell is done; what it printed.
    pub(crate) async fn done(&mut self) -> String {
        let mut printed = Vec::new();
        loop {
            let mut errors = [0; 4096];
            tokio::select! {
                frame = read_frame(&mut self.kernel.socket) => {
                    let frame = frame.expect("the kernel has ended");
                    if frame["type"] == "done" {
                        if let Some(traceback) = frame["error"]["traceback"].as_str() {
                            println!("{traceback}");
                        }
                        break;
                    }
                }
                read = self.kernel.stdout.read_buf(&mut printed) => { read.unwrap(); }
                read = self.kernel.stderr.read(&mut errors) => {
                    let text = String::from_utf8_lossy(&errors[..read.unwrap()]);
                    print!("{text}");
                }
            }
        }
        // Not by `try_read`, which asks the runtime first, and that may not have heard of it yet.
        let mut held =
            vec![0; usize::try_from(ioctl_fionread(&self.kernel.stdout).unwrap()).unwrap()];
        if !held.is_empty() {
            let count = rustix::io::read(&self.kernel.stdout, &mut held).unwrap();
            printed.extend_from_slice(&held[..count]);
        }
        String::from_utf8(printed).unwrap()
    }

    /// The next frame; `None` when the kernel has ended.
    pub(crate) async fn frame(&mut self) -> Option<Value> {
        read_frame(&mut self.kernel.socket).await
    }
}

// Not cancel-safe in general; the tests' frames are small and arrive whole.
async fn read_frame(socket: &mut tokio::net::UnixStream) -> Option<Value> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).await.ok()?;
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut frame).await.ok()?;
    Some(serde_json::from_slice(&frame).unwrap())
}

/// Waits until something is true that no event tells about.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let poll = async {
        let mut every = tokio::time::interval(Duration::from_millis(5));
        while !is_true() {
            every.tick().await;
        }
    };
    within(what, poll).await;
}

/// A field of a process's status.
pub(crate) fn status(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field}"))
        .trim()
        .to_owned()
}

/// The process that forked a kernel.
pub(crate) fn zygote_of(session: &Session) -> u32 {
    status(session.kernel.process.pid(), "PPid")
        .parse()
        .unwrap()
}

/// Directories of a worker in any cgroup hierarchy.
pub(crate) fn cgroups(config: &Config) -> Vec<PathBuf> {
    let suffix = format!("hearth/{}", config.worker.as_str());
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mount| Path::new(mount).join(&suffix))
        .filter(|directory| directory.exists())
        .collect()
}

/// Loop devices in front of a worker's files.
pub(crate) fn loops(config: &Config) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").unwrap();
    devices
        .filter_map(|device| {
            std::fs::read_to_string(device.ok()?.path().join("loop/backing_file")).ok()
        })
        .filter(|backing| backing.contains(config.data_dir.to_str().unwrap()))
        .collect()
}
