//! Where a simulated worker runs code: sandboxes whose code appends a number to a list of files and to a variable,
//! and shows both.

use std::{
    collections::VecDeque,
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use proto::{
    ambient::Random,
    execution::{Language, Truncated},
    file::FilePath,
    id::WorkerId,
    inspection::Usage,
    journal::Start,
    pool::Limits,
};
use store::log::{
    commit::{Body, Change, File, Node, Seq, TreePath},
    key::LogKey,
    upkeep::UpkeepError,
    writer::Writer,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{bug::Bug, seen::Seen};
use crate::{
    files::DataDir,
    kernel::{
        Cell, CellEnd, Program,
        frame::Raised,
        variables::{Snapshot, VariablesError},
    },
    sandbox::{Meter, SandboxError, layout},
    session::ports::{
        CagePort, FilesPort, KernelPort, NewCagePort, NewSandbox, ReservedPort, SignalsPort,
        StockPort,
    },
    stock::{Source, StockError},
    sync::{Changed, RestoreError, SyncError, Synced, Transfers},
};

/// A worker's machine.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) worker: WorkerId,
    pub(super) seen: Arc<Seen>,
    pub(super) chance: Random,
    pub(super) bug: Option<Bug>,
    /// Its end of the store, for the bug that needs it.
    pub(super) store: store_model::Connection,
    /// Whether nothing goes wrong in it any more by chance.
    pub(super) is_calm: AtomicBool,
    /// What is going on in it.
    pub(super) state: watch::Sender<Power>,
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// Nothing on it moves.
    Still,
    /// It is gone for good.
    Off,
}

impl Host {
    /// Does something for as long as the machine is on. Never returns when it is off.
    pub(super) async fn while_on<T>(&self, work: impl Future<Output = T>) -> T {
        let mut state = self.state.subscribe();
        let mut work = std::pin::pin!(work);
        loop {
            // The sender is here, too.
            drop(state.wait_for(|state| *state == Power::On).await);
            tokio::select! {
                biased;
                _ = state.wait_for(|state| *state != Power::On) => {}
                done = &mut work => return done,
            }
        }
    }

    fn upto(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap();
        Duration::from_micros(self.chance.below(most))
    }

    fn one_in(&self, times: u64) -> bool {
        self.chance.below(times) == 0
    }

    /// Whether something goes wrong that does so once in so many times.
    fn fails_once_in(&self, times: u64) -> bool {
        self.one_in(times) && !self.is_calm.load(Ordering::Relaxed)
    }
}

impl StockPort for Arc<Host> {
    fn is_warm(&self, _: &Limits) -> bool {
        !self.one_in(4)
    }

    fn has_room(&self, _: &Limits) -> bool {
        true
    }

    fn reserve(&self, _: &Limits) -> Box<dyn ReservedPort> {
        Box::new(Reserved {
            host: self.clone(),
            asked: Instant::now(),
        })
    }
}

#[derive(Debug)]
struct Reserved {
    host: Arc<Host>,
    asked: Instant,
}

#[async_trait]
impl ReservedPort for Reserved {
    fn asked(&self) -> Instant {
        self.asked
    }

    async fn take(self: Box<Self>) -> Result<NewSandbox, StockError> {
        let time = self.host.upto(Duration::from_millis(200));
        self.host.while_on(sleep(time)).await;
        if self.host.fails_once_in(100) {
            return Err(SandboxError::System(io::Error::other("no sandbox")).into());
        }
        let cage = Arc::new(Cage {
            host: self.host.clone(),
            files: Arc::default(),
            owner: OnceLock::new(),
        });
        Ok(NewSandbox {
            kernel: Box::new(cage.kernel()),
            cage,
            source: Source::Cage,
        })
    }

    async fn give_back(self: Box<Self>) {}
}

/// Whose a sandbox is.
#[derive(Clone, Debug)]
struct Owner {
    place: LogKey,
    epoch: proto::id::Epoch,
}

#[derive(Debug)]
struct Cage {
    host: Arc<Host>,
    files: Arc<Mutex<Vec<u32>>>,
    owner: OnceLock<Owner>,
}

impl Cage {
    fn kernel(self: &Arc<Self>) -> Kernel {
        Kernel {
            cage: self.clone(),
            trail: vec![],
            process: Arc::default(),
        }
    }

    fn files(self: Arc<Self>, mut writer: Writer) -> Box<dyn FilesPort> {
        let owner = Owner {
            place: writer.place().clone(),
            epoch: writer.epoch(),
        };
        self.owner.set(owner).unwrap();
        let kept = writer.manifest().iter().map(|(_, node)| number(node));
        *self.files.lock().unwrap() = kept.collect();
        writer.take_written();
        Box::new(Files {
            writer,
            files: self.files.clone(),
            behind: (self.host.bug == Some(Bug::AnswerBeforeSave)).then(VecDeque::new),
        })
    }
}

#[async_trait]
impl NewCagePort for Cage {
    fn open_for_session(&self) {}

    fn make_room(&self, _: u64) -> bool {
        // What comes next is the fence.
        if self.host.bug == Some(Bug::NoFence) {
            self.host.store.drop_next();
        }
        true
    }

    fn filled(&self) {}

    fn data(&self) -> io::Result<DataDir> {
        Ok(no_files())
    }

    fn fresh_files(
        self: Arc<Self>,
        writer: Writer,
        _: DataDir,
        _: Transfers,
    ) -> Box<dyn FilesPort> {
        self.files(writer)
    }

    async fn restored_files(
        self: Arc<Self>,
        writer: Writer,
        _: DataDir,
        _: Transfers,
    ) -> Result<Box<dyn FilesPort>, RestoreError> {
        Ok(self.files(writer))
    }
}

/// One directory for all, which nobody looks into: it is open, and gone from its place at once.
fn no_files() -> DataDir {
    static DIRECTORY: OnceLock<DataDir> = OnceLock::new();
    let data = DIRECTORY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let volume = std::fs::File::open(directory.path()).unwrap();
        let user = rustix::process::getuid().as_raw();
        let me = (user, rustix::process::getgid().as_raw());
        layout::lay_out(&volume, me).unwrap();
        DataDir::new(&volume.into(), me).unwrap()
    });
    data.clone()
}

