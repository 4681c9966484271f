//! What the bus does with messages, as far as anybody relies on it. The model and a real nats-server pass all of it.
#![expect(clippy::unwrap_used, reason = "a test's way to fail")]

use std::{collections::BTreeSet, time::Duration};

use async_nats::{Client, Message, RequestErrorKind, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::timeout;

use super::Endpoint;

/// How long anything may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long nothing must happen.
const SILENCE: Duration = Duration::from_millis(300);

/// One process's end of what carries messages.
#[async_trait]
pub trait Messages: Send + Sync {
    /// Listens, alone or as one of a group; when this returns, the servers know.
    async fn listen(&self, subject: &str, group: Option<&str>) -> BoxStream<'static, Message>;
    /// Sends a message.
    async fn send(&self, subject: &str, reply: Option<&str>, payload: &str);
}

#[async_trait]
impl Messages for Endpoint {
    async fn listen(&self, subject: &str, group: Option<&str>) -> BoxStream<'static, Message> {
        let listening = self.subscribe(subject, group);
        let next = async |mut listening: super::Subscription| {
            let message = listening.arrived().recv().await?;
            Some((message, listening))
        };
        stream::unfold(listening, next).boxed()
    }

    async fn send(&self, subject: &str, reply: Option<&str>, payload: &str) {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        self.publish(subject.to_owned(), reply.map(str::to_owned), payload);
    }
}

#[async_trait]
impl Messages for Client {
    async fn listen(&self, subject: &str, group: Option<&str>) -> BoxStream<'static, Message> {
        let subject = subject.to_owned();
        let listening = match group {
            Some(group) => self.queue_subscribe(subject, group.to_owned()).await,
            None => self.subscribe(subject).await,
        };
        // To the servers and back, which `flush` of async-nats 0.51 does not wait for.
        let asked = self.request("nobody.listens", Bytes::new()).await;
        assert_eq!(asked.unwrap_err().kind(), RequestErrorKind::NoResponders);
        listening.unwrap().boxed()
    }

    async fn send(&self, subject: &str, reply: Option<&str>, payload: &str) {
        let (subject, payload) = (
            subject.to_owned(),
            Bytes::copy_from_slice(payload.as_bytes()),
        );
        match reply {
            Some(reply) => {
                self.publish_with_reply(subject, reply.to_owned(), payload)
                    .await
            }
            None => self.publish(subject, payload).await,
        }
        .unwrap();
    }
}

type Ends<'a> = (&'a dyn Messages, &'a dyn Messages, &'a str);

async fn next(listening: &mut BoxStream<'static, Message>) -> Message {
    timeout(WITHIN, listening.next()).await.unwrap().unwrap()
}

