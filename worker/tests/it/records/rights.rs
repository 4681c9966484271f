//! What each role may do on the bus: an ingress writes records of executions, adds to the queue, and
//! nothing else.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull, stream};
use proto::{
    record::{ExecutionRecord, RecordState},
    subject,
};
use records::execution::{Put, Stamps};

use super::bus::{Bus, execution, session};

/// A denied request is not answered.
const DENIED_AFTER: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_ingress_writes_records_of_executions_and_adds_to_the_queue_and_nothing_else() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let asked = execution(0, '0');
    let record = ExecutionRecord::new(
        RecordState::Refused,
        asked.digest.clone(),
        None,
        Stamps::real().stamp(),
    );
    let put = bus
        .ingress()
        .await
        .put(&bus.subject(&asked), &record, 0)
        .await;
    let Put::At(revision) = put.unwrap() else {
        panic!("it may")
    };

    let client = bus.client("ingress", &bus.cluster.nats()[0]).await;
    let ingress = jetstream::ContextBuilder::new()
        .timeout(DENIED_AFTER)
        .build(client);
    let written = [
        subject::lease(&bus.pool.id, &session()),
        subject::slot(&bus.pool.id, &session()),
        subject::worker(&"worker-1".parse().unwrap()),
    ];
    for subject in written {
        let sent = ingress.publish(subject.clone(), "x".into()).await.unwrap();
        assert!(sent.await.is_err(), "{subject}");
    }
    lease.ownership().confirm().await.unwrap();

    let executions = subject::EXECUTIONS_STREAM;
    let records = ingress.get_stream_no_info(executions).await.unwrap();
    assert!(records.delete_message(revision).await.is_err());
    assert!(ingress.delete_stream(executions).await.is_err());
    let job = subject::queued(&bus.pool.id, &session());
    let queues = stream::Config {
        name: subject::JOBS_STREAM.to_owned(),
        subjects: vec![subject::JOBS.to_owned()],
        ..stream::Config::default()
    };
    worker.context.create_stream(queues).await.unwrap();
    ingress
        .publish(job, "x".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let jobs = ingress.get_stream_no_info(subject::JOBS_STREAM).await;
    let jobs = jobs.unwrap();
    assert!(jobs.get_raw_message(1).await.is_err());
    let own = pull::Config::default();
    assert!(jobs.create_consumer(own).await.is_err());
    assert_eq!(worker.read(&asked).await, Some((record, revision)));
}

#[tokio::test]
async fn a_record_is_kept_for_a_day() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let asked = execution(0, '0');
    drop(worker.hold(&lease, &asked).await);
    let stream = worker
        .context
        .get_stream_no_info(subject::EXECUTIONS_STREAM)
        .await
        .unwrap();
    let message = stream
        .get_last_raw_message_by_subject(&bus.subject(&asked))
        .await
        .unwrap();
    let life = message.headers.get("Nats-TTL").unwrap();
    assert_eq!(life.as_str(), "86400");
}
