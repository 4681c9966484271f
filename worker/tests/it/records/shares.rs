//! The share of the records that each pool has: what one fills is no other's, what was recorded stays for a
//! day, and whatever has begun finds room for its end.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::{Config, DiscardPolicy, State};
use futures_util::{StreamExt, stream};
use loadtest::{cluster::Member, wait::until};
use proto::{
    ambient::Ids,
    execution::Language,
    fault::{Fault, FaultCode},
    health::{Check, Health},
    limits,
    record::{ExecutionRecord, RecordState, StoredOutcome, Submission},
    subject, wire,
};
use records::{
    execution::{Put, Stamps},
    nats::NatsBus,
    room::Room,
    share::Share,
};
use worker::{
    lease::{HeldLease, Replicas},
    record::{Begun, ExecutionEnd, HeldRecord, RecordError, Records},
};

use super::{
    WITHIN,
    bus::{Bus, Peer, execution, over, printed},
};

const DAY: Duration = limits::RECORD_LIFE;
/// Bytes that the stream of records had in version 88dda0e.
const OLD_BYTES: i64 = 512 * 1024 * 1024;

async fn config(peer: &Peer) -> (Config, State) {
    let stream = peer.context.get_stream(subject::EXECUTIONS_STREAM).await;
    let stream = stream.unwrap();
    let info = stream.cached_info();
    (info.config.clone(), info.state.clone())
}

/// Begins executions from the number `first` on until there is no room for one more.
async fn fill(peer: &Peer, lease: &HeldLease, first: u32) -> (Vec<HeldRecord>, RecordError) {
    let mut held = vec![];
    loop {
        let number = first + u32::try_from(held.len()).unwrap();
        match peer.begin(lease, &execution(number, '0')).await {
            Ok(Begun::Mine(mine)) => held.push(*mine),
            Ok(other) => panic!("{other:?}"),
            Err(error) => return (held, error),
        }
    }
}

/// The refusal says when the oldest record goes, which was written a short time ago.
fn assert_full(error: &RecordError) {
    let RecordError::Full { retry_after } = error else {
        panic!("{error:?}");
    };
    assert!(
        *retry_after <= DAY && *retry_after > DAY - WITHIN * 4,
        "{retry_after:?}"
    );
    let fault = Fault::from(error);
    assert_eq!(fault.code, FaultCode::RecordsFull);
    let seconds = u64::from(fault.retry_after_s.unwrap());
    assert!(seconds > DAY.as_secs() - 120, "{seconds}");
}

#[tokio::test]
async fn a_full_share_refuses_new_executions_by_name_and_lets_running_ones_end() {
    let bus = Bus::with_shares(20, 20).await;
    let (worker, neighbour) = (
        bus.worker("worker-1").await,
        bus.neighbours_worker("worker-2").await,
    );
    let (lease, neighbours) = (worker.claim().await, neighbour.claim().await);
    let (held, full) = fill(&worker, &lease, 0).await;
    assert_eq!(held.len(), 20);
    assert_full(&full);
    // Another process counts what this one wrote.
    let ingress = bus.ingress().await;
    let room = ingress.admit(&Share::from(&bus.pool)).await.unwrap();
    assert!(matches!(room, Room::Full { .. }), "{room:?}");
    // Who asks for one that is known is answered.
    let known = worker.begin(&lease, &execution(0, '0')).await.unwrap();
    assert!(matches!(known, Begun::Known(_)), "{known:?}");

    // The neighbours fill their own share, and every end finds room.
    let (others, full) = fill(&neighbour, &neighbours, 0).await;
    assert_eq!(others.len(), 20);
    assert_full(&full);
    let lengths = [0, limits::RECORD_OUTCOME_BYTES / 2, 60_000];
    let mut places = BTreeSet::new();
    for (held, length) in held
        .into_iter()
        .chain(others)
        .zip(lengths.into_iter().cycle())
    {
        let end = ExecutionEnd::Outcome(printed("x".repeat(length)).into());
        let record = held.finish(end).await.unwrap().into_record();
        assert_eq!(record.state, RecordState::Succeeded);
        places.insert(matches!(record.outcome, Some(StoredOutcome::Object(_))));
    }
    assert_eq!(places, BTreeSet::from([false, true]));
    // Nothing made room for anything.
    assert_eq!(config(&worker).await.1.messages, 40);
    over(worker.begin(&lease, &execution(0, '0')).await);
    let refused = worker.begin(&lease, &execution(99, '0')).await;
    assert_full(&refused.unwrap_err());
}