async fn texts(listening: &mut BoxStream<'static, Message>, count: usize) -> Vec<String> {
    let mut texts = vec![];
    for _ in 0..count {
        let message = next(listening).await;
        texts.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    texts
}

async fn is_silent(listening: &mut BoxStream<'static, Message>) -> bool {
    timeout(SILENCE, listening.next()).await.is_err()
}

/// Everything that is relied on, on subjects below `prefix` that nobody else uses, between two processes.
pub async fn all(one: &dyn Messages, other: &dyn Messages, prefix: &str) {
    let ends = (one, other, prefix);
    messages_arrive_in_order_with_where_to_answer(ends).await;
    everybody_who_listens_alone_hears_everything(ends).await;
    one_of_a_group_hears_each_message(ends).await;
    a_group_and_others_hear_the_same(ends).await;
    a_question_that_nobody_hears_is_answered_so(ends).await;
    a_statement_that_nobody_hears_is_lost(ends).await;
    whoever_stops_listening_hears_nothing_more(ends).await;
    wildcards_stand_for_one_token_or_the_rest(ends).await;
}

async fn messages_arrive_in_order_with_where_to_answer((one, other, prefix): Ends<'_>) {
    let subject = format!("{prefix}.order");
    let mut listening = one.listen(&subject, None).await;
    for number in 0..50 {
        other
            .send(&subject, Some("answers"), &number.to_string())
            .await;
    }
    for number in 0..50 {
        let message = next(&mut listening).await;
        assert_eq!(message.payload, number.to_string().as_bytes());
        assert_eq!(message.reply.as_deref(), Some("answers"));
        assert_eq!(message.subject.as_str(), subject);
        assert_eq!(message.status, None);
    }
}

async fn everybody_who_listens_alone_hears_everything((one, other, prefix): Ends<'_>) {
    let subject = format!("{prefix}.alone");
    let (mut first, mut second) = (
        one.listen(&subject, None).await,
        one.listen(&subject, None).await,
    );
    other.send(&subject, None, "1").await;
    assert_eq!(texts(&mut first, 1).await, ["1"]);
    assert_eq!(texts(&mut second, 1).await, ["1"]);
}

async fn one_of_a_group_hears_each_message((one, other, prefix): Ends<'_>) {
    let subject = format!("{prefix}.group");
    let group = Some("group");
    let (first, second) = (
        one.listen(&subject, group).await,
        other.listen(&subject, group).await,
    );
    let mut both = stream::select(first, second).boxed();
    for number in 0..100 {
        one.send(&subject, None, &number.to_string()).await;
    }
    let heard: BTreeSet<_> = texts(&mut both, 100).await.into_iter().collect();
    assert_eq!(heard.len(), 100);
    assert!(is_silent(&mut both).await);
}

async fn a_group_and_others_hear_the_same((one, other, prefix): Ends<'_>) {
    let subject = format!("{prefix}.mixed");
    let mut alone = one.listen(&subject, None).await;
    let mut grouped = one.listen(&subject, Some("group")).await;
    let mut in_another = other.listen(&subject, Some("another")).await;
    other.send(&subject, None, "1").await;
    for listening in [&mut alone, &mut grouped, &mut in_another] {
        assert_eq!(texts(listening, 1).await, ["1"]);
    }
}

async fn a_question_that_nobody_hears_is_answered_so((one, _, prefix): Ends<'_>) {
    let answers = format!("{prefix}.answers.1");
    let mut listening = one.listen(&format!("{prefix}.answers.*"), None).await;
    one.send(&format!("{prefix}.nobody"), Some(&answers), "?")
        .await;
    let answer = next(&mut listening).await;
    assert_eq!(answer.status, Some(StatusCode::NO_RESPONDERS));
    assert_eq!(answer.subject.as_str(), answers);
    assert!(answer.payload.is_empty());
}

async fn a_statement_that_nobody_hears_is_lost((one, _, prefix): Ends<'_>) {
    let subject = format!("{prefix}.early");
    one.send(&subject, None, "1").await;
    // To the servers and back.
    drop(one.listen(&format!("{prefix}.flush"), None).await);
    let mut listening = one.listen(&subject, None).await;
    assert!(is_silent(&mut listening).await);
}

async fn whoever_stops_listening_hears_nothing_more((one, _, prefix): Ends<'_>) {
    let subject = format!("{prefix}.stops");
    let group = Some("group");
    let (leaves, mut stays) = (
        one.listen(&subject, group).await,
        one.listen(&subject, group).await,
    );
    drop(leaves);
    drop(one.listen(&format!("{prefix}.flush"), None).await);
    for number in 0..20 {
        one.send(&subject, None, &number.to_string()).await;
    }
    assert_eq!(texts(&mut stays, 20).await.len(), 20);
}

async fn wildcards_stand_for_one_token_or_the_rest((one, other, prefix): Ends<'_>) {
    let mut one_token = one.listen(&format!("{prefix}.w.*"), None).await;
    let mut rest = one.listen(&format!("{prefix}.w.>"), None).await;
    for subject in ["w", "w.a", "w.a.b"] {
        other
            .send(&format!("{prefix}.{subject}"), None, subject)
            .await;
    }
    assert_eq!(texts(&mut rest, 2).await, ["w.a", "w.a.b"]);
    assert_eq!(texts(&mut one_token, 1).await, ["w.a"]);
    assert!(is_silent(&mut one_token).await && is_silent(&mut rest).await);
}

#[cfg(test)]
mod model {
    use super::*;
    use crate::messages::{Exchange, MessageChances};

    #[tokio::test(start_paused = true)]
    async fn the_model_carries_messages_as_the_bus_does() {
        let exchange = Exchange::default();
        let (one, other) = (exchange.connect(1), exchange.connect(2));
        all(&one, &other, "quick").await;
        let slowest = Duration::from_millis(50);
        one.chances(MessageChances {
            slowest,
            ..MessageChances::default()
        });
        all(&one, &other, "slow").await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_over_a_connection_that_is_cut_is_lost() {
        let exchange = Exchange::default();
        let (one, other) = (exchange.connect(1), exchange.connect(2));
        let mut listening = one.listen("a", None).await;
        one.cut();
        other.send("a", None, "1").await;
        one.send("b", None, "waits").await;
        assert!(!one.is_connected() && is_silent(&mut listening).await);
        let mut waiting = other.listen("b", None).await;
        one.go_on();
        other.send("a", None, "2").await;
        assert_eq!(texts(&mut listening, 1).await, ["2"]);
        assert_eq!(texts(&mut waiting, 1).await, ["waits"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_to_and_by_a_process_that_stands_still_waits() {
        let exchange = Exchange::default();
        let (one, other) = (exchange.connect(1), exchange.connect(2));
        let (mut to_one, mut to_other) =
            (one.listen("a", None).await, other.listen("b", None).await);
        one.stop();
        other.send("a", None, "1").await;
        one.send("b", None, "2").await;
        assert!(is_silent(&mut to_one).await && is_silent(&mut to_other).await);
        one.go_on();
        assert_eq!(texts(&mut to_one, 1).await, ["1"]);
        assert_eq!(texts(&mut to_other, 1).await, ["2"]);
    }
}
