//! A real nats-server with a fleet's rights, an ingress on it, and the other end of a session's subject,
//! which does exactly what a test tells it to: what a worker does only when it breaks.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, Subject, Subscriber,
    jetstream::{self, stream::Config},
};
use futures_util::StreamExt;
use ingress::{
    bus::{Bus, NatsAuth},
    route::{
        Missing, RouteError,
        once::{OnceError, route_once},
        route,
    },
};
use loadtest::cluster::{Cluster, Member};
use proto::{
    blob::Blob,
    execution::{Durability, Ending, Outcome},
    id::Epoch,
    message::{Answer, Carried, Frame, FrameBody, Job, Request},
    record::{ExecutionRecord, Holder, RecordRef, RecordState, StoredOutcome},
    subject, wire,
};
use records::{
    execution::{Executions, Found, Put, Stamps},
    nats::NatsBus,
};
use tokio::time::timeout;
use ulid::Ulid;

const WITHIN: Duration = Duration::from_secs(30);

/// A bus with an ingress.
pub(crate) struct Fleet {
    ingress: Bus,
    worker: Client,
    executions: Executions,
    _cluster: Cluster,
}

/// Whoever listens at the session's subject.
pub(crate) struct Owner {
    client: Client,
    jobs: Subscriber,
}

/// A job and the way back to whoever sent it.
pub(crate) struct Received {
    pub(crate) job: Job,
    client: Client,
    inbox: Subject,
    next: u32,
}

/// The record that all jobs of these tests have.
pub(crate) fn record() -> RecordRef {
    RecordRef {
        key: "b".repeat(26).parse().unwrap(),
        digest: "0".repeat(64).parse().unwrap(),
        seen: 0,
        submission: None,
    }
}

/// Under another body.
pub(crate) fn other_body() -> RecordRef {
    RecordRef {
        digest: "1".repeat(64).parse().unwrap(),
        ..record()
    }
}

fn job(record: &RecordRef) -> Job {
    let request = Request::Execute {
        code: Blob::Inline(b"1".to_vec()),
        timeout_ms: 1000,
        record: Some(record.clone()),
        language: Default::default(),
        extension: None,
        stream: false,
    };
    Job {
        v: request.version(),
        operation: "operation-1".parse().unwrap(),
        pool: "01JDE1KZ0000000000000000PY".parse().unwrap(),
        session: "a".repeat(26).parse().unwrap(),
        identifier: "user-1".parse().unwrap(),
        sealed: None,
        trace: None,
        budget_ms: 60_000,
        request,
    }
}

fn record_subject() -> String {
    let job = job(&record());
    subject::execution(&job.pool, &job.session, &record().key)
}

/// What a cell left.
pub(crate) fn outcome() -> Outcome {
    Outcome {
        ending: Ending::Succeeded,
        stdout: "out".into(),
        stderr: String::new(),
        displays: vec![],
        result: None,
        duration_ms: 1,
        durability: Durability::Durable,
        moved: None,
        incarnation: None,
        details: None,
    }
}

/// The answer with it.
pub(crate) fn executed() -> Answer {
    Answer::Executed(Carried::Inline(outcome().into()))
}

/// Whoever has the execution, according to a record.
pub(crate) fn place() -> Holder {
    Holder {
        worker: "worker-1".parse().unwrap(),
        epoch: Epoch::default().next(),
        incarnation: proto::id::Incarnation::from_ulid(Ulid::nil()),
    }
}

/// A record that nobody changed yet.
pub(crate) fn new_record(state: RecordState, place: Option<Holder>) -> ExecutionRecord {
    ExecutionRecord::new(state, record().digest, place, Stamps::real().stamp())
}

