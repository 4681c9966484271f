//! What a session meets in its stories instead of a bus, a sandbox, a kernel and a committer. Each does only what
//! the story says.

use std::{
    collections::VecDeque,
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Message, PublishError, Subject};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::{
    execution::{Language, Truncated},
    fault::Fault,
    inspection::Usage,
    message::{Answer, Frame, FrameBody},
    wire,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Outbox,
    kernel::{
        Cell, CellEnd, Program,
        variables::{Snapshot, VariablesError},
    },
    sandbox::{Meter, SandboxError},
    session::ports::{CagePort, JobsPort, KernelPort, SignalsPort},
    stock::StockError,
};

/// Frames that went out, by inbox.
#[derive(Debug, Default)]
pub(super) struct Frames {
    sent: Mutex<Vec<(Subject, FrameBody)>>,
    changed: Notify,
}

impl Frames {
    /// What an inbox got so far.
    pub(super) fn of(&self, inbox: &str) -> Vec<FrameBody> {
        let sent = self.sent.lock().unwrap();
        let own = sent.iter().filter(|(to, _)| to.as_str() == inbox);
        own.map(|(_, body)| body.clone()).collect()
    }

    /// The answer that an inbox gets.
    pub(super) async fn answer(&self, inbox: &str) -> Result<Answer, Fault> {
        loop {
            let changed = self.changed.notified();
            for body in self.of(inbox) {
                match body {
                    FrameBody::Done(answer) => return Ok(answer),
                    FrameBody::Failed(fault) => return Err(fault),
                    FrameBody::Accepted | FrameBody::Heartbeat | FrameBody::Output(_) => {}
                }
            }
            changed.await;
        }
    }

    /// How many answers an inbox got.
    pub(super) fn answers(&self, inbox: &str) -> usize {
        let is_answer =
            |body: &FrameBody| matches!(body, FrameBody::Done(_) | FrameBody::Failed(_));
        self.of(inbox).iter().filter(|body| is_answer(body)).count()
    }
}

#[async_trait]
impl Outbox for Frames {
    async fn send(&self, inbox: Subject, frame: Bytes) -> Result<(), PublishError> {
        let frame: Frame = wire::decode(&frame).unwrap();
        self.sent.lock().unwrap().push((inbox, frame.body));
        self.changed.notify_waiters();
        Ok(())
    }

    fn is_connected(&self) -> bool {
        true
    }
}

/// Jobs that the story sends.
#[derive(Debug)]
pub(super) struct Jobs(pub(super) mpsc::UnboundedReceiver<Message>);

impl JobsPort for Jobs {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn leave(mut self: Box<Self>) -> BoxFuture<'static, Vec<Message>> {
        self.0.close();
        Box::pin(async move {
            let mut arrived = vec![];
            while let Ok(message) = self.0.try_recv() {
                arrived.push(message);
            }
            arrived
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Vec<Message>> {
        self.leave()
    }
}

/// Code that a kernel was given. It runs until the story ends it.
#[derive(Debug)]
pub(super) struct Run {
    /// The code.
    pub(super) code: String,
    end: oneshot::Sender<Cell>,
}

impl Run {
    /// It ends, having printed something.
    pub(super) fn prints(self, stdout: &str) {
        let done = CellEnd::Done {
            result: None,
            error: None,
        };
        self.ends(done, stdout);
    }

    /// It ends as the kernel's process does.
    pub(super) fn crashes(self) {
        self.ends(CellEnd::Died(killed()), "");
    }

    fn ends(self, end: CellEnd, stdout: &str) {
        let cell = Cell {
            end,
            stdout: stdout.to_owned(),
            stderr: String::new(),
            displays: vec![],
            truncated: Truncated::default(),
        };
        // A kernel that was killed meanwhile does not hear it.
        self.end.send(cell).ok();
    }
}

fn killed() -> ExitStatus {
    ExitStatus::from_raw(9)
}

/// An interpreter's process.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Interrupts that it got.
    pub(super) interrupts: AtomicU64,
    /// Whether it is gone.
    pub(super) gone: CancellationToken,
}

impl SignalsPort for Process {
    fn pid(&self) -> u32 {
        1
    }

    fn interrupt(&self) -> io::Result<()> {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn kill(&self) {
        self.gone.cancel();
    }
}

/// An interpreter.
#[derive(Debug)]
pub(super) struct Kernel {
    process: Arc<Process>,
    runs: mpsc::UnboundedSender<Run>,
}

impl Kernel {
    /// One that tells the story of the code that it gets.
    pub(super) fn new(runs: mpsc::UnboundedSender<Run>) -> (Self, Arc<Process>) {
        let process = Arc::<Process>::default();
        let kernel = Self {
            process: process.clone(),
            runs,
        };
        (kernel, process)
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

    async fn run(&mut self, _: Language, program: &Program<'_>) -> Cell {
        let (end, ended) = oneshot::channel();
        let run = Run {
            code: program.text.to_owned(),
            end,
        };
        self.runs.send(run).unwrap();
        let died = Cell {
            end: CellEnd::Died(killed()),
            stdout: String::new(),
            stderr: String::new(),
            displays: vec![],
            truncated: Truncated::default(),
        };
        tokio::select! {
            cell = ended => cell.unwrap_or(died),
            () = self.process.gone.cancelled() => died,
        }
    }

    async fn idle(&mut self) -> ExitStatus {
        self.process.gone.cancelled().await;
        killed()
    }

    async fn begin_snapshot(&mut self, _: Duration) -> Result<Snapshot, VariablesError> {
        Ok(Snapshot {
            data: b"variables".to_vec(),
            lost: vec![],
        })
    }

    async fn restore(&mut self, _: &[u8], _: Duration) -> Result<Vec<String>, VariablesError> {
        Ok(vec![])
    }
}

/// A sandbox.
#[derive(Debug, Default)]
pub(super) struct Cage {
    /// It took too much of the worker's disk.
    pub(super) disk_full: CancellationToken,
    /// The kernels that it gets after its first, each when the story sends it.
    pub(super) kernels: Mutex<VecDeque<oneshot::Receiver<Kernel>>>,
    /// Kills by the memory limit.
    pub(super) oom_kills: AtomicU64,
    /// Whether it was removed.
    pub(super) destroyed: AtomicBool,
}

#[async_trait]
impl CagePort for Cage {
    async fn stopped_for_disk(&self) {
        self.disk_full.cancelled().await;
    }

    fn is_starved(&self) -> bool {
        self.disk_full.is_cancelled()
    }

    fn owed(&self) -> Duration {
        Duration::ZERO
    }

    fn oom_kills(&self) -> io::Result<u64> {
        Ok(self.oom_kills.load(Ordering::Relaxed))
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
        let none = || SandboxError::System(io::Error::other("the story has no other kernel"));
        let next = self.kernels.lock().unwrap().pop_front();
        let kernel = next.ok_or_else(none)?.await.map_err(|_| none())?;
        Ok(Box::new(kernel))
    }

    async fn destroy(self: Arc<Self>) {
        self.destroyed.store(true, Ordering::Relaxed);
    }
}
