//! Stories of a session, from its claim to its end: without root, kernels and a bus, in milliseconds, with a clock
//! that goes on only when everybody waits.

mod by_chance;
mod closing;
mod fakes;
mod opening;
mod ownership;
mod running;
mod saving;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::Message;
use proto::{
    ambient::Ids,
    blob::Blob,
    execution::{Ending, Language, Outcome},
    fault::{Fault, FaultCode},
    id::WorkerId,
    lease::{Lease, LeaseState},
    limits,
    message::{Answer, Carried, FrameBody, Job, Request},
    pool::{Pool, Pools},
    subject, wire,
};
use records::execution::Stamps;
use records_model::Model;
use store::Store;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{
    Shared,
    actor::{Actor, Owned},
    name::SessionName,
    opening::{OpenError, Opened, Opening, Sandbox},
    saver::scripted::{self, Save, Saves},
    table::{Note, Table},
};
use crate::{
    bus::{Interruptions, Responder},
    files::DataDir,
    journal::Journal,
    lease::{Ledger, Replicas, ownership_check::Confirmation},
    record::Records,
    sandbox::layout,
    stock::Source,
};
use fakes::{Cage, Frames, Jobs, Kernel, Process, Run};

/// Longer than anything may take. Of a paused clock it costs nothing.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A session and everything around it.
struct Story {
    bus: Model,
    frames: Arc<Frames>,
    jobs: mpsc::UnboundedSender<Message>,
    opening: Option<oneshot::Sender<Result<Opened, OpenError>>>,
    cage: Arc<Cage>,
    runs: mpsc::UnboundedReceiver<Run>,
    new_runs: mpsc::UnboundedSender<Run>,
    process: Option<Arc<Process>>,
    saves: Option<Saves>,
    table: Table,
    draining: CancellationToken,
    interruptions: Interruptions,
    actor: JoinHandle<()>,
    name: SessionName,
    pool: Pool,
    asked: u32,
    budget: Duration,
    files: tempfile::TempDir,
}

/// Where an answer goes.
type Inbox = String;

fn pool() -> Pool {
    let text = r#"{"id": "01JDE1KZ0000000000000000PY", "subscription": "s", "resource_group": "r",
        "name": "python", "max_sessions": 10, "cooldown_seconds": 300,
        "limits": {"execution_seconds": 60}}"#;
    serde_json::from_str(text).unwrap()
}

fn job(request: Request, operation: u32) -> Job {
    Job {
        v: 1,
        operation: format!("op-{operation}").parse().unwrap(),
        pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
        session: "a".repeat(26).parse().unwrap(),
        identifier: "user-1".parse().unwrap(),
        sealed: None,
        trace: None,
        budget_ms: 600_000,
        request,
    }
}

fn code(text: &str) -> Request {
    execute(Blob::Inline(text.into()))
}

fn execute(code: Blob) -> Request {
    Request::Execute {
        code,
        timeout_ms: 60_000,
        record: None,
        language: Language::Python,
        extension: None,
        stream: false,
    }
}

/// A worker of a pool, whose answers go there.
async fn worker(bus: &Model, pool: &Pool, files: &Path, frames: Arc<Frames>) -> (Ledger, Shared) {
    let (connection, ids) = (bus.connect(1), Ids::seeded(1));
    let own = (connection.clone(), "worker-1".parse().unwrap());
    let ledger = Ledger::open(own.0, own.1, pool.clone(), Replicas::ONE, ids.clone());
    let store = Store::open(&format!("file://{}/store", files.display()), ids.clone()).unwrap();
    let stamps = Stamps {
        ids,
        clock: bus.wall_clock(),
    };
    let pools = Pools {
        pool: vec![pool.clone()],
    };
    let records = Records::open(connection, store.clone(), &pools, Replicas::ONE, stamps);
    let kept = (records.await.unwrap(), Journal::default());
    let shared = Shared::new(frames, Interruptions::default(), store, kept);
    (ledger.await.unwrap(), shared)
}

