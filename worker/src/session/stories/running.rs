//! A session that runs code.

use super::*;

#[tokio::test(start_paused = true)]
async fn cells_run_one_after_the_other_in_their_order() {
    let (mut story, first, run) = Story::runs("1").await;
    let inboxes: Vec<_> = (2..=5).map(|n| story.ask(code(&n.to_string()))).collect();
    assert!(story.starts_nothing_within(Duration::from_secs(10)).await);
    run.prints("1");
    story.saves().await.succeeds();
    assert_eq!(story.outcome(&first).await.stdout, "1");
    for (inbox, number) in inboxes.iter().zip(2..) {
        let run = story.started().await;
        assert_eq!(run.code, number.to_string());
        run.prints(&number.to_string());
        story.saves().await.succeeds();
        assert_eq!(story.outcome(inbox).await.stdout, number.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_what_is_in_it_runs() {
    let (mut story, _first, run) = Story::runs("1").await;
    let waiting: Vec<_> = (0..limits::SESSION_QUEUE)
        .map(|_| story.ask(code("2")))
        .collect();
    let refused = story.ask(code("3"));
    assert_eq!(story.fault(&refused).await, FaultCode::SessionBusy);
    run.prints("");
    story.saves().await.succeeds();
    for inbox in waiting {
        story.started().await.prints("2");
        story.saves().await.succeeds();
        assert_eq!(story.outcome(&inbox).await.stdout, "2");
    }
}

#[tokio::test(start_paused = true)]
async fn code_that_is_interrupted_when_its_time_is_over_keeps_its_variables() {
    let (mut story, first, run) = Story::runs("while True: pass").await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(story.interrupts(), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(story.interrupts(), 1);
    run.prints("");
    story.saves().await.succeeds();
    let ending = story.outcome(&first).await.ending;
    assert_eq!(ending, Ending::TimedOut { restarted: false });
}

#[tokio::test(start_paused = true)]
async fn code_that_ignores_two_interrupts_is_killed_and_the_next_gets_another_kernel() {
    let (mut story, first, _run) = Story::runs("while True: pass").await;
    let killed = story.process.clone().unwrap();
    story.has_another_kernel();
    let next = story.ask(code("2"));
    story.saves().await.succeeds();
    assert_eq!(killed.interrupts.load(Ordering::Relaxed), 2);
    let ending = story.outcome(&first).await.ending;
    assert_eq!(ending, Ending::TimedOut { restarted: true });
    story.started().await.prints("2");
    story.saves().await.succeeds();
    assert_eq!(story.outcome(&next).await.stdout, "2");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_cell_is_interrupted_and_one_that_waits_never_runs() {
    let (mut story, first, run) = Story::runs("1").await;
    let second = story.ask(code("2"));
    let cancel = |number: u32| Request::Cancel {
        target: format!("op-{number}").parse().unwrap(),
    };
    let cancelled = [story.ask(cancel(1)), story.ask(cancel(0))];
    for inbox in &cancelled {
        assert_eq!(story.answer(inbox).await, Ok(Answer::Gone));
    }
    let never_ran = story.outcome(&second).await.ending;
    assert_eq!(never_ran, Ending::Cancelled { restarted: false });
    assert_eq!(story.interrupts(), 1);
    run.prints("");
    story.saves().await.succeeds();
    let ending = story.outcome(&first).await.ending;
    assert_eq!(ending, Ending::Cancelled { restarted: false });
    assert!(story.starts_nothing_within(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_takes_its_kernel_with_it_is_told_apart_from_one_that_ran_out_of_memory() {
    for (kills, expected) in [
        (
            0,
            Ending::KernelCrashed {
                how: "signal 9".into(),
            },
        ),
        (1, Ending::OutOfMemory),
    ] {
        let (mut story, first, run) = Story::runs("1").await;
        story.has_another_kernel();
        story.cage.oom_kills.store(kills, Ordering::Relaxed);
        run.crashes();
        story.saves().await.succeeds();
        assert_eq!(story.outcome(&first).await.ending, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_dies_between_cells_is_missed_by_the_next_caller() {
    let (mut story, _first, run) = Story::runs("1").await;
    run.prints("");
    story.saves().await.succeeds();
    story.settle().await;
    let dying = story.process.clone().unwrap();
    story.has_another_kernel();
    dying.gone.cancel();
    story.settle().await;
    let next = story.ask(code("2"));
    story.started().await.prints("2");
    story.saves().await.succeeds();
    let outcome = story.outcome(&next).await;
    assert!(outcome.stderr.contains("variables are lost"), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn of_variables_that_are_lost_hears_the_first_whose_code_runs() {
    let (mut story, _first, run) = Story::runs("1").await;
    run.prints("");
    story.saves().await.succeeds();
    story.settle().await;
    let dying = story.process.clone().unwrap();
    story.has_another_kernel();
    dying.gone.cancel();
    story.settle().await;
    let no_text = story.ask(execute(Blob::Inline(vec![0xff])));
    story.saves().await.succeeds();
    assert_eq!(story.fault(&no_text).await, FaultCode::Unsupported);
    let next = story.ask(code("2"));
    story.started().await.prints("2");
    story.saves().await.succeeds();
    let outcome = story.outcome(&next).await;
    assert!(outcome.stderr.contains("variables are lost"), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn without_another_kernel_the_session_ends_and_its_files_go_on_elsewhere() {
    let (mut story, first, run) = Story::runs("1").await;
    let waiting = story.ask(code("2"));
    story.settle().await;
    run.crashes();
    story.saves().await.succeeds();
    assert!(story.outcome(&first).await.ending != Ending::Succeeded);
    assert_eq!(story.fault(&waiting).await, FaultCode::SandboxUnavailable);
    let ended = story.ends().await;
    assert_eq!(ended.lease, Some(LeaseState::Vacant));
    assert!(ended.cage_is_gone);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_ends_after_its_cooldown_and_one_that_runs_code_does_not() {
    let (mut story, _first, run) = Story::runs("1").await;
    let cooldown = story.pool.cooldown();
    // Deaf to interrupts, but they end it: what counts is that the time passes while something runs.
    tokio::time::sleep(Duration::from_secs(50)).await;
    run.prints("");
    story.saves().await.succeeds();
    story.settle().await;
    tokio::time::sleep(cooldown - Duration::from_secs(1)).await;
    assert!(!story.table.is_empty());
    let ended = story.ends().await;
    assert_eq!((ended.lease, ended.cage_is_gone), (None, true));
}
