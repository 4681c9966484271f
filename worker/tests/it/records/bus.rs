//! A real nats-server with the roles and rights of a real fleet, and workers' and ingresses' ends of it.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions,
    jetstream::{self, Context},
};
use loadtest::cluster::{Cluster, Member};
use proto::{
    ambient::Ids,
    execution::{Durability, Ending, Outcome},
    id::{Identifier, SessionKey},
    lease::Lease,
    limits,
    pool::{ContainerType, Limits, Network, Pool, Pools},
    record::{ExecutionRecord, RecordRef},
    subject, wire,
};
use records::{
    cas::RecordBus,
    execution::{Executions, Found, Stamps},
    nats::NatsBus,
};
use store::Store;
use ulid::Ulid;
use worker::{
    lease::{HeldLease, Ledger, Replicas},
    record::{Begun, HeldRecord, RecordError, Records},
};

/// Short, so that a test need not wait long for an acknowledgement that never comes.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);

/// A bus, a store and two pools.
pub(crate) struct Bus {
    pub(crate) cluster: Cluster,
    pub(crate) pool: Pool,
    /// Another pool of the same fleet.
    pub(crate) neighbour: Pool,
}

/// One worker's end.
pub(crate) struct Peer {
    pub(crate) records: Records,
    pub(crate) executions: Executions,
    pub(crate) context: Context,
    pub(crate) on_bus: Arc<dyn RecordBus>,
    ledger: Ledger,
}

/// The session of these tests; each has a bus of its own.
pub(crate) fn session() -> SessionKey {
    "a".repeat(26).parse().unwrap()
}

fn identifier() -> Identifier {
    "user-1".parse().unwrap()
}

/// The execution of this number with this body.
pub(crate) fn execution(number: u32, body: char) -> RecordRef {
    let digits: String = format!("{number:0>26}")
        .chars()
        .map(|digit| char::from(b'a' + u8::try_from(digit).unwrap() - b'0'))
        .collect();
    RecordRef {
        key: digits.parse().unwrap(),
        digest: body.to_string().repeat(64).parse().unwrap(),
        seen: 0,
        submission: None,
    }
}

