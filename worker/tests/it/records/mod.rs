//! Records of executions on a real bus: nothing runs twice, and every race has one winner whose word
//! counts.

mod bus;
mod line;
mod replicas;
mod rights;
mod shares;
mod suite;

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use loadtest::wait::until;
use proto::{
    fault::{Fault, FaultCode},
    limits,
    message::{Answer, Carried},
    record::{ExecutionRecord, RecordRef, RecordState, StoredOutcome},
    subject,
};
use records::execution::{Put, Stamps};
use worker::record::{Begun, ExecutionEnd, FinalRecord, RecordError};

use bus::{Bus, Peer, execution, over, printed, session};
use line::Line;

const WITHIN: Duration = Duration::from_secs(30);

fn stopped() -> Fault {
    Fault::new(FaultCode::Stopping, "the session was stopped")
}

#[tokio::test]
async fn of_many_that_begin_one_runs_and_the_others_wait_with_it() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    for number in 0..10 {
        let asked = execution(number, '0');
        let begun = join_all((0..16).map(|_| worker.begin(&lease, &asked))).await;
        let mut mine = 0;
        for begun in begun {
            match begun.unwrap() {
                Begun::Mine(_) => mine += 1,
                Begun::Known(_) => {}
                Begun::Over(record) => panic!("{record:?}"),
            }
        }
        assert_eq!(mine, 1);
    }
}

#[tokio::test]
async fn what_has_ended_is_told_to_whoever_asks_again() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let ends = [
        (
            ExecutionEnd::Outcome(printed("out").into()),
            RecordState::Succeeded,
        ),
        (ExecutionEnd::Stopped(stopped()), RecordState::Cancelled),
    ];
    for (number, (end, state)) in (0..).zip(ends) {
        let asked = execution(number, '0');
        let held = worker.hold(&lease, &asked).await;
        let FinalRecord::Mine(record) = held.finish(end).await.unwrap() else {
            panic!("nobody else ends it");
        };
        assert_eq!(record.state, state);
        let again = over(worker.begin(&lease, &asked).await);
        assert_eq!(again, record);
        assert_eq!(again.answer(), record.answer());
    }
}

#[tokio::test]
async fn another_body_under_the_same_name_is_a_conflict_before_and_after_the_end() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let (asked, other) = (execution(0, '0'), execution(0, '1'));
    let held = worker.hold(&lease, &asked).await;
    let refused = worker.begin(&lease, &other).await;
    assert!(matches!(refused, Err(RecordError::Conflict)), "{refused:?}");
    held.finish(ExecutionEnd::Outcome(printed("out").into()))
        .await
        .unwrap();
    let refused = worker.begin(&lease, &other).await;
    assert!(matches!(refused, Err(RecordError::Conflict)), "{refused:?}");
}

#[tokio::test]
async fn a_new_owner_says_that_what_ran_is_lost_and_the_old_one_says_so_too() {
    let bus = Bus::start().await;
    let (old, new) = (bus.worker("worker-1").await, bus.worker("worker-2").await);
    let old_lease = old.claim().await;
    let asked = execution(0, '0');
    let held = old.hold(&old_lease, &asked).await;
    let new_lease = new.claim().await;
    let lost = over(new.begin(&new_lease, &asked).await);
    assert_eq!(lost.state, RecordState::Lost);
    let finished = held
        .finish(ExecutionEnd::Outcome(printed("out").into()))
        .await
        .unwrap();
    assert_eq!(finished, FinalRecord::Theirs(lost.clone()));
    // And it never runs again.
    assert_eq!(over(new.begin(&new_lease, &asked).await), lost);
}

#[tokio::test]
async fn the_old_owners_end_counts_when_it_came_first() {
    let bus = Bus::start().await;
    let (old, new) = (bus.worker("worker-1").await, bus.worker("worker-2").await);
    let old_lease = old.claim().await;
    let asked = execution(0, '0');
    let held = old.hold(&old_lease, &asked).await;
    let new_lease = new.claim().await;
    let finished = held
        .finish(ExecutionEnd::Outcome(printed("out").into()))
        .await
        .unwrap();
    let record = over(new.begin(&new_lease, &asked).await);
    assert_eq!(finished, FinalRecord::Mine(record.clone()));
    assert_eq!(record.state, RecordState::Succeeded);
}