impl Story {
    /// A session that was just claimed for this code, whose sandbox is on its way.
    async fn begins_with(text: &str) -> (Self, Inbox) {
        let (pool, bus, files) = (pool(), Model::default(), tempfile::tempdir().unwrap());
        let frames = Arc::<Frames>::default();
        let (ledger, shared) = worker(&bus, &pool, files.path(), frames.clone()).await;
        let first = job(code(text), 0);
        let name = SessionName::of(&first);
        let sure = Confirmation::now(&shared.interruptions);
        let claimed = ledger.claim(&name.key, &name.identifier, 0).await.unwrap();
        let (jobs, arriving) = mpsc::unbounded_channel();
        let (opening, opened) = oneshot::channel();
        let opened = async { opened.await.unwrap() };
        let owned = Owned {
            lease: claimed.lease,
            continuity: claimed.continuity,
            sure,
            jobs: Box::new(Jobs(arriving)),
            seat: shared.table.enter(&name.pool, &name.key),
            opening: Opening::begin(opened, Span::none()),
        };
        let (table, draining) = (shared.table.clone(), shared.draining.clone());
        let interruptions = shared.interruptions.clone();
        let inbox = "inbox-0".to_owned();
        let responder = Responder::new(frames.clone(), inbox.clone().into());
        let room = Arc::new(Semaphore::new(1));
        let permit = room.try_acquire_owned().unwrap();
        let actor = Actor::new(shared, pool.clone(), name.clone(), owned);
        let actor = tokio::spawn(actor.run(first, responder, permit));
        let (new_runs, runs) = mpsc::unbounded_channel();
        let story = Self {
            bus,
            frames,
            jobs,
            opening: Some(opening),
            cage: Arc::default(),
            runs,
            new_runs,
            process: None,
            saves: None,
            table,
            draining,
            interruptions,
            actor,
            name,
            pool,
            asked: 0,
            budget: Duration::from_secs(600),
            files,
        };
        (story, inbox)
    }

    /// The same, with a sandbox in which the code runs.
    async fn runs(text: &str) -> (Self, Inbox, Run) {
        let (mut story, inbox) = Self::begins_with(text).await;
        story.opens();
        let run = story.started().await;
        assert_eq!(run.code, text);
        (story, inbox, run)
    }

    /// The session's sandbox is there.
    fn opens(&mut self) {
        let (kernel, process) = Kernel::new(self.new_runs.clone());
        self.process = Some(process);
        let volume = self.files.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        let volume = std::fs::File::open(volume).unwrap();
        let me = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        layout::lay_out(&volume, me).unwrap();
        let data = DataDir::new(&volume.into(), me).unwrap();
        let (saver, committer, saves) = scripted::saver(true);
        self.saves = Some(saves);
        let opened = Opened {
            sandbox: Sandbox::new(self.cage.clone(), data, (saver, committer)),
            kernel: Box::new(kernel),
            source: Source::Spare,
            took: Duration::ZERO,
            moved: None,
        };
        self.opened(Ok(opened));
    }

    fn opened(&mut self, opened: Result<Opened, OpenError>) {
        let opening = self.opening.take().unwrap();
        assert!(opening.send(opened).is_ok(), "the session does not wait");
    }

    /// There is another kernel for when this one is gone.
    fn has_another_kernel(&mut self) {
        let (kernel, on_its_way) = self.awaits_another_kernel();
        assert!(on_its_way.send(kernel).is_ok(), "the session does not wait");
    }

    /// There will be another kernel when this one is gone, and not before it is sent.
    fn awaits_another_kernel(&mut self) -> (Kernel, oneshot::Sender<Kernel>) {
        let (kernel, process) = Kernel::new(self.new_runs.clone());
        let (sender, on_its_way) = oneshot::channel();
        self.cage.kernels.lock().unwrap().push_back(on_its_way);
        self.process = Some(process);
        (kernel, sender)
    }