/// What a cell left that printed so much.
pub(crate) fn printed(stdout: impl Into<String>) -> Outcome {
    Outcome {
        ending: Ending::Succeeded,
        stdout: stdout.into(),
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

impl Bus {
    pub(crate) async fn start() -> Self {
        let builder = Cluster::builder().ingresses(0).workers(0);
        let cluster = builder.prepare().unwrap();
        cluster.start(Member::Nats(0)).await.unwrap();
        let pool = Pool {
            id: Ulid::new().to_string().parse().unwrap(),
            subscription: "s".into(),
            resource_group: "g".into(),
            name: "python".parse().unwrap(),
            container_type: ContainerType::PythonLTS,
            max_sessions: 5,
            cooldown_seconds: 300,
            network: Network::EgressDisabled,
            development: false,
            write_behind_ms: None,
            queued_executions: limits::QUEUED_OF_POOL,
            recorded_executions: limits::RECORDED_OF_POOL,
            cors_origins: vec![],
            limits: Limits::default(),
        };
        let neighbour = Pool {
            id: Ulid::new().to_string().parse().unwrap(),
            name: "neighbour".parse().unwrap(),
            ..pool.clone()
        };
        Self {
            cluster,
            pool,
            neighbour,
        }
    }

    /// A connection with the rights of `role`, through `address`.
    pub(crate) async fn client(&self, role: &str, address: &str) -> Client {
        let (user, password) = self.cluster.nats_credentials(role).unwrap();
        let options = ConnectOptions::with_user_and_password(user, password)
            .custom_inbox_prefix(format!("_INBOX_{role}.{}", Ulid::new()))
            .reconnect_delay_callback(|_| Duration::from_millis(20));
        options.connect(address).await.unwrap()
    }

    pub(crate) async fn worker(&self, name: &str) -> Peer {
        self.worker_through(name, &self.cluster.nats()[0]).await
    }

    /// A worker that serves the neighbour pool.
    pub(crate) async fn neighbours_worker(&self, name: &str) -> Peer {
        self.worker_of(&self.neighbour, name, &self.cluster.nats()[0])
            .await
    }

    /// A worker whose connection leads through `address`.
    pub(crate) async fn worker_through(&self, name: &str, address: &str) -> Peer {
        self.worker_of(&self.pool, name, address).await
    }

    async fn worker_of(&self, pool: &Pool, name: &str, address: &str) -> Peer {
        let client = self.client("worker", address).await;
        let context = jetstream::ContextBuilder::new()
            .timeout(ACKNOWLEDGED_WITHIN)
            .build(client);
        let store = Store::open(
            &format!("file://{}", self.cluster.store().display()),
            Ids::random(),
        )
        .unwrap();
        let on_bus: Arc<dyn RecordBus> = Arc::new(NatsBus::new(context.clone()));
        let (name, pool, ids) = (name.parse().unwrap(), pool.clone(), Ids::random());
        let ledger = Ledger::open(on_bus.clone(), name, pool, Replicas::ONE, ids);
        let (pools, stamps) = (self.pools(), Stamps::real());
        Peer {
            ledger: ledger.await.unwrap(),
            records: Records::open(on_bus.clone(), store, &pools, Replicas::ONE, stamps)
                .await
                .unwrap(),
            executions: Executions::over(on_bus.clone(), Stamps::real()),
            on_bus,
            context,
        }
    }

    /// The pool file.
    pub(crate) fn pools(&self) -> Pools {
        Pools {
            pool: [&self.pool, &self.neighbour].map(Clone::clone).to_vec(),
        }
    }

    /// The same bus for a fleet whose pools may record so many executions each.
    pub(crate) async fn with_shares(own: u32, neighbours: u32) -> Self {
        let mut bus = Self::start().await;
        bus.pool.recorded_executions = own;
        bus.neighbour.recorded_executions = neighbours;
        bus
    }

    /// An ingress's end of the records.
    pub(crate) async fn ingress(&self) -> Executions {
        let client = self.client("ingress", &self.cluster.nats()[0]).await;
        Executions::over(
            Arc::new(NatsBus::new(jetstream::new(client))),
            Stamps::real(),
        )
    }

    pub(crate) fn subject(&self, asked: &RecordRef) -> String {
        subject::execution(&self.pool.id, &session(), &asked.key)
    }
}

impl Peer {
    /// Claims the session, from whoever has it.
    pub(crate) async fn claim(&self) -> HeldLease {
        let leases = subject::leases_stream(&self.ledger.pool().id);
        let stream = self.context.get_stream_no_info(leases).await.unwrap();
        let subject = subject::lease(&self.ledger.pool().id, &session());
        let last = stream.get_last_raw_message_by_subject(&subject).await;
        let seen = last.map_or(0, |message| {
            wire::decode::<Lease>(&message.payload).unwrap();
            message.sequence
        });
        let (session, identifier) = (session(), identifier());
        let claimed = self.ledger.claim(&session, &identifier, seen).await;
        claimed.unwrap().lease
    }

    pub(crate) async fn begin(
        &self,
        lease: &HeldLease,
        asked: &RecordRef,
    ) -> Result<Begun, RecordError> {
        let place = (&self.ledger.pool().id, &session());
        self.records.begin(lease.ownership(), place, asked).await
    }

    /// Begins what nobody has begun.
    pub(crate) async fn hold(&self, lease: &HeldLease, asked: &RecordRef) -> HeldRecord {
        match self.begin(lease, asked).await.unwrap() {
            Begun::Mine(held) => *held,
            other => panic!("{other:?}"),
        }
    }

    /// The record as it is.
    pub(crate) async fn read(&self, asked: &RecordRef) -> Found {
        let subject = subject::execution(&self.ledger.pool().id, &session(), &asked.key);
        self.executions.read(&subject).await.unwrap()
    }
}

/// The record of an execution that has ended.
pub(crate) fn over(begun: Result<Begun, RecordError>) -> ExecutionRecord {
    match begun.unwrap() {
        Begun::Over(record) => record,
        other => panic!("{other:?}"),
    }
}