#[tokio::test]
async fn an_end_and_a_loss_that_race_have_one_winner_that_both_report() {
    let bus = Bus::start().await;
    let (old, new) = (bus.worker("worker-1").await, bus.worker("worker-2").await);
    let old_lease = old.claim().await;
    let mut held = vec![];
    for number in 0..50 {
        held.push(old.hold(&old_lease, &execution(number, '0')).await);
    }
    let new_lease = new.claim().await;
    let mut states = BTreeSet::new();
    for (number, held) in (0..).zip(held) {
        let asked = execution(number, '0');
        let (finished, begun) = tokio::join!(
            held.finish(ExecutionEnd::Outcome(printed("out").into())),
            new.begin(&new_lease, &asked),
        );
        let told = over(begun);
        assert_eq!(finished.unwrap().into_record(), told);
        states.insert(format!("{:?}", told.state));
    }
    eprintln!("winners: {states:?}");
}

#[tokio::test]
async fn an_owner_that_is_none_any_more_marks_nothing_as_lost() {
    let bus = Bus::start().await;
    let (old, new) = (bus.worker("worker-1").await, bus.worker("worker-2").await);
    let old_lease = old.claim().await;
    let new_lease = new.claim().await;
    let asked = execution(0, '0');
    let held = new.hold(&new_lease, &asked).await;
    let refused = old.begin(&old_lease, &asked).await;
    assert!(matches!(refused, Err(RecordError::NotOwner)), "{refused:?}");
    let finished = held
        .finish(ExecutionEnd::Outcome(printed("out").into()))
        .await
        .unwrap();
    assert_eq!(finished.into_record().state, RecordState::Succeeded);
}

#[tokio::test]
async fn what_an_owner_forgot_is_lost_and_not_run_again() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let asked = execution(0, '0');
    drop(worker.hold(&lease, &asked).await);
    let Begun::Known(known) = worker.begin(&lease, &asked).await.unwrap() else {
        panic!("its own ownership has it");
    };
    let lost = worker.records.lose(lease.ownership(), known).await.unwrap();
    assert_eq!(lost.state, RecordState::Lost);
    assert_eq!(over(worker.begin(&lease, &asked).await), lost);
}

/// Writes `refused` as an ingress does, over what is there.
async fn refuse(bus: &Bus, asked: &RecordRef, expected: u64) -> u64 {
    let refused = ExecutionRecord::new(
        RecordState::Refused,
        asked.digest.clone(),
        None,
        Stamps::real().stamp(),
    );
    let put = bus.ingress().await;
    match put
        .put(&bus.subject(asked), &refused, expected)
        .await
        .unwrap()
    {
        Put::At(revision) => revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_execution_runs_only_for_whoever_starts_over_exactly_that_refusal() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let asked = execution(0, '0');
    let first = refuse(&bus, &asked, 0).await;
    let second = refuse(&bus, &asked, first).await;
    for seen in [0, first, second + 1] {
        let stale = RecordRef {
            seen,
            ..asked.clone()
        };
        let refused = worker.begin(&lease, &stale).await;
        assert!(
            matches!(refused, Err(RecordError::Refused)),
            "{seen} {refused:?}"
        );
    }
    let again = RecordRef {
        seen: second,
        ..asked.clone()
    };
    let both = join_all([worker.begin(&lease, &again), worker.begin(&lease, &again)]).await;
    let mine = both
        .into_iter()
        .filter(|begun| matches!(begun, Ok(Begun::Mine(_))));
    assert_eq!(mine.count(), 1);
    let begun = worker.begin(&lease, &asked).await.unwrap();
    assert!(matches!(begun, Begun::Known(_)), "{begun:?}");
}

#[tokio::test]
async fn an_owner_that_refuses_lets_the_same_operation_be_asked_for_anew() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let asked = execution(0, '0');
    let held = worker.hold(&lease, &asked).await;
    let busy = Fault::new(FaultCode::SessionBusy, "busy");
    held.finish(ExecutionEnd::Refused(busy)).await.unwrap();
    let (refused, revision) = worker.read(&asked).await.unwrap();
    assert_eq!(refused.state, RecordState::Refused);
    let again = RecordRef {
        seen: revision,
        ..asked
    };
    drop(worker.hold(&lease, &again).await);
}

