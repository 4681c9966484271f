//! Answers that do not come: what was done is found again, and what was not done is not believed.

use records_model::Operation;
use tokio::time::sleep;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_claim_finds_its_slot_and_its_lease_again() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    worker.bus.next(Operation::Write, Fate::Unheard);
    worker.bus.next(Operation::Write, Fate::Unheard);
    let held = worker.take('a', 0).await;
    held.ownership().confirm().await.unwrap();
    assert_eq!(held.revision, fleet.seen('a'));
    assert_eq!((fleet.slots().len(), fleet.leases().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_take_over_finds_its_lease_again() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    one.take('a', 0).await.vacate(Duration::ZERO).await.unwrap();
    two.bus.next(Operation::Write, Fate::Unheard);
    let claimed = two.claim('a', fleet.seen('a')).await.unwrap();
    assert_eq!(claimed.continuity, Continuity::Continued);
    claimed.lease.ownership().confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_slot_was_never_made_fails() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    worker.bus.next(Operation::Write, Fate::Lost);
    let failed = worker.claim('a', 0).await;
    assert!(matches!(failed, Err(ClaimError::Bus(_))), "{failed:?}");
    assert_eq!(fleet.slots(), []);
    drop(worker.take('a', 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_lease_was_never_made_fails_and_its_slot_is_freed_in_time() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    worker.bus.slow_next(Operation::Write, Duration::ZERO);
    worker.bus.next(Operation::Write, Fate::Answered);
    worker.bus.next(Operation::Write, Fate::Lost);
    let failed = worker.claim('a', 0).await;
    assert!(
        matches!(failed, Err(ClaimError::Unsure { .. })),
        "{failed:?}"
    );
    assert_eq!((fleet.slots().len(), fleet.leases().len()), (1, 0));
    sleep(limits::SLOT_GRACE).await;
    drop(worker.take('b', 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_written_after_its_claimer_gave_up_ends_by_itself() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    one.bus.next(Operation::Write, Fate::Answered);
    let late = Fate::Late(Duration::from_secs(1));
    one.bus.next(Operation::Write, late);
    let failed = one.claim('a', 0).await;
    assert!(
        matches!(failed, Err(ClaimError::Unsure { .. })),
        "{failed:?}"
    );
    assert_eq!(fleet.leases(), []);
    sleep(Duration::from_secs(2)).await;
    let (lease, seen) = fleet.lease('a').unwrap();
    assert_eq!(lease.slot, fleet.slots()[0].sequence);
    // Whoever is asked for the session takes it over.
    drop(two.take('a', seen).await);
    sleep(COOLDOWN + limits::LEASE_MARGIN).await;
    two.ledger.sweep().await.unwrap();
    assert_eq!((fleet.slots(), fleet.leases()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_found_again_and_the_next_one_follows_on_it() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let mut held = worker.take('a', 0).await;
    let before = fleet.seen('a');
    worker.bus.next(Operation::Write, Fate::Unheard);
    assert!(is_unknown(&held.renew().await));
    assert!(fleet.seen('a') > before);
    held.renew().await.unwrap();
    assert_eq!(held.revision, fleet.seen('a'));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_nobody_could_look_for_is_found_again_by_the_next_one() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let mut held = worker.take('a', 0).await;
    worker.bus.next(Operation::Write, Fate::Unheard);
    worker.bus.next(Operation::Last, Fate::Lost);
    assert!(is_unknown(&held.renew().await));
    assert!(held.revision < fleet.seen('a'));
    held.renew().await.unwrap();
    held.renew().await.unwrap();
    assert_eq!(held.revision, fleet.seen('a'));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_comes_late_changes_nothing_for_a_new_owner() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let mut old = one.take('a', 0).await;
    let late = Fate::Late(Duration::from_secs(10));
    one.bus.next(Operation::Write, late);
    assert!(is_unknown(&old.renew().await));
    let mut new = two.take('a', fleet.seen('a')).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(new.revision, fleet.seen('a'));
    new.renew().await.unwrap();
    assert!(is_lost(&old.renew().await));
}

#[tokio::test(start_paused = true)]
async fn a_release_is_finished_by_the_next_try_wherever_it_stood_still() {
    // Deletions are of the lease, then of the slot.
    for fates in [
        [Fate::Lost, Fate::Answered],
        [Fate::Unheard, Fate::Answered],
        [Fate::Answered, Fate::Lost],
        [Fate::Answered, Fate::Unheard],
    ] {
        let fleet = Fleet::new(1);
        let worker = fleet.worker(1).await;
        let mut held = worker.take('a', 0).await;
        for fate in fates {
            worker.bus.next(Operation::Delete, fate);
        }
        assert!(is_unknown(&held.release().await), "{fates:?}");
        if fates[0] != Fate::Answered {
            // The first try met the one fault; the other was not reached.
            worker.bus.next(Operation::Delete, Fate::Answered);
        }
        held.release().await.unwrap();
        assert_eq!(
            (fleet.slots(), fleet.leases()),
            (vec![], vec![]),
            "{fates:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_follows_on_a_renewal_whose_answer_was_lost() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let mut held = worker.take('a', 0).await;
    worker.bus.next(Operation::Write, Fate::Unheard);
    worker.bus.next(Operation::Last, Fate::Lost);
    assert!(is_unknown(&held.renew().await));
    held.release().await.unwrap();
    assert_eq!((fleet.slots(), fleet.leases()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_nothing_is_known_and_afterwards_the_lease_is_held_again() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let mut held = worker.take('a', 0).await;
    fleet.model.stop();
    assert!(is_unknown(&held.renew().await));
    assert!(is_unknown(&held.ownership().confirm().await));
    let failed = worker.claim('b', 0).await;
    assert!(matches!(failed, Err(ClaimError::Bus(_))), "{failed:?}");
    fleet.model.start();
    let mut again = held.ownership().hold().await.unwrap();
    again.renew().await.unwrap();
    held.renew().await.unwrap();
}
