//! Leases that are there and that no session has.

use records_model::Operation;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::lease::orphan::{Leave, Reason, give_up};

/// Longer than it takes to give a lease up that may arrive late.
const PATIENCE: Duration = Duration::from_secs(60);

/// A claim of which the bus does not say whether it was made: its second write meets this fate, and the look at it none.
async fn unsure(worker: &Worker, seen: u64, fate: Fate) -> Ownership {
    if seen == 0 {
        worker.bus.next(Operation::Write, Fate::Answered);
    }
    worker.bus.next(Operation::Write, fate);
    worker.bus.next(Operation::Last, Fate::Lost);
    match worker.claim('a', seen).await {
        Err(ClaimError::Unsure { ownership, .. }) => *ownership,
        other => panic!("{other:?}"),
    }
}

async fn gives_up(ownership: Ownership, leave: Leave) {
    let draining = CancellationToken::new();
    let giving_up = give_up(ownership, Reason::Claim, leave, draining);
    timeout(PATIENCE, giving_up).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_made_unheard_is_given_back() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let ownership = unsure(&worker, 0, Fate::Unheard).await;
    assert_eq!((fleet.leases().len(), fleet.slots().len()), (1, 1));
    gives_up(ownership, Leave::Nothing).await;
    assert_eq!((fleet.leases(), fleet.slots()), (vec![], vec![]));
    drop(worker.take('b', 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_arrives_late_is_given_back_too() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let late = Fate::Late(Duration::from_secs(20));
    let ownership = unsure(&worker, 0, late).await;
    assert_eq!(fleet.leases(), []);
    gives_up(ownership, Leave::Nothing).await;
    assert_eq!((fleet.leases(), fleet.slots()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_on_is_left_to_its_next_owner() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let before = one.take('a', 0).await;
    let life = before.ownership().incarnation();
    before.vacate(Duration::ZERO).await.unwrap();
    let ownership = unsure(&two, fleet.seen('a'), Fate::Unheard).await;
    gives_up(ownership, Leave::Vacancy(Instant::now())).await;
    let (lease, seen) = fleet.lease('a').unwrap();
    assert_eq!(lease.state, LeaseState::Vacant);
    let claimed = one.claim('a', seen).await.unwrap();
    assert_eq!(claimed.continuity, Continuity::Continued);
    assert_eq!(claimed.lease.ownership().incarnation(), life);
}

#[tokio::test(start_paused = true)]
async fn what_another_has_by_now_is_left_alone() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let ownership = unsure(&one, 0, Fate::Unheard).await;
    let taken = two.take('a', fleet.seen('a')).await;
    gives_up(ownership, Leave::Nothing).await;
    taken.ownership().confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_does_not_wait_for_a_bus_that_does_not_answer() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let ownership = unsure(&worker, 0, Fate::Unheard).await;
    fleet.model.stop();
    let draining = CancellationToken::new();
    let giving_up = give_up(ownership, Reason::Claim, Leave::Nothing, draining.clone());
    let giving_up = tokio::spawn(giving_up);
    sleep(PATIENCE).await;
    assert!(!giving_up.is_finished());
    draining.cancel();
    timeout(PATIENCE, giving_up).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_same_worker_claims_again_meanwhile_is_not_given_up() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    worker
        .take('a', 0)
        .await
        .vacate(Duration::ZERO)
        .await
        .unwrap();
    let seen = fleet.seen('a');
    let ownership = unsure(&worker, seen, Fate::Lost).await;
    let draining = CancellationToken::new();
    let leave = Leave::Vacancy(Instant::now());
    let giving_up = give_up(ownership, Reason::Claim, leave, draining);
    let giving_up = tokio::spawn(giving_up);
    // With the same epoch, since the one before it was never written.
    let taken = worker.take('a', seen).await;
    sleep(PATIENCE).await;
    assert_eq!(fleet.lease('a').unwrap().0.state, LeaseState::Active);
    taken.ownership().confirm().await.unwrap();
    drop(taken);
    giving_up.await.unwrap();
    assert_eq!(fleet.lease('a').unwrap().0.state, LeaseState::Vacant);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_vacant_even_if_an_earlier_renewal_comes_between() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let mut held = worker.take('a', 0).await;
    let again = held.ownership().hold().await.unwrap();
    held.renew().await.unwrap();
    again.vacate(Duration::ZERO).await.unwrap();
    assert_eq!(fleet.lease('a').unwrap().0.state, LeaseState::Vacant);
}