#[tokio::test]
async fn what_waits_in_the_queue_is_taken_though_the_share_is_full() {
    let bus = Bus::with_shares(3, 3).await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let asked = execution(77, '0');
    let queued = RecordState::Queued;
    let stamp = Stamps::real().stamp();
    let queued = ExecutionRecord::new(queued, asked.digest.clone(), None, stamp);
    let ingress = bus.ingress().await;
    let put = ingress.put(&bus.subject(&asked), &queued, 0).await;
    assert!(matches!(put, Ok(Put::At(_))), "{put:?}");
    let (held, full) = fill(&worker, &lease, 0).await;
    assert_eq!(held.len(), 2);
    assert_full(&full);
    let held = worker.hold(&lease, &asked).await;
    let record = held
        .finish(ExecutionEnd::Outcome(printed("out").into()))
        .await
        .unwrap();
    assert_eq!(record.into_record().state, RecordState::Succeeded);
}

#[tokio::test]
async fn a_pool_that_may_record_less_than_it_holds_forgets_nothing_and_waits_truthfully() {
    let mut bus = Bus::with_shares(20, 20).await;
    let before = bus.worker("worker-1").await;
    let lease = before.claim().await;
    let mut held = vec![];
    let started = Instant::now();
    for number in 0..20 {
        if number == 10 {
            // The younger half goes two seconds after the older one.
            until("time has passed", WITHIN, || async {
                Ok((started.elapsed() > Duration::from_secs(2)).then_some(()))
            })
            .await
            .unwrap();
        }
        held.push(before.hold(&lease, &execution(number, '0')).await);
    }
    let full = async |bus: &Bus| {
        let ingress = bus.ingress().await;
        match ingress.look(&Share::from(&bus.pool)).await.unwrap() {
            Room::Full { retry_after } => retry_after,
            Room::Left(()) => panic!("there is room"),
        }
    };
    let of_the_oldest = full(&bus).await;
    let (reserved, _) = config(&before).await;

    // As after an upgrade to a version with a smaller share by default.
    bus.pool.recorded_executions = 10;
    let after = bus.worker("worker-2").await;
    let of_the_younger = full(&bus).await;
    assert!(
        of_the_younger > of_the_oldest + Duration::from_secs(1),
        "{of_the_oldest:?} {of_the_younger:?}"
    );
    assert_full(&after.begin(&lease, &execution(99, '0')).await.unwrap_err());
    let known = after.begin(&lease, &execution(0, '0')).await.unwrap();
    assert!(matches!(known, Begun::Known(_)), "{known:?}");
    // What runs ends, with the longest record that there is.
    for held in held {
        let end =
            ExecutionEnd::Outcome(printed("x".repeat(limits::RECORD_OUTCOME_BYTES / 2)).into());
        let record = held.finish(end).await.unwrap().into_record();
        assert_eq!(record.state, RecordState::Succeeded);
    }
    let (unchanged, state) = config(&after).await;
    assert_eq!(
        (unchanged.max_bytes, state.messages),
        (reserved.max_bytes, 20)
    );
    over(after.begin(&lease, &execution(0, '0')).await);
    // With the share of before, which needs no more of the bus than it had, all goes on.
    bus.pool.recorded_executions = 21;
    let raised = bus.worker("worker-3").await;
    let _held = raised.hold(&lease, &execution(99, '0')).await;
    assert_full(
        &raised
            .begin(&lease, &execution(100, '0'))
            .await
            .unwrap_err(),
    );
}

#[tokio::test]
async fn many_at_once_do_not_go_beyond_a_share() {
    let bus = Bus::with_shares(30, 30).await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let begins = (0..120).map(|number| {
        let (worker, lease) = (&worker, &lease);
        async move { worker.begin(lease, &execution(number, '0')).await }
    });
    let begun: Vec<_> = stream::iter(begins).buffer_unordered(40).collect().await;
    let mine = begun
        .iter()
        .filter(|begun| matches!(begun, Ok(Begun::Mine(_))));
    assert_eq!(mine.count(), 30);
    let others = begun.iter().filter_map(|begun| begun.as_ref().err());
    for error in others {
        assert!(matches!(error, RecordError::Full { .. }), "{error:?}");
    }
    assert_eq!(config(&worker).await.1.messages, 30);
}

