//! What the sender of a job hears of it.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Subject, Subscriber};
use futures_util::StreamExt;
use loadtest::cluster::{Cluster, Member};
use proto::{
    fault::{Fault, FaultCode},
    message::{Answer, Frame, FrameBody},
    subject, wire,
};
use worker::bus::Responder;

const SUBJECT: &str = "h1.pool.place.any";
const PATIENCE: Duration = Duration::from_secs(30);

/// A worker's connection and the inbox of somebody who sent it a job.
struct Job {
    worker: Client,
    inbox: Subject,
    frames: Subscriber,
    _cluster: Cluster,
}

impl Job {
    async fn sent() -> Self {
        let builder = Cluster::builder().ingresses(0).workers(0);
        let cluster = builder.prepare().unwrap();
        cluster.start(Member::Nats(0)).await.unwrap();
        let connect = async |role: &str| {
            let (user, password) = cluster.nats_credentials(role).unwrap();
            ConnectOptions::with_user_and_password(user, password)
                .custom_inbox_prefix(format!("_INBOX_{role}.test"))
                .connect(cluster.nats())
                .await
                .unwrap()
        };
        let (worker, ingress) = (connect("worker").await, connect("ingress").await);
        let inbox = Subject::from(ingress.new_inbox());
        let frames = ingress.subscribe(inbox.clone()).await.unwrap();
        let group = "place".to_owned();
        let mut jobs = worker.queue_subscribe(SUBJECT, group).await.unwrap();
        // The server knows the subscription when it has answered what came after it.
        worker
            .request(subject::NOBODY, "".into())
            .await
            .unwrap_err();
        // A worker may only publish to inboxes that it was sent.
        ingress
            .publish_with_reply(SUBJECT, inbox, "".into())
            .await
            .unwrap();
        let message = tokio::time::timeout(PATIENCE, jobs.next()).await;
        Self {
            worker,
            inbox: message.unwrap().unwrap().reply.unwrap(),
            frames,
            _cluster: cluster,
        }
    }

    fn responder(&self) -> Responder {
        Responder::new(Arc::new(self.worker.clone()), self.inbox.clone())
    }

    /// All that was said, to the end, in the order in which it was said.
    async fn heard(&mut self) -> Vec<FrameBody> {
        let mut heard = vec![];
        loop {
            let message = tokio::time::timeout(PATIENCE, self.frames.next()).await;
            let frame: Frame = wire::decode(&message.unwrap().unwrap().payload).unwrap();
            assert_eq!(frame.n as usize, heard.len());
            let ends = matches!(frame.body, FrameBody::Done(_) | FrameBody::Failed(_));
            heard.push(frame.body);
            if ends {
                return heard;
            }
        }
    }
}

#[tokio::test]
async fn a_quick_answer_is_all_that_is_said() {
    let mut job = Job::sent().await;
    let mut responder = job.responder();
    responder.accept_soon();
    responder.finish(Ok(Answer::Gone)).await;
    assert_eq!(job.heard().await, [FrameBody::Done(Answer::Gone)]);
}

#[tokio::test]
async fn what_takes_longer_is_accepted_first_and_in_time() {
    let mut job = Job::sent().await;
    let mut responder = job.responder();
    responder.accept_soon();
    assert!(responder.speaks_within() <= proto::limits::ACCEPT_AFTER);
    responder.heartbeat().await;
    assert_eq!(responder.speaks_within(), proto::limits::HEARTBEAT);
    responder.heartbeat().await;
    responder.finish(Ok(Answer::Gone)).await;
    let expected = [
        FrameBody::Accepted,
        FrameBody::Heartbeat,
        FrameBody::Done(Answer::Gone),
    ];
    assert_eq!(job.heard().await, expected);
}

/// Without acceptance, "busy" would send the job to another worker.
#[tokio::test]
async fn a_failure_of_a_job_that_was_taken_says_that_it_was() {
    let mut job = Job::sent().await;
    let mut responder = job.responder();
    responder.accept_soon();
    let fault = Fault::new(FaultCode::Busy, "busy");
    responder.finish(Err(fault.clone())).await;
    let expected = [FrameBody::Accepted, FrameBody::Failed(fault)];
    assert_eq!(job.heard().await, expected);
}
