//! An execution with a record is asked for until it has an end, and what is said of it is what its record
//! says.

use std::time::Duration;

use ingress::route::{RouteError, once::OnceError};
use proto::{
    fault::{Fault, FaultCode},
    message::FrameBody,
    record::RecordState,
};

use crate::owner::{Fleet, executed, new_record, other_body, place, record, succeeded};

/// Longer than everything that these tests wait for.
const LONG: Duration = Duration::from_secs(25);
/// Shorter than an owner's silence.
const SHORT: Duration = Duration::from_secs(1);

fn is_lost(error: &OnceError) -> bool {
    matches!(error, OnceError::Failed(fault) if fault.code == FaultCode::ExecutionLost)
}

#[tokio::test]
async fn a_job_that_nobody_answers_is_sent_again() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let asked = fleet.ask(record(), LONG);
    let answering = async {
        let swallowed = owner.receive().await;
        let mut again = owner.receive().await;
        assert_eq!(again.job, swallowed.job);
        again.say(FrameBody::Accepted).await;
        again.say(FrameBody::Done(executed())).await;
    };
    let (answer, ()) = tokio::join!(asked, answering);
    assert_eq!(answer.unwrap(), executed());
}

#[tokio::test]
async fn whoever_loses_contact_hears_what_the_record_says() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let asked = fleet.ask(record(), LONG);
    let working = async {
        let mut received = owner.receive().await;
        let running = new_record(RecordState::Running, Some(place()));
        let revision = fleet.put(&running, 0).await;
        received.say(FrameBody::Accepted).await;
        // Its end is written, and its answer gets lost.
        fleet.put(&succeeded(&running), revision).await;
    };
    let (answer, ()) = tokio::join!(asked, working);
    assert_eq!(answer.unwrap(), executed());
}

#[tokio::test]
async fn it_did_not_run_is_said_after_no_copy_can_run_any_more() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let asked = fleet.ask(record(), LONG);
    let vanishing = async {
        let stray = owner.receive().await;
        owner.leave(&fleet).await;
        stray
    };
    let (answer, stray) = tokio::join!(asked, vanishing);
    let error = answer.unwrap_err();
    assert!(
        matches!(error, OnceError::Refused(RouteError::NoCapacity)),
        "{error:?}"
    );
    let (refused, revision) = fleet.read().await.unwrap();
    assert_eq!(refused.state, RecordState::Refused);
    assert_ne!(stray.record().seen, revision);
}

#[tokio::test]
async fn a_refusal_that_answers_every_copy_costs_no_record() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let asked = fleet.ask(record(), LONG);
    let refusing = async {
        let mut received = owner.receive().await;
        received.say(FrameBody::Accepted).await;
        let busy = Fault::new(FaultCode::SessionBusy, "busy");
        received.say(FrameBody::Failed(busy)).await;
    };
    let (answer, ()) = tokio::join!(asked, refusing);
    let error = answer.unwrap_err();
    let OnceError::Refused(RouteError::Fault(fault)) = error else {
        panic!("{error:?}")
    };
    assert_eq!(fault.code, FaultCode::SessionBusy);
    assert_eq!(fleet.read().await, None);
}

#[tokio::test]
async fn what_was_refused_is_started_over_at_exactly_that_refusal() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let refused = fleet.put(&new_record(RecordState::Refused, None), 0).await;
    let asked = fleet.ask(record(), LONG);
    let working = async {
        let mut received = owner.receive().await;
        assert_eq!(received.record().seen, refused);
        // Another caller was refused meanwhile.
        let later = fleet
            .put(&new_record(RecordState::Refused, None), refused)
            .await;
        let fault = Fault::new(FaultCode::Refused, "refused");
        received.say(FrameBody::Failed(fault)).await;
        let mut received = owner.receive().await;
        assert_eq!(received.record().seen, later);
        received.say(FrameBody::Done(executed())).await;
    };
    let (answer, ()) = tokio::join!(asked, working);
    assert_eq!(answer.unwrap(), executed());
}

#[tokio::test]
async fn it_is_lost_is_said_after_the_record_says_so() {
    let fleet = Fleet::start().await;
    let running = new_record(RecordState::Running, Some(place()));
    let revision = fleet.put(&running, 0).await;
    // No lease names its executor, and nobody listens.
    let error = fleet.ask(record(), LONG).await.unwrap_err();
    assert!(is_lost(&error), "{error:?}");
    let (lost, now) = fleet.read().await.unwrap();
    assert_eq!((lost.state, lost.place), (RecordState::Lost, running.place));
    assert!(now > revision);
    let error = fleet.ask(record(), LONG).await.unwrap_err();
    assert!(is_lost(&error), "{error:?}");
}

#[tokio::test]
async fn what_still_runs_when_the_callers_time_is_over_goes_on() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let asked = fleet.ask(record(), SHORT);
    let working = async {
        let mut received = owner.receive().await;
        let running = new_record(RecordState::Running, Some(place()));
        let revision = fleet.put(&running, 0).await;
        received.say(FrameBody::Accepted).await;
        (running, revision)
    };
    let (answer, (running, revision)) = tokio::join!(asked, working);
    let error = answer.unwrap_err();
    assert!(matches!(error, OnceError::Pending), "{error:?}");
    assert_eq!(fleet.read().await, Some((running, revision)));
}

#[tokio::test]
async fn what_has_not_begun_when_the_callers_time_is_over_never_begins() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let asked = fleet.ask(record(), SHORT);
    let standing_still = async {
        owner.receive().await.say(FrameBody::Accepted).await;
    };
    let (answer, ()) = tokio::join!(asked, standing_still);
    let error = answer.unwrap_err();
    assert!(matches!(error, OnceError::Refused(_)), "{error:?}");
    let (record, _) = fleet.read().await.unwrap();
    assert_eq!(record.state, RecordState::Refused);
}

#[tokio::test]
async fn another_body_is_a_conflict_that_no_worker_hears_of() {
    let fleet = Fleet::start().await;
    let running = new_record(RecordState::Running, Some(place()));
    let revision = fleet.put(&running, 0).await;
    for _ in 0..2 {
        let error = fleet.ask(other_body(), LONG).await.unwrap_err();
        assert!(matches!(error, OnceError::Conflict), "{error:?}");
    }
    fleet.put(&succeeded(&running), revision).await;
    let error = fleet.ask(other_body(), LONG).await.unwrap_err();
    assert!(matches!(error, OnceError::Conflict), "{error:?}");
    assert_eq!(fleet.ask(record(), LONG).await.unwrap(), executed());
}