#[tokio::test]
async fn a_full_pool_is_named_by_the_check_of_records() {
    let bus = Bus::with_shares(2, 20).await;
    let worker = bus.worker("worker-1").await;
    let health = Health::default();
    let records = worker.records.clone();
    let watching = records.watch(Replicas::ONE, health.clone());
    let watching = tokio::spawn(watching);
    let reason = || health.report().checks.into_iter().next();
    until("the check passes", WITHIN, || async {
        Ok(reason().filter(|check| check.passes).map(drop))
    })
    .await
    .unwrap();
    let lease = worker.claim().await;
    let (held, _) = fill(&worker, &lease, 0).await;
    assert_eq!(held.len(), 2);
    let failed = until("the check fails", WITHIN, || async {
        Ok(reason().and_then(|check| check.reason))
    });
    let reason = failed.await.unwrap();
    assert!(
        reason.contains("pool `python`") && reason.contains("23 h"),
        "{reason}"
    );
    assert!(!reason.contains("neighbour"), "{reason}");
    assert!(!health.passes(Check::Records));
    watching.abort();
}

/// The stream as version 88dda0e makes it, with a record of each kind that it writes.
async fn of_an_older_version(bus: &Bus) -> Peer {
    let peer = bus.worker("worker-0").await;
    // As a worker of that version leaves it at its start, whatever it finds.
    let old = Config {
        name: subject::EXECUTIONS_STREAM.to_owned(),
        subjects: vec![subject::EXECUTIONS.to_owned()],
        max_messages_per_subject: 1,
        max_bytes: OLD_BYTES,
        discard: DiscardPolicy::New,
        allow_message_ttl: true,
        allow_direct: true,
        num_replicas: 1,
        ..Config::default()
    };
    peer.context.update_stream(old).await.unwrap();
    peer
}

#[tokio::test]
async fn what_an_older_worker_recorded_never_runs_again_and_takes_no_share() {
    let bus = Bus::with_shares(100, 100).await;
    let old = of_an_older_version(&bus).await;
    assert_eq!(config(&old).await.0.max_bytes, OLD_BYTES);
    let asked = execution(500, '0');
    // It writes outcomes of up to 64 KiB into records.
    let long = wire::encode(&printed("x".repeat(60_000))).unwrap();
    let stamp = || Stamps::real().stamp();
    let ended = ExecutionRecord::new(RecordState::Running, asked.digest.clone(), None, stamp())
        .followed_by(
            RecordState::Succeeded,
            Some(StoredOutcome::Inline(long)),
            stamp(),
        );
    let ingress = bus.ingress().await;
    let put = ingress.put(&bus.subject(&asked), &ended, 0).await;
    assert!(matches!(put, Ok(Put::At(_))), "{put:?}");

    let new = bus.worker("worker-1").await;
    let lease = new.claim().await;
    assert_eq!(over(new.begin(&lease, &asked).await), ended);
    let (held, full) = fill(&new, &lease, 0).await;
    assert_eq!(held.len(), 99);
    assert_full(&full);

    // Old and new side by side: the old one starts again and bounds the stream as it does.
    of_an_older_version(&bus).await;
    let (before, state) = config(&new).await;
    new.records.enlarge(Replicas::ONE).await.unwrap();
    let (after, unchanged) = config(&new).await;
    assert!(after.max_bytes >= before.max_bytes);
    assert_eq!(unchanged.messages, state.messages);
    assert_eq!(over(new.begin(&lease, &asked).await), ended);
}

#[tokio::test]
async fn a_stream_that_is_too_small_is_made_larger_and_loses_nothing() {
    let bus = Bus::with_shares(50_000, 50_000).await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let first = worker.hold(&lease, &execution(0, '0')).await;
    let (reserved, _) = config(&worker).await;
    let all = i64::try_from(100_000 * limits::RECORD_BYTES).unwrap();
    assert!(reserved.max_bytes > all);
    let small = Config {
        max_bytes: 1,
        ..reserved.clone()
    };
    worker.context.update_stream(small).await.unwrap();
    assert_eq!(config(&worker).await.1.messages, 1, "nothing goes");
    worker.records.enlarge(Replicas::ONE).await.unwrap();
    assert_eq!(config(&worker).await.0.max_bytes, reserved.max_bytes);
    let end = first
        .finish(ExecutionEnd::Outcome(printed("out").into()))
        .await
        .unwrap();
    assert_eq!(end.into_record().state, RecordState::Succeeded);
}

#[tokio::test]
async fn a_start_with_fewer_pools_leaves_the_stream_as_large_as_it_is() {
    let bus = Bus::with_shares(50_000, 50_000).await;
    let worker = bus.worker("worker-1").await;
    let (before, _) = config(&worker).await;
    let store = store::Store::open(
        &format!("file://{}", bus.cluster.store().display()),
        Ids::random(),
    )
    .unwrap();
    let mut pools = bus.pools();
    pools.pool.truncate(1);
    let (on_bus, stamps) = (worker.on_bus.clone(), Stamps::real());
    let opened = Records::open(on_bus, store, &pools, Replicas::ONE, stamps).await;
    opened.unwrap();
    assert_eq!(config(&worker).await.0.max_bytes, before.max_bytes);
}

