//! A session whose files are on their way to the store.

use super::*;
use crate::{
    session::saver::{SaveError, Saved},
    sync::{Limit, SyncError},
};

fn not_saved() -> Result<Saved, SaveError> {
    Err(SaveError::Ended)
}

fn unkeepable() -> Result<Saved, SaveError> {
    Err(SaveError::Unkeepable(Limit::Entries))
}

#[tokio::test(start_paused = true)]
async fn nobody_is_answered_before_the_files_are_saved() {
    let (mut story, first, run) = Story::runs("1").await;
    run.prints("1");
    let save = story.saves().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(story.is_unanswered(&first));
    save.succeeds();
    assert_eq!(story.outcome(&first).await.stdout, "1");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_comes_while_files_are_saved_interrupts_nobody() {
    let (mut story, first, run) = Story::runs("1").await;
    let next = story.ask(code("2"));
    tokio::time::sleep(Duration::from_secs(59)).await;
    run.prints("1");
    let save = story.saves().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    save.succeeds();
    assert_eq!(story.outcome(&first).await.ending, Ending::Succeeded);
    story.started().await.prints("2");
    story.saves().await.succeeds();
    assert_eq!(story.outcome(&next).await.stdout, "2");
    assert_eq!(story.interrupts(), 0);
}

#[tokio::test(start_paused = true)]
async fn files_that_are_not_saved_are_told_and_no_code_runs_before_they_are() {
    let (mut story, first, run) = Story::runs("1").await;
    let waiting = story.ask(code("2"));
    story.settle().await;
    run.prints("1");
    story.saves().await.comes_to(not_saved());
    assert!(story.answer(&first).await.is_err());
    assert_eq!(story.fault(&waiting).await, FaultCode::StorageUnavailable);
    // The next one has the files of the first saved before it runs.
    let next = story.ask(code("3"));
    let save = story.saves().await;
    assert!(story.starts_nothing_within(Duration::from_secs(10)).await);
    save.succeeds();
    let run = story.started().await;
    assert_eq!(run.code, "3");
    run.prints("3");
    story.saves().await.succeeds();
    assert_eq!(story.outcome(&next).await.stdout, "3");
}

#[tokio::test(start_paused = true)]
async fn code_runs_that_may_remove_files_which_cannot_be_kept() {
    let (mut story, first, run) = Story::runs("1").await;
    let next = story.ask(code("rm"));
    story.settle().await;
    run.prints("1");
    story.saves().await.comes_to(unkeepable());
    assert_eq!(story.fault(&first).await, FaultCode::TooManyFiles);
    story.started().await.prints("");
    story.saves().await.succeeds();
    assert_eq!(story.outcome(&next).await.ending, Ending::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_has_taken_over_says_so_and_writes_nothing_any_more() {
    let (mut story, first, run) = Story::runs("1").await;
    let waiting = story.ask(code("2"));
    story.settle().await;
    story.is_taken_over().await;
    let before = story.lease();
    run.prints("1");
    story.saves().await.comes_to(Err(SaveError::Fenced));
    assert_eq!(story.fault(&first).await, FaultCode::Fenced);
    assert_eq!(story.fault(&waiting).await, FaultCode::NotOwner);
    assert_eq!(story.lease(), before);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_the_session_once_its_files_are_saved() {
    let (mut story, first, run) = Story::runs("1").await;
    run.prints("1");
    let save = story.saves().await;
    story.cage.disk_full.cancel();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(story.is_unanswered(&first));
    save.succeeds();
    assert_eq!(story.outcome(&first).await.stdout, "1");
    let ended = story.ends().await;
    assert_eq!(
        ended.lease,
        Some(LeaseState::Vacant),
        "its files go on elsewhere"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_code_that_runs() {
    let (mut story, first, _run) = Story::runs("1").await;
    let waiting = story.ask(code("2"));
    story.settle().await;
    story.cage.disk_full.cancel();
    assert_eq!(story.fault(&first).await, FaultCode::StoppedForDisk);
    assert_eq!(
        story.fault(&waiting).await,
        FaultCode::NotOwner,
        "it may run elsewhere"
    );
    assert!(story.ends().await.cage_is_gone);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_dies_while_its_files_are_saved_costs_the_next_caller_its_variables() {
    let (mut story, first, run) = Story::runs("1").await;
    run.prints("1");
    let save = story.saves().await;
    let dying = story.process.clone().unwrap();
    story.has_another_kernel();
    dying.gone.cancel();
    story.settle().await;
    save.succeeds();
    assert_eq!(story.outcome(&first).await.ending, Ending::Succeeded);
    let next = story.ask(code("2"));
    story.started().await.prints("2");
    story.saves().await.succeeds();
    assert!(
        story
            .outcome(&next)
            .await
            .stderr
            .contains("variables are lost")
    );
}

#[test]
fn what_is_not_saved_in_time_is_a_fault_of_its_own() {
    let late = SaveError::Sync(Box::new(SyncError::Fenced));
    assert_eq!(Fault::from(&late).code, FaultCode::FilesNotDurable);
}
