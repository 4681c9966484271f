//! Members of a queue group leave it without losing a message.

use std::{collections::BTreeSet, time::Duration};

use async_nats::{Client, ConnectOptions, Message};
use futures_util::StreamExt;
use loadtest::cluster::{Cluster, Member};
use proto::subject;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use worker::listener::{LeaveMarker, Listener};

const SUBJECT: &str = "h1.pool.place.any";
/// Messages on their way at any moment, fewer than a leaver reckons with.
const WINDOW: u32 = 48;
/// Members that leave, one after the other; one stays.
const LEAVERS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(30);

struct Bus(Cluster);

impl Bus {
    async fn start() -> Self {
        let builder = Cluster::builder().ingresses(0).workers(0);
        let cluster = builder.prepare().unwrap();
        cluster.start(Member::Nats(0)).await.unwrap();
        Self(cluster)
    }

    async fn client(&self, role: &str) -> Client {
        let (user, password) = self.0.nats_credentials(role).unwrap();
        let options = ConnectOptions::with_user_and_password(user, password)
            .custom_inbox_prefix(format!("_INBOX_{role}.test"))
            .subscription_capacity(1 << 16);
        options.connect(self.0.nats()).await.unwrap()
    }

    async fn member(&self) -> Listener {
        Self::member_of(&self.client("worker").await).await
    }

    async fn member_of(client: &Client) -> Listener {
        let farewell = LeaveMarker {
            subject: SUBJECT.to_owned(),
            on_their_way: 64,
        };
        let listener = Listener::listen(client, SUBJECT.to_owned(), "place", farewell).await;
        known(client).await;
        listener.unwrap()
    }
}

/// Waits until the server knows what the client has sent, subscriptions included.
async fn known(client: &Client) {
    let nobody = client.request(subject::NOBODY, "".into()).await;
    nobody.unwrap_err();
}

/// The number in a message; farewells have none.
fn number(payload: &[u8]) -> Option<u32> {
    std::str::from_utf8(payload).unwrap().parse().ok()
}

/// Sends numbers, each when one before it was heard, until it is told to stop and all were heard.
async fn send(client: Client, mut heard: mpsc::UnboundedReceiver<u32>, stop: CancellationToken) {
    let (mut sent, mut missing) = (0, BTreeSet::new());
    while !(stop.is_cancelled() && missing.is_empty()) {
        while missing.len() < WINDOW as usize && !stop.is_cancelled() {
            let payload = sent.to_string().into();
            client.publish(SUBJECT, payload).await.unwrap();
            missing.insert(sent);
            sent += 1;
        }
        let number = tokio::time::timeout(PATIENCE, heard.recv()).await;
        let number = number.unwrap_or_else(|_| panic!("lost: {missing:?}"));
        let number = number.unwrap();
        assert!(missing.remove(&number), "{number} came twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_while_members_leave_one_after_the_other() {
    leave(|leavers| {
        let each = leavers.iter_mut();
        each.map(|leaver| vec![leaver]).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_while_all_members_but_one_leave_together() {
    leave(|leavers| vec![leavers.iter_mut().collect()]).await;
}

#[tokio::test]
async fn who_leaves_after_a_reconnect_gets_nothing_any_more() {
    const MESSAGES: usize = 200;
    let bus = Bus::start().await;
    let sender = bus.client("ingress").await;
    // The connection outlives its member, as a worker's does.
    let connection = bus.client("worker").await;
    let mut leaver = Bus::member_of(&connection).await;
    for _ in 0..MESSAGES {
        sender.publish(SUBJECT, "0".into()).await.unwrap();
        let next = tokio::time::timeout(PATIENCE, leaver.next());
        next.await.expect("the only member gets it");
    }
    bus.0.restart(Member::Nats(0)).await.unwrap();
    let client = bus.client("worker").await;
    let group = "place".to_owned();
    let mut stays = client.queue_subscribe(SUBJECT, group).await.unwrap();
    known(&client).await;
    // Whoever is here again hears what is sent; the one who stays may get it as well.
    let there = async {
        loop {
            sender.publish(SUBJECT, "0".into()).await.unwrap();
            if tokio::time::timeout(Duration::from_millis(100), leaver.next())
                .await
                .is_ok()
            {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap();
    leaver.leave().await;
    // What came before.
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(100), stays.next()).await {}
    for sent in 0..MESSAGES {
        sender
            .publish(SUBJECT, sent.to_string().into())
            .await
            .unwrap();
    }
    for sent in 0..MESSAGES {
        let message = tokio::time::timeout(PATIENCE, stays.next()).await;
        let message = message.expect("it went to one who has left").unwrap();
        assert_eq!(number(&message.payload), Some(u32::try_from(sent).unwrap()));
    }
}

/// A member: what tells it to leave, and its life.
type Leaver = (CancellationToken, JoinHandle<()>);

/// Has the members leave in groups, one after the other.
async fn leave(groups: impl FnOnce(&mut [Leaver]) -> Vec<Vec<&mut Leaver>>) {
    let bus = Bus::start().await;
    let (heard, hears) = mpsc::unbounded_channel();
    let hear = move |message: Message| {
        if let Some(number) = number(&message.payload) {
            heard.send(number).unwrap();
        }
    };
    let stop = CancellationToken::new();
    let members = (0..=LEAVERS).map(|_| (CancellationToken::new(), bus.member()));
    let mut group = vec![];
    for (told, member) in members {
        let (mut member, hear, leaves) = (member.await, hear.clone(), told.clone());
        let listening = tokio::spawn(async move {
            while let Some(message) = leaves.run_until_cancelled(member.next()).await {
                hear(message);
            }
            member.leave().await.into_iter().for_each(hear);
        });
        group.push((told, listening));
    }
    let sending = tokio::spawn(send(bus.client("ingress").await, hears, stop.clone()));
    let (_stays, leavers) = group.split_first_mut().unwrap();
    for leaving in groups(leavers) {
        leaving.iter().for_each(|(told, _)| told.cancel());
        for (_, listening) in leaving {
            listening.await.unwrap();
        }
    }
    stop.cancel();
    sending.await.unwrap();
}
