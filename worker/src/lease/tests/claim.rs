//! Claims: of sessions that are new, that go on, that have ended, and of the last slot.

use futures_util::future::join_all;
use records_model::Operation;
use tokio::time::sleep;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::lease::orphan::{self, Leave, Reason};

#[tokio::test(start_paused = true)]
async fn a_new_session_costs_two_writes_and_nothing_else() {
    let fleet = Fleet::new(5);
    let worker = fleet.worker(1).await;
    let claimed = worker.claim('a', 0).await.unwrap();
    assert_eq!(claimed.continuity, Continuity::New { ended: None });
    let (lease, revision) = fleet.lease('a').unwrap();
    assert_eq!(claimed.lease.revision, revision);
    assert_eq!(lease.epoch, Epoch::default().next());
    assert_eq!(lease.state, LeaseState::Active);
    assert_eq!(lease.slot, fleet.slots()[0].sequence);
    assert_eq!(worker.bus.asked(Operation::Write), 2);
    for unasked in [
        Operation::Last,
        Operation::At,
        Operation::List,
        Operation::Describe,
    ] {
        assert_eq!(worker.bus.asked(unasked), 0, "{unasked:?}");
    }
    let incarnation = worker.ledger.incarnation(&session('a')).await.unwrap();
    assert_eq!(incarnation, Some(lease.incarnation));
    assert_eq!(
        worker.ledger.incarnation(&session('b')).await.unwrap(),
        None
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lives_goes_on_in_its_slot_under_a_higher_epoch() {
    let fleet = Fleet::new(5);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let old = one.take('a', 0).await;
    let (before, seen) = fleet.lease('a').unwrap();
    sleep(COOLDOWN + fleet.pool.renewed_every()).await;
    let claimed = two.claim('a', seen).await.unwrap();
    assert_eq!(claimed.continuity, Continuity::Continued);
    let (after, _) = fleet.lease('a').unwrap();
    assert_eq!(after.incarnation, before.incarnation);
    assert_eq!(after.slot, before.slot);
    assert!(after.epoch > before.epoch);
    assert_eq!(fleet.slots().len(), 1);
    assert!(is_lost(&old.ownership().confirm().await));
    claimed.lease.ownership().confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_cooldown_is_over_begins_anew_and_its_old_life_is_named() {
    let fleet = Fleet::new(5);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let _old = one.take('a', 0).await;
    let (before, seen) = fleet.lease('a').unwrap();
    sleep(COOLDOWN + fleet.pool.renewed_every() + Duration::from_secs(1)).await;
    let claimed = two.claim('a', seen).await.unwrap();
    let ended = Some(before.incarnation);
    assert_eq!(claimed.continuity, Continuity::New { ended });
    let (after, _) = fleet.lease('a').unwrap();
    assert_ne!(after.incarnation, before.incarnation);
    assert!(after.epoch > before.epoch);
    assert_eq!(after.slot, before.slot);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_ending_begins_anew() {
    let fleet = Fleet::new(5);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let mut old = one.take('a', 0).await;
    old.stop().await.unwrap();
    let (before, seen) = fleet.lease('a').unwrap();
    assert_eq!(before.state, LeaseState::Stopping);
    let claimed = two.claim('a', seen).await.unwrap();
    let ended = Some(before.incarnation);
    assert_eq!(claimed.continuity, Continuity::New { ended });
}

#[tokio::test(start_paused = true)]
async fn an_old_view_of_a_session_loses_the_race() {
    let fleet = Fleet::new(5);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let mut held = one.take('a', 0).await;
    let seen = fleet.seen('a');
    held.renew().await.unwrap();
    for seen in [0, seen, seen + 7] {
        let refused = two.claim('a', seen).await;
        assert!(matches!(refused, Err(ClaimError::LostRace)), "{refused:?}");
    }
    assert_eq!(fleet.slots().len(), 1);
    held.renew().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_many_that_claim_one_session_one_does() {
    let fleet = Fleet::new(5);
    let mut workers = vec![];
    for number in 0..8 {
        workers.push(fleet.worker(number).await);
    }
    for round in 0..3 {
        let seen = fleet.seen('a');
        let claimed = join_all(workers.iter().map(|worker| worker.claim('a', seen))).await;
        let mut owners = 0;
        for claimed in claimed {
            match claimed {
                Ok(claimed) => {
                    owners += 1;
                    claimed.lease.ownership().confirm().await.unwrap();
                }
                Err(ClaimError::LostRace) => {}
                Err(error) => panic!("{round}: {error}"),
            }
        }
        assert_eq!((owners, fleet.slots().len()), (1, 1), "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_that_claim_a_session_each_no_more_are_let_in_than_the_pool_may_have() {
    let fleet = Fleet::new(3);
    let mut workers = vec![];
    for number in 0..4 {
        workers.push(fleet.worker(number).await);
    }
    let claims = ('a'..='h').zip(workers.iter().cycle());
    let claimed = join_all(claims.map(|(letter, worker)| worker.claim(letter, 0))).await;
    let mut held = vec![];
    for claimed in claimed {
        match claimed {
            Ok(claimed) => held.push(claimed.lease),
            Err(ClaimError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((held.len(), fleet.slots().len()), (3, 3));
    // Who has a slot goes on without another.
    let seen = fleet.leases()[0].sequence;
    let letter = fleet.leases()[0].subject.chars().last().unwrap();
    drop(workers[3].take(letter, seen).await);
    held[1].release().await.unwrap();
    drop(workers[0].take('z', 0).await);
    let refused = workers[0].claim('y', 0).await;
    assert!(matches!(refused, Err(ClaimError::Full)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_is_swept_before_it_refuses() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    drop(one.take('a', 0).await);
    // Its owner is gone, and its lease ends by itself.
    sleep(COOLDOWN + limits::LEASE_MARGIN).await;
    assert_eq!((fleet.slots().len(), fleet.leases().len()), (1, 0));
    drop(two.take('b', 0).await);
    assert_eq!(fleet.slots().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_took_long_looks_for_its_slot_and_gives_up_without_it() {
    let fleet = Fleet::new(5);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    // The question for the lease is on its way for longer than a slot without one is left alone.
    let claiming = tokio::spawn({
        let (ledger, bus) = (one.ledger.clone(), one.bus.clone());
        bus.slow_next(Operation::Write, Duration::ZERO);
        bus.slow_next(Operation::Write, limits::SLOT_GRACE * 2);
        async move { ledger.claim(&session('a'), &identifier(), 0).await }
    });
    sleep(limits::SLOT_GRACE + Duration::from_secs(1)).await;
    two.ledger.sweep().await.unwrap();
    assert_eq!(fleet.slots(), []);
    let refused = claiming.await.unwrap();
    assert!(matches!(refused, Err(ClaimError::LostRace)), "{refused:?}");
    assert_eq!(fleet.leases(), []);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_took_long_keeps_the_slot_that_is_still_there() {
    let fleet = Fleet::new(5);
    let worker = fleet.worker(1).await;
    worker.bus.slow_next(Operation::Write, SLOT_IS_SURE);
    let held = worker.take('a', 0).await;
    assert_eq!(worker.bus.asked(Operation::Last), 1);
    held.ownership().confirm().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_look_for_its_slot_leaves_no_lease_without_an_owner() {
    let fleet = Fleet::new(5);
    let worker = fleet.worker(1).await;
    worker.bus.slow_next(Operation::Write, SLOT_IS_SURE);
    worker.bus.next(Operation::Last, Fate::Failed);
    let failed = worker.claim('a', 0).await;
    let Err(ClaimError::Unsure { ownership, .. }) = failed else {
        panic!("{failed:?}");
    };
    let draining = CancellationToken::new();
    orphan::give_up(*ownership, Reason::Claim, Leave::Nothing, draining).await;
    assert_eq!((fleet.leases(), fleet.slots()), (vec![], vec![]));
}