/// The record with its result.
pub(crate) fn succeeded(record: &ExecutionRecord) -> ExecutionRecord {
    let encoded = wire::encode(&outcome()).unwrap();
    let outcome = Some(StoredOutcome::Inline(encoded));
    record.followed_by(RecordState::Succeeded, outcome, Stamps::real().stamp())
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let builder = Cluster::builder().ingresses(0).workers(0);
        let cluster = builder.prepare().unwrap();
        cluster.start(Member::Nats(0)).await.unwrap();
        let (user, password) = cluster.nats_credentials("worker").unwrap();
        let options = ConnectOptions::with_user_and_password(user, password)
            .custom_inbox_prefix("_INBOX_worker.test");
        let worker = options.connect(cluster.nats()).await.unwrap();
        let jetstream = jetstream::new(worker.clone());
        let pool = job(&record()).pool;
        let streams = [
            (
                subject::EXECUTIONS_STREAM.to_owned(),
                subject::EXECUTIONS.to_owned(),
            ),
            (
                subject::leases_stream(&pool),
                format!("$KV.h1_leases_{pool}.>"),
            ),
        ];
        for (name, subjects) in streams {
            let stream = Config {
                name,
                subjects: vec![subjects],
                max_messages_per_subject: 1,
                allow_message_ttl: true,
                allow_direct: true,
                ..Config::default()
            };
            jetstream.create_stream(stream).await.unwrap();
        }
        let (user, password) = cluster.nats_credentials("ingress").unwrap();
        let auth = NatsAuth { user, password };
        let servers = cluster.nats().into_iter().map(|url| url.parse().unwrap());
        Self {
            ingress: Bus::connect(&servers.collect::<Vec<_>>(), auth, "test", Stamps::real())
                .await
                .unwrap(),
            executions: Executions::over(Arc::new(NatsBus::new(jetstream)), Stamps::real()),
            worker,
            _cluster: cluster,
        }
    }

    /// Listens as the session's owner.
    pub(crate) async fn owner(&self) -> Owner {
        let job = job(&record());
        let subject = subject::session_wildcard(&job.pool, &job.session);
        let group = subject::OWNER_GROUP.to_owned();
        let jobs = self.worker.queue_subscribe(subject, group).await.unwrap();
        // The subscription is there when what was sent after it is answered.
        self.worker.flush().await.unwrap();
        self.read().await;
        Owner {
            client: self.worker.clone(),
            jobs,
        }
    }

    pub(crate) async fn ask(&self, record: RecordRef, wait: Duration) -> Result<Answer, OnceError> {
        let asked = route_once(&self.ingress, job(&record), record, wait, None);
        timeout(WITHIN, asked).await.unwrap()
    }

    /// Asks for an execution that has no record.
    pub(crate) async fn ask_without_record(&self) -> Result<Answer, RouteError> {
        let mut job = job(&record());
        if let Request::Execute { record, .. } = &mut job.request {
            *record = None;
        }
        route(&self.ingress, &job, Missing::Refuse, None).await
    }

    /// Writes the record over a revision.
    pub(crate) async fn put(&self, record: &ExecutionRecord, expected: u64) -> u64 {
        match self
            .executions
            .put(&record_subject(), record, expected)
            .await
        {
            Ok(Put::At(revision)) => revision,
            other => panic!("{other:?}"),
        }
    }

    /// The record as it is.
    pub(crate) async fn read(&self) -> Found {
        self.executions.read(&record_subject()).await.unwrap()
    }
}

impl Owner {
    /// The next job.
    pub(crate) async fn receive(&mut self) -> Received {
        let message = timeout(WITHIN, self.jobs.next()).await.unwrap().unwrap();
        Received {
            job: wire::decode(&message.payload).unwrap(),
            client: self.client.clone(),
            inbox: message.reply.unwrap(),
            next: 0,
        }
    }

    /// Listens no longer.
    pub(crate) async fn leave(mut self, fleet: &Fleet) {
        self.jobs.unsubscribe().await.unwrap();
        fleet.read().await;
    }
}

impl Received {
    /// Says something about the job.
    pub(crate) async fn say(&mut self, body: FrameBody) {
        let frame = Frame {
            epoch: place().epoch,
            n: self.next,
            body,
        };
        self.next += 1;
        let bytes = wire::encode(&frame).unwrap();
        self.client
            .publish(self.inbox.clone(), bytes.into())
            .await
            .unwrap();
    }

    /// Which record the job names.
    pub(crate) fn record(&self) -> RecordRef {
        match &self.job.request {
            Request::Execute {
                record: Some(record),
                ..
            } => record.clone(),
            other => panic!("{other:?}"),
        }
    }
}