#[async_trait]
impl CagePort for Cage {
    async fn stopped_for_disk(&self) {
        std::future::pending::<()>().await;
    }

    fn is_starved(&self) -> bool {
        false
    }

    fn owed(&self) -> Duration {
        Duration::ZERO
    }

    fn oom_kills(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn pids_denied(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn meter(&self, _: u32) -> Option<Meter> {
        None
    }

    fn usage(&self) -> Option<Usage> {
        None
    }

    async fn freeze(&self) -> io::Result<()> {
        Ok(())
    }

    fn thaw(&self) -> io::Result<()> {
        Ok(())
    }

    async fn restart(&self) -> Result<Box<dyn KernelPort>, StockError> {
        let time = self.host.upto(Duration::from_millis(100));
        self.host.while_on(sleep(time)).await;
        let cage = Arc::new(Self {
            host: self.host.clone(),
            files: self.files.clone(),
            owner: self.owner.clone(),
        });
        Ok(Box::new(cage.kernel()))
    }

    async fn destroy(self: Arc<Self>) {}
}

/// What the log keeps of one number.
fn number(node: &Node) -> u32 {
    let Node::Symlink { target } = node else {
        panic!("{node:?} is no number");
    };
    String::from_utf8_lossy(target).parse().unwrap()
}

/// The numbers as files: one symbolic link for each, so that the log alone has all of them.
#[derive(Debug)]
struct Files {
    writer: Writer,
    files: Arc<Mutex<Vec<u32>>>,
    /// With a bug: what was said to be saved and is not yet.
    behind: Option<VecDeque<Vec<Change>>>,
}

#[async_trait]
impl FilesPort for Files {
    fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    async fn commit_all(&mut self) -> Result<Synced, SyncError> {
        self.writer.settle().await?;
        let kept = self.writer.manifest().len();
        let files = self.files.lock().unwrap().clone();
        let mut changes = vec![];
        for (place, number) in files.iter().enumerate().skip(kept) {
            let path = TreePath::new(format!("{place:06}").into_bytes()).unwrap();
            let target = number.to_string().into_bytes();
            changes.push(Change::Put(path, Node::Symlink { target }));
        }
        if let Some(behind) = &mut self.behind {
            behind.push_back(std::mem::take(&mut changes));
            if behind.len() > 1 {
                changes = behind.pop_front().unwrap();
            }
        }
        if changes.is_empty() {
            return Ok(Synced::Unchanged);
        }
        let seq: Seq = self.writer.append(Body::Delta(changes), vec![]).await?;
        let changed = Changed::default();
        Ok(Synced::Committed { seq, changed })
    }

    async fn commit_path(&mut self, _: &FilePath) -> Result<Synced, SyncError> {
        Ok(Synced::Unchanged)
    }

    async fn describe(&mut self, _: &FilePath) -> io::Result<Option<File>> {
        Ok(None)
    }

    async fn checkpoint_if_due(&mut self) -> Result<(), UpkeepError> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Process {
    /// Interrupts so far. Only code that runs hears of them.
    interrupts: watch::Sender<u64>,
    killed: CancellationToken,
}

impl SignalsPort for Process {
    fn pid(&self) -> u32 {
        1
    }

    fn interrupt(&self) -> io::Result<()> {
        self.interrupts.send_modify(|interrupts| *interrupts += 1);
        Ok(())
    }

    fn kill(&self) {
        self.killed.cancel();
    }
}

/// An interpreter with one variable.
#[derive(Debug)]
struct Kernel {
    cage: Arc<Cage>,
    trail: Vec<u32>,
    process: Arc<Process>,
}

impl Kernel {
    /// How long code takes: mostly not long, and sometimes longer than it may.
    fn time(&self) -> Duration {
        let host = &self.cage.host;
        match host.chance.below(40) {
            0 if !host.is_calm.load(Ordering::Relaxed) => host.upto(Duration::from_secs(90)),
            1..5 => host.upto(Duration::from_secs(5)),
            _ => host.upto(Duration::from_millis(200)),
        }
    }

    fn note_start(&self, operation: &str) {
        let (host, owner) = (&self.cage.host, self.cage.owner.get().unwrap());
        host.seen.starts.lock().unwrap().push(Start {
            operation: operation.parse().unwrap(),
            pool: owner.place.pool.clone(),
            session: owner.place.session.clone(),
            incarnation: owner.place.incarnation,
            epoch: owner.epoch,
            worker: host.worker.clone(),
            at_us: host.seen.now_us(),
        });
    }

    /// What the code of a caller does, once it is at its end.
    fn act(&mut self, number: Option<u32>) -> String {
        let mut files = self.cage.files.lock().unwrap();
        files.extend(number);
        self.trail.extend(number);
        format!("{}\n{}\n", shown(&files), shown(&self.trail))
    }
}

fn shown(numbers: &[u32]) -> String {
    let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
    numbers.join(" ")
}

fn cell(end: CellEnd, stdout: String) -> Cell {
    Cell {
        end,
        stdout,
        stderr: String::new(),
        displays: vec![],
        truncated: Truncated::default(),
    }
}

#[async_trait]
impl KernelPort for Kernel {
    fn signals(&self) -> Arc<dyn SignalsPort> {
        self.process.clone()
    }

    fn obeyed(&self) -> Arc<AtomicBool> {
        Arc::default()
    }

    fn receiving(&self) -> Arc<AtomicBool> {
        Arc::default()
    }

    /// Code is the execution's name and, if it appends one, a number.
    async fn run(&mut self, _: Language, program: &Program<'_>) -> Cell {
        let host = self.cage.host.clone();
        host.while_on(std::future::ready(())).await;
        let mut words = program.text.split(' ');
        self.note_start(words.next().unwrap());
        let number = words.next().map(|number| number.parse().unwrap());
        let process = self.process.clone();
        let died = || cell(CellEnd::Died(ExitStatus::from_raw(9)), String::new());
        let mut interrupts = process.interrupts.subscribe();
        let time = self.time();
        let works = host.while_on(sleep(time));
        tokio::select! {
            biased;
            () = process.killed.cancelled() => died(),
            // It does not listen to every interrupt.
            _ = interrupts.changed(), if !host.one_in(4) => {
                let raised = Raised {
                    name: "KeyboardInterrupt".into(),
                    message: String::new(),
                    traceback: String::new(),
                };
                cell(CellEnd::Done { result: None, error: Some(raised) }, String::new())
            }
            () = works => {
                if host.fails_once_in(60) {
                    // It may have come so far.
                    if host.one_in(2) {
                        self.act(number);
                    }
                    process.killed.cancel();
                    return died();
                }
                let stdout = self.act(number);
                cell(CellEnd::Done { result: None, error: None }, stdout)
            }
        }
    }

    async fn idle(&mut self) -> ExitStatus {
        self.process.killed.cancelled().await;
        ExitStatus::from_raw(9)
    }

    async fn begin_snapshot(&mut self, _: Duration) -> Result<Snapshot, VariablesError> {
        Ok(Snapshot {
            data: shown(&self.trail).into_bytes(),
            lost: vec![],
        })
    }

    async fn restore(
        &mut self,
        variables: &[u8],
        _: Duration,
    ) -> Result<Vec<String>, VariablesError> {
        let numbers = String::from_utf8_lossy(variables);
        let numbers = numbers.split_whitespace();
        self.trail = numbers.map(|number| number.parse().unwrap()).collect();
        self.cage.host.seen.carried.store(true, Ordering::Relaxed);
        Ok(vec![])
    }
}
