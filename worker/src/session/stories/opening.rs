//! A session whose sandbox is on its way.

use super::*;

fn broken() -> OpenError {
    OpenError::Data(std::io::Error::other("no"))
}

#[tokio::test(start_paused = true)]
async fn code_waits_for_the_sandbox_and_is_answered() {
    let (mut story, inbox) = Story::begins_with("1+1").await;
    let second = story.ask(code("2+2"));
    story.settle().await;
    story.opens();
    for (inbox, text) in [(inbox, "1+1"), (second, "2+2")] {
        let run = story.started().await;
        assert_eq!(run.code, text);
        run.prints(text);
        story.saves().await.succeeds();
        assert_eq!(story.outcome(&inbox).await.stdout, text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_operation_waits_for_the_sandbox() {
    let (mut story, _inbox) = Story::begins_with("1+1").await;
    let listing = story.ask(Request::List {
        directory: "".parse().unwrap(),
        recursive: false,
    });
    story.settle().await;
    assert!(story.is_unanswered(&listing));
    story.opens();
    assert_eq!(story.answer(&listing).await, Ok(Answer::Files(vec![])));
}

#[tokio::test(start_paused = true)]
async fn without_a_sandbox_everybody_hears_why_and_the_session_is_gone() {
    let (mut story, first) = Story::begins_with("1+1").await;
    let waiting = [
        story.ask(code("2+2")),
        story.ask(Request::List {
            directory: "".parse().unwrap(),
            recursive: false,
        }),
    ];
    story.settle().await;
    story.opened(Err(broken()));
    for inbox in waiting.iter().chain([&first]) {
        assert_eq!(story.fault(inbox).await, FaultCode::SandboxUnavailable);
    }
    let ended = story.ends().await;
    assert_eq!(
        ended.lease, None,
        "nothing was written that another could go on with"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_stopped_while_it_opens_leaves_no_sandbox_behind() {
    let (mut story, first) = Story::begins_with("1+1").await;
    let stopping = story.ask(Request::Stop);
    story.settle().await;
    assert_eq!(story.fault(&first).await, FaultCode::Stopping);
    assert!(
        story.is_unanswered(&stopping),
        "the sandbox must be there before it can go"
    );
    story.opens();
    assert_eq!(story.answer(&stopping).await, Ok(Answer::Gone));
    let ended = story.ends().await;
    assert!(ended.cage_is_gone);
    assert_eq!(ended.lease, None);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_while_the_session_opens_leaves_its_code_to_the_new_owner() {
    let (mut story, first) = Story::begins_with("1+1").await;
    story.is_taken_over().await;
    let before = story.lease();
    story.tell(Note::LeaseLost);
    assert_eq!(
        story.fault(&first).await,
        FaultCode::NotOwner,
        "it did not run"
    );
    story.opens();
    assert!(story.starts_nothing_within(Duration::from_secs(1)).await);
    assert_eq!(story.lease(), before, "nothing is written any more");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_at_times_that_the_work_goes_on() {
    let (story, first) = Story::begins_with("1+1").await;
    tokio::time::sleep(limits::HEARTBEAT * 5).await;
    let frames = story.frames.of(&first);
    let beats = frames.iter().filter(|body| **body == FrameBody::Heartbeat);
    assert_eq!(frames.first(), Some(&FrameBody::Accepted));
    assert!(beats.count() >= 3, "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn code_whose_caller_has_stopped_waiting_does_not_run() {
    let (mut story, _first) = Story::begins_with("1+1").await;
    story.budget = Duration::from_secs(5);
    let late = story.ask(code("2+2"));
    tokio::time::sleep(Duration::from_secs(6)).await;
    story.opens();
    story.started().await.prints("");
    story.saves().await.succeeds();
    assert_eq!(story.fault(&late).await, FaultCode::Expired);
    assert!(story.starts_nothing_within(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_gives_away_a_session_as_soon_as_it_is_open() {
    let (mut story, first) = Story::begins_with("1+1").await;
    story.tell(Note::HandOver);
    story.settle().await;
    story.opens();
    assert_eq!(story.fault(&first).await, FaultCode::NotOwner);
    story.saves().await.succeeds();
    let variables = story.saves().await;
    assert!(variables.of_variables);
    variables.succeeds();
    let ended = story.ends().await;
    assert_eq!(ended.lease, Some(LeaseState::Vacant));
}
