//! A session whose worker was cut off from the bus, and may have another owner since.

use proto::{
    id::{ClusterKey, Epoch},
    record::{
        BodyDigest, ExecutionRecord, Holder, Queued, RecordKey, RecordRef, RecordState, Submission,
    },
};
use records::execution::{Executions, Put};
use routing::bus::connect::Link;

use super::*;

impl Story {
    /// The connection was lost and made anew, so that nothing is certain any more.
    fn reconnects(&self) {
        self.interruptions.note(Link::Down);
        self.interruptions.note(Link::Up);
    }

    /// A session whose first code is over.
    async fn rests() -> Self {
        let (mut story, first, run) = Self::runs("1").await;
        run.prints("");
        story.saves().await.succeeds();
        story.outcome(&first).await;
        story
    }

    /// The same; the bus does not answer any more, and whether the session moved is not certain.
    async fn is_in_doubt() -> Self {
        let story = Self::rests().await;
        story.bus.stop();
        story.reconnects();
        story
    }

    /// The same; another worker owns the session by now.
    async fn has_moved() -> Self {
        let story = Self::rests().await;
        story.is_taken_over().await;
        story.reconnects();
        story
    }

    /// Code that is cancelled before anything is certain.
    async fn asks_and_cancels(&mut self) -> Inbox {
        let asked = self.ask(code("2"));
        self.settle().await;
        let target = format!("op-{}", self.asked).parse().unwrap();
        self.ask(Request::Cancel { target });
        asked
    }

    /// Whether the session runs code.
    async fn goes_on(&mut self) {
        let asked = self.ask(code("3"));
        assert_eq!(self.answers(&asked).await.ending, Ending::Succeeded);
    }

    /// The end of the code that runs next, as its caller hears it.
    async fn answers(&mut self, inbox: &str) -> Outcome {
        self.started().await.prints("");
        self.saves().await.succeeds();
        self.outcome(inbox).await
    }

    fn record(&self, submission: Option<Submission>) -> RecordRef {
        let (cluster, operation): (ClusterKey, _) =
            ("07".repeat(32).parse().unwrap(), "named".parse().unwrap());
        let (pool, key) = (&self.pool.id, &self.name.key);
        RecordRef {
            key: RecordKey::derive(&cluster, pool, key, &operation),
            digest: BodyDigest::derive(&cluster, key, Duration::from_secs(60), b"2"),
            seen: 0,
            submission,
        }
    }

    fn ask_with(&mut self, record: RecordRef) -> Inbox {
        let Request::Execute {
            code,
            timeout_ms,
            language,
            extension,
            stream,
            ..
        } = code("2")
        else {
            panic!("it is one");
        };
        self.ask(Request::Execute {
            code,
            timeout_ms,
            record: Some(record),
            language,
            extension,
            stream,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn code_of_a_session_that_moved_meanwhile_does_not_begin_and_its_caller_is_sent_on() {
    let mut story = Story::has_moved().await;
    let (one, two) = (story.ask(code("2")), story.ask(code("3")));
    assert_eq!(story.fault(&one).await, FaultCode::NotOwner);
    // Whether it was accepted or not: its sender looks for the session again.
    let two = story.fault(&two).await;
    assert!(
        matches!(two, FaultCode::NotOwner | FaultCode::Stopping),
        "{two:?}"
    );
    assert!(story.starts_nothing_within(Duration::from_secs(1)).await);
    assert!(story.ends().await.cage_is_gone);
}

#[tokio::test(start_paused = true)]
async fn an_execution_with_a_name_leaves_no_record_in_a_session_that_moved_meanwhile() {
    let mut story = Story::has_moved().await;
    let asked = story.ask_with(story.record(None));
    assert_eq!(story.fault(&asked).await, FaultCode::NotOwner);
    assert_eq!(story.bus.records(subject::EXECUTIONS_STREAM), []);
    assert!(story.ends().await.cage_is_gone);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_did_not_move_goes_on_once_that_is_certain() {
    let mut story = Story::is_in_doubt().await;
    let asked = story.ask(code("2"));
    assert!(story.starts_nothing_within(Duration::from_secs(5)).await);
    story.bus.start();
    assert_eq!(story.answers(&asked).await.ending, Ending::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn code_has_its_whole_time_once_it_begins() {
    let mut story = Story::is_in_doubt().await;
    let mut request = code("2");
    if let Request::Execute { timeout_ms, .. } = &mut request {
        *timeout_ms = 3000;
    }
    let asked = story.ask(request);
    assert!(story.starts_nothing_within(Duration::from_secs(8)).await);
    story.bus.start();
    let run = story.started().await;
    tokio::time::sleep(Duration::from_millis(2900)).await;
    assert_eq!(story.interrupts(), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(story.interrupts(), 1);
    run.prints("");
    story.saves().await.succeeds();
    let ending = story.outcome(&asked).await.ending;
    assert_eq!(ending, Ending::TimedOut { restarted: false });
}

#[tokio::test(start_paused = true)]
async fn code_that_is_cancelled_before_it_begins_never_does_and_costs_no_kernel() {
    let mut story = Story::is_in_doubt().await;
    let asked = story.asks_and_cancels().await;
    story.saves().await.succeeds();
    story.bus.start();
    let ending = story.outcome(&asked).await.ending;
    assert_eq!(ending, Ending::Cancelled { restarted: false });
    assert_eq!(story.interrupts(), 0);
    assert!(story.starts_nothing_within(Duration::from_secs(20)).await);
    story.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn an_execution_that_goes_back_to_the_queue_does_not_end_the_session() {
    let mut story = Story::rests().await;
    let submission = Submission {
        operation: "named".parse().unwrap(),
        language: Language::Python,
        stream_characters: None,
        all_forms: false,
        extended: false,
        queued: Some(Queued { retries: 1 }),
    };
    let record = story.record(Some(submission.clone()));
    // Another worker began it in the session's last life, and is gone.
    let clock = story.bus.wall_clock();
    let stamps = Stamps {
        ids: Ids::seeded(9),
        clock,
    };
    let executions = Executions::over(story.bus.connect(9), stamps);
    let theirs = Holder {
        worker: "worker-9".parse().unwrap(),
        epoch: Epoch::default(),
        incarnation: story.lease().unwrap().incarnation,
    };
    let digest = record.digest.clone();
    let running = ExecutionRecord::new(
        RecordState::Running,
        digest,
        Some(theirs),
        executions.stamp(),
    );
    let running = running.submitted(Some(submission));
    let place = subject::execution(&story.pool.id, &story.name.key, &record.key);
    let put = executions.put(&place, &running, 0).await.unwrap();
    assert!(matches!(put, Put::At(_)), "{put:?}");
    let asked = story.ask_with(record);
    story.answer(&asked).await.unwrap_err();
    story.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_of_which_the_bus_says_nothing_for_long_is_not_ended_by_who_asks_with_a_name() {
    let mut story = Story::is_in_doubt().await;
    let asked = story.ask_with(story.record(None));
    assert_eq!(story.fault(&asked).await, FaultCode::NotOwner);
    story.bus.start();
    story.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn code_that_was_cancelled_is_not_sent_on_when_the_session_turns_out_to_have_moved() {
    let mut story = Story::is_in_doubt().await;
    let asked = story.asks_and_cancels().await;
    let _files = story.saves().await;
    story.bus.start();
    story.is_taken_over().await;
    story.tell(Note::LeaseLost);
    assert_eq!(story.fault(&asked).await, FaultCode::Fenced);
}