#[tokio::test]
async fn a_queued_execution_is_taken_once() {
    let bus = Bus::start().await;
    let worker = bus.worker("worker-1").await;
    let lease = worker.claim().await;
    let asked = execution(0, '0');
    let queued = ExecutionRecord::new(
        RecordState::Queued,
        asked.digest.clone(),
        None,
        Stamps::real().stamp(),
    );
    let written = bus
        .ingress()
        .await
        .put(&bus.subject(&asked), &queued, 0)
        .await;
    assert!(matches!(written, Ok(Put::At(_))), "{written:?}");
    let held = worker.hold(&lease, &asked).await;
    let begun = worker.begin(&lease, &asked).await.unwrap();
    assert!(matches!(begun, Begun::Known(_)), "{begun:?}");
    let record = held
        .finish(ExecutionEnd::Outcome(printed("").into()))
        .await
        .unwrap();
    let record = record.into_record();
    assert_eq!(record.created_ms, queued.created_ms);
    assert_eq!(record.place, Some(lease.ownership().place()));
}

#[tokio::test]
async fn a_lost_acknowledgement_of_a_beginning_or_an_end_changes_nothing() {
    let bus = Bus::start().await;
    let line = Line::to(&bus.cluster.nats()[0]).await;
    let (worker, watcher) = (
        bus.worker_through("worker-1", &line.address).await,
        bus.worker("worker-2").await,
    );
    let lease = worker.claim().await;
    let asked = execution(0, '0');
    // That there is room is known.
    drop(worker.hold(&lease, &execution(1, '0')).await);

    line.lose_answers();
    let begins = worker.begin(&lease, &asked);
    let mended = mend_when(&line, &watcher, &asked, RecordState::Running);
    let (begun, ()) = tokio::join!(begins, mended);
    let Begun::Mine(held) = begun.unwrap() else {
        panic!("it is its own");
    };

    line.lose_answers();
    let ends = held.finish(ExecutionEnd::Outcome(printed("out").into()));
    let mended = mend_when(&line, &watcher, &asked, RecordState::Succeeded);
    let (finished, ()) = tokio::join!(ends, mended);
    let FinalRecord::Mine(record) = finished.unwrap() else {
        panic!("it is its own");
    };
    assert_eq!(watcher.read(&asked).await.unwrap().0, record);
}

/// Mends the line once the record is in this state and the answer that says so is lost.
async fn mend_when(line: &Line, watcher: &Peer, asked: &RecordRef, state: RecordState) {
    let lost = line.lost();
    until(
        "the record is written and its writer not told",
        WITHIN,
        || async {
            let found = watcher.read(asked).await;
            let found = found.filter(|(record, _)| record.state == state && line.lost() > lost);
            Ok(found.map(drop))
        },
    )
    .await
    .unwrap();
    line.mend();
}

#[tokio::test]
async fn a_long_result_lies_in_the_store_and_a_losers_is_removed() {
    let bus = Bus::start().await;
    let (old, new) = (bus.worker("worker-1").await, bus.worker("worker-2").await);
    let old_lease = old.claim().await;
    let (kept, lost) = (execution(0, '0'), execution(1, '0'));
    let long = || printed("x".repeat(limits::RECORD_OUTCOME_BYTES));

    let held = old.hold(&old_lease, &kept).await;
    let finished = held
        .finish(ExecutionEnd::Outcome(long().into()))
        .await
        .unwrap();
    let Some(StoredOutcome::Object(object)) = finished.into_record().outcome else {
        panic!("it is too long for the record");
    };
    let file = bus.cluster.store().join(&object.key);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), object.size);
    let told = over(old.begin(&old_lease, &kept).await).answer();
    assert_eq!(told, Some(Ok(Answer::Executed(Carried::Kept(object)))));

    let held = old.hold(&old_lease, &lost).await;
    let new_lease = new.claim().await;
    over(new.begin(&new_lease, &lost).await);
    let finished = held
        .finish(ExecutionEnd::Outcome(long().into()))
        .await
        .unwrap();
    assert!(matches!(finished, FinalRecord::Theirs(_)), "{finished:?}");
    let directory = bus.cluster.store().join(format!(
        "{}/{}/{}",
        subject::RESULTS,
        bus.pool.id,
        session()
    ));
    let files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files, [file]);
}
