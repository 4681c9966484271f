//! Whether an owner still is one is asked only when there is reason to doubt it.

use records_model::Operation;
use tokio::time::{advance, sleep};

use super::{keeper::check, *};

/// This process stands still for so long that others may have acted: whoever watches its clock has seen it run before.
async fn stand_still() {
    tokio::task::yield_now().await;
    advance(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_sure_asks_nothing() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let lease = worker.take('a', 0).await;
    let check = check(&lease, &fleet.pool);
    for _ in 0..100 {
        assert!(check.owns().await);
    }
    sleep(fleet.pool.renewed_every() * 2).await;
    assert!(check.owns().await);
    assert_eq!(worker.bus.asked(Operation::Last), 0);
    sleep(Duration::from_millis(100)).await;
    assert!(!check.is_sure());
    assert!(check.owns().await);
    assert_eq!(worker.bus.asked(Operation::Last), 1);
    assert!(check.clone().is_sure(), "clones share what they found out");
}

#[tokio::test(start_paused = true)]
async fn after_a_standstill_the_owner_asks_whether_it_still_is_one() {
    let fleet = Fleet::new(1);
    let (one, two) = (fleet.worker(1).await, fleet.worker(2).await);
    let lease = one.take('a', 0).await;
    let check = check(&lease, &fleet.pool);
    sleep(Duration::from_secs(1)).await;
    assert!(check.is_sure());
    stand_still().await;
    assert!(!check.is_sure());
    assert!(check.owns().await);
    assert!(check.is_sure());
    stand_still().await;
    drop(two.take('a', fleet.seen('a')).await);
    assert!(!check.owns().await);
    assert!(!check.is_sure());
}

#[tokio::test(start_paused = true)]
async fn a_word_of_the_bus_that_is_older_than_the_last_takes_nothing_back() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let lease = worker.take('a', 0).await;
    let check = check(&lease, &fleet.pool);
    let before = check.now();
    sleep(fleet.pool.renewed_every() * 3).await;
    check.note(before);
    assert!(!check.is_sure());
    check.note(check.now());
    assert!(check.is_sure());
    check.note(before);
    assert!(check.is_sure());
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_does_not_answer_is_asked_until_it_does() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let lease = worker.take('a', 0).await;
    let check = check(&lease, &fleet.pool);
    stand_still().await;
    fleet.model.stop();
    let asking = tokio::spawn({
        let check = check.clone();
        async move { check.owns().await }
    });
    sleep(Duration::from_secs(8)).await;
    fleet.model.start();
    assert!(asking.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_be_sure_within_twelve_seconds_acts_as_if_it_owned_nothing() {
    let fleet = Fleet::new(1);
    let worker = fleet.worker(1).await;
    let lease = worker.take('a', 0).await;
    let check = check(&lease, &fleet.pool);
    stand_still().await;
    worker.bus.cut();
    let began = Instant::now();
    assert!(!check.owns().await);
    let took = began.elapsed().as_secs();
    assert!((12..20).contains(&took), "{took} s");
    worker.bus.mend();
    assert!(check.owns().await, "the doubt was groundless");
    lease
        .ownership()
        .hold()
        .await
        .unwrap()
        .renew()
        .await
        .unwrap();
}
