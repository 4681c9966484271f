//! The worker's key: there while it beats, gone a while after.

use crate::lease::beat::Heartbeat;
use proto::lease::WorkerBeat;
use records_model::Operation;
use tokio::time::sleep;

use super::*;

fn beat() -> WorkerBeat {
    WorkerBeat {
        capacity: 10,
        sessions: 3,
        draining: false,
        versions: (1, 3),
        pools: None,
        accepting: Some(true),
    }
}

async fn heartbeat(model: &Model) -> (Arc<Connection>, Heartbeat) {
    let bus = model.connect(1);
    let worker = "worker-1".parse().unwrap();
    let heartbeat = Heartbeat::open(bus.clone(), &worker, Replicas::ONE).await;
    (bus, heartbeat.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_key_says_what_was_last_told_and_goes_when_nothing_is() {
    let model = Model::default();
    let (_bus, heartbeat) = heartbeat(&model).await;
    for sessions in 0..5 {
        let beat = WorkerBeat { sessions, ..beat() };
        heartbeat.beat(&beat).await.unwrap();
        let [key] = model.records(subject::WORKERS_STREAM).try_into().unwrap();
        assert_eq!(wire::decode::<WorkerBeat>(&key.payload).unwrap(), beat);
        sleep(limits::WORKER_TTL - Duration::from_secs(1)).await;
    }
    assert_eq!(model.records(subject::WORKERS_STREAM).len(), 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(model.records(subject::WORKERS_STREAM), []);
}

#[tokio::test(start_paused = true)]
async fn a_beat_counts_from_before_it_was_sent() {
    let model = Model::default();
    let (bus, heartbeat) = heartbeat(&model).await;
    let before = Instant::now();
    bus.slow_next(Operation::Write, limits::WORKER_BEAT / 2);
    assert_eq!(heartbeat.beat(&beat()).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_is_not_acknowledged_in_time_has_failed() {
    let model = Model::default();
    let (bus, heartbeat) = heartbeat(&model).await;
    for fate in [Fate::Lost, Fate::Unheard, Fate::Failed] {
        bus.next(Operation::Write, fate);
        let before = Instant::now();
        heartbeat.beat(&beat()).await.unwrap_err();
        assert!(before.elapsed() <= limits::WORKER_BEAT, "{fate:?}");
    }
    heartbeat.beat(&beat()).await.unwrap();
}