#[tokio::test]
async fn more_room_than_the_bus_has_is_refused_with_the_remedy() {
    let bus = Bus::with_shares(limits::RECORDED_OF_POOL_MAX, 1).await;
    let client = bus.client("worker", &bus.cluster.nats()[0]).await;
    let on_bus = Arc::new(NatsBus::new(async_nats::jetstream::new(client)));
    let store = store::Store::open(
        &format!("file://{}", bus.cluster.store().display()),
        Ids::random(),
    )
    .unwrap();
    let (pools, stamps) = (bus.pools(), Stamps::real());
    let opened = Records::open(on_bus, store, &pools, Replicas::ONE, stamps).await;
    let words = opened.unwrap_err().to_string();
    for part in ["max_file_store", "recorded_executions"] {
        assert!(words.contains(part), "{words}");
    }
}

/// Executions with an id and a short output, as callers make them.
fn short(number: u32) -> proto::record::RecordRef {
    proto::record::RecordRef {
        submission: Some(Submission {
            operation: format!("01JDE1KZ0000000000000{number:05}").parse().unwrap(),
            language: Language::Python,
            stream_characters: None,
            all_forms: false,
            extended: false,
            queued: None,
        }),
        ..execution(number, '0')
    }
}

/// Bytes of all files below a directory.
fn bytes_below(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    let sizes = entries.map(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => bytes_below(&entry.path()),
            false => entry.metadata().unwrap().len(),
        }
    });
    sizes.sum()
}

#[tokio::test]
async fn a_million_short_executions_a_day_take_less_than_a_gibibyte_of_the_bus() {
    const MEASURED: u32 = 2000;
    let bus = Bus::with_shares(1_000, 5_000).await;
    let worker = bus.neighbours_worker("worker-1").await;
    let lease = worker.claim().await;
    let runs = (0..MEASURED).map(|number| {
        let (worker, lease) = (&worker, &lease);
        async move {
            let held = worker.hold(lease, &short(number)).await;
            let end = ExecutionEnd::Outcome(printed("y".repeat(200)).into());
            held.finish(end).await.unwrap();
        }
    });
    stream::iter(runs)
        .buffer_unordered(32)
        .collect::<Vec<_>>()
        .await;
    let (_, state) = config(&worker).await;
    assert_eq!(state.messages, u64::from(MEASURED));
    let each = state.bytes / u64::from(MEASURED);
    let disk = bytes_below(&bus.cluster.directory().join(Member::Nats(0).to_string()))
        / u64::from(MEASURED);
    println!("a short record takes {each} bytes of its pool's share and {disk} on the disk");
    assert!(each <= limits::SHORT_RECORD_BYTES, "{each}");
    // Versions that were replaced lie on the disk for a while.
    assert!(disk <= 2 * limits::SHORT_RECORD_BYTES, "{disk}");
}

#[tokio::test]
async fn no_record_is_longer_than_what_is_reserved_for_it() {
    let bus = Bus::with_shares(100, 100).await;
    let name = "w".repeat(23);
    let worker = bus.worker(&name).await;
    let lease = worker.claim().await;
    let mut asked = short(0);
    let submission = asked.submission.as_mut().unwrap();
    submission.operation = "o".repeat(limits::OPERATION_CHARS).parse().unwrap();
    submission.language = Language::Shell;
    submission.stream_characters = Some(u64::MAX);
    (submission.all_forms, submission.extended) = (true, true);
    submission.queued = Some(proto::record::Queued { retries: u8::MAX });
    let overhead = wire::encode(&printed("")).unwrap().len();
    let longest = printed("x".repeat(limits::RECORD_OUTCOME_BYTES - overhead - 2));
    let fault = Fault::new(FaultCode::SandboxUnavailable, "é".repeat(10_000));
    let ends = [
        ExecutionEnd::Outcome(longest.into()),
        ExecutionEnd::Unsaved(fault),
    ];
    for (number, end) in (0..).zip(ends) {
        asked.key = execution(number, '0').key;
        let before = config(&worker).await.1.bytes;
        let held = worker.hold(&lease, &asked).await;
        let record = held.finish(end).await.unwrap().into_record();
        assert!(!matches!(record.outcome, Some(StoredOutcome::Object(_))));
        let bytes = config(&worker).await.1.bytes - before;
        println!("the longest record of kind {number} takes {bytes} bytes");
        assert!(bytes <= limits::RECORD_BYTES, "{bytes}");
    }
}
