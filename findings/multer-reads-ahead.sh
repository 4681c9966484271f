#!/usr/bin/env bash
# multer 3.1.0 (crates.io), the multipart reader below axum, Rocket and others, "parses a stream": a good guess is
# that `next_field()` reads until the head of the next part is complete and leaves the rest in the stream, which
# `field.chunk()` then reads piece by piece. In fact every step takes all that the stream has ready before it looks
# for anything (`StreamBuffer::poll_stream` in src/buffer.rs polls until `Pending` or the end). A body that is ready
# at once, as one of HTTP/2 with a large window, an unpacked or a buffered one is, stands whole in memory when its
# first field is returned. Who counts or bounds bytes between two parts from outside the reader counts the content
# of a part as well.
#
# Seen on 2026-11-28 with Rust 1.95: "100 of 100 chunks were read before the first field was returned, and 2 of 100
# when the stream rests after each chunk".
#
# Exits with 0 if it is still so, with 1 if reading stops at the head of the part.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkdir "$directory/src"
cat >"$directory/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
bytes = "=1.11.1"
futures-executor = "=0.3.32"
futures-util = { version = "=0.3.32", default-features = false, features = ["std"] }
multer = "=3.1.0"
TOML
cat >"$directory/src/main.rs" <<'RUST'
use std::{
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        Arc,
    },
    task::Poll,
};

use bytes::Bytes;
use futures_util::stream;

const CHUNKS: usize = 100;

/// How many chunks were read when the first field is there.
fn read_ahead(rests: bool) -> usize {
    let read = Arc::new(AtomicUsize::new(0));
    let (counted, mut ready) = (read.clone(), false);
    let body = stream::poll_fn(move |context| {
        ready = !ready;
        if rests && ready {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let number = counted.fetch_add(1, Relaxed);
        Poll::Ready((number < CHUNKS).then(|| {
            Ok::<_, std::io::Error>(match number {
                0 => Bytes::from_static(
                    b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n",
                ),
                99 => Bytes::from_static(b"\r\n--x--\r\n"),
                _ => Bytes::from_static(&[b'a'; 1024]),
            })
        }))
    });
    let mut parts = multer::Multipart::new(body, "x");
    let field = futures_executor::block_on(parts.next_field()).unwrap().unwrap();
    assert_eq!(field.name(), Some("file"));
    read.load(Relaxed).min(CHUNKS)
}

fn main() {
    let (ready, resting) = (read_ahead(false), read_ahead(true));
    println!(
        "multer 3.1.0: {ready} of {CHUNKS} chunks were read before the first field was returned, and {resting} of \
         {CHUNKS} when the stream rests after each chunk"
    );
    std::process::exit(i32::from(ready < CHUNKS || resting > 9));
}
RUST
cargo run --quiet --manifest-path "$directory/Cargo.toml"
