//! A session that ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn whoever_stops_a_session_hears_of_it_when_it_is_gone() {
    let (mut story, first, _run) = Story::runs("1").await;
    let waiting = story.ask(code("2"));
    story.settle().await;
    let stopping = story.ask(Request::Stop);
    assert_eq!(story.answer(&stopping).await, Ok(Answer::Gone));
    assert_eq!(story.lease(), None);
    assert_eq!(story.fault(&first).await, FaultCode::Stopping);
    assert_eq!(story.fault(&waiting).await, FaultCode::Stopping);
    assert!(story.ends().await.cage_is_gone);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_come_while_the_session_ends_are_sent_elsewhere() {
    let (mut story, _first, _run) = Story::runs("1").await;
    let stopping = story.ask(Request::Stop);
    let late = story.ask(code("2"));
    assert_eq!(story.fault(&late).await, FaultCode::Stopping);
    assert_eq!(story.answer(&stopping).await, Ok(Answer::Gone));
    story.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_waits_for_what_runs_and_leaves_the_queue_to_the_next_owner() {
    let (mut story, first, run) = Story::runs("1").await;
    let queued: Vec<_> = (0..limits::SESSION_QUEUE)
        .map(|_| story.ask(code("2")))
        .collect();
    story.settle().await;
    story.tell(Note::HandOver);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(story.is_unanswered(&first));
    run.prints("1");
    story.saves().await.succeeds();
    assert_eq!(story.outcome(&first).await.stdout, "1");
    for inbox in &queued {
        assert_eq!(
            story.fault(inbox).await,
            FaultCode::NotOwner,
            "it did not run"
        );
    }
    // Files first, then variables.
    let files = story.saves().await;
    assert!(!files.of_variables);
    files.succeeds();
    let variables = story.saves().await;
    assert!(variables.of_variables);
    variables.succeeds();
    let ended = story.ends().await;
    assert_eq!(ended.lease, Some(LeaseState::Vacant));
    assert!(ended.cage_is_gone);
}

#[tokio::test(start_paused = true)]
async fn a_worker_in_a_hurry_interrupts_what_runs() {
    let (mut story, first, run) = Story::runs("while True: pass").await;
    story.tell(Note::HandOverNow);
    story.settle().await;
    assert_eq!(story.interrupts(), 1);
    run.prints("");
    story.saves().await.succeeds();
    let ending = story.outcome(&first).await.ending;
    assert_eq!(ending, Ending::Cancelled { restarted: false });
    story.saves().await.succeeds();
    story.saves().await.succeeds();
    assert_eq!(story.ends().await.lease, Some(LeaseState::Vacant));
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_handed_over_do_not_keep_the_worker() {
    let (mut story, _first, run) = Story::runs("1").await;
    run.prints("1");
    story.saves().await.succeeds();
    story.settle().await;
    story.tell(Note::HandOver);
    let files = story.saves().await;
    files.comes_to(Err(crate::session::saver::SaveError::Ended));
    let ended = story.ends().await;
    assert_eq!(
        ended.lease,
        Some(LeaseState::Vacant),
        "what was saved before goes on"
    );
    assert!(ended.cage_is_gone);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_stopped_while_its_kernel_is_on_its_way_leaves_nothing_behind() {
    let (mut story, first, run) = Story::runs("1").await;
    let (kernel, on_its_way) = story.awaits_another_kernel();
    run.crashes();
    story.saves().await.succeeds();
    assert!(story.outcome(&first).await.ending != Ending::Succeeded);
    let stopping = story.ask(Request::Stop);
    story.settle().await;
    assert!(!story.cage.destroyed.load(Ordering::Relaxed));
    assert!(on_its_way.send(kernel).is_ok());
    assert_eq!(story.answer(&stopping).await, Ok(Answer::Gone));
    let ended = story.ends().await;
    assert_eq!((ended.lease, ended.cage_is_gone), (None, true));
}

#[tokio::test(start_paused = true)]
async fn a_draining_worker_does_not_begin_a_session_that_entered_late() {
    let (mut story, first) = Story::begins_with("1").await;
    story.draining.cancel();
    story.opens();
    assert_eq!(story.fault(&first).await, FaultCode::NotOwner);
    story.saves().await.succeeds();
    story.saves().await.succeeds();
    assert_eq!(story.ends().await.lease, Some(LeaseState::Vacant));
}
