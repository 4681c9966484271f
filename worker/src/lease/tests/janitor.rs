//! Slots are freed that nobody has, and no others.

use records::cas::Listed;
use records_model::Operation;
use time::OffsetDateTime;
use tokio::time::sleep;

use super::*;
use crate::lease::janitor::{SWEEP_EVERY, abandoned};

/// Leaves a slot that nobody has: its creator died before it wrote the lease.
async fn abandon(worker: &Worker, letter: char) {
    worker.bus.next(Operation::Write, Fate::Answered);
    worker.bus.next(Operation::Write, Fate::Failed);
    worker.claim(letter, 0).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn only_slots_without_a_lease_are_freed_and_not_before_the_grace_is_over() {
    let fleet = Fleet::new(5);
    let worker = fleet.worker(1).await;
    let mut held = worker.take('a', 0).await;
    abandon(&worker, 'b').await;
    sleep(limits::SLOT_GRACE).await;
    worker.ledger.sweep().await.unwrap();
    assert_eq!(fleet.slots().len(), 2, "it is exactly as old as the grace");
    abandon(&worker, 'c').await;
    sleep(SWEEP_EVERY).await;
    worker.ledger.sweep().await.unwrap();
    let left: Vec<_> = fleet.slots().into_iter().map(|slot| slot.subject).collect();
    let slot = |letter| subject::slot(&fleet.pool.id, &session(letter));
    assert_eq!(left, [slot('a'), slot('c')]);
    held.renew().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_swept_by_one_worker_no_more_often_than_every_two_seconds() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let _held = worker.take('a', 0).await;
    for letter in 'b'..='z' {
        let refused = worker.claim(letter, 0).await;
        assert!(matches!(refused, Err(ClaimError::Full)), "{refused:?}");
    }
    // Slots and leases are listed.
    assert_eq!(worker.bus.asked(Operation::List), 2);
    sleep(SWEEP_EVERY).await;
    worker.ledger.sweep().await.unwrap();
    assert_eq!(worker.bus.asked(Operation::List), 4);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_freed_over_another_connection_than_it_was_listed_over() {
    let fleet = Fleet::new(5);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    abandon(&one, 'a').await;
    abandon(&one, 'b').await;
    sleep(limits::SLOT_GRACE * 2).await;
    // The leases are on their way when the connection is made anew.
    two.bus.slow_next(Operation::List, Duration::ZERO);
    two.bus.slow_next(Operation::List, Duration::from_secs(1));
    let sweeping = tokio::spawn({
        let ledger = two.ledger.clone();
        async move { ledger.sweep().await }
    });
    sleep(Duration::from_millis(500)).await;
    two.bus.mend();
    sweeping.await.unwrap().unwrap();
    assert_eq!(fleet.slots().len(), 2);
    two.ledger.sweep().await.unwrap();
    assert_eq!(fleet.slots().len(), 2, "a moment after the last sweep");
    sleep(SWEEP_EVERY).await;
    two.ledger.sweep().await.unwrap();
    assert_eq!(fleet.slots(), []);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_fails_frees_nothing() {
    let fleet = Fleet::new(5);
    let worker = fleet.worker(1).await;
    abandon(&worker, 'a').await;
    sleep(limits::SLOT_GRACE * 2).await;
    for unanswered in [Operation::Describe, Operation::List, Operation::Delete] {
        worker.bus.next(unanswered, Fate::Lost);
        worker.ledger.sweep().await.unwrap_err();
        assert_eq!(fleet.slots().len(), 1, "{unanswered:?}");
        sleep(SWEEP_EVERY).await;
    }
    worker.ledger.sweep().await.unwrap();
    assert_eq!(fleet.slots(), []);
}

#[test]
fn slots_are_told_from_leases_by_their_sessions() {
    let now = OffsetDateTime::UNIX_EPOCH + limits::SLOT_GRACE * 3;
    let listed = |subject: &str, sequence, age| Listed {
        subject: subject.to_owned(),
        sequence,
        time: now - age,
    };
    let grace = limits::SLOT_GRACE;
    let slots = [
        listed("h1.slots.p.a", 1, grace * 2),
        listed("h1.slots.p.b", 2, grace * 2),
        listed("h1.slots.p.c", 3, grace),
        listed("h1.slots.p.d", 4, Duration::ZERO),
    ];
    let leases = [listed("$KV.h1_leases_p.a", 9, Duration::ZERO)];
    assert_eq!(abandoned(&slots, &leases, now), [2]);
    assert_eq!(abandoned(&[], &leases, now), [0_u64; 0]);
}
