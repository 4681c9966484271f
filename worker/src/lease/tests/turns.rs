//! One owner after the other: whoever lost a session changes nothing of it any more.

use tokio::time::sleep;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_fenced_owner_neither_renews_nor_vacates_nor_ends_the_session() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let mut old = one.take('a', 0).await;
    let new = two.take('a', fleet.seen('a')).await;
    let before = (fleet.slots(), fleet.leases());
    assert!(is_lost(&old.renew().await));
    assert!(is_lost(&old.stop().await));
    assert!(is_lost(&old.release().await));
    assert!(is_lost(&old.ownership().confirm().await));
    let held = old.ownership().hold().await;
    assert!(matches!(held, Err(LeaseError::Lost)), "{held:?}");
    assert!(is_lost(&old.vacate(Duration::ZERO).await));
    assert_eq!((fleet.slots(), fleet.leases()), before);
    new.ownership().confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ended_is_not_renewed_back_to_life() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let mut held = worker.take('a', 0).await;
    sleep(COOLDOWN + limits::LEASE_MARGIN).await;
    assert!(is_lost(&held.renew().await));
    assert_eq!(fleet.leases(), []);
    // What it still has is the slot.
    held.release().await.unwrap();
    assert_eq!(fleet.slots(), []);
}

#[tokio::test(start_paused = true)]
async fn a_vacant_session_is_taken_over_with_the_rest_of_its_cooldown() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let held = one.take('a', 0).await;
    let idle = COOLDOWN - Duration::from_secs(100);
    held.vacate(idle).await.unwrap();
    let (lease, seen) = fleet.lease('a').unwrap();
    assert_eq!(lease.state, LeaseState::Vacant);
    assert_eq!(Duration::from_millis(lease.idle_ms), idle);
    sleep(Duration::from_secs(100)).await;
    let claimed = two.claim('a', seen).await.unwrap();
    assert_eq!(claimed.continuity, Continuity::Continued);
    // It is used again, so its cooldown begins anew.
    let (lease, _) = fleet.lease('a').unwrap();
    assert_eq!((lease.state, lease.idle_ms), (LeaseState::Active, 0));
}

#[tokio::test(start_paused = true)]
async fn a_vacant_session_that_nobody_wants_goes_with_its_slot() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let held = one.take('a', 0).await;
    let left = Duration::from_secs(100);
    held.vacate(COOLDOWN - left).await.unwrap();
    sleep(left + limits::LEASE_MARGIN).await;
    assert_eq!((fleet.slots().len(), fleet.leases().len()), (1, 0));
    two.ledger.sweep().await.unwrap();
    assert_eq!(fleet.slots(), []);
}

#[tokio::test(start_paused = true)]
async fn the_life_after_a_released_one_begins_with_the_first_epoch_and_another_incarnation() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let mut old = one.take('a', 0).await;
    old.release().await.unwrap();
    let new = two.take('a', 0).await;
    assert_eq!(new.ownership().epoch(), old.ownership().epoch());
    assert_ne!(new.ownership().incarnation(), old.ownership().incarnation());
    // The same epoch, and still fenced.
    assert!(is_lost(&old.renew().await));
    assert!(is_lost(&old.release().await));
    assert_ne!(new.ownership().place(), old.ownership().place());
    new.ownership().confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_the_clock_of_the_bus_jumps_forward_leases_end_and_their_owners_learn_it() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let mut old = one.take('a', 0).await;
    let seen = fleet.seen('a');
    fleet.model.put_forward(COOLDOWN + limits::LEASE_MARGIN);
    assert!(is_lost(&old.renew().await));
    let refused = two.claim('a', seen).await;
    assert!(matches!(refused, Err(ClaimError::LostRace)), "{refused:?}");
    // The slot is as old as the lease was.
    two.ledger.sweep().await.unwrap();
    let claimed = two.claim('a', 0).await.unwrap();
    assert_eq!(claimed.continuity, Continuity::New { ended: None });
}

#[tokio::test(start_paused = true)]
async fn when_the_clock_of_the_bus_jumps_back_sessions_live_on_and_nothing_is_swept() {
    let fleet = Fleet::new(2);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let _old = one.take('a', 0).await;
    fleet.model.put_back(Duration::from_secs(7 * 24 * 3600));
    let claimed = two.claim('a', fleet.seen('a')).await.unwrap();
    assert_eq!(claimed.continuity, Continuity::Continued);
    two.ledger.sweep().await.unwrap();
    assert_eq!(fleet.slots().len(), 1);
    let mut held = claimed.lease;
    held.renew().await.unwrap();
    held.release().await.unwrap();
    assert_eq!(fleet.slots(), []);
}
