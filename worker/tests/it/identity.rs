//! Claims of workers' ids on a real bus.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, jetstream};
use loadtest::{
    cluster::{Cluster, Member},
    wait::until,
};
use proto::{id::WorkerId, lease::WorkerClaim, limits, subject, wire};
use records::{cas::RecordBus, fleet::Standing, nats::NatsBus};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use worker::{
    identity::{Identity, IdentityError},
    lease::{Replicas, beat::Heartbeat},
};

const WITHIN: Duration = Duration::from_secs(60);

/// A run of a worker, as far as its claim is concerned.
struct Run {
    client: Client,
    context: jetstream::Context,
    bus: Arc<dyn RecordBus>,
    name: WorkerId,
}

fn id() -> WorkerId {
    "w1".parse().unwrap()
}

async fn bus(servers: usize) -> Cluster {
    let builder = Cluster::builder().nats_nodes(servers).ingresses(0);
    builder.workers(0).start().await.unwrap()
}

async fn run(cluster: &Cluster) -> Run {
    let name = id().of_run(Ulid::new()).unwrap();
    let (user, password) = cluster.nats_credentials("worker").unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user, password)
        .custom_inbox_prefix(subject::worker_inbox(&name))
        .reconnect_delay_callback(|_| Duration::from_millis(20));
    let client = options.connect(cluster.nats()).await.unwrap();
    let context = jetstream::new(client.clone());
    let replicas: Replicas = cluster.nats().len().to_string().parse().unwrap();
    let bus: Arc<dyn RecordBus> = Arc::new(NatsBus::new(context.clone()));
    // It makes the stream.
    drop(Heartbeat::open(bus.clone(), &name, replicas).await.unwrap());
    Run {
        client,
        context,
        bus,
        name,
    }
}

impl Run {
    async fn claim(&self) -> Result<Identity, IdentityError> {
        Identity::claim(&self.client, self.bus.clone(), &id(), &self.name).await
    }

    /// Answers whoever asks whether it lives, until it is dropped.
    async fn answer(&self) -> tokio_util::task::AbortOnDropHandle<()> {
        let asked = subject::worker_control(&self.name);
        let asked = self.client.subscribe(asked).await.unwrap();
        self.client.flush().await.unwrap();
        let answering = worker::presence::prove_life(self.client.clone(), asked);
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(answering))
    }

    /// Claims the id as a run on another host does.
    async fn claim_elsewhere(&self, run: &str) {
        let claim = WorkerClaim {
            run: run.parse().unwrap(),
            boot: "another boot".into(),
        };
        let payload = wire::encode(&claim).unwrap();
        let subject = subject::worker_claim(&id());
        let sent = self.context.publish(subject, payload.into()).await.unwrap();
        sent.await.unwrap();
    }
}

#[tokio::test]
async fn the_id_of_a_run_that_answers_is_refused_and_that_of_a_crashed_one_is_not() {
    let cluster = bus(1).await;
    let (one, two, three) = (
        run(&cluster).await,
        run(&cluster).await,
        run(&cluster).await,
    );
    let answering = one.answer().await;
    let _claim = one.claim().await.unwrap();
    let refused = two.claim().await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains(one.name.as_str()), "{said}");
    assert!(said.contains("this host"), "{said}");
    drop(answering);
    let begun = Instant::now();
    let claim = until("the server forgets it", WITHIN, async || {
        Ok(two.claim().await.ok())
    });
    let _claim = claim.await.unwrap();
    assert!(begun.elapsed() < limits::WORKER_TTL);
    // What was given back is free, and only its holder gives it back.
    Identity::release(&*one.bus, &id(), &one.name)
        .await
        .unwrap();
    let _answering = two.answer().await;
    three.claim().await.unwrap_err();
    Identity::release(&*two.bus, &id(), &two.name)
        .await
        .unwrap();
    let _claim = three.claim().await.unwrap();
}

#[tokio::test]
async fn a_run_on_another_host_is_waited_for_until_its_claim_has_ended() {
    let cluster = bus(1).await;
    let one = run(&cluster).await;
    one.claim_elsewhere("w1-aaaaaaaa").await;
    let begun = Instant::now();
    let _claim = one.claim().await.unwrap();
    let waited = begun.elapsed();
    assert!(waited > limits::WORKER_TTL / 2, "{waited:?}");
    assert!(waited < limits::WORKER_TTL * 3, "{waited:?}");
}

#[tokio::test]
async fn a_run_on_another_host_that_renews_its_claim_is_refused() {
    let cluster = bus(1).await;
    let one = run(&cluster).await;
    one.claim_elsewhere("w1-aaaaaaaa").await;
    let renewing = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            one.claim_elsewhere("w1-aaaaaaaa").await;
        }
    };
    let refused = tokio::select! {
        claimed = one.claim() => claimed.unwrap_err(),
        () = renewing => unreachable!("it never ends"),
    };
    let said = refused.to_string();
    assert!(said.contains("w1-aaaaaaaa"), "{said}");
    assert!(said.contains("another host"), "{said}");
}

async fn a_claim_outlives_restarts_of_the_bus_and_its_loss_is_noticed(servers: usize) {
    let cluster = bus(servers).await;
    let (one, two) = (run(&cluster).await, run(&cluster).await);
    let _answering = one.answer().await;
    let claim = one.claim().await.unwrap();
    let lost = CancellationToken::new();
    let keeping =
        tokio::spawn(claim.keep(Standing::default(), lost.clone(), CancellationToken::new()));
    let held = async || {
        let subject = subject::worker_claim(&id());
        let stored = one.bus.last(subject::WORKERS_STREAM, &subject).await?;
        let stored = stored.ok_or_else(|| anyhow::anyhow!("no claim"))?;
        let claim: WorkerClaim = wire::decode(&stored.payload)?;
        Ok::<_, anyhow::Error>((claim.run, stored.sequence))
    };
    for server in 0..servers {
        cluster.restart(Member::Nats(server)).await.unwrap();
        let before = until("the claim is there", WITHIN, async || Ok(held().await.ok()));
        let (_, before) = before.await.unwrap();
        let renewed = until("the claim is renewed", WITHIN, async || {
            let now = held().await.ok();
            Ok(now.filter(|(run, revision)| *run == one.name && *revision > before))
        });
        renewed.await.unwrap();
    }
    assert!(!lost.is_cancelled());
    two.claim_elsewhere("w1-bbbbbbbb").await;
    tokio::time::timeout(WITHIN, lost.cancelled())
        .await
        .unwrap();
    keeping.await.unwrap();
    assert_eq!(held().await.unwrap().0.as_str(), "w1-bbbbbbbb");
}

#[tokio::test]
async fn a_claim_outlives_restarts_of_one_server() {
    a_claim_outlives_restarts_of_the_bus_and_its_loss_is_noticed(1).await;
}

#[tokio::test]
async fn a_claim_outlives_restarts_of_three_servers() {
    a_claim_outlives_restarts_of_the_bus_and_its_loss_is_noticed(3).await;
}
