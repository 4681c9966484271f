//! A lease is renewed while its session is used, and not any more once it is lost.

use crate::lease::keeper::Keeper;
use crate::lease::ownership_check::{Confirmation, OwnershipCheck};
use records_model::Operation;
use tokio::time::{sleep, timeout};

use super::*;
use crate::{bus::Interruptions, metrics::Counts};

/// A check of an ownership, which notices when this process stands still.
pub(super) fn check(lease: &HeldLease, pool: &Pool) -> OwnershipCheck {
    let interruptions = Interruptions::default();
    tokio::spawn(interruptions.clone().watch_clock());
    let sure = Confirmation::now(&interruptions);
    OwnershipCheck::new(lease.ownership().clone(), interruptions, sure, pool)
}

async fn kept(fleet: &Fleet, worker: &Worker) -> (Keeper, OwnershipCheck) {
    let lease = worker.take('a', 0).await;
    let check = check(&lease, &fleet.pool);
    let keeper = Keeper::new(lease, check.clone(), &fleet.pool, Counts::default());
    (keeper, check)
}

/// Keeps for so long; says whether the lease was lost.
async fn keep(keeper: &mut Keeper, time: Duration) -> bool {
    timeout(time, keeper.keep()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_a_session_that_is_not_used_is_not_renewed() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let (mut keeper, _) = kept(&fleet, &worker).await;
    let before = fleet.seen('a');
    assert!(!keep(&mut keeper, COOLDOWN).await);
    assert_eq!(fleet.seen('a'), before);
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_a_session_in_use_is_renewed_at_its_time_and_no_more_often() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let (mut keeper, check) = kept(&fleet, &worker).await;
    let (writes, every) = (
        worker.bus.asked(Operation::Write),
        fleet.pool.renewed_every(),
    );
    for round in 1..=40 {
        keeper.used();
        keeper.used();
        assert!(!keep(&mut keeper, every).await);
        assert!(check.is_sure(), "{round}");
        assert!(worker.bus.asked(Operation::Write) - writes <= round);
    }
    let renewals = worker.bus.asked(Operation::Write) - writes;
    assert!((38..=40).contains(&renewals), "{renewals}");
    assert!(keeper.renewed().elapsed() <= every);
    keeper.ownership().confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_not_answered_is_tried_again_soon_though_the_session_is_not_used() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let (mut keeper, _) = kept(&fleet, &worker).await;
    let began = fleet.seen('a');
    keeper.used();
    worker.bus.next(Operation::Write, Fate::Failed);
    worker.bus.next(Operation::Write, Fate::Lost);
    let (every, patience) = (fleet.pool.renewed_every(), Duration::from_secs(10));
    assert!(!keep(&mut keeper, every + patience).await);
    assert!(fleet.seen('a') > began);
    assert_eq!(keeper.into_lease().await.unwrap().revision, fleet.seen('a'));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_told_once_the_bus_says_so_and_nothing_is_written_then() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let (mut keeper, check) = kept(&fleet, &one).await;
    let new = two.take('a', fleet.seen('a')).await;
    keeper.used();
    assert!(keep(&mut keeper, fleet.pool.renewed_every() * 2).await);
    let before = fleet.leases();
    keeper.used();
    assert!(keep(&mut keeper, fleet.pool.renewed_every() * 2).await);
    assert_eq!(fleet.leases(), before);
    sleep(fleet.pool.renewed_every() * 2).await;
    assert!(!check.owns().await);
    new.ownership().confirm().await.unwrap();
    assert!(is_lost(&keeper.into_lease().await.unwrap().release().await));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_goes_on_though_nobody_waits_for_it_and_is_not_made_twice() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let (mut keeper, _) = kept(&fleet, &worker).await;
    let every = fleet.pool.renewed_every();
    let writes = worker.bus.asked(Operation::Write);
    keeper.used();
    worker
        .bus
        .slow_next(Operation::Write, Duration::from_secs(3));
    // Whoever keeps has many other things to do.
    for _ in 0..20 {
        assert!(!keep(&mut keeper, every / 10).await);
    }
    assert_eq!(worker.bus.asked(Operation::Write) - writes, 1);
    keeper.used();
    worker
        .bus
        .slow_next(Operation::Write, Duration::from_secs(3));
    assert!(!keep(&mut keeper, every).await);
    let began = Instant::now();
    let lease = keeper.into_lease().await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(3));
    assert_eq!(lease.revision, fleet.seen('a'));
}