    /// Sends a job; its answer goes there.
    fn ask(&mut self, request: Request) -> Inbox {
        self.asked += 1;
        let inbox = format!("inbox-{}", self.asked);
        let job = Job {
            budget_ms: u64::try_from(self.budget.as_millis()).unwrap(),
            ..job(request, self.asked)
        };
        let payload = wire::encode(&job).unwrap();
        let message = Message {
            subject: "job".into(),
            reply: Some(inbox.clone().into()),
            length: payload.len(),
            payload: payload.into(),
            headers: None,
            status: None,
            description: None,
        };
        self.jobs.send(message).unwrap();
        inbox
    }

    /// The code that the kernel gets next.
    async fn started(&mut self) -> Run {
        let run = timeout(PATIENCE, self.runs.recv()).await;
        run.expect("no code is started").unwrap()
    }

    /// Whether no code is started, however long one waits while nothing else happens.
    async fn starts_nothing_within(&mut self, time: Duration) -> bool {
        timeout(time, self.runs.recv()).await.is_err()
    }

    /// What the session wants to save next.
    async fn saves(&mut self) -> Save {
        let saves = self.saves.as_mut().unwrap();
        let save = timeout(PATIENCE, saves.next()).await;
        save.expect("nothing is to be saved").unwrap()
    }

    /// The answer at an inbox.
    async fn answer(&self, inbox: &str) -> Result<Answer, Fault> {
        let answer = timeout(PATIENCE, self.frames.answer(inbox)).await;
        answer.unwrap_or_else(|_| panic!("{inbox} gets no answer"))
    }

    /// The outcome of an execution.
    async fn outcome(&self, inbox: &str) -> Outcome {
        match self.answer(inbox).await.unwrap() {
            Answer::Executed(Carried::Inline(outcome)) => *outcome,
            other => panic!("{other:?}"),
        }
    }

    /// The code of the fault at an inbox.
    async fn fault(&self, inbox: &str) -> FaultCode {
        self.answer(inbox).await.unwrap_err().code
    }

    /// Whether an inbox got no answer yet.
    fn is_unanswered(&self, inbox: &str) -> bool {
        self.frames.answers(inbox) == 0
    }

    /// Interrupts that the kernel which was had last got.
    fn interrupts(&self) -> u64 {
        let process = self.process.as_ref().unwrap();
        process.interrupts.load(Ordering::Relaxed)
    }

    /// Tells the session something from within its worker.
    fn tell(&self, note: Note) {
        self.table.tell_all(note);
    }

    /// Lets everybody who can go on do so.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Another worker takes the session over, as if this one were gone.
    async fn is_taken_over(&self) {
        let worker: WorkerId = "worker-2".parse().unwrap();
        let (connection, pool) = (self.bus.connect(2), self.pool.clone());
        let ledger = Ledger::over(connection, worker, pool, Ids::seeded(2));
        let records = self.bus.records(&subject::leases_stream(&self.pool.id));
        let seen = records.last().unwrap().sequence;
        let (session, identifier) = (&self.name.key, &self.name.identifier);
        drop(ledger.claim(session, identifier, seen).await.unwrap());
    }

    /// The session's lease, if there is one.
    fn lease(&self) -> Option<Lease> {
        let records = self.bus.records(&subject::leases_stream(&self.pool.id));
        let last = records.last()?;
        Some(wire::decode(&last.payload).unwrap())
    }

    /// Waits for the session's end. Everybody got exactly one answer, and nothing of it is left.
    async fn ends(mut self) -> Ended {
        let ended = timeout(PATIENCE, &mut self.actor).await;
        ended.expect("the session does not end").unwrap();
        for number in 0..=self.asked {
            let answers = self.frames.answers(&format!("inbox-{number}"));
            assert_eq!(answers, 1, "answers of inbox-{number}");
        }
        assert!(self.table.is_empty());
        Ended {
            lease: self.lease().map(|lease| lease.state),
            cage_is_gone: self.cage.destroyed.load(Ordering::Relaxed),
        }
    }
}

/// What is left of a session.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    /// How its lease stands, if it has one.
    lease: Option<LeaseState>,
    /// Whether its sandbox was removed.
    cage_is_gone: bool,
}
