//! Whoever goes away before an owner has said anything leaves nothing running.

use proto::message::Request;

use crate::owner::Fleet;

#[tokio::test]
async fn a_job_is_cancelled_whose_caller_goes_before_it_was_accepted() {
    let fleet = Fleet::start().await;
    let mut owner = fleet.owner().await;
    let received = tokio::select! {
        answer = fleet.ask_without_record() => panic!("{answer:?}"),
        received = owner.receive() => received,
    };
    let next = owner.receive().await;
    let target = received.job.operation;
    assert_eq!(next.job.request, Request::Cancel { target });
}
